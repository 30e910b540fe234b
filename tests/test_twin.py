"""The core does, step for step, what the twin does that was written apart from it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from reference.generation_worlds import (GENERATIONS, generations, random_generations, reuse_generations,
                                         ties_generations)
from reference.worlds import (busy_kworkers, policies, random_forks, random_kworkers, random_policy,
                              random_slots, random_ties, random_world, worlds)
from reclaim import names
from reclaim.simulation import Simulation
from threads import (CALLS, RARE_CALLS, RARE_FORKS, ZAPPED_SHARES, busy_calls, busy_forks, busy_threads, calls_world,
                     thread_forks, thread_world, zapped_shares)
from twin import compare, core_policy, twin_policy

SEEDS = range(25)

# Worlds that once told the two apart, with what they found.
FOUND = {
    123: "B_LOCK: the folio in hand stays when no folio of the batch is left",
    373: "the same, all of a batch locked or mapped again",
}

# Those of random_slots that reach what takes a scan or a slot cache long, and what they reach.
SLOTS = {
    2: "the end of the table, slots taken from folios, OOM",
    15: "slot caches on and off, slots taken from folios",
    24: "three CPUs, slots taken from folios while others look for them",
    57: "all of a table looked at",
    135: "folios that keep their slots; no slot near for a full cache",
    224: "no free cluster in spite of 256 free slots",
    233: "clusters in between slots in use",
    235: "the same with slot caches, and no slot near",
    288: "a slot taken from a folio while slot caches are in use",
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


def compare_all(draw, seeds, actions: int, *, chunk: int = 4000, met: set[str] | None = None) -> None:
    """Each world that `draw` makes of a seed, under that seed's policy."""
    for seed in seeds:
        policy = random_policy(seed)
        try:
            compare(draw(seed), policy, actions=actions, chunk=chunk, check=policy["remainder"], met=met)
        except AssertionError as error:
            raise AssertionError(f"{draw.__name__}({seed}): {error}") from error


def test_ties():
    """Host CPUs, where nearly everything happens at the same time as something else."""
    compare_all(random_ties, SEEDS, 8000)


def test_kworkers():
    """Bound kernel threads, whatever else the world has."""
    compare_all(random_kworkers, SEEDS, 12_000)
    compare_all(busy_kworkers, range(10), 12_000)


def test_slots():
    """Devices that rotate and slot caches, always short of memory."""
    compare_all(random_slots, SEEDS, 12_000)


@pytest.mark.parametrize("seed", SLOTS, ids=[f"{seed}" for seed in SLOTS])
def test_slots_for_long(seed: int):
    policy = random_policy(seed)
    compare(random_slots(seed), policy, actions=60_000, chunk=20_000, check=policy["remainder"])


@pytest.mark.parametrize("draw, seeds", [(thread_world, range(40)), (busy_threads, range(60))])
def test_threads(draw, seeds):
    compare_all(draw, seeds, 12_000)


def test_calls():
    """munmap, mprotect, mremap and the mmap_lock, in all stages and under any policy; every row of them is met."""
    met = set()
    compare_all(calls_world, (*range(5), 14, 187), 6000, met=met)
    compare_all(busy_calls, (*range(6), 16), 6000, met=met)
    compare_all(busy_calls, RARE_CALLS, 20_000, met=met)
    for stage in range(6):
        for draw, seed in ((calls_world, 20 + stage), (busy_calls, 40 + stage)):
            compare(draw(seed), twin_policy(stage), actions=6000, chunk=4000, stage=f"stage{stage}", met=met)
    for name in CALLS:
        make, args, actions = CALLS[name]
        compare(make(*args), twin_policy(5), actions=actions, chunk=20_000, met=met)
    forks = ("V_FORK", "V_CHILD")                 # below
    wanted = {name for name in names.STEPS if name.startswith("V_") and not name.startswith(forks)}
    wanted |= {"E_ZAP", "E_PTES", "M_BATCHED"}
    assert wanted <= met, wanted - met


def test_forks():
    """Children, and folios that they share with their parents, in all stages and under any policy."""
    met = set()
    compare_all(random_forks, range(12), 8000, met=met)
    compare_all(thread_forks, range(30, 42), 8000, met=met)
    compare_all(busy_forks, (*range(20), *RARE_FORKS), 16_000, met=met)
    for stage in range(6):
        compare(busy_forks(40 + stage), twin_policy(stage), actions=8000, chunk=4000, stage=f"stage{stage}", met=met)
    for args in ZAPPED_SHARES:
        compare(zapped_shares(*args), twin_policy(5), actions=40_000, chunk=20_000, met=met)
    wanted = {"V_FORK", "V_FORK_PT", "V_FORK_PTES", "V_FORKED"}
    assert wanted <= met, wanted - met


@pytest.mark.parametrize("draw", [random_world, random_ties, thread_world, busy_threads, random_forks, busy_forks,
                                  random_slots, random_generations,
                                  reuse_generations])
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
    """The fault's own page, which another thread read and reclaim gave another slot meanwhile: no mark."""
    policy = random_policy(252)
    assert compare(thread_world(252), policy, actions=20_000, chunk=5000, check=policy["remainder"]) == 20_000


@pytest.mark.parametrize("seed", FOUND, ids=[f"{seed}" for seed in FOUND])
def test_found_before(seed: int):
    policy = random_policy(seed)
    compare(random_world(seed), policy, actions=20_000, chunk=5000, check=policy["remainder"])


@settings(max_examples=20, deadline=None, derandomize=True, database=None,
          suppress_health_check=list(HealthCheck))
@given(generations(), policies())
def test_any_generations(world, policy):
    compare(world, policy, check=policy["remainder"])


def test_generations():
    """MGLRU; every row of it is met."""
    met = set()
    compare_all(random_generations, range(60), 4000, chunk=5000, met=met)
    compare_all(ties_generations, range(15), 4000, chunk=5000, met=met)
    compare_all(reuse_generations, range(10), 40_000, chunk=5000, met=met)
    wanted = {name for name in names.STEPS if name.startswith("G_")} | {"S_GEN", "S_LOOK", "S_YOUNG"}
    assert wanted <= met, wanted - met


@pytest.mark.parametrize("name", GENERATIONS)
def test_seldom_met_of_generations(name: str):
    compare(GENERATIONS[name](), twin_policy(4) | {"unmap": "immediate"}, actions=60_000, chunk=10_000)
    compare(GENERATIONS[name](), twin_policy(5), actions=15_000, chunk=5000)
