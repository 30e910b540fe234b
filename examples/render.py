"""Make the notebooks of this directory from their sources: NAME.py in the percent format -> NAME.ipynb.

    python examples/render.py            # run all of them, with a real Jupyter kernel (extra `notebook`)
    python examples/render.py 5          # those whose name begins with 5
    python examples/render.py --check    # only look whether the notebooks' inputs are those of their sources

A cell begins with a line `# %%`, or `# %% [markdown]` for text, whose lines are comments.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
          "language_info": {"name": "python"}}
TIMEOUT_S = 300     # of a cell; the tests are stricter with the whole


def sources() -> list[Path]:
    """The notebooks' sources, in order."""
    return sorted(HERE.glob("[0-9]*.py"))


def cells(text: str) -> list[tuple[str, str]]:
    """(kind, source) of each cell of a file in the percent format."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("# %%"):
            found.append(("markdown" if "[markdown]" in line else "code", []))
        elif found:
            found[-1][1].append(line)
        elif line.strip():
            raise ValueError(f"a line before the first cell: {line!r}")
    return [(kind, "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines).strip()
             if kind == "markdown" else "\n".join(lines).strip()) for kind, lines in found]


def notebook(path: Path) -> Any:
    """The notebook of a source, without outputs."""
    from nbformat import v4
    made = v4.new_notebook(metadata=KERNEL)
    for i, (kind, source) in enumerate(cells(path.read_text())):
        cell = v4.new_markdown_cell(source) if kind == "markdown" else v4.new_code_cell(source)
        cell["id"] = f"cell-{i}"
        made.cells.append(cell)
    return made


def run(path: Path) -> Any:
    """The notebook of a source, run from beginning to end by a kernel of this Python."""
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    os.environ.setdefault("PYTHONPATH", str(HERE.parent))       # a checkout that is not installed
    made = notebook(path)
    with tempfile.TemporaryDirectory() as sockets:
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel")
        NotebookClient(made, km=kernel, timeout=TIMEOUT_S, resources={"metadata": {"path": str(HERE)}}).execute()
    for cell in made.cells:
        cell.metadata = {}          # when each cell began and ended
    return made


def in_step(path: Path) -> bool:
    """Whether the notebook beside a source has the same inputs."""
    import json
    try:
        stored = json.loads(path.with_suffix(".ipynb").read_text())["cells"]
    except FileNotFoundError:
        return False
    return [(cell["cell_type"], "".join(cell["source"])) for cell in stored] == cells(path.read_text())


def main(argv: list[str] | None = None) -> int:
    """Render, or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="beginnings of names; default: all")
    parser.add_argument("--check", action="store_true", help="run nothing; exit code 1 if one is not in step")
    args = parser.parse_args(argv)
    chosen = [p for p in sources() if not args.names or p.stem.startswith(tuple(args.names))]
    if args.check:
        stale = [path.name for path in chosen if not in_step(path)]
        for name in stale:
            print(f"{name}: its notebook is another; run python examples/render.py")
        return 1 if stale else 0
    import nbformat
    for path in chosen:
        began = time.monotonic()
        nbformat.write(run(path), path.with_suffix(".ipynb"))
        print(f"{path.stem}: {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
