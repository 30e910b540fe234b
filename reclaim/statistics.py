"""What runs over several seeds say: an exact U-test and bootstrap intervals, with NumPy alone.

Nothing here draws from a generator that differs between versions of NumPy: the same runs give the
same interval and p on every machine.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95          # of the intervals
RESAMPLES = 2000
EXACT_RUNS = 120      # of both sides together, up to which the U-test's distribution is counted out
MAX_BLOCK = 1 << 22   # draws held at once

_Floats = NDArray[np.float64]
# A metric's runs: its values, or the counters above and below the line of a ratio.
Runs = _Floats | tuple[_Floats, _Floats]


def mann_whitney(before: ArrayLike, after: ArrayLike) -> float:
    """The two-sided p of Mann and Whitney's U-test.

    Exact up to `EXACT_RUNS` runs: the share of all ways to divide the pooled runs into the two
    groups in which the rank sum is as far out as here, twice the smaller tail and at most 1.
    Ties get the mean of their ranks, so with ties it is the permutation test of these ranks, exact
    as well.  With more runs: the normal approximation, corrected for ties and continuity.

    Raises
    ------
    ValueError : a side is empty or a value is not a number.
    """
    x, y = (np.asarray(side, dtype=np.float64).ravel() for side in (before, after))
    if not len(x) or not len(y) or np.isnan(x).any() or np.isnan(y).any():
        raise ValueError("the U-test needs a number at least on each side, and no NaN")
    if len(x) > len(y):
        x, y = y, x
    ranks = _doubled_ranks(np.concatenate([x, y]))
    observed = int(ranks[:len(x)].sum())
    if len(ranks) > EXACT_RUNS:
        return _approximate(ranks, len(x), observed)
    ways = _rank_sums(ranks, len(x))
    tail = min(ways[:observed + 1].sum(), ways[observed:].sum())
    return min(1.0, 2 * float(tail / ways.sum()))


def _doubled_ranks(values: _Floats) -> NDArray[np.int64]:
    """Twice the rank of each value from 1, ties sharing the mean: always an integer."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    above = np.cumsum(counts)
    doubled: NDArray[np.int64] = (2 * above - counts + 1)[which]
    return doubled


def _rank_sums(ranks: NDArray[np.int64], nr: int) -> _Floats:
    """For each sum, the number of ways to choose `nr` of `ranks` with that sum."""
    top = int(np.sort(ranks)[-nr:].sum())
    ways = np.zeros((nr + 1, top + 1))
    ways[0, 0] = 1
    for rank in ranks.tolist():
        if rank <= top:
            ways[1:, rank:] += ways[:-1, :top + 1 - rank].copy()
    chosen: _Floats = ways[nr]
    return chosen


def _approximate(ranks: NDArray[np.int64], nr: int, observed: int) -> float:
    total = len(ranks)
    counts = np.unique(ranks, return_counts=True)[1].astype(np.float64)
    ties = float((counts**3 - counts).sum()) / (total * (total - 1))
    variance = nr * (total - nr) / 12 * (total + 1 - ties)
    if variance <= 0:
        return 1.0
    distance = abs(observed / 2 - nr * (total + 1) / 2) - 0.5
    return min(1.0, math.erfc(max(distance, 0.0) / math.sqrt(2 * variance)))


def resamples(runs: int, stream: int = 0, count: int = RESAMPLES) -> NDArray[np.int64]:
    """Which runs each resample takes: shape (count, runs), drawn by splitmix64 from `stream`."""
    with np.errstate(over="ignore"):
        z = np.arange(1, count * runs + 1, dtype=np.uint64) + np.uint64(stream << 40)
        z *= np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    picked = ((z >> np.uint64(32)) * np.uint64(runs)) >> np.uint64(32)
    return picked.astype(np.int64).reshape(count, runs)


@cache
def _draws(runs: int, stream: int) -> NDArray[np.int64]:
    """`resamples` once for all rows of a table, so that they share their draws."""
    return resamples(runs, stream, max(200, min(RESAMPLES, MAX_BLOCK // runs)))


def change_interval(before: Runs, after: Runs, *, paired: bool) -> tuple[float, float] | None:
    """The bootstrap interval (percentiles) of the change of the median from before to after [%].

    paired : run i of both sides had the same seed; a resample then takes the same runs on both.

    Returns
    -------
    None where the change has no value in some resample: nothing to divide by.
    """
    nr = [len(side[0] if isinstance(side, tuple) else side) for side in (before, after)]
    if paired and nr[0] != nr[1]:
        raise ValueError(f"paired sides must be of equal length, got {nr[0]} and {nr[1]}")
    draws = [_draws(nr[0], 0), _draws(nr[1], 0 if paired else 1)]
    count = min(len(d) for d in draws)
    with np.errstate(divide="ignore", invalid="ignore"):
        medians = [_medians(side, d[:count]) for side, d in zip((before, after), draws, strict=True)]
        changes = (medians[1] / medians[0] - 1) * 100
    if not np.isfinite(changes).all():
        return None
    low, high = np.quantile(changes, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _medians(side: Runs, draws: NDArray[np.int64]) -> _Floats:
    if isinstance(side, tuple):
        return _medians(side[0], draws) / _medians(side[1], draws)
    medians: _Floats = np.median(side[draws], axis=1)
    return medians
