"""The benchmarks' counts, the floor's, and instructions that must not grow unsaid."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import floor
import instructions
import performance
import safety
from reclaim.scenario import Scenario

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


def test_benchmarks_count_right():
    pytest.importorskip("pytest_benchmark")
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "bench", "--smoke"],
                          cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-5000:]


def test_tables_of_the_safety_pages(capsys):
    small = Scenario.load("small")
    row = safety.counted(small, "stage5")
    assert len(row) == 7 and int(row[3].replace(",", "")) > 0       # batches
    assert row[:4] != safety.counted(small, "stage0")[:4]
    safety.checked(3, scenario=small)                               # asserts equal digests
    assert capsys.readouterr().out.count("\n") == 3


@pytest.mark.skipif(floor.compiler() is None, reason="no C compiler")
@pytest.mark.parametrize("stage", floor.BATCH)
def test_floor_counts_as_the_simulation(stage):
    found = floor.compare(stage, rounds=1, actions=5_000_000)     # asserts the pages reclaimed
    ours, floors = found["counts"]["scanned"]
    assert floors == pytest.approx(ours, rel=0.1)
    assert found["turns"] < found["steps"] / 4


@pytest.mark.skipif(instructions.unavailable() is not None, reason=str(instructions.unavailable()))
def test_instructions_do_not_grow():
    stored = instructions.load().get(instructions.compiler())
    if stored is None:
        pytest.skip(f"no counts are stored for {instructions.compiler()}: bench/instructions.py --update")
    counted = instructions.totals(instructions.count())
    assert set(counted) == set(stored)
    assert not instructions.compare(counted, stored)


def test_growth_must_be_named(tmp_path, monkeypatch):
    log = tmp_path / "CHANGELOG.md"
    log.write_text("- Instructions: `tlb_hit` 120.5: why.\n- About `flush` 900.\n")
    monkeypatch.setattr(instructions, "CHANGELOG", log)
    stored = {"tlb_hit": 100.0, "flush": 100.0}
    assert instructions.compare({"tlb_hit": 126.0, "flush": 104.9}, stored) == []
    assert [line.split(":")[0] for line in instructions.compare({"tlb_hit": 127.0, "flush": 106.0}, stored)] == [
        "tlb_hit", "flush"]
    assert instructions.compare({"new": 1.0}, stored) == []


def test_instructions_of_a_dump():
    dump = """ob=(1) /x/reclaim/_core.so
fn=(1) loop
1 100
+2 5
cob=(2) /lib/libc.so
cfn=(2) memcpy
calls=3 0
* 70
3 1
ob=(2)
fn=(2)
1 70
ob=(1)
fn=(3) step
7
9 10
"""
    assert instructions.own(dump) == Counter({"loop": 106, "step": 10})


def test_performance_replaces_its_sections():
    text = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n"
    assert performance.replace(text, "x", "new\n") == "a\n<!-- begin x -->\nnew\n<!-- end x -->\nb\n"
    with pytest.raises(SystemExit, match="0 sections"):
        performance.replace(text, "y", "new")
    page = performance.PAGE.read_text()
    for part in ("goals", "peers", "floor", "steps", "scaling", "instructions"):
        assert performance.replace(page, part, "") != page      # each is there once, and filled
