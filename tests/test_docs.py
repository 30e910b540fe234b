"""README.md and the pages of docs/: their commands and programs run, their links lead somewhere, the site builds.

docs/developing.md says how a line tells that it is not run as it stands (`# tests: ...`).
"""

import doctest
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import reclaim
from reclaim import names
from reclaim.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```([\w{}-]*)[^\n]*\n(.*?)^```$", re.S | re.M)
LANGUAGES = {"sh", "python", "toml", "pycon", "cython", "text", "{toctree}", "{eval-rst}"}
# The two commands at its top: the second is what .ci/run does (test_packaging), the first takes a minute.
README_TOP = "reclaim compare batch-tlb-flush --seconds 0.01"
# Programs that other tests run: tests/test_policies.py builds and runs those of this page.
ELSEWHERE = {"policies.md": "python"}
# What the commands of a page leave behind, at least.
MADE = {"README.md": {"per-page.svg", "report.html", "grid.svg", "real.jsonl"},
        "results.md": {"before.json", "after.json", "time.svg", "pages.png", "grid.svg", "report.html", "small.html"},
        "tutorial.md": {"pages.svg", "report.html"}, "howto.md": {"mine.toml", "grid.svg", "lost.json", "result.json"}}


def blocks(page):
    """(language, text) of each fenced block of a page, in order."""
    return FENCE.findall(page.read_text())


def commands(block):
    """(what to run or None, expected exit code) of each command of a `sh` block."""
    for line in block.replace("\\\n", " ").splitlines():
        command, _, comment = line.partition(" #")
        if not command.strip() or line.startswith("#"):
            continue
        told = re.search(r"tests: (none|\d+), \S|tests: (.*)", comment)
        if told is None or told[2]:
            yield line, (told[2] if told else command).strip(), 0
        elif told[1] == "none":
            yield line, None, 0
        else:
            yield line, command.strip(), int(told[1])


def call(command, code):
    """Run a command of ours in this process, joined ones in turn."""
    for part in command.split(" && "):
        words = shlex.split(part)
        if words[:2] == ["python", "docs/questions.py"]:
            assert runpy.run_path(str(ROOT / "docs" / "questions.py"))["main"](words[2:]) == code, command
            continue
        assert words[0] == "reclaim", f"{command!r}: run it, or say why not (# tests: ...)"
        expected = {0, 1} if words[1] == "doctor" else {code}   # a debug build is not well, and says so
        assert main(words[1:]) in expected, command


def with_code(page):
    return any(language in ("sh", "python", "toml", "pycon") for language, _ in blocks(page))


@pytest.mark.parametrize("page", [page for page in PAGES if with_code(page)], ids=lambda page: page.name)
def test_commands_and_programs_run(page, tmp_path, monkeypatch, capsys):
    if page.name != "scenario.md":
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    found = blocks(page)
    if page.name == "README.md":
        assert "reclaim compare batch-tlb-flush" in found[0][1] and "pytest -q" in found[0][1]
        found[0] = ("sh", README_TOP)
    for language, block in found:
        if language == "sh":
            for line, command, code in commands(block):
                if command is not None:
                    call(command, code)
                    out, err = capsys.readouterr()
                    assert (out + err).strip(), line
        elif language == "python" and ELSEWHERE.get(page.name) != "python":
            exec(compile(block, str(page), "exec"), {})
        elif language == "toml":
            (tmp_path / f"{tomllib.loads(block)['name']}.toml").write_text(block)
            reclaim.Scenario.load(f"{tomllib.loads(block)['name']}.toml")
        elif language == "pycon":
            test = doctest.DocTestParser().get_doctest(block, {}, page.name, str(page), 0)
            runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
            runner.run(test)
            assert runner.failures == 0, capsys.readouterr().out
    assert MADE.get(page.name, set()) <= {path.name for path in tmp_path.iterdir() if path.stat().st_size}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_say_what_they_are(page):
    assert {language for language, _ in blocks(page)} <= LANGUAGES
    for name in re.findall(r"`docs/([\w-]+\.md)`", page.read_text()):
        assert (ROOT / "docs" / name).is_file(), name
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        if "_made/" not in target:
            assert (page.parent / target).exists(), target


def test_readme_is_short():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 110 and max(map(len, lines)) <= 130


def test_readme_tells_the_score_of_the_page():
    """The errors that README.md names are those of docs/validation.md, and so is the number of misses."""
    text = " ".join((ROOT / "README.md").read_text().split())
    rows = re.findall(r"^\| (guests|machines) \| `([^`]+)` \| (\d+) \| ([\d.]+%) \| ([\d.]+%) \| [^|]+ \| (.*) \|$",
                      (ROOT / "docs" / "validation.md").read_text(), re.M)
    assert len(rows) >= 8
    told = {"shootdowns_per_page", "targets_per_flush", "ipis_per_shootdown", "steal_per_scan",
            "shootdowns after/before"}
    for _, metric, _, median, worst, _ in rows:
        if metric in told:
            assert f"{median} ({worst})" in text, f"README.md, {metric}: {median} ({worst})"
    missed = sum(len(found[1].split(", ")) for *_, verdict in rows if (found := re.search(r"MISSED: ([^*;]+)", verdict)))
    number = ("None", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")[missed]
    assert f"{number} of {sum(int(row[2]) for row in rows)} rows miss" in text


# --- pages that are written by a command

def test_questions_page(tmp_path):
    """Every question is on the page, with its command and picture; the answers can be made again."""
    pytest.importorskip("matplotlib")
    script = runpy.run_path(str(ROOT / "docs" / "questions.py"))
    stored = (ROOT / "docs" / "questions.md").read_text()
    for question in script["QUESTIONS"]:
        assert f"## {question.title}\n" in stored and (question.command in stored)
        section = stored.partition(f"## {question.title}\n")[2].partition("\n## ")[0]
        assert (question.answer is None) == (script["NOT_YET"] in section)
    assert script["main"](["--quick", "-o", str(tmp_path)]) == 0
    made = (tmp_path / "questions.md").read_text()
    kept = re.compile(r"^(#.*|```.*|!\[.*|reclaim .*|python .*|    .*)$", re.M)      # all but the answers
    assert kept.findall(made) == kept.findall(stored)
    drawn = {path.name for path in (tmp_path / "questions").glob("*.svg")}
    assert drawn == {path.name for path in (ROOT / "docs" / "questions").glob("*.svg")}


def test_kernel_map():
    """Every name of its second column is in the file that its row names, every step is one."""
    rows = [[cell.strip() for cell in line.split("|")] for line in
            (ROOT / "docs" / "kernel-map.md").read_text().splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[1] != "kernel"]
    assert len(rows) > 50 and all(row[3] for row in rows)
    for row in rows:
        ours = row[2]
        file, = re.findall(r"^`(\w+\.pxd)`: ", ours)
        text = (ROOT / "reclaim" / "_mm" / file).read_text()
        for name in re.findall(r"`(\w+)`", ours):
            assert re.search(rf"cdef inline [^(\n]*\b{name}\(", text), f"{file} has no {name}"
        steps = re.findall(r"\b[A-Z]+_[A-Z_]+\b", re.sub(r"`[^`]*`", "", ours))
        assert set(steps) <= set(names.STEPS), set(steps) - set(names.STEPS)


# --- the site

@pytest.mark.slow
def test_site_builds_without_a_warning(tmp_path):
    for module in ("sphinx", "myst_parser", "pydata_sphinx_theme"):
        pytest.importorskip(module)
    tree = tmp_path / "tree"
    for name in ("docs", "examples"):
        shutil.copytree(ROOT / name, tree / name,
                        ignore=shutil.ignore_patterns("_made", "_build", "__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "trees"),
         str(tree / "docs"), str(tmp_path / "html")], capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    pages = {path.stem for path in (tmp_path / "html").glob("*.html")}
    assert {path.stem for path in PAGES[1:]} <= pages
    text = (tmp_path / "html" / "api.html").read_text()
    for name in ("compare", "simulate", "explore", "Simulation", "Scenario", "PyFlushPolicy"):
        assert name in text
    assert 'href="model.html"' in (tmp_path / "html" / "overview.html").read_text()     # docs/model.md is a link
    assert "reclaim explore" in (tmp_path / "html" / "_made" / "cli.html").read_text()
    assert len(list((tmp_path / "html" / "_made").glob("[0-9]*.html"))) == 5
