"""`reclaim calibrate`: what faults, TLB misses, switches and shootdowns cost on this machine, as a profile.

docs/calibration.md says how each quantity is measured and how it becomes costs.  Nothing is
fitted to a count.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from reclaim import __version__, names
from reclaim.errors import MachineError, ReclaimError
from reclaim.files import replacing
from reclaim.machine import Profile
from reclaim.procfs import System

if TYPE_CHECKING:
    from types import ModuleType

MIN_SECONDS, MAX_SECONDS = 2.0, 20.0
PAGE = 4096
LINE = 8 * PAGE          # the pages whose page-table entries share a cache line
STEP = PAGE + 64         # to another page, and to another set of the caches
# Pages that the TLB's first level holds, and its second; page-table lines in a cache, and in none.
FEW, HOT, WARM, COLD = 16, 512, 4096, 65536
FLUSHED, ONE = 64, 1     # pages unmapped at once: the whole mm is flushed, one page is
MIN_EVICT, MAX_EVICT = 16 << 20, 256 << 20    # bytes
MIN_VALUES = 3
END = 0.1                # s: for the arithmetic

Progress = Callable[[float, str], None]   # (share done, 0 to 1; what is being done)


@dataclass(frozen=True)
class Quantity:
    """Nanoseconds of one operation: the middle and the spread of `nr` values."""

    what: str
    median: float
    p10: float
    p90: float
    nr: int

    @classmethod
    def of(cls, what: str, values: list[float]) -> Quantity:
        """The quantiles of `values`."""
        ordered = sorted(values)
        p10, median, p90 = (ordered[min(len(ordered) - 1, int(part * len(ordered)))]
                            for part in (0.1, 0.5, 0.9))
        return cls(what, median, p10, p90, len(ordered))

    def __str__(self) -> str:
        return f"{_ns(self.median)} ({_ns(self.p10)} to {_ns(self.p90)}, {self.nr:,} values)"


def _ns(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


@dataclass
class Calibration:
    """A measured profile.

    description : names CPU, kernel and date.
    parent : what was inherited from.
    measured : name -> `Quantity`, before any arithmetic.
    costs : cost -> nanoseconds and, unless inherited, the arithmetic.
    scheduler : key -> value and where it is from, of those not inherited.
    notes : what could not be measured, and why.
    """

    description: str
    parent: Profile
    measured: dict[str, Quantity]
    costs: dict[str, tuple[float, str]]
    scheduler: dict[str, tuple[Any, str]]
    notes: list[str] = field(default_factory=list)

    @property
    def toml(self) -> str:
        """The profile's file."""
        inherited = f"inherited from {_comment(self.parent.name)}"
        lines = ["# Written by `reclaim calibrate`; docs/calibration.md says how each quantity is measured.",
                 "#", "# Measured, medians (10th to 90th percentile) in ns:"]
        lines += [f"#   {q.what}: {q}" for q in self.measured.values()]
        lines += [f"# {_comment(note)}" for note in self.notes]
        lines += ["", f"description = {_string(self.description)}", "", "[tlb]"]
        lines += [_entry(name, value, inherited) for name, value in self.parent.tlb.to_dict().items()]
        lines += ["", "[scheduler]"]
        for name, value in self.parent.scheduler.to_dict().items():
            lines.append(_entry(name, *self.scheduler.get(name, (value, inherited))))
        lines += ["", "[costs]"]
        for name in names.COSTS:
            value, source = self.costs.get(name, (self.parent.costs[name], inherited))
            lines.append(_entry(f"{name}_ns", round(value, 2 if value < 100 else 0), source))
        return "\n".join(lines) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """As ``calibrate --json`` prints it; times are nanoseconds."""
        return {"description": self.description, "parent": self.parent.name,
                "measured": {name: {"what": q.what, "median": q.median, "p10": q.p10, "p90": q.p90,
                                    "values": q.nr} for name, q in self.measured.items()},
                "costs": {f"{name}_ns": value for name, (value, _) in self.costs.items()},
                "notes": list(self.notes), "profile": self.toml}

    def table(self) -> str:
        """What was measured, and the costs beside the parent's."""
        width = max(len(q.what) for q in self.measured.values())
        lines = [f"{'measured [ns]':<{width}}  {'median':>9}{'p10':>9}{'p90':>9}{'values':>9}"]
        lines += [f"{q.what:<{width}}  {_ns(q.median):>9}{_ns(q.p10):>9}{_ns(q.p90):>9}{q.nr:>9,}"
                  for q in self.measured.values()]
        lines += ["", f"{'cost [ns]':<{width}}  {'here':>9} {self.parent.name[-8:]:>8}"]
        lines += [f"{name:<{width}}  {_ns(value):>9}{_ns(self.parent.costs[name]):>9}"
                  for name, (value, _) in self.costs.items()]
        lines.append(f"the other {len(names.COSTS) - len(self.costs)} are inherited")
        return "\n".join([*lines, *self.notes])


def _comment(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _string(text: str) -> str:
    return '"' + _comment(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _entry(name: str, value: Any, source: str) -> str:
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    return f"{name} = {shown:<{max(1, 26 - len(name))}} # {source}"


def calibrate(seconds: float = MAX_SECONDS, *, parent: str = "vm16",
              progress: Progress | None = None) -> Calibration:
    """Measure this machine for `seconds`; longer, up to `MAX_SECONDS`, if that is too short.

    parent : the profile whose other values, and whose ratios where one measurement holds several costs, are
        kept.
    progress : called with the share of the time that is over and what is measured.

    Raises
    ------
    MachineError : this machine cannot be measured; the reason says what is missing.
    ReclaimError : bad arguments.
    """
    began = time.monotonic()
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise ReclaimError(f"seconds = {seconds}: must be {MIN_SECONDS:g} to {MAX_SECONDS:g}")
    inherited = Profile.load(parent)
    first, second = _two_cpus()
    from reclaim import _probe
    system = System()
    with _pinned(first):
        bench = _Bench(_probe, second, _evict_bytes(system, first))
        bench.run(began, seconds, progress)
    measured = bench.quantities()
    costs = derive({name: q.median for name, q in measured.items()}, inherited)
    return Calibration(_description(system), inherited, measured, costs, _scheduler(system, first),
                       bench.notes)


def write(file: str, text: str) -> None:
    """Put `text` in `file`, whole or not at all."""
    with replacing(file) as out:
        out.write(text.encode())


# --- the machine

def _two_cpus() -> tuple[int, int]:
    """Two CPUs that this process may use: of two cores of one socket, if there are such.

    Raises
    ------
    MachineError : not on Linux, not on x86, or there is one CPU only.
    """
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "i686"):
        raise MachineError("calibrate measures Linux on x86, whose shootdowns are modelled; this is "
                           f"{sys.platform} on {platform.machine()}. Copy a packaged profile (reclaim "
                           "profiles) and edit it instead")
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise MachineError("calibrate needs two CPUs, one to flush and one to be interrupted; this process "
                           f"may use CPU {cpus[0]} only (see taskset, or the cpuset of its cgroup)")
    system, first = System(), cpus[0]

    def place(cpu: int, name: str) -> str | None:
        return system.line(f"/sys/devices/system/cpu/cpu{cpu}/topology/{name}")

    def distance(cpu: int) -> tuple[bool, bool, int]:
        return (place(cpu, "physical_package_id") != place(first, "physical_package_id"),
                place(cpu, "core_id") == place(first, "core_id"), cpu)
    return first, min(cpus[1:], key=distance)


@contextmanager
def _pinned(cpu: int) -> Iterator[None]:
    """This thread on `cpu`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _evict_bytes(system: System, cpu: int) -> int:
    """Twice the largest cache, in bounds, and no more than an eighth of the memory that is free."""
    sizes = [0]
    for index in range(8):
        size = system.line(f"/sys/devices/system/cpu/cpu{cpu}/cache/index{index}/size")
        told = re.fullmatch(r"([0-9]{1,9})K", size or "")
        if told:
            sizes.append(int(told[1]) << 10)
    meminfo = system.get("/proc/meminfo", lambda text, where: text) or ""
    room = re.search(r"^MemAvailable: +([0-9]{1,15}) kB$", meminfo, re.M)
    free = int(room[1]) << 10 if room else MIN_EVICT * 8
    cgroup = system.cgroup_of("self")
    limit = system.limit(cgroup) if cgroup is not None else None
    return min(max(MIN_EVICT, min(2 * max(sizes), MAX_EVICT)), free // 8, (limit or free) // 8)


def _description(system: System) -> str:
    cpu = _comment(system.cpu().get("model name", platform.machine()))[:80]
    kind = "virtual machine" if "hypervisor" in system.cpu().get("flags", "").split() else "bare metal"
    nr = len(system.online()) or os.cpu_count()
    return _comment(f"{cpu}, {nr} CPUs, {kind}, Linux {system.release()[:60]}, "
                    f"calibrated {datetime.now(UTC):%Y-%m-%d}, reclaim {__version__}")[:200]


def _scheduler(system: System, cpu: int) -> dict[str, tuple[Any, str]]:
    """Keys of [scheduler] that can be read."""
    found: dict[str, tuple[Any, str]] = {}
    hz = system.config_hz()
    if hz is not None:
        found["hz"] = (hz, "CONFIG_HZ of this kernel")
    folder = "/sys/devices/system/cpu/cpu{}/topology/physical_package_id"
    socket = system.line(folder.format(cpu))
    together = sum(system.line(folder.format(c)) == socket for c in system.online())
    if socket is not None and 1 <= together <= 512:
        found["cpus_per_socket"] = (together, "/sys/devices/system/cpu/*/topology/physical_package_id")
    return found


# --- measuring

class _Bench:
    """The probes, taken in turn in slices of a few milliseconds, so that what disturbs one disturbs all."""

    def __init__(self, probe: ModuleType, second: int, evict_bytes: int) -> None:
        self.probe, self.second = probe, second
        self.notes: list[str] = []
        self.values: dict[str, list[float]] = {name: [] for name in WHAT}
        self.own = probe.Pages(2 * HOT, own=True)
        self.warm = probe.Pages(8 * WARM)
        self.cold = probe.Pages(8 * COLD, every=8, evict_bytes=evict_bytes)
        self.slices: dict[Callable[[], None], tuple[str, ...]] = {     # what each measures
            self._touches: ("touch", "touch_l2", "touch_lines"),
            self._warm_walks: ("zero", "zero_row", "walk_line", "walk_row"),
            self._cold_walks: ("walk_evicted",), self._refill: ("refill_hot", "refill_one", "refill_all"),
            self._faults: ("fault_write", "fault_read"), self._populate: ("populate",),
            self._moves: ("copy", "clear"), self._switches: ("pipe", "ping_pong"),
            self._shootdowns: ("unmap_alone", "unmap_spinning", "away")}

    def run(self, began: float, seconds: float, progress: Progress | None) -> None:
        """Take slices in turn until `seconds` after `began`, or longer for the least number of values.

        Raises
        ------
        MachineError : `MAX_SECONDS` were not enough for these.
        """
        longest = 0.0
        while True:
            for take in list(self.slices):
                start = time.monotonic()
                if start + longest > began + (MAX_SECONDS if self.short() else seconds) - END:
                    if short := self.short():
                        raise MachineError(f"there was no time to measure {', '.join(short)}: give more "
                                           "--seconds, or leave the machine alone meanwhile")
                    return
                if progress is not None:
                    progress(min(1.0, (start - began) / seconds), "measuring")
                try:
                    take()
                except OSError as err:
                    del self.slices[take]
                    self.notes.append(f"not measured, inherited instead: {err}")
                longest = max(longest, time.monotonic() - start)

    def short(self) -> list[str]:
        """What has too few values yet."""
        return [name for made in self.slices.values() for name in made
                if len(self.values[name]) < MIN_VALUES]

    def quantities(self) -> dict[str, Quantity]:
        """What was measured."""
        return {name: Quantity.of(WHAT[name], values) for name, values in self.values.items()
                if len(values) >= MIN_VALUES}

    def _keep(self, name: str, fill: Callable[[array[float]], object], nr: int) -> None:
        out = array("d", bytes(8 * nr))
        fill(out)
        self.values[name].extend(out)

    def _touches(self) -> None:
        chase = self.own.chase
        self._keep("touch", lambda out: chase(out, FEW, STEP, 1, 4096), 5)
        self._keep("touch_l2", lambda out: chase(out, HOT, STEP, 1, 4096), 5)
        self._keep("touch_lines", lambda out: chase(out, HOT, 64, 1, 4096), 5)

    def _warm_walks(self) -> None:
        chase = self.warm.chase
        self._keep("zero", lambda out: chase(out, FEW, LINE, 1, 8192), 5)
        self._keep("zero_row", lambda out: chase(out, FEW, PAGE, 8, 8192), 5)
        self._keep("walk_line", lambda out: chase(out, WARM, LINE, 1, 8192), 5)
        self._keep("walk_row", lambda out: chase(out, 8 * WARM, PAGE, 8, 8192), 5)

    def _cold_walks(self) -> None:
        self._keep("walk_evicted", lambda out: self.cold.chase(out, COLD, LINE, 1, 2048, True), 1)

    def _refill(self) -> None:
        hot = array("d", bytes(8 * 50))
        self._keep("refill_one", lambda out: self.own.refill(hot, out, HOT, ONE), 50)
        self._keep("refill_all", lambda out: self.own.refill(hot, out, HOT, FLUSHED), 50)
        self.values["refill_hot"].extend(hot)

    def _faults(self) -> None:
        self._keep("fault_write", lambda out: self.probe.fault(out, 256, True), 5)
        self._keep("fault_read", lambda out: self.probe.fault(out, 256, False), 5)

    def _populate(self) -> None:
        self._keep("populate", lambda out: self.probe.populate(out, 256), 10)

    def _moves(self) -> None:
        self._keep("copy", lambda out: self.probe.move(out, 1024, True), 16)
        self._keep("clear", lambda out: self.probe.move(out, 1024, False), 16)

    def _switches(self) -> None:
        self._keep("pipe", lambda out: self.probe.pipe_alone(out, 100), 5)
        self._keep("ping_pong", lambda out: self.probe.ping_pong(out, 100), 5)

    def _shootdowns(self) -> None:
        out, away = array("d", bytes(8 * 200)), array("d", bytes(8 * 200))
        self.probe.shootdown(out, away, -1)
        self.values["unmap_alone"].extend(out)
        nr = self.probe.shootdown(out, away, self.second)
        self.values["unmap_spinning"].extend(out[:nr])
        self.values["away"].extend(away[:nr])


# What each measurement is, in the order of the output.
WHAT = {
    "touch": "touch, page in cache and TLB",
    "touch_l2": "touch, 512 pages at random",
    "touch_lines": "touch, the same lines on 8 pages",
    "zero": "zero page mapped 16 times, a page of each line",
    "zero_row": "zero page mapped 16 times, 8 pages in a row",
    "walk_line": "a page of each of 4096 lines of PTEs",
    "walk_row": "8 pages in a row of 4096 lines of PTEs",
    "walk_evicted": "a page of each of 65536 lines, evicted",
    "refill_hot": "touch, pass over 512 pages",
    "refill_one": "the same after a flush of one page",
    "refill_all": "the same after a full flush",
    "fault_write": "minor fault, first write",
    "fault_read": "minor fault, first read (zero page)",
    "populate": "populate, page there already",
    "copy": "copy of a page",
    "clear": "zero of a page",
    "pipe": "byte through a pipe, alone",
    "ping_pong": "byte to another process, one CPU",
    "unmap_alone": "unmap of a page, no second thread",
    "unmap_spinning": "unmap of a page, second thread spinning",
    "away": "second thread away",
}


# --- arithmetic

def derive(m: dict[str, float], parent: Profile) -> dict[str, tuple[float, str]]:
    """Costs from medians: cost -> nanoseconds and the arithmetic.

    What a missing median leaves out is inherited.
    """
    costs: dict[str, tuple[float, str]] = {}

    def put(name: str, value: float, how: str) -> None:
        costs[name] = (max(0.0, value), how)

    def split(total: float, parts: tuple[str, ...], how: str) -> None:
        """Divide `total` as the parent divides it."""
        whole = sum(parent.costs[name] for name in parts)
        for name in parts:
            share = parent.costs[name] / whole if whole else 1 / len(parts)
            put(name, total * share, f"{how}; this {share:.0%} of it as {_comment(parent.name)} divides it")

    if {"touch_l2", "touch_lines"} <= m.keys():
        put("tlb_l2_hit", m["touch_l2"] - m["touch_lines"],
            "touch of 512 pages less touch of the same lines on 8 pages")
    if {"zero", "zero_row", "walk_line", "walk_row"} <= m.keys():
        line, row = m["walk_line"] - m["zero"], m["walk_row"] - m["zero_row"]
        put("walk_warm", (8 * row - line) / 7,
            "(8 x (walk, 8 pages in a row) - (walk, a page of each line)) / 7")
    if {"zero", "walk_evicted"} <= m.keys():
        put("walk_cold", m["walk_evicted"] - m["zero"], "evicted walk less touch of the zero page in the TLB")
    if {"fault_read", "fault_write"} <= m.keys():
        split(m["fault_read"], ("fault_entry", "fault_zero"), "minor fault of a read")
        put("fault_anon", m["fault_write"] - costs["fault_entry"][0],
            "minor fault of a write less fault_entry")
    for name, of in (("page_copy", "copy"), ("page_zero", "clear"), ("gup_page", "populate")):
        if of in m:
            put(name, m[of], f"{WHAT[of]}")
    if {"pipe", "ping_pong"} <= m.keys():
        split(m["ping_pong"] - m["pipe"], ("context_switch", "wakeup"),
              "byte to another process less byte alone")
    if {"unmap_alone", "unmap_spinning", "away"} <= m.keys():
        _derive_shootdown(m, parent, costs, split)
    return costs


SENDER = ("flush_fixed", "ipi_send", "ipi_delivery", "csd_ack")


def _derive_shootdown(m: dict[str, float], parent: Profile, costs: dict[str, tuple[float, str]],
                      split: Callable[[float, tuple[str, ...], str], None]) -> None:
    """The target loses irq_entry + invlpg + irq_exit; the sender waits for irq_entry and `SENDER`.

    Its own invlpg is made meanwhile, and without a target it makes one too: the target's cancels it.
    """
    sync = m["unmap_spinning"] - m["unmap_alone"]
    interrupt, entry = ("irq_entry", "irq_exit"), "irq_entry"
    away = max(0.0, m["away"] - parent.costs["invlpg"])
    share = parent.costs[entry] / max(sum(parent.costs[name] for name in interrupt), 1e-9)
    if away * share < sync:
        split(away, interrupt, "second thread away less invlpg")
        split(sync - away * share, SENDER, "shootdown less irq_entry")
    else:            # the sender did not wait for as long: a host that flushes for a CPU it does not run
        split(sync, (*SENDER, entry), "shootdown")
        split(costs[entry][0] / share * (1 - share), ("irq_exit",), "as irq_entry, in the parent's ratio")
    same, cross = parent.costs["ipi_delivery"], parent.costs["ipi_delivery_cross"]
    if same:
        costs["ipi_delivery_cross"] = (costs["ipi_delivery"][0] * cross / same,
                                       f"ipi_delivery x {cross / same:.2g}, the ratio of "
                                       + _comment(parent.name))
