"""The U-test and the intervals: against scipy, against counting by hand, and on every machine alike."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reclaim import statistics
from reclaim.statistics import change_interval, mann_whitney, resamples

SIDE = st.lists(st.integers(-3, 3), min_size=1, max_size=5)


def test_published_value():
    # Ten runs each, all apart: 2 of the C(20, 10) ways are as far out.
    assert mann_whitney(range(10), range(10, 20)) == pytest.approx(2 / math.comb(20, 10), rel=1e-12)
    assert mann_whitney([1, 2, 3], [4, 5, 6]) == pytest.approx(0.1)
    assert mann_whitney([5], [5]) == 1.0 and mann_whitney([1] * 8, [1] * 8) == 1.0


@given(SIDE, SIDE)
@settings(max_examples=100, deadline=None)
def test_ties_are_counted_out(x, y):
    """Every division of the pooled runs, enumerated."""
    pooled = np.array(x + y)
    ranks = np.array([np.mean([np.sum(pooled < v) + 1, np.sum(pooled <= v)]) for v in pooled])
    sums = [ranks[list(pick)].sum() for pick in itertools.combinations(range(len(pooled)), len(x))]
    observed = ranks[:len(x)].sum()
    low, high = (np.mean([s <= observed for s in sums]), np.mean([s >= observed for s in sums]))
    assert mann_whitney(x, y) == pytest.approx(min(1.0, 2 * min(low, high)))
    assert mann_whitney(y, x) == pytest.approx(mann_whitney(x, y))


def test_exact_as_in_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    for nr in [(2, 2), (6, 6), (3, 9), (1, 20), (12, 11), (40, 35)]:
        pooled = rng.permutation(sum(nr)) * 0.5
        x, y = pooled[:nr[0]], pooled[nr[0]:]
        assert mann_whitney(x, y) == pytest.approx(
            stats.mannwhitneyu(x, y, method="exact").pvalue, rel=1e-9), nr


def test_large_samples_as_in_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 40, 90), rng.integers(3, 43, 80)
    assert len(x) + len(y) > statistics.EXACT_RUNS
    assert mann_whitney(x, y) == pytest.approx(
        stats.mannwhitneyu(x, y, method="asymptotic").pvalue, rel=1e-9)
    assert mann_whitney(np.ones(100), np.ones(100)) == 1.0


def test_exact_and_approximate_meet(monkeypatch):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=55), rng.normal(0.3, size=55)
    exact = mann_whitney(x, y)
    monkeypatch.setattr(statistics, "EXACT_RUNS", 10)
    assert mann_whitney(x, y) == pytest.approx(exact, abs=2e-3)


@pytest.mark.parametrize("x, y", [([], [1]), ([1], []), ([math.nan], [1])])
def test_refused(x, y):
    with pytest.raises(ValueError, match="U-test"):
        mann_whitney(x, y)


def test_draws_are_the_same_everywhere():
    draws = resamples(7, count=3)
    assert draws.tolist() == [[6, 3, 0, 6, 0, 2, 1], [5, 1, 6, 2, 5, 3, 3], [4, 3, 3, 5, 1, 5, 5]]
    many = resamples(6, count=20_000)
    assert np.bincount(many.ravel(), minlength=6) == pytest.approx(np.full(6, 20_000), rel=0.03)
    assert abs(np.corrcoef(many[:, 0], many[:, 1])[0, 1]) < 0.03
    assert not np.array_equal(resamples(7, 1), resamples(7, 0))


def test_interval_as_in_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(4)
    x, y = rng.normal(100, 5, 30), rng.normal(70, 5, 30)
    got = change_interval(x, y, paired=True)
    want = stats.bootstrap((x, y), lambda a, b, axis: (np.median(b, axis) / np.median(a, axis) - 1) * 100,
                           paired=True, vectorized=True, method="percentile", n_resamples=20_000,
                           rng=np.random.default_rng(5)).confidence_interval
    assert got == pytest.approx((want.low, want.high), abs=0.6)
    unpaired = change_interval(x, y, paired=False)
    assert unpaired != got and unpaired == pytest.approx(got, abs=3)


def test_pairs_are_kept():
    """After is exactly half of before in each run: the change has no spread, however the runs have."""
    x = np.array([10.0, 1000.0, 20.0, 500.0, 3.0, 77.0])
    assert change_interval(x, x / 2, paired=True) == pytest.approx((-50, -50))
    low, high = change_interval(x, x / 2, paired=False)
    assert low < -60 and high > 0


def test_interval_of_a_ratio():
    over, under = np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0])
    assert change_interval((over, under), (over / 4, under), paired=True) == pytest.approx((-75, -75))
    assert change_interval(over * 0, over, paired=True) is None
    with pytest.raises(ValueError, match="equal length"):
        change_interval(over, over[:2], paired=True)


def test_coverage():
    """Of 300 experiments of 10 pairs about nine in ten intervals hold the true change of medians, or more."""
    rng = np.random.default_rng(6)
    inside = 0
    for _ in range(300):
        x, y = rng.normal(100, 5, 10), rng.normal(80, 5, 10)
        low, high = change_interval(x, y, paired=True)
        inside += low <= -20 <= high
    assert 0.90 <= inside / 300 <= 0.99
