"""The commands and programs of docs/results.md and docs/timeline.md, run in their order in one directory."""

import re
import shlex
from pathlib import Path

import pytest

from reclaim.cli import main

DOCS = Path(__file__).parent.parent / "docs"


def follow(page, capsys):
    """Do what the page says."""
    blocks = re.findall(r"```(sh|python)\n(.*?)```", page.read_text(), re.S)
    assert {kind for kind, _ in blocks} == {"sh", "python"}
    for kind, block in blocks:
        if kind == "python":
            exec(compile(block, str(page), "exec"), {})
            continue
        for line in block.splitlines():
            words = shlex.split(line)
            assert words[0] == "reclaim"
            if words[1] == "doctor":       # a debug build is not well, and says so
                assert main(words[1:]) in (0, 1)
            else:
                assert main(words[1:]) == 0, line
            assert capsys.readouterr().out.strip(), line


def test_results_page(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    follow(DOCS / "results.md", capsys)
    made = {path.name for path in tmp_path.iterdir() if path.suffix != ".npz"}
    assert made == {"before.json", "after.json", "time.svg", "pages.png", "grid.svg", "report.html",
                    "small.html"}


def test_timeline_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    follow(DOCS / "timeline.md", capsys)
    made = {path.name for path in tmp_path.iterdir() if path.suffix != ".npz"}
    assert made == {"flush.pftrace", "flush.txt", "result.json", "early.txt", "early.perf", "vmstat.txt",
                    "interrupts.txt", "counters.csv", "small-before.pftrace", "small-after.pftrace",
                    "small-before.json", "small-after.json", "mine.pftrace", "mine.csv"}
    assert all(path.stat().st_size for path in tmp_path.iterdir())
