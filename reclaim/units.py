"""Sizes, times and rates as people write them, and back.

Sizes are powers of 1024: ``"512M"``, ``"2G"``, ``"8GiB"``; a plain integer is bytes.
Times are ``"80us"`` or ``"60s"``; a plain number is seconds.  Rates are sizes per second.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

PAGE_SIZE = 4096

_SIZE_FORM = 'bytes as an integer, or a string like "512M", "2G" or "8GiB" (K, M, G, T: powers of 1024)'
_TIME_FORM = 'seconds as a number, or a string like "80us" or "60s" (ns, us, ms, s, min, h)'

_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,12})?) ?(?:([kKmMgGtT])(?:iB)?|B)?")
_TIME = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?) ?(ns|us|µs|ms|s|min|h)?")
_SHIFT = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_SECONDS = {"ns": Decimal("1e-9"), "us": Decimal("1e-6"), "µs": Decimal("1e-6"),
            "ms": Decimal("1e-3"), "s": Decimal(1), "min": Decimal(60), "h": Decimal(3600)}


def parse_size(value: int | str) -> int:
    """Bytes in `value`.

    Raises
    ------
    ValueError : not of the allowed form, negative, or not a whole number of bytes.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError(f"{value!r} is negative; a size is {_SIZE_FORM}")
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a size: write {_SIZE_FORM}")
    number = Decimal(match[1]) * (1 << _SHIFT[(match[2] or "").upper()])
    if number != number.to_integral_value():
        raise ValueError(f"{value!r} is not a whole number of bytes")
    return int(number)


def format_size(nbytes: int) -> str:
    """`nbytes` in the largest unit that holds it exactly: ``"512M"``; `parse_size` reads it."""
    for unit in "TGMK":
        if nbytes and nbytes % (1 << _SHIFT[unit]) == 0:
            return f"{nbytes >> _SHIFT[unit]}{unit}"
    return str(nbytes)


def parse_time(value: float | str) -> float:
    """Seconds in `value`.

    Raises
    ------
    ValueError : not of the allowed form, negative, or not finite.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # An integer too large for a float is as infinite as any.
        seconds = float(value) if abs(value) < 1e300 else math.inf
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"{value!r} is not a finite time >= 0; write {_TIME_FORM}")
        return seconds
    match = _TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a time: write {_TIME_FORM}")
    return float(Decimal(match[1]) * _SECONDS[match[2] or "s"])


def format_time(seconds: float) -> str:
    """`seconds` in the largest unit that it fills: ``"80us"``; `parse_time` reads it back exactly."""
    exact = Decimal(repr(float(seconds)))
    if not exact:
        return "0s"
    unit = next((u for u in ("s", "ms", "us") if exact >= _SECONDS[u]), "ns")
    return f"{(exact / _SECONDS[unit]).normalize():f}{unit}"


def parse_rate(value: int | str) -> int:
    """Bytes per second in `value`: a size, with or without ``/s``.

    Raises
    ------
    ValueError : as `parse_size`.
    """
    if isinstance(value, str):
        try:
            return parse_size(value.strip().removesuffix("/s"))
        except ValueError:
            raise ValueError(f"{value!r} is not a rate: write a size per second like "
                             f'"2G" or "500M/s"') from None
    return parse_size(value)


def format_rate(bytes_per_s: int) -> str:
    """`bytes_per_s` as `format_size` writes it; the scenario's keys say "per second"."""
    return format_size(bytes_per_s)
