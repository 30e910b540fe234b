"""The core beside its twin: the same world, step for step."""

from __future__ import annotations

import numpy as np

from reference import Reference
from reclaim import names
from reclaim.policies import Policy
from reclaim.policies.flush import BatchFlush, PerFolioFlush
from reclaim.simulation import Simulation

MS = 10**9


def core_policy(policy: dict) -> Policy:
    """The strategies that a twin's policy description stands for."""
    every, keeps = policy["flush_every"], policy["keeps_locks"]
    if every == 1 and keeps and policy["remainder"]:
        flush = PerFolioFlush()
    else:
        flush = BatchFlush(min(every, 31), keeps_locks=keeps, remainder=policy["remainder"],
                           rechecks=sorted(policy["rechecks"]))
    return Policy("as the twin's", activation=policy["activation"], unmap=policy["unmap"],
                  flush=flush)


def twin_policy(stage: int) -> dict:
    """The twin's description of stage 0 to 5."""
    every = frozenset({"writeback", "lru", "mapped", "pinned"})
    return {"activation": "kernel", "unmap": "kernel", "flush_every": 31 if stage == 5 else 1,
            "keeps_locks": stage < 5, "rechecks": every, "remainder": True}


def known_policy(world, policy: dict) -> dict:
    """The policy; with generations a list of 64 folios tells 40 from 31, which is the most that BatchFlush knows."""
    return policy | {"flush_every": min(policy["flush_every"], 31)} if world.lru else policy


def meters(sim) -> tuple[dict, dict]:
    """The core's meters in the form of the twin's."""
    histograms = {row[0]: {i: n for i, n in enumerate(sim.view(f"hist_{row[0]}").tolist()) if n}
                  for row in names.HISTOGRAMS}
    rows = sim.view("flushes").reshape(len(names.CAUSES), -1).tolist()
    return histograms, {cause[0]: {meter[0]: n for meter, n in zip(names.FLUSH_METERS, row, strict=True) if n}
                        for cause, row in zip(names.CAUSES, rows, strict=True)}


def compare(world, policy: dict, *, actions: int = 3000, chunk: int = 500, end: int = 1 << 50,
            stage: str | None = None, check: bool = True, met: set[str] | None = None) -> int:
    """Run both; fail at the first row, counter or column that differs.

    The names of the rows that were met are added to `met`.

    Returns
    -------
    int : actions made.
    """
    policy = known_policy(world, policy)
    # what is recorded on request is compared in every other world
    sim = Simulation(world, stage or core_policy(policy), record=bool(world.seed % 2))
    twin = Reference(world, policy)
    made = 0
    while made < actions:
        rows, why = sim._core.run_log(end, actions=min(chunk, actions - made))
        for i, row in enumerate(rows):
            got = (int(row["now"]), int(row["cpu"]), int(row["step"]), int(row["folio"]),
                   int(row["cost"]))
            want = _twin_act(twin, end)
            assert want is not None, f"row {made + i}: core {_show(got)}, twin at its end"
            assert got == tuple(want), (f"row {made + i}: core {_show(got)}, "
                                        f"twin {_show(want)}")
        made += len(rows)
        if met is not None:
            met.update(names.STEPS[i] for i in set(rows["step"].tolist()))
        if check:
            sim.verify()
        if why != "budget":
            assert _twin_act(twin, end) is None, f"after {made} rows: core {why}, twin goes on"
            break
    assert_same(sim, twin)
    return made


class Recorded:
    """What a twin does in so many actions, for comparisons of several cores with it."""

    def __init__(self, world, policy: dict, actions: int, *, end: int = 1 << 50):
        policy = known_policy(world, policy)
        self.actions, self.end = actions, end
        twin, rows = Reference(world, policy), []
        while len(rows) < actions and (row := _twin_act(twin, end)) is not None:
            rows.append(tuple(map(int, row)))
        self.rows = np.array(rows, dtype=np.int64).reshape(-1, 5)
        self.values = twin.counters(), list(twin.columns()), twin.digest(), twin.meters(False)
        self.ended = _twin_act(twin, end) is None

    def counters(self):
        return self.values[0]

    def columns(self):
        return self.values[1]

    def digest(self):
        return self.values[2]

    def meters(self, detail=True):
        assert not detail, "of a core that records only what is always recorded"
        return self.values[3]


def compare_recorded(world, policy: dict, twin: Recorded, *, chunk: int = 200) -> int:
    """As compare(), with what the twin did; `chunk` actions are made before a difference is seen."""
    sim = Simulation(world, core_policy(known_policy(world, policy)))
    made = 0
    while made < twin.actions:
        rows, why = sim._core.run_log(twin.end, actions=min(chunk, twin.actions - made))
        got = np.stack([rows[name].astype(np.int64) for name in ("now", "cpu", "step", "folio", "cost")], axis=1)
        want = twin.rows[made:made + len(got)]
        differ = np.flatnonzero((got[:len(want)] != want).any(axis=1))
        if len(differ):
            i = int(differ[0])
            raise AssertionError(f"row {made + i}: core {_show(got[i])}, twin {_show(want[i])}")
        made += len(got)
        assert len(want) == len(got), f"row {len(twin.rows)}: core {_show(got[len(want)])}, twin at its end"
        if why != "budget":
            assert made == len(twin.rows) and twin.ended, f"after {made} rows: core {why}, twin goes on"
            break
    assert_same(sim, twin)
    return made


def _twin_act(twin, end):
    cpu, key = twin.least()
    if not twin.alive or cpu is None or key >= end:
        return None
    return twin.act()


def assert_same(sim, twin) -> None:
    """Counters, meters, columns and digest."""
    counters = dict(zip(names.COUNTERS, sim.view("counter").tolist(), strict=True))
    assert counters == twin.counters()
    for got, want in zip(meters(sim), twin.meters(sim.record), strict=True):
        for name, of in want.items():
            assert got[name] == of, f"{name}: core {got[name]}, twin {of}"
    for (name, got), (twin_name, want) in zip(sim.columns(), twin.columns(), strict=True):
        assert name == twin_name
        assert len(got) == len(want), f"{name}: {len(got)} values, twin {len(want)}"
        want = np.array([w - 2**64 if w >= 2**63 else w for w in want], dtype=np.int64)
        if (got != want).any():
            i = int((got != want).argmax())
            raise AssertionError(f"{name}[{i}]: core {got[i]}, twin {want[i]}")
    assert sim.digest() == twin.digest()


def _show(row) -> str:
    now, cpu, step, folio, cost = row
    return f"{now} ps CPU {cpu} {names.STEPS[step]} folio {folio} cost {cost}"
