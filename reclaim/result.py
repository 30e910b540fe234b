"""`Result`: what one run counted, with the kernel's names and counting rules."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reclaim.errors import Named

if TYPE_CHECKING:
    import numpy as np

    from reclaim.scenario import Scenario
    from reclaim.tables import Table
    from reclaim.world import World

BOGO_UNITS = 4096    # bogo units of one stress-ng bogo op

# The counters that `repr` shows, in its order; `Result.counters` holds all.
SHOWN = ("bogo_ops_per_s", "tlb_shootdowns", "tlb_flushes", "function_call_ipis",
         "pgscan_anon", "pgsteal_anon", "pswpin", "pswpout", "pgfault", "pgmajfault",
         "pgactivate", "pgrefill", "pgrotated", "workingset_refault_anon",
         "flush_batches", "folios_batched", "shrink_folio_list_calls", "page_touches",
         "memcg_oom_kill", "simulated_s", "wall_s")


@dataclass(frozen=True, eq=False)
class Result:
    """One run of one policy.  All numbers are simulated.

    scenario : the `Scenario` that ran, or the `World` of a low-level run, which has no name.
    policy : name of the policy.
    seed : of its random draws.
    counters : by name: the core's (`reclaim.names.COUNTERS`) and those derived from them:
        ``tlb_shootdowns`` (flush functions run for another CPU), ``tlb_flushes`` (flushes sent to
        other CPUs), ``bogo_ops_per_s``, ``simulated_s``, ``wall_s`` and ``digest``.
    times : category to an array of nanoseconds, one per CPU.
    histograms : name to array.
    seconds : simulated time that the counters cover [s].
    partial : the run was interrupted before its end.
    provenance : versions, scenario, policy and where it ran.
    digest : of the state at the end.
    wall_s : time the simulation took [s].
    """

    scenario: Scenario | World
    policy: str
    seed: int
    counters: Mapping[str, Any]
    times: Mapping[str, np.ndarray] = field(default_factory=dict)
    histograms: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    partial: bool = False
    provenance: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    wall_s: float = 0.0

    def __post_init__(self) -> None:
        counters = {name: plain(value) for name, value in self.counters.items()}
        counters["tlb_shootdowns"] = counters.get("nr_tlb_remote_flush_received", 0)
        counters["tlb_flushes"] = counters.get("nr_tlb_remote_flush", 0)
        counters["bogo_ops_per_s"] = ratio(counters.get("bogo_units", 0) / BOGO_UNITS,
                                           self.seconds) or 0.0
        counters["simulated_s"] = float(self.seconds)
        counters["wall_s"] = float(self.wall_s)
        counters["digest"] = self.digest
        for name, what, values in (
                ("counters", "counter", counters), ("times", "category of time", self.times),
                ("histograms", "histogram", self.histograms)):
            object.__setattr__(self, name, Named(what, values))

    @property
    def name(self) -> str:
        """The scenario's name."""
        return str(getattr(self.scenario, "name", "world"))

    def to_dict(self) -> dict[str, Any]:
        """As ``run --json`` prints it."""
        data = {"scenario": self.name, "policy": self.policy, "seed": self.seed,
                "seconds": float(self.seconds), "counters": dict(self.counters)}
        return data | {"partial": True} if self.partial else data

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result to `path`, a name that ends in ``.json``, and its arrays to an ``.npz`` beside it.

        Both are there, whole, or `path` is as it was.

        Raises
        ------
        ResultError : another name, or the run of a World.
        OSError : the files cannot be written.
        """
        from reclaim.saved import save
        save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Result:
        """The result that `save` wrote to `path`.

        Raises
        ------
        ResultError : what is wrong with the file, and where.
        """
        from reclaim.saved import load
        return load(path)

    def tables(self) -> dict[str, Table]:
        """``counters``, ``times`` and each histogram as `reclaim.tables.Table`, with ``to_pandas()``."""
        from reclaim.tables import result_tables
        return result_tables(self)

    def shares(self) -> dict[str, float]:
        """The share of all CPUs' time spent in each category of `times`, 0 to 1."""
        sums = {name: float(sum(values)) for name, values in self.times.items()}
        total = sum(sums.values())
        return {name: value / total for name, value in sums.items()} if total else {}

    def _title(self) -> str:
        partial = ", PARTIAL: interrupted" if self.partial else ""
        return (f"{self.name}, {self.policy}, seed {self.seed}: "
                f"{self.seconds:g} s simulated{partial}")

    def __repr__(self) -> str:
        lines = [self._title()]
        lines += [f"  {name:<26}{show_number(self.counters[name]):>16}"
                  for name in SHOWN if name in self.counters]
        shares = sorted(self.shares().items(), key=lambda item: -item[1])
        if shares:
            lines.append("  CPU time: " + ", ".join(f"{name} {share:.1%}" for name, share in shares
                                                    if share >= 0.0005))
        if self.digest:
            lines.append(f"  digest {self.digest}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [[name, show_number(self.counters[name])] for name in SHOWN if name in self.counters]
        return html_table(self._title(), ["counter", "simulated"], rows)


def plain(value: Any) -> Any:
    """A NumPy scalar as the Python number it holds, so that it can be JSON."""
    return value.item() if hasattr(value, "item") else value


def ratio(over: float | None, under: float | None) -> float | None:
    """`over` / `under`; None where it has no value, so that it is null in JSON."""
    if over is None or not under:
        return None
    value = over / under
    return value if math.isfinite(value) else None


def show_number(value: float | None) -> str:
    """A number for a table: integers grouped, others with what digits they need."""
    if value is None:
        return "-"
    if isinstance(value, int) or (abs(value) >= 1000 and value == int(value)):
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.2f}" if abs(value) >= 10 \
        else f"{value:.3f}"


def html_table(caption: str, head: list[str], rows: list[list[str]]) -> str:
    """A static table, every cell escaped."""
    def cells(tag: str, row: list[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"
    body = "".join(cells("td", row) for row in rows)
    return (f"<table><caption>{html.escape(caption)}</caption>"
            f"<thead>{cells('th', head)}</thead><tbody>{body}</tbody></table>")
