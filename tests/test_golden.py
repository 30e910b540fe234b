"""Digests and counters that must not change without a line in CHANGELOG.md."""

import json
from pathlib import Path

import pytest

from reclaim.comparison import compare
from reclaim.scenario import Scenario
from reclaim.simulation import Simulation
from reference.worlds import random_world, small_world

GOLDEN = Path(__file__).parent / "golden" / "digests.json"
SHOWN = ("pgscan_anon", "pgsteal_anon", "nr_tlb_remote_flush_received", "function_call_ipis",
         "page_touches", "pgfault")


def cases():
    small = Scenario.load("small")
    for policy in ("stage0", "stage5", "v1:2"):
        yield f"small {policy}", small, policy, 0.05
    table = Scenario.load("batch-tlb-flush")
    for policy in ("stage0", "stage5"):
        yield f"batch-tlb-flush {policy}", table, policy, 0.1
    yield "two CPUs, tiny", small_world(), "stage5", 0.05
    for seed in (3, 11, 42):
        yield f"random world {seed}", random_world(seed), "stage5", 0.02


@pytest.mark.parametrize("name, scenario, policy, seconds", list(cases()), ids=[c[0] for c in cases()])
def test_golden(name, scenario, policy, seconds, request):
    simulation = Simulation(scenario, policy)
    counters = simulation.run(seconds, touches=200_000).counters
    got = {"digest": counters["digest"], **{k: counters[k] for k in SHOWN}}
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if request.config.getoption("--update-golden"):
        golden[name] = got
        GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    assert got == golden.get(name), "meant? run pytest --update-golden and say why in CHANGELOG.md"


def test_two_threads_give_the_results_of_one():
    one, two = (compare("small", seconds=0.05, threads=n) for n in (1, 2))
    assert [r.digest for side in (one.before, one.after) for r in side.runs] == [
        r.digest for side in (two.before, two.after) for r in side.runs]
