"""The core does, step for step, what the twin does that was written apart from it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from reference.worlds import policies, random_policy, random_ties, random_world, worlds
from reclaim.simulation import Simulation
from threads import busy_threads, thread_world
from twin import compare, core_policy, twin_policy

SEEDS = range(25)

# Worlds that once told the two apart, with what they found.
FOUND = {
    123: "B_LOCK: the folio in hand stays when no folio of the batch is left",
    373: "the same, all of a batch locked or mapped again",
}


@settings(max_examples=40, deadline=None, derandomize=True, database=None,
          suppress_health_check=list(HealthCheck))
@given(worlds(), policies())
def test_any_world(world, policy):
    # Without the remainder folios are lost, on purpose: no state of that policy passes verify().
    compare(world, policy, check=policy["remainder"])


@pytest.mark.parametrize("stage", range(6))
def test_stages(stage: int):
    for seed in SEEDS:
        try:
            compare(random_world(seed), twin_policy(stage), actions=4000, chunk=2000,
                    stage=f"stage{stage}")
        except AssertionError as error:
            raise AssertionError(f"random_world({seed}): {error}") from error


def test_ties():
    """Host CPUs, where nearly everything happens at the same time as something else."""
    for seed in SEEDS:
        policy = random_policy(seed)
        try:
            compare(random_ties(seed), policy, actions=8000, chunk=4000, check=policy["remainder"])
        except AssertionError as error:
            raise AssertionError(f"random_ties({seed}): {error}") from error


@pytest.mark.parametrize("draw, seeds", [(thread_world, range(40)), (busy_threads, range(60))])
def test_threads(draw, seeds):
    for seed in seeds:
        policy = random_policy(seed)
        try:
            compare(draw(seed), policy, actions=12_000, chunk=4000, check=policy["remainder"])
        except AssertionError as error:
            raise AssertionError(f"{draw.__name__}({seed}): {error}") from error


@pytest.mark.parametrize("draw", [random_world, random_ties, thread_world, busy_threads])
def test_fused_steps(draw):
    """compare() takes the core's actions one by one; a run in one piece goes the same way."""
    for seed in SEEDS:
        world, policy = draw(seed), core_policy(random_policy(seed))
        runs = [Simulation(world, policy) for _ in range(3)]
        runs[0]._core.run(1 << 50, actions=20_000)
        runs[1]._core.run(1 << 50, actions=20_000, fuse=False)
        runs[2]._core.run_log(1 << 50, actions=20_000)
        assert len({sim.digest() for sim in runs}) == 1, f"{draw.__name__}({seed})"


def test_a_page_read_ahead_twice():
    """The fault's own page, which another thread read and reclaim wrote again meanwhile: see PATCH in faults.py."""
    policy = random_policy(252)
    assert compare(thread_world(252), policy, actions=20_000, chunk=5000, check=policy["remainder"]) == 20_000


@pytest.mark.parametrize("seed", FOUND, ids=[f"{seed}" for seed in FOUND])
def test_found_before(seed: int):
    policy = random_policy(seed)
    compare(random_world(seed), policy, actions=20_000, chunk=5000, check=policy["remainder"])
