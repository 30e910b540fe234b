"""Workloads: what the compiled passes touch, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reclaim import workloads
from reclaim.errors import ReclaimError, ScenarioError
from reclaim.names import PASS_KINDS
from reclaim.workloads import AccessProgram, stress_ng
from reclaim.workloads.stress_ng import DRAWN_ADVICE, METHODS, SplitMix64, draw_advice
from reclaim.workloads.synthetic import Pass, pack, program, replay


def vm(**keys: Any) -> SimpleNamespace:
    base = {"kind": "stress_ng.vm", "workers": 2, "bytes": 64 << 12, "keep": True,
            "method": "all", "madvise": "normal"}
    return SimpleNamespace(**base | keys)


def writer(**keys: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"kind": "writer", "workers": 3, "bytes": 30 << 12,
                              "mode": "proc", "pattern": "seq"} | keys)


def compiled(workload: Any, seed: int = 1) -> AccessProgram:
    p = workloads.compile(workload, seed=seed)
    check_program(p)
    return p


def check_program(p: AccessProgram) -> None:
    """What World asks of every program."""
    n = len(p.task_mm)
    assert n == len(p.task_first_pass) == len(p.task_nr_passes) == len(p.task_loop_to)
    assert n == len(p.task_restart) and len(p.mm_pages) == len(p.mm_recency)
    for mm, first, nr, loop in zip(p.task_mm, p.task_first_pass, p.task_nr_passes, p.task_loop_to,
                                   strict=True):
        passes = p.passes[first:first + nr]
        assert len(passes) == nr >= 1 and -1 <= loop < nr
        assert (passes["nr"] >= 1).all() and (passes["count"] >= 1).all()
        assert (passes["stride"] != 0).all() and (passes["think"] >= 0).all()
        trace = passes["kind"] == PASS_KINDS.index("TRACE")
        reach = passes["first"].astype(np.int64) + passes["nr"]
        assert (reach[~trace] <= p.mm_pages[mm]).all()
        for q in passes[trace]:
            part = p.trace[q["first"]:int(q["first"]) + int(q["count"])]
            assert len(part) == q["count"] and (part >> 1 < p.mm_pages[mm]).all()


def touches(row: np.void) -> list[int]:
    """The pages of a pass whose pages are not drawn."""
    kind, first, nr = PASS_KINDS[row["kind"]], int(row["first"]), int(row["nr"])
    stride, count = int(row["stride"]), int(row["count"])
    if kind == "FWDREV":
        return [first + (i // 2 % nr if i % 2 == 0 else nr - 1 - i // 2 % nr) for i in range(count)]
    if stride < 0:
        return [first + nr - 1 - i * -stride % nr for i in range(count)]
    return [first + i * stride % nr for i in range(count)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("nr", [1, 2, 7])
def test_method_covers_the_buffer(method: str, nr: int) -> None:
    p = compiled(vm(method=method, workers=1, bytes=nr << 12))
    assert p.mm_pages == (nr,) and p.task_loop_to == (0,) and p.task_restart == (True,)
    assert PASS_KINDS[p.passes[0]["kind"]] == "POPULATE"
    seen = set()
    for row in p.passes:
        if PASS_KINDS[row["kind"]] in ("SEQ", "FWDREV") and row["count"] <= 4096:
            seen |= set(touches(row))
    assert seen == set(range(nr))


# Bogo units and user time [ns] of a call, per page of a 64M buffer: docs/workloads.md.
@pytest.mark.parametrize("method, units, ns", [
    ("cache-lines", 0, 360), ("flip", 4608, 12210), ("fwdrev", 512, 2600), ("gray", 4096, 6530),
    ("swap", 128, 30060), ("move-inv", 2048, 10137), ("modulo-x", 45056, 25476),
    ("mscan", 8192, 32068), ("prime-0", 32768, 355290), ("prime-gray-1", 8192, 101147),
    ("walk-1a", 16, 2863), ("write64", 16, 181), ("zero-one", 1024, 636)])
def test_units_and_time_are_the_measured_ones(method: str, units: int, ns: int) -> None:
    passes = compiled(vm(method=method, workers=1, bytes=64 << 20)).passes
    pages = 64 << 8
    assert int((passes["units"].astype(np.uint64) * passes["count"]).sum()) == units * pages
    user = int((passes["think"].astype(np.uint64) * passes["count"]).sum()) / 1000 / pages
    assert user == pytest.approx(ns, rel=0.01)


def test_flip_in_full() -> None:
    passes = compiled(vm(method="flip", workers=1)).passes
    shape = "".join("P" if PASS_KINDS[r["kind"]] == "POPULATE" else "RW"[r["write"]] for r in passes)
    assert shape == "PWP" + "WP" * 8 + "R"


def test_descending_and_zero_passes() -> None:
    down = compiled(vm(method="move-inv", workers=1, bytes=5 << 12)).passes
    assert [touches(r) for r in down if r["stride"] < 0] == [[4, 3, 2, 1, 0]] * 3
    galpat = compiled(vm(method="galpat-0")).passes
    assert [int(r["zero"]) for r in galpat if r["write"]] == [1, 0]


def test_all_runs_the_methods_in_order() -> None:
    p = compiled(vm())
    parts = [compiled(vm(method=m)).passes for m in METHODS]
    assert np.array_equal(p.passes, np.concatenate(parts))
    assert list(METHODS)[:7] == ["cache-lines", "cache-stripe", "checkerboard", "flip", "fwdrev",
                                 "galpat-0", "galpat-1"]


@pytest.mark.parametrize("size, workers, pages", [
    (2 << 30, 16, 32768), (100 << 10, 3, 8), (4096, 5, 1), (8191, 1, 1)])
def test_bytes_are_divided(size: int, workers: int, pages: int) -> None:
    p = compiled(vm(bytes=size, workers=workers, method="write64"))
    assert p.mm_pages == (pages,) * workers and p.nr_processes == 2 * workers
    assert compiled(writer(bytes=size, workers=workers)).mm_pages == (pages,) * workers


def test_advice() -> None:
    for advice, recency, lead in [("random", False, 0), ("sequential", False, 0), ("cold", True, 0),
                                  ("hugepage", True, 0), ("populate-read", True, 1),
                                  ("populate-write", True, 1)]:
        p = compiled(vm(madvise=advice, method="write64"))
        assert p.mm_recency == (recency,) * 2 and p.task_loop_to == (lead,) * 2
        assert p.task_nr_passes == (2 + lead,) * 2
    first = compiled(vm(madvise="populate-write", method="write64")).passes[0]
    assert (first["kind"], first["write"], first["zero"], first["units"]) == (0, 1, 1, 0)


def test_advice_is_drawn_per_worker_and_depends_on_the_seed_only() -> None:
    drawn = [draw_advice(1, i) for i in range(4096)]
    assert drawn[:50] != [draw_advice(2, i) for i in range(50)]
    counts = [drawn.count(a) for a in DRAWN_ADVICE]
    assert min(counts) > 190 and max(counts) < 330          # 256 expected, +- 4 sigma
    p = compiled(vm(workers=512, bytes=512 << 12, madvise="default"), seed=1)
    assert p.mm_recency == tuple(a not in ("random", "sequential") for a in drawn[:512])
    lead = {"populate-read": 1, "populate-write": 1}
    assert p.task_loop_to == tuple(lead.get(a, 0) for a in drawn[:512])
    stream = SplitMix64(0)   # the published test vector of the generator
    assert [stream.next() for _ in range(2)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_refusals() -> None:
    with pytest.raises(ScenarioError, match="did you mean 'flip'"):
        workloads.compile(vm(method="flipp"), seed=1)
    with pytest.raises(ScenarioError, match="did you mean 'sequential'"):
        workloads.compile(vm(madvise="sequental"), seed=1)
    with pytest.raises(ScenarioError, match="did you mean 'writer'"):
        workloads.compile(vm(kind="writter"), seed=1)
    with pytest.raises(ScenarioError, match="did you mean 'rand'"):
        workloads.compile(writer(pattern="rnd"), seed=1)
    assert set(workloads.KINDS) == {"stress_ng.vm", "writer", "trace"}


@pytest.mark.parametrize("pattern, kind, write", [("seq", "SEQ", 1), ("rand", "RAND", 1),
                                                  ("mix", "SEQ", 2)])
def test_writer(pattern: str, kind: str, write: int) -> None:
    p = compiled(writer(pattern=pattern))
    (row,) = p.passes
    assert (PASS_KINDS[row["kind"]], row["write"], row["count"]) == (kind, write, 10)
    assert row["units"] == 4096 and row["think"] == 20_000 and p.nr_processes == 3


@given(nr=st.integers(1, 60), stride=st.integers(-9, 9).filter(bool), first=st.integers(0, 9),
       count=st.integers(1, 80), workers=st.integers(1, 4))
def test_program(nr: int, stride: int, first: int, count: int, workers: int) -> None:
    p = program([Pass(nr=nr, stride=stride, first=first, count=count, think_ns=1.5)],
                workers=workers)
    check_program(p)
    assert p.mm_pages == (first + nr,) * workers and p.passes["think"][0] == 1500
    assert all(first <= page < first + nr for page in touches(p.passes[0]))


@pytest.mark.parametrize("keys, words", [
    ({"nr": 0}, "nr"), ({"nr": 1.5}, "nr"), ({"nr": True}, "nr"), ({"nr": 1, "stride": 0}, "stride"),
    ({"nr": 1, "count": 0}, "count"), ({"nr": 1, "write": 3}, "write"), ({"nr": 1, "first": -1}, "first"),
    ({"nr": 1, "think_ns": float("nan")}, "think_ns"), ({"nr": 1, "think_ns": -1}, "think_ns"),
    ({"nr": 1, "units": 2**32}, "units"), ({"nr": 1, "kind": "seq"}, "kind"),
    ({"nr": 1, "kind": "TRACE"}, "kind"), ({"nr": 2**31 - 1, "first": 1}, "first")])
def test_bad_pass(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ReclaimError, match=words):
        Pass(**keys)


def test_bad_program() -> None:
    one = Pass(nr=4, first=2)
    calls: list[tuple[Callable[[], object], str]] = [
            (lambda: program([]), "at least one"),
            (lambda: program([one, 3]), r"passes\[1\] must be a Pass, got int"),   # type: ignore[list-item]
            (lambda: program([one], pages=5), r"raise pages to 6"),
            (lambda: program([one], workers=0), "workers"),
            (lambda: program([one], loop_to=1), "loop_to")]
    for call, words in calls:
        with pytest.raises(ReclaimError, match=words):
            call()


def test_replay() -> None:
    p = replay([3, 0, 3], [True, False, False], think_ns=2)
    check_program(p)
    assert p.trace.tolist() == [7, 0, 6] and p.mm_pages == (4,) and p.task_loop_to == (-1,)
    assert replay(np.arange(3), loop=True).task_loop_to == (0,)
    for page, write in [([], False), ([[1]], False), ([1.0], False), ([-1], False), ([2**31], False),
                        ([1, 2], [True]), ([1], [2]), ([1], ["w"])]:
        with pytest.raises(ReclaimError):
            replay(page, write)   # type: ignore[arg-type]


def test_pack_keeps_every_field() -> None:
    (row,) = pack([Pass(nr=5, kind="FWDREV", write=2, zero=True, first=1, units=3, think_ns=0.001)])
    assert row.tolist() == (2, 2, 1, 0, 1, 5, 1, 10, 1, 3, 0)
    assert stress_ng.METHODS["fwdrev"][1](5).touches == 10
