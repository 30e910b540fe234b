"""Histograms of a run: their buckets, means and percentiles, from the table `reclaim.names.HISTOGRAMS`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reclaim import names
from reclaim.errors import ResultError, did_you_mean

PERCENTILES = (50.0, 90.0, 99.0, 99.9)


@dataclass(frozen=True)
class Kind:
    """One row of `names.HISTOGRAMS`.

    unit : of its values.
    counts : what is counted.
    log2 : buckets of times, see `edges`; else each value has one.
    detail : recorded with ``record=True`` only.
    compared : percentiles that a comparison shows.
    source : kernel function.
    """

    name: str
    unit: str
    counts: str
    log2: bool
    detail: bool
    compared: tuple[float, ...]
    source: str


KINDS = {row[0]: Kind(row[0], row[1], row[2], row[3] == "log2", row[4] == "detail", tuple(row[5]), row[6])
         for row in names.HISTOGRAMS}


def kind(name: str) -> Kind:
    """Of the histogram `name`.

    Raises
    ------
    ResultError : there is none of that name.
    """
    if name not in KINDS:
        raise ResultError(f"unknown histogram {name!r}: choose from {', '.join(KINDS)}"
                          f"{did_you_mean(name, list(KINDS))}")
    return KINDS[name]


def edges(name: str, buckets: int) -> NDArray[np.int64]:
    """Lowest value of each bucket, and the end of the last one, which holds all above, too: `buckets` + 1.

    Of times [ns]: 0, 1, .. 7, then 8 buckets for each power of two, at most 1/8 wide; else 0, 1, 2, ...
    """
    i = np.arange(buckets + 1, dtype=np.int64)
    if name not in KINDS or not KINDS[name].log2:
        return i
    shift = np.maximum(i // names.LOG2_SUB - 1, 0)
    lowest: NDArray[np.int64] = (i - shift * names.LOG2_SUB) << shift
    return lowest


def percentile(name: str, counts: Any, q: float) -> float | None:
    """The highest value of the bucket in which the share `q` [%] is reached; None if nothing was counted.

    That share is at most this, and the true percentile less by 1/8 of it at most (of times), or is it.

    Raises
    ------
    ValueError : `q` is not 0 to 100.
    """
    if not 0 <= q <= 100:
        raise ValueError(f"q must be 0 to 100, got {q}")
    counts = np.asarray(counts, dtype=np.int64)
    total = int(counts.sum())
    if not total:
        return None
    rank = max(1, -(-total * round(q * 1000) // 100_000))     # the value that so many do not exceed
    bucket = int(np.searchsorted(np.cumsum(counts), rank))
    return float(edges(name, len(counts))[bucket + 1] - 1)


def mean(name: str, counts: Any) -> float | None:
    """Of the middles of the buckets; None if nothing was counted."""
    counts = np.asarray(counts, dtype=np.float64)
    if not counts.sum():
        return None
    of = edges(name, len(counts))
    return float((counts * (of[:-1] + of[1:] - 1)).sum() / 2 / counts.sum())


def total(parts: Iterable[Any]) -> NDArray[np.int64]:
    """The sum of histograms of runs, of whatever lengths."""
    arrays = [np.asarray(part, dtype=np.int64) for part in parts]
    found = np.zeros(max((len(part) for part in arrays), default=0), dtype=np.int64)
    for part in arrays:
        found[:len(part)] += part
    return found


def show_ns(value: float) -> str:
    """A time with a unit that suits it."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} ns"


def metric(name: str, q: float) -> str:
    """What a comparison calls that percentile: ``direct_reclaim_latency_p99_ns``."""
    return f"{name}_p{q:g}_{KINDS[name].unit}"


# Metric -> histogram and percentile.
METRICS = {metric(k.name, q): (k.name, q) for k in KINDS.values() for q in k.compared}
