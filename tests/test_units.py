"""Sizes, times and rates, read and written."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reclaim import units


@pytest.mark.parametrize("text, nbytes", [
    ("512M", 512 << 20), ("2G", 2 << 30), ("8GiB", 8 << 30), ("1.5K", 1536), ("4096", 4096),
    ("4096B", 4096), ("1T", 1 << 40), ("64k", 65536), (" 1 M ", 1 << 20), (4096, 4096), (0, 0)])
def test_sizes(text, nbytes):
    assert units.parse_size(text) == nbytes


@pytest.mark.parametrize("bad", [
    "", "M", "-1M", "1MB", "1X", "1e3", "0x10", "1..5K", "0.0001K", "nan", "٣M", "1M\n1",
    "9" * 100, -1, 1.5, True, None, [], b"1M"])
def test_bad_sizes(bad):
    with pytest.raises(ValueError, match="size|bytes") as err:
        units.parse_size(bad)
    assert repr(bad) in str(err.value)


@pytest.mark.parametrize("text, seconds", [
    ("80us", 80e-6), ("80µs", 80e-6), ("60s", 60.0), ("1.5ms", 1.5e-3), ("5", 5.0), ("5ns", 5e-9),
    ("2 min", 120.0), ("1h", 3600.0), (60, 60.0), (0.25, 0.25), (0, 0.0)])
def test_times(text, seconds):
    assert units.parse_time(text) == seconds


@pytest.mark.parametrize("bad", ["", "s", "-1s", "1 week", "nan", "inf", math.nan, math.inf, -1,
                                 10**400, True, None, "1e9s"])
def test_bad_times(bad):
    with pytest.raises(ValueError, match="time"):
        units.parse_time(bad)


@pytest.mark.parametrize("text, rate", [("2G", 2 << 30), ("500M/s", 500 << 20), (1024, 1024)])
def test_rates(text, rate):
    assert units.parse_rate(text) == rate


@pytest.mark.parametrize("bad", ["2G/h", "fast", "", -5, None])
def test_bad_rates(bad):
    with pytest.raises(ValueError, match="rate|size"):
        units.parse_rate(bad)


@given(st.integers(0, 2**60))
def test_sizes_are_read_back(nbytes):
    assert units.parse_size(units.format_size(nbytes)) == nbytes
    assert units.parse_rate(units.format_rate(nbytes)) == nbytes


@given(st.floats(0, 1e6, allow_subnormal=False).filter(lambda s: s == 0 or s > 1e-15))
def test_times_are_read_back(seconds):
    text = units.format_time(seconds)
    if len(text) < 22:      # what no one writes by hand may be longer than the form
        assert units.parse_time(text) == seconds


def test_format_examples():
    assert [units.format_size(n) for n in (0, 1, 512 << 20, 3 << 29)] == ["0", "1", "512M", "1536M"]
    assert [units.format_time(s) for s in (0, 80e-6, 60, 0.2, 1.5e-9)] == \
        ["0s", "80us", "60s", "200ms", "1.5ns"]
