"""The commands and programs of docs/results.md, run in their order in one directory."""

import re
import shlex
from pathlib import Path

import pytest

from reclaim.cli import main

PAGE = Path(__file__).parent.parent / "docs" / "results.md"
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", PAGE.read_text(), re.S)


def test_results_page(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert {kind for kind, _ in BLOCKS} == {"sh", "python"}
    for kind, block in BLOCKS:
        if kind == "python":
            exec(compile(block, str(PAGE), "exec"), {})
            continue
        for line in block.splitlines():
            words = shlex.split(line)
            assert words[0] == "reclaim"
            if words[1] == "doctor":       # a debug build is not well, and says so
                assert main(words[1:]) in (0, 1)
            else:
                assert main(words[1:]) == 0, line
            assert capsys.readouterr().out.strip(), line
    made = {path.name for path in tmp_path.iterdir() if path.suffix != ".npz"}
    assert made == {"before.json", "after.json", "time.svg", "pages.png", "grid.svg", "report.html",
                    "small.html"}
