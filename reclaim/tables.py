"""Tables of results: structured arrays, with their units, for NumPy, pandas and notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reclaim.errors import ResultError, UnknownNameError, did_you_mean
from reclaim.result import Result, html_table, show_number

if TYPE_CHECKING:
    from reclaim.comparison import Comparison

SHOWN_ROWS = 60     # of a table in a notebook

# Histogram -> what its index counts, and what it is a number of.
HISTOGRAMS = {"flush_batch_size": ("folios", "flushes"), "targets_per_flush": ("targets", "flushes")}


@dataclass(frozen=True, eq=False)
class Table:
    """Rows with named columns.

    name : of the table.
    array : a structured array, shape (rows,).
    units : column to unit, for those that have one.
    """

    name: str
    array: NDArray[Any]
    units: Mapping[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self.array.dtype.names or ())

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, column: str) -> NDArray[Any]:
        """A column."""
        if column not in self.columns:
            raise UnknownNameError(f"table {self.name} has no column {column!r}"
                                   + did_you_mean(column, self.columns))
        values: NDArray[Any] = self.array[column]
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array = self.array if dtype is None else self.array.astype(dtype)
        return array.copy() if copy and array is self.array else array

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The rows as an Arrow stream of one batch: what ``pyarrow.table`` and ``polars.DataFrame`` take."""
        from reclaim._arrow import stream
        return stream(self.array)

    def to_pandas(self) -> Any:
        """The table as a ``pandas.DataFrame``; its ``attrs["units"]`` are `units`.

        Raises
        ------
        ResultError : pandas is not installed.
        """
        try:
            import pandas
        except ImportError as err:
            raise ResultError(f"to_pandas() needs pandas ({err}): pip install pandas; the same rows "
                              "are in .array, without it") from None
        frame = pandas.DataFrame({name: self.array[name] for name in self.columns})
        frame.attrs["units"] = dict(self.units)
        return frame

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        head = [f"{name} [{self.units[name]}]" if name in self.units else name for name in self.columns]
        return head, [[_show(value) for value in row] for row in self.array[:SHOWN_ROWS].tolist()]

    def _title(self) -> str:
        more = f", the first {SHOWN_ROWS}" if len(self) > SHOWN_ROWS else ""
        return f"{self.name}, simulated: {len(self)} row{'s' * (len(self) != 1)}{more}"

    def __repr__(self) -> str:
        head, rows = self._cells()
        widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
                 for line in [head, *rows]]
        return "\n".join([self._title(), *lines])

    def _repr_html_(self) -> str:
        return html_table(self._title(), *self._cells())


def _show(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else show_number(value) if value == value else "-"


def result_tables(results: Result | Iterable[Result]) -> dict[str, Table]:
    """``counters``, one row a run; ``times``, one row a CPU; and each histogram, one row a value."""
    runs = [results] if isinstance(results, Result) else list(results)
    tables = {"counters": counters(runs), "times": _times(runs)}
    for name in dict.fromkeys(name for run in runs for name in run.histograms):
        tables[name] = _histogram(name, runs)
    return tables


def _which(run: Result) -> dict[str, Any]:
    return {"scenario": run.name, "policy": run.policy, "seed": run.seed}


def _table(name: str, rows: list[dict[str, Any]], units: Mapping[str, str]) -> Table:
    """Columns of text, 64-bit integers (seeds: unsigned) or floats, as the values are."""
    columns: dict[str, NDArray[Any]] = {}
    for column in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(column) for row in rows]
        if any(isinstance(value, str) for value in values):
            columns[column] = np.array([str(value or "") for value in values], dtype=np.str_)
        elif column == "seed":
            columns[column] = np.array(values, dtype=np.uint64)
        elif all(isinstance(value, int) and abs(value) < 2**63 for value in values):
            columns[column] = np.array(values, dtype=np.int64)
        else:
            columns[column] = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    array = np.empty(len(rows), dtype=[(key, values.dtype) for key, values in columns.items()])
    for key, column_values in columns.items():
        array[key] = column_values
    return Table(name, array, {key: unit for key, unit in units.items() if key in columns})


def counters(runs: list[Result]) -> Table:
    """All counters, one row a run."""
    return _table("counters", [_which(run) | dict(run.counters) for run in runs],
                  {"bogo_ops_per_s": "1/s", "simulated_s": "s", "wall_s": "s"})


def _times(runs: list[Result]) -> Table:
    rows = [_which(run) | {"cpu": cpu} | {name: float(values[cpu]) for name, values in run.times.items()}
            for run in runs for cpu in range(max((len(v) for v in run.times.values()), default=0))]
    return _table("times", rows, {name: "ns" for run in runs for name in run.times})


def _histogram(name: str, runs: list[Result]) -> Table:
    value, count = HISTOGRAMS.get(name, ("value", "count"))
    rows = [_which(run) | {value: i, count: int(n)}
            for run in runs for i, n in enumerate(np.asarray(run.histograms.get(name, ())).tolist())]
    return _table(name, rows, {})


def comparison_tables(comparison: Comparison) -> dict[str, Table]:
    """``rows`` as the table has them, and the tables of all runs together."""
    rows = []
    for row in comparison.rows:
        low, high = row.interval_pct or (None, None)
        rows.append({"metric": row.metric, "before": _number(row.before), "after": _number(row.after),
                     "delta_pct": _number(row.delta_pct), "low_pct": _number(low), "high_pct": _number(high),
                     "p": _number(row.p), "verdict": row.verdict,
                     "published_before": _number(row.published_before),
                     "published_after": _number(row.published_after)})
    table = _table("rows", rows, {"delta_pct": "%", "low_pct": "%", "high_pct": "%"})
    return {"rows": table} | result_tables([*comparison.before.runs, *comparison.after.runs])


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
