"""The digest of a state: BLAKE2b of named columns (docs/model.md 7).

It knows nothing of the layout of the arena; the twin of the test suite hashes the same
columns with its own code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reclaim import names

if TYPE_CHECKING:
    from reclaim.simulation import Simulation

_Column = NDArray[Any]

_FIELDS = {("task", "pass"): "pass_no"}
_GEN_AND_REFS = 31       # of folio.gen; which list the folio is on is in lru_gens


def columns(sim: Simulation) -> list[tuple[str, NDArray[np.int64]]]:
    """The columns of `names.DIGEST` as int64 arrays, in order."""
    found = []
    for table, fields in names.DIGEST:
        if fields:
            rows = sim.view(table)
            found += [(f"{table}.{f}", _int64(_field(rows, table, f))) for f in fields]
        else:
            found.append((table, _int64(_WHOLE[table](sim))))
    return found


def _field(rows: _Column, table: str, field: str) -> _Column:
    values: _Column = rows[_FIELDS.get((table, field), field)]
    return values & _GEN_AND_REFS if (table, field) == ("folio", "gen") else values


def digest_of(found: Iterable[tuple[str, _Column]]) -> str:
    """The hash of such columns, 64 hexadecimal digits."""
    h = hashlib.blake2b(digest_size=32)
    for name, values in found:
        h.update(name.encode("ascii") + b"\0" + len(values).to_bytes(8, "little"))
        h.update(np.ascontiguousarray(values, dtype="<i8").data)
    return h.hexdigest()


def _int64(column: _Column) -> NDArray[np.int64]:
    values: _Column = np.ravel(column)
    if values.dtype == np.uint64:
        return values.view(np.int64) if values.flags.c_contiguous else values.copy().view(np.int64)
    return values.astype("<i8")


def _per_cpu(lists: Iterable[Sequence[int]]) -> _Column:
    return np.concatenate([np.array([len(x), *x], dtype=np.int64) for x in lists])


def _queues(sim: Simulation) -> _Column:
    nr = len(sim.view("cpu"))
    after = sim.view("csd_next").reshape(nr, nr)

    def queue(c: int, head: int) -> Iterator[int]:
        while head >= 0:
            yield head
            head = int(after[c, head])

    return _per_cpu([list(queue(c, int(h))) for c, h in enumerate(sim.view("cpu")["q_head"])])


def _runqueues(sim: Simulation) -> _Column:
    after = sim.view("task")["rq_next"]

    def queue(head: int) -> Iterator[int]:
        while head >= 0:
            yield head
            head = int(after[head])

    return _per_cpu([list(queue(int(h))) for h in sim.view("cpu")["rq_head"]])


def _batch(name: str) -> Callable[[Simulation], _Column]:
    def column(sim: Simulation) -> _Column:
        cpu = sim.view("cpu")
        return _per_cpu([row[name][:row[f"nr_{name}"]].tolist() for row in cpu])

    return column


def _tlb(name: str) -> Callable[[Simulation], _Column]:
    def column(sim: Simulation) -> _Column:
        cpu = sim.view("cpu")
        entries = sim.view(name).reshape(len(cpu), -1)
        stamps = entries >> np.uint64(32)
        live = (stamps[:, :, None] == cpu["asid_stamp"][:, None, :]).any(axis=2) & (stamps != 0)
        return np.where(live, (entries & np.uint64(0xffffffff)) + np.uint64(1), np.uint64(0))

    return column


def _lru(which: int) -> Callable[[Simulation], _Column]:
    def column(sim: Simulation) -> _Column:
        order = sim._core.lru_order(which)
        return np.concatenate([[len(order)], order])

    return column


def _generations(sim: Simulation) -> _Column:
    lists = range(names.LISTS.index("GEN0"), len(names.LISTS))
    return np.concatenate([_lru(which)(sim) for which in lists])


def _requests(sim: Simulation) -> _Column:
    io, found = sim.view("io"), []
    for row in sim.view("cpu")["io_head"].tolist():
        own: list[int] = []
        while row >= 0:
            own += [int(io["slot"][row]), int(io["nr"][row]), int(io["done"][row])]
            row = int(io["next"][row])
        found += [len(own) // 3, *own]
    return np.array(found, dtype=np.int64)


def _plugs(sim: Simulation) -> _Column:
    io, found = sim.view("io"), []
    for row in sim.view("task")["plug_head"].tolist():
        own: list[int] = []
        while row >= 0:
            own += [int(io["slot"][row]), int(io["nr"][row])]
            row = int(io["next"][row])
        found += [len(own) // 2, *own]
    return np.array(found, dtype=np.int64)


def _slot_caches(sim: Simulation) -> _Column:
    found: list[int] = []
    for row in sim.view("slot_cache"):
        first, last, returned = int(row["cur"]), int(row["cur"] + row["nr"]), int(row["n_ret"])
        found += [last - first, *row["slots"][first:last].tolist(),
                  returned, *row["slots_ret"][:returned].tolist()]
    return np.array(found, dtype=np.int64)


_WHOLE: dict[str, Callable[[Simulation], _Column]] = {
    "cpu_io": _requests, "task_plug": _plugs,
    "cpu_queue": _queues, "cpu_runqueue": _runqueues,
    "cpu_lru_add": _batch("lru_add"), "cpu_lru_move_tail": _batch("lru_move_tail"),
    "cpu_lru_activate": _batch("lru_activate"),
    "asid_mm": lambda sim: sim.view("cpu")["asid_mm"],
    "asid_gen": lambda sim: sim.view("cpu")["asid_gen"],
    "tlb_l1": _tlb("tlb_l1"), "tlb_l2": _tlb("tlb_l2"),
    "mm_cpumask": lambda sim: sim.view("mm_cpumask"),
    "pte": lambda sim: sim.view("pte"),
    "pt_present": lambda sim: sim.view("region")["present"],
    "pt_young": lambda sim: sim.view("region")["young"],
    "pt_filter": lambda sim: sim.view("region")["filter"],
    "lru_inactive": _lru(0), "lru_active": _lru(1), "lru_gens": _generations,
    # a free slot's entry links the free stack
    "slot_entry": lambda sim: np.where(sim.view("slot_count") == 0, np.uint64(0),
                                       sim.view("slot_entry")),
    "slot_count": lambda sim: sim.view("slot_count"),
    "slot_cache": _slot_caches,
    "counter": lambda sim: sim.view("counter"),
    "time": lambda sim: sim.view("time").reshape(-1, len(names.TIMES)).T,
}
