"""Collect bench_*.py here, and only here; `--smoke`; CPU time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import worlds

ROUNDS = 7
SMOKE = 4                   # how much shorter a round of a smoke test is


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--smoke", action="store_true", help="one short round of each: are the counts right?")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    named = parent.session.isinitpath(file_path)         # pytest collects those itself
    if file_path.name.startswith("bench_") and file_path.suffix == ".py" and not named:
        return pytest.Module.from_parent(parent, path=file_path)
    return None


@pytest.fixture
def smoke(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--smoke"))


@pytest.fixture
def timed(benchmark: Any, smoke: bool) -> Callable[..., None]:
    """timed(work, setup=..., unit=..., units=...): rounds of `work` in CPU time; ns per unit in `extra_info`.

    `units`: how many a round has, or a function that says so afterwards.
    """
    def run(work: Callable[[], Any], *, unit: str, units: int | Callable[[], int],
            setup: Callable[[], Any] | None = None, timer: Callable[[], float] = time.process_time,
            **info: Any) -> None:
        benchmark._timer = timer
        benchmark.pedantic(work, setup=setup and (lambda: setup() and None), rounds=1 if smoke else ROUNDS)
        many = units() if callable(units) else units
        assert many > 0, f"no {unit} at all"
        if benchmark.stats is not None:
            data = sorted(benchmark.stats.stats.data)
            benchmark.extra_info.update(unit=unit, units=many, **info)
            for name, value in (("median", statistics.median(data)), ("least", data[0])):
                benchmark.extra_info[f"{name}_ns_per_unit"] = round(value / many * 1e9, 3)
    return run


@pytest.fixture
def path(timed: Callable[..., None], smoke: bool) -> Callable[[worlds.Path], worlds.Round]:
    """path(p): benchmark a `worlds.Path`; the round that was made, for its counts."""
    def run(p: worlds.Path, **info: Any) -> worlds.Round:
        made = worlds.Round(p, actions=p.actions // (SMOKE if smoke else 1))
        timed(made.run, setup=made.back, unit=p.unit, units=lambda: made.units, **info)
        return made
    return run
