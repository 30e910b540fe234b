"""Sphinx: `python -m sphinx -W -b html docs OUT` from the project's root, with the extra `docs`.

The pages are the files beside this one.  Two things are made while it runs, below `_made/`: the reference
of the command line from its own --help, and the notebooks from `examples/*.ipynb`.  A name such as
`docs/model.md` in a page becomes a link to that page.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes

HERE = Path(__file__).parent
ROOT = HERE.parent
MADE = HERE / "_made"
sys.path.insert(0, str(ROOT))
os.environ["COLUMNS"] = "90"       # the width of --help

import reclaim  # noqa: E402
from reclaim.cli import _parser  # noqa: E402

project, author, release = "reclaim", "The reclaim authors", reclaim.__version__
copyright = "the reclaim authors, BSD-3-Clause"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.doctest"]
myst_enable_extensions = ["colon_fence", "html_image"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": True}
doctest_global_setup = "import reclaim"

html_theme = "pydata_sphinx_theme"
html_title = f"reclaim {release}"
html_static_path = ["_static"]
html_css_files = ["reclaim.css"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {"index": []}
html_theme_options = {
    "navigation_with_keys": False, "show_toc_level": 2, "header_links_before_dropdown": 4,
    "footer_start": ["copyright"], "footer_end": [], "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "tango", "show_prev_next": True,
}


def write(path: Path, text: str) -> None:
    """Write a file if that changes it, so that Sphinx does not read it anew for nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


def command_line() -> str:
    """The reference of the command line, from its parser."""
    parser = _parser()
    commands = parser._subparsers._group_actions[0].choices
    text = ["# The command line", "",
            "Data go to stdout, talk to stderr. Made from `reclaim COMMAND --help`.", "",
            "```text", parser.format_help().rstrip(), "```"]
    for name, command in commands.items():
        text += ["", f"## reclaim {name}", "", "```text", command.format_help().rstrip(), "```"]
    return "\n".join(text) + "\n"


def notebook(path: Path) -> str:
    """A rendered notebook as Markdown: its words, code and outputs, images beside the page."""
    text, images = [], 0
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"]).rstrip()
        if cell["cell_type"] == "markdown":
            text += [re.sub(r"\]\((\d[\w-]+)\.ipynb\)", r"](\1.md)", source), ""]
            continue
        text += ["```python", source, "```", ""]
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/svg+xml" in data:
                name = f"{path.stem}-{images}.svg"
                write(MADE / name, "".join(data["image/svg+xml"]))
                text += [f"![{_caption(data, path)}]({name})", ""]
                images += 1
            elif "text/html" in data:
                text += ["```{raw} html", '<div class="output">', "".join(data["text/html"]).strip(), "</div>",
                         "```", ""]
            else:
                shown = "".join(data.get("text/plain", output.get("text", ""))).rstrip()
                text += ["```text", shown, "```", ""] if shown else []
    return (f"{text[0]}\n\n*A notebook: `examples/{path.name}`, its source `examples/{path.stem}.py`.*\n\n"
            + "\n".join(text[1:]))


def _caption(data: dict[str, Any], path: Path) -> str:
    return "".join(data.get("text/plain", f"picture of {path.stem}")).strip("<>'\" \n") or path.stem


def make(app: Any) -> None:
    """Write what is made, and remove what is no longer."""
    if os.environ.get("RECLAIM_DOCS_KEEP") != "1":
        shutil.rmtree(MADE, ignore_errors=True)
    write(MADE / "cli.md", command_line())
    for path in sorted((ROOT / "examples").glob("*.ipynb")):
        write(MADE / f"{path.stem}.md", notebook(path))


def link_pages(app: Any, doctree: nodes.document) -> None:
    """Turn `docs/NAME.md` in text into a link to that page."""
    for literal in list(doctree.findall(nodes.literal)):
        found = re.fullmatch(r"docs/([\w-]+)\.md", literal.astext())
        if not found or isinstance(literal.parent, nodes.reference) or found[1] not in app.env.found_docs:
            continue
        link = addnodes.pending_xref("", literal.deepcopy(), refdomain="std", reftype="doc", refexplicit=True,
                                     reftarget=f"/{found[1]}", refdoc=app.env.docname, refwarn=True)
        literal.replace_self(link)


_FIELD = re.compile(r"(\**[A-Za-z_][\w.]*(?:, [a-z_]\w*)*) : (.*)")


def fields(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn `name : meaning` lines of our docstrings into a list of fields.

    Below a heading such as Parameters too: there they are prose with a name, not a type.
    """
    out: list[str] = []
    inside = False
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found:
            if not inside and out and out[-1].strip():
                out.append("")
            inside = True
            out.append(f"* ``{found[1]}``: {found[2]}")
        elif inside and line.startswith("    "):
            out.append("  " + line.strip())
        else:
            if inside and line.strip():
                out.append("")
            inside = inside and not line.strip()
            out.append(line)
    lines[:] = out


def headings(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn numpy's underlined headings into bold words, before `fields` sees what is below."""
    if lines and lines[0].startswith(f"{name.rpartition('.')[2]}("):     # Cython's embedsignature
        del lines[0]
    out: list[str] = []
    for line in lines:
        if re.fullmatch(r"-{3,}", line) and out and out[-1].strip():
            out[-1] = f"**{out[-1].strip()}**"
            out.append("")
        else:
            out.append(line)
    lines[:] = out


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", make)
    app.connect("doctree-read", link_pages)
    app.connect("autodoc-process-docstring", headings)   
    app.connect("autodoc-process-docstring", fields, priority=600)
