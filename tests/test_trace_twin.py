"""What a trace tells, beside the twin, which tells it in the functions where the kernel's tracepoints stand."""

from __future__ import annotations

from functools import cache

import pytest

from reclaim import names
from reclaim._trace import Tracer
from reclaim.simulation import Simulation
from reference.events import Traced
from reference.generation_worlds import random_generations, reuse_generations
from reference.worlds import random_policy, random_slots, random_ties, random_world
from threads import busy_calls, busy_threads, calls_world, thread_world
from twin import core_policy

END = 1 << 50
ACTIONS = 5000
WORLDS = {
    "random": (random_world, range(40)), "ties": (random_ties, range(10)), "slots": (random_slots, range(12)),
    "threads": (thread_world, range(8)), "busy threads": (busy_threads, range(6)),
    "calls": (calls_world, range(8)), "busy calls": (busy_calls, range(6)),
    "generations": (random_generations, range(14)), "reuse": (reuse_generations, range(6)),
}


def told_by_the_core(world, policy):
    sim = Simulation(world, core_policy(policy))
    rows, _ = Tracer(sim._core).run(END, actions=ACTIONS, events=20 * ACTIONS)
    return sorted((int(r["at"]), int(r["cpu"]), names.EVENTS[r["event"]], int(r["task"]), tuple(r["v"].tolist()))
                  for r in rows)


def told_by_the_twin(world, policy):
    twin = Traced(world, policy)
    for _ in range(ACTIONS):
        cpu, key = twin.least()
        if not twin.alive or cpu is None or key >= END:
            break
        twin.act()
    return sorted((at, cpu, name, task, (*v, *[0] * (6 - len(v)))) for at, cpu, name, task, v in twin.told)


@cache
def compared(kind: str) -> frozenset[str]:
    """The events of all worlds of a kind, which are the same of both."""
    make, seeds = WORLDS[kind]
    met: set[str] = set()
    for seed in seeds:
        world, policy = make(seed), random_policy(seed)
        if world.lru:       # as twin.compare
            policy = policy | {"flush_every": min(policy["flush_every"], 31)}
        got, want = told_by_the_core(world, policy), told_by_the_twin(world, policy)
        for a, b in zip(got, want, strict=False):
            assert a == b, f"{kind} {seed}: core {a}, twin {b}"
        assert len(got) == len(want), f"{kind} {seed}: {(got + want)[min(len(got), len(want))]} is in one only"
        met.update(event[2] for event in got)
    return frozenset(met)


@pytest.mark.parametrize("kind", WORLDS)
def test_events(kind):
    assert {"page_fault_user", "fault_end", "tlb_flush", "sched_switch", "local_timer_exit"} <= compared(kind)


def test_every_event_is_met():
    met = frozenset().union(*map(compared, WORLDS))
    assert set(names.EVENTS) == met, f"never told: {set(names.EVENTS) - met}"
