"""Snapshots, and how long it takes to begin."""

import os
import resource
import subprocess
import sys

import pytest
import worlds
from reclaim.scenario import Scenario


@pytest.mark.parametrize("what", ["snapshot", "restore"])
@pytest.mark.parametrize("size", ["small", "batch-tlb-flush"])
@pytest.mark.benchmark(group="snapshot: per byte", disable_gc=True)
def test_snapshot(timed, size, what):
    sim = worlds.Simulation(Scenario.load(size), "stage5")
    sim._core.run(worlds.END, actions=100_000)
    kept, digest = sim.snapshot(), sim.digest()
    work = sim.snapshot if what == "snapshot" else lambda: sim.restore(kept)
    timed(work, unit="bytes", units=len(kept._data))
    assert sim.digest() == digest
    sim._core.run(worlds.END, actions=1000)
    assert sim.digest() != digest
    sim.restore(kept)
    assert sim.digest() == digest


START = {
    "python": ["-c", "pass"],
    "import reclaim": ["-c", "import reclaim"],
    "import reclaim.Simulation": ["-c", "from reclaim import Simulation"],
    "reclaim --help": ["-m", "reclaim", "--help"],
}


def children():
    """CPU time of the processes waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def begin(what):
    """Start and end it; what it said."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, *START[what]], env=env, capture_output=True, text=True, check=True)
    return done.stdout


def start(what):
    """Its CPU time."""
    before = children()
    begin(what)
    return children() - before


@pytest.mark.parametrize("what", START)
@pytest.mark.benchmark(group="start-up: whole process, CPU time")
def test_start(timed, what):
    assert ("usage: reclaim" in begin(what)) == (what == "reclaim --help")
    timed(lambda: begin(what), unit="starts", units=1, timer=children)
