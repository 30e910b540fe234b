"""The tables of docs/safety.md: `python bench/safety.py states`, `growth`, `defects`, `sleep`, `counts`, `checked`."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterable

from reclaim._explore import ENVIRONMENTS, Explorer
from reclaim.exploration import CONTENDED, Exploration, explore
from reclaim.scenario import Scenario
from reclaim.simulation import Simulation
from reclaim.tinyworld import TinyWorld

POLICIES = ("v2:0", "v2:5", "v3:5", "v4:5")
CLASSES = ("none", *ENVIRONMENTS)


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    head = list(head)
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def clean(found: Exploration) -> str:
    return f"{found.states:,}" if found.clean and found.exhausted else "not clean"


def states() -> None:
    """2 CPUs x 2 folios, batch 2, at most 2 writes a page, 1 action."""
    def rows() -> Iterable[list[object]]:
        for environment in CLASSES:
            found = [explore(policy, environment=environment) for policy in POLICIES]
            last = found[-1]
            yield [environment, *map(clean, found), f"{last.seconds:.1f}", f"{last.states_per_second:,.0f}"]
    table(["environment", *POLICIES, "s", "states/s"], rows())


def growth() -> None:
    """v4:5, no environment: with and without the reduction."""
    worlds = [{"folios": 1}, {}, {"folios": 3}, {"writes": 1}, {"writes": 3}, {"rounds": 2}, {"device": "async"},
              {"device": "async", "rounds": 2}, {"cpus": 3}, {"cpus": 3, "reclaimers": 2}]
    table(["world", "states", "without reduction"],
          ([", ".join(f"{k} {v}" for k, v in world.items()) or "2 folios",
            clean(explore("v4:5", **world)), clean(explore("v4:5", reduce=False, **world))] for world in worlds))


def defects() -> None:
    """Every planted defect in the world of tests/test_explore.py that shows it."""
    from test_explore import PLANTED
    def rows() -> Iterable[list[object]]:
        for defect, world, _ in PLANTED:
            world = {"policy": "stage5", "folios": 1, **world}
            found = explore(defects=(defect,), **world)
            name = " ".join([world.pop("policy"), *(f"--{k} {v}" for k, v in world.items())])
            yield [f"`{defect}`", f"`{name}`", found.violations[0].invariant, found.violations[0].nr_steps,
                   f"{found.states:,}"]
    table(["defect", "world", "found", "steps", "states"], rows())


# --- what sleep sets would save

def commute(engine: Explorer, state: bytes, first: int, second: int) -> bool:
    """Both orders are possible, break nothing and end in the same state."""
    forms = []
    for a, b in ((first, second), (second, first)):
        engine.restore(state)
        if engine.do(a)[0] or b not in engine.enabled() or engine.do(b)[0]:
            return False
        forms.append(engine.code_of())
    return forms[0] == forms[1]


def sleeping(world: TinyWorld) -> tuple[int, int, int]:
    """States, transitions, and transitions with sleep sets kept with states (Godefroid), where which moves
    commute is asked of the model itself: no footprint of a step could say yes more often."""
    engine = world.explorer()
    engine.reset()
    root = engine.snapshot()
    seen = {engine.code_of(): root}
    asleep: dict[bytes, frozenset[int]] = {engine.code_of(): frozenset()}
    done: dict[bytes, set[int]] = {engine.code_of(): set()}
    waiting, plain, kept = [engine.code_of()], 0, 0
    counted: set[bytes] = set()
    while waiting:
        level, waiting = waiting, []
        for code in level:
            state = seen[code]
            engine.restore(state)
            moves = engine.enabled()
            plain += len(moves) if code not in counted else 0
            counted.add(code)
            sleep = set(asleep[code])
            for move in moves:
                if move in sleep or move in done[code]:
                    sleep.add(move)
                    continue
                done[code].add(move)
                kept += 1
                later = frozenset(other for other in sleep if commute(engine, state, move, other))
                sleep.add(move)
                engine.restore(state)
                assert engine.do(move)[0] == 0
                after = engine.code_of()
                if after not in seen:
                    seen[after], asleep[after], done[after] = engine.snapshot(), later, set()
                    waiting.append(after)
                elif not asleep[after] <= later:
                    asleep[after] &= later
                    waiting.append(after)
    return len(seen), plain, kept


def sleep() -> None:
    """Transitions with and without sleep sets: v4:5, 1 folio, 1 write."""
    def rows() -> Iterable[list[object]]:
        for environment, cpus in [*((name, 2) for name in CLASSES), ("none", 3)]:
            nr, plain, kept = sleeping(TinyWorld(policy="v4:5", folios=1, writes=1, environment=environment,
                                                 cpus=cpus, layout="threads"))
            yield [environment, cpus, f"{nr:,}", f"{plain:,}", f"{kept:,}", f"{1 - kept / plain:.0%}"]
    table(["environment", "CPUs", "states", "transitions", "with sleep sets", "saved"], rows())


# --- questions of counting (docs/series-safety.md)

def counted(scenario: Scenario, policy: str) -> list[str]:
    """Activations by both counters, batches by size, pages scanned for each that is stolen."""
    result = Simulation(scenario, policy).run()
    n, sizes = result.counters, result.histograms["flush_batch_size"].tolist()
    assert sum(sizes) == n["flush_batches"]
    return [*(f"{x:,}" for x in (n["pgactivate"], n["memcg_pgactivate"], n["shrink_folio_list_calls"],
                                 n["flush_batches"], sizes[31], sizes[1])),
            f"{n['pgscan_anon'] / n['pgsteal_anon']:.3f}"]


def counts() -> None:
    """D15, D17 and D19: six runs."""
    runs = {"small, contended": Scenario.load("small").replace(CONTENDED),
            "batch-tlb-flush, 1 s": Scenario.load("batch-tlb-flush").replace({"seconds": 1.0})}
    table(["run", "policy", "vmstat pgactivate", "memory.stat's", "lists", "batches", "of 31", "of 1",
           "scanned/stolen"],
          ([name, policy, *counted(scenario, policy)]
           for (name, scenario), policy in itertools.product(runs.items(), ("stage0", "v2:5", "v4:5"))))


def checked(*ends: int, scenario: Scenario | None = None) -> None:
    """CPU seconds of batch-tlb-flush under stage5 with and without check=True, in turn every 3 s; two minutes."""
    ends, scenario, spent = ends or (3, 30, 60), scenario or Scenario.load("batch-tlb-flush"), {False: 0.0, True: 0.0}
    simulations = {check: Simulation(scenario, "stage5", check=check) for check in spent}

    def rows() -> Iterable[list[object]]:
        for end in range(3, ends[-1] + 1, 3):
            for check, simulation in simulations.items():
                began = time.process_time()
                simulation.run(seconds=end)
                spent[check] += time.process_time() - began
            if end in ends:
                plain, watched = spent.values()
                yield [end, f"{plain:.1f}", f"{watched:.1f}", f"{watched / plain:.2f}"]
        assert simulations[False].digest() == simulations[True].digest()
    table(["simulated, s", "s", "checked, s", "ratio"], rows())


TABLES: dict[str, Callable[[], None]] = {"states": states, "growth": growth, "defects": defects, "sleep": sleep,
                                       "counts": counts, "checked": checked}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=TABLES)
    TABLES[parser.parse_args().table]()


if __name__ == "__main__":
    main()
