"""The profile tcg-rr from two traces of a guest: QEMU's TCG, 16 CPUs round robin on one host CPU.

    python bench/tcg_rr.py BEFORE AFTER > reclaim/profiles/tcg-rr.toml     # what was measured goes to stderr

BEFORE and AFTER are ftrace's text (.xz or plain) of the same guest before and after the series, with the
events of vmscan, tlb, ipi, csd and user page faults.  A *gap* is the time between two events that follow each
other in the log on the same CPU: no other CPU logged anything in between.  Its value is its midmean (the mean
of the middle half: time stamps are whole microseconds, so medians are coarse), of both traces together unless
said.  A gap that holds several costs is divided among them as the profile vm16 divides it.  The writing of an
event is in all of them (at most the gap "event").  Nothing is taken from any count of a run.
"""

from __future__ import annotations

import lzma
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from reclaim import names
from reclaim.machine import Profile
from reclaim.workloads.synthetic import WRITER_THINK_NS

CPUS = 16
PERIOD = 1000                  # us: a tick of the guest (HZ = 1000)
BINS = 20                      # of a tick
SIZES = (5, 11, 22)            # folios of a reclaim's three lists: sizes of every reclaim of these runs
LINE = re.compile(r"^\s*.+-(\d+)\s+\[(\d+)\]\s+(\S+)\s+(\d+)\.(\d{6}): (\w+): (.*)$")


class Event(NamedTuple):
    """A line of the trace; time in microseconds."""

    time: int
    cpu: int
    tid: int
    name: str
    rest: str

    def number(self, key: str) -> int:
        found = re.search(rf"\b{key}[=:]\s*(-?\d+)", self.rest)
        assert found, f"no {key} in {self}"
        return int(found[1])

    @property
    def kind(self) -> str:
        """The name; of flushes with what they flush and why."""
        if self.name != "tlb_flush":
            return self.name
        reason = self.rest.split("reason:")[1].split(" (")[0]
        return f"{reason} {self.number('pages')}"


Gap = tuple[Event, Event]


def read(path: str) -> list[Event]:
    data = Path(path).read_bytes()
    text = (lzma.decompress(data) if path.endswith(".xz") else data).decode()
    found = (LINE.match(line) for line in text.splitlines() if line[:1] != "#")
    events = [Event(int(m[4]) * 10**6 + int(m[5]), int(m[2]), int(m[1]), m[6], m[7]) for m in found if m]
    assert all(a.time <= b.time for a, b in pairwise(events)), f"{path}: not in the order of time"
    return events


def quantile(ordered: Sequence[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def midmean(values: Sequence[float]) -> float:
    ordered = sorted(values)
    cut = len(ordered) // 4
    middle = ordered[cut:len(ordered) - cut]
    return sum(middle) / len(middle)


def say(*text: object) -> None:
    print(*text, file=sys.stderr)


def tell(what: str, values: Sequence[float]) -> float:
    """Print a sample, return its midmean [us]."""
    ordered = sorted(values)
    low, median, high = (quantile(ordered, part) for part in (0.25, 0.5, 0.75))
    value = midmean(ordered)
    say(f"{what:<66} n {len(ordered):6d}  quartiles {low:3g} {median:3g} {high:3g}  midmean {value:7.2f} us")
    return value


def gaps(events: Sequence[Event]) -> Iterator[Gap]:
    return ((a, b) for a, b in pairwise(events) if a.cpu == b.cpu)


FAULT = "page_fault_user"
SENT = "remote ipi send -1"
CHECKED, FLUSHED = "remote shootdown 0", "remote shootdown -1"
IPIS = ("call_function_entry", "call_function_single_entry")
CHARGE = (("page_fault_user", "mm_vmscan_memcg_reclaim_begin"),
          ("mm_vmscan_lru_shrink_inactive", "mm_vmscan_memcg_reclaim_end"),
          ("mm_vmscan_memcg_reclaim_end", "page_fault_user"))


class Traces:
    """Both traces, and their gaps by the kinds of their two events."""

    def __init__(self, before: list[Event], after: list[Event]) -> None:
        self.runs = {"before": before, "after": after}
        self.by_kind: dict[str, dict[tuple[str, str], list[Gap]]] = {}
        for run, events in self.runs.items():
            found = self.by_kind[run] = defaultdict(list)
            for a, b in gaps(events):
                found[a.kind, b.kind].append((a, b))

    def gap(self, first: str | Sequence[str], second: str | Sequence[str], *,
            runs: Sequence[str] = ("before", "after"),
            only: Callable[[Event, Event], bool] = lambda a, b: True, note: str = "") -> float:
        firsts = (first,) if isinstance(first, str) else first
        seconds = (second,) if isinstance(second, str) else second
        found = [b.time - a.time for run in runs for x in firsts for y in seconds
                 for a, b in self.by_kind[run][x, y] if only(a, b)]
        label = f"{'/'.join(firsts)} -> {'/'.join(seconds)}{note}"
        return tell(label if len(runs) == 2 else f"{runs[0]}: {label}", found)

    def fault(self) -> float:
        """A swap-in fault on the next page, and the touch."""
        return self.gap("page_fault_user", "page_fault_user", only=lambda a, b: a.tid == b.tid)

    def moves(self) -> tuple[float, str]:
        """Tasks that fault on another CPU than before, a CPU and second; and how many that were."""
        moved, seconds = 0, 0.0
        for events in self.runs.values():
            seconds += (events[-1].time - events[0].time) / 1e6
            at: dict[int, int] = {}
            for event in events:
                if event.name == "page_fault_user":
                    moved += at.setdefault(event.tid, event.cpu) != event.cpu
                    at[event.tid] = event.cpu
        said = f"{moved} in {seconds:.1f} s of {CPUS} CPUs"
        say(f"moves of tasks: {said}")
        return moved / seconds / CPUS, said

    def switch(self) -> float:
        """A CPU that spins for acknowledgements gives up the host CPU; the next one takes an IPI."""
        found = [b.time - a.time for events in self.runs.values() for a, b in pairwise(events)
                 if a.kind == "csd_queue_cpu" and b.kind in IPIS and b.cpu == (a.cpu + 1) % CPUS]
        return tell("csd_queue_cpu -> next CPU's call_function entry", found)

    def refill(self) -> float:
        """What reclaim loses after a flush, not after a check only: QEMU's tables are empty."""
        lost = []
        for run, events in self.runs.items():
            found: dict[bool, list[float]] = {False: [], True: []}
            flushed = False
            for a, b in pairwise(events):
                flushed = a.cpu == b.cpu and (flushed or b.kind == FLUSHED)
                if (a.cpu, a.kind, b.kind) == (b.cpu, "csd_function_exit", "mm_vmscan_write_folio"):
                    found[flushed].append(b.time - a.time)
                    flushed = False
            label = f"{run}: csd_function_exit -> mm_vmscan_write_folio, "
            lost.append(tell(label + "flushed", found[True]) - tell(label + "checked", found[False]))
        return sum(lost) / len(lost)

    def ipis(self) -> float:
        """Time of another IPI in a mask: the slope of the medians over the number of bits."""
        found: dict[int, list[float]] = defaultdict(list)
        for run in self.runs:
            for a, b in self.by_kind[run]["ipi_send_cpumask", "csd_function_entry"]:
                mask = re.search(r"cpumask=([0-9a-f,]+)", a.rest)
                assert mask
                found[int(mask[1].replace(",", ""), 16).bit_count()].append(b.time - a.time)
        points = {n: tell(f"ipi_send_cpumask of {n} -> csd_function_entry here", found[n])
                  for n in sorted(found) if len(found[n]) >= 20}
        first, last = min(points), max(points)
        return (points[last] - points[first]) / (last - first)

    def tick(self) -> float:
        """After an IPI, a CPU that spins takes the tick that came meanwhile, then gives up the host CPU."""
        found = []
        for events in self.runs.values():
            waits: dict[int, set[str]] = defaultdict(set)      # call entries that each CPU waits for
            owner: dict[str, int] = {}
            seen: dict[int, int] = {}                          # when a CPU logged last, before it runs now
            for a, b in pairwise(events):
                csd = re.search(r"csd=([0-9a-f]+)", a.rest)
                if csd and a.kind == "csd_queue_cpu":
                    waits[a.cpu].add(csd[1])
                    owner[csd[1]] = a.cpu
                elif csd and a.kind == "csd_function_exit" and csd[1] in owner:
                    waits[owner[csd[1]]].discard(csd[1])
                if a.cpu != b.cpu:
                    if (a.kind == "csd_function_exit" and csd and owner.get(csd[1], a.cpu) != a.cpu
                            and waits[a.cpu] and b.kind in IPIS and b.cpu == (a.cpu + 1) % CPUS
                            and a.time - seen.get(a.cpu, a.time) > PERIOD):
                        found.append(b.time - a.time)
                    seen[a.cpu] = a.time
        return tell("csd_function_exit of a CPU that spins -> next CPU's call_function entry", found)

    def warming(self, fault: float) -> None:
        """How much longer the first faults after a switch take than later ones, with no flush between."""
        for run, events in self.runs.items():
            found: list[list[float]] = [[], [], []]
            for i in range(1, len(events) - 4):
                faults = events[i:i + 4]
                same = {(e.cpu, e.tid, e.kind) for e in faults}
                if len(same) == 1 and faults[0].cpu != events[i - 1].cpu and faults[0].kind == FAULT:
                    for gap, (a, b) in zip(found, pairwise(faults), strict=True):
                        gap.append(b.time - a.time)
            extra = sum(tell(f"{run}: fault {n} after a switch", gap) - fault
                        for n, gap in enumerate(found, 1))
            say(f"  together {extra:.0f} us more than other faults (in no cost)")

    def kicks(self) -> None:
        """When a CPU that runs a task's code has to give up the host CPU: at one phase of a millisecond."""
        work = ("page_fault_user", "mm_vmscan_write_folio")
        for run, events in self.runs.items():
            here = [(a, b) for a, b in pairwise(events) if a.kind in work and b.time - a.time <= 60]
            cuts, ran = [0.0] * BINS, [0.0] * BINS
            for a, b in here:
                for now in range(a.time, max(b.time, a.time + 1)):
                    ran[now % PERIOD * BINS // PERIOD] += 1 / PERIOD
                    cuts[now % PERIOD * BINS // PERIOD] += (a.cpu != b.cpu) / max(1, b.time - a.time)
            mode = max(range(BINS), key=lambda i: cuts[i] / ran[i])
            near = {(mode + i) % BINS for i in (-1, 0, 1)}
            peak, rest = (sum(cuts[i] for i in bins) / sum(ran[i] for i in bins)
                          for bins in (near, set(range(BINS)) - near))
            middle = (2 * mode + 1) * PERIOD // BINS // 2
            left = [a.time + (b.time - a.time) // 2 for a, b in here
                    if a.cpu != b.cpu and b.time - a.time <= 30]
            phases = [(time - middle + PERIOD // 2) % PERIOD - PERIOD // 2 for time in left]
            quarter = [sum(abs(off) <= 100 and time // PERIOD % 4 == q
                           for time, off in zip(left, phases, strict=True)) for q in range(4)]
            say(f"{run}: switches away from a task per ms that tasks ran: {peak:.1f} within "
                f"{1.5 * PERIOD / BINS:g} us of {middle} us of each ms ({peak * 3 / BINS:.2f} each time), "
                f"{rest:.1f} elsewhere; in each ms of 4: {quarter}")
            tell("  of these, off that phase (skewed ticks: 16 of them, 31 us apart)",
                 [off for off in phases if abs(off) <= 100])
            stops = [(a.time, b.time - a.time) for a, b in gaps(events)
                     if a.kind == b.kind == "page_fault_user" and 40 <= b.time - a.time <= 80]
            tell(f"{run}: long gaps between faults: {stop_phases(stops)}", [length for _, length in stops])


def stop_phases(stops: Sequence[tuple[int, int]]) -> str:
    """Where gaps without a switch begin, of 4 ms: the host's own tick (250 Hz), not the guest's."""
    bins = [sum(t % (4 * PERIOD) // 50 == w for t, _ in stops) for w in range(4 * PERIOD // 50)]
    most = max(range(len(bins)), key=bins.__getitem__)
    return f"{bins[most]} at {most * 50} us of each 4 ms, {sum(bins) / len(bins):.1f} in a mean 50 us"


def divide(total: float, vm16: Profile, **parts: float) -> dict[str, float]:
    """`total` [us] as vm16 divides it among costs, each so many times; [ns] of one."""
    scale = 1000 * total / sum(vm16.costs[name] * times for name, times in parts.items())
    say(f"  {total:.2f} us = {scale:.2f} times vm16's " + " + ".join(f"{t:g} {n}" for n, t in parts.items()))
    return {name: scale * vm16.costs[name] for name in parts}


def lists(traces: Traces, vm16: Profile) -> tuple[dict[str, float], float]:
    """Costs of a reclaim's lists but for writing, and how many times vm16's they are."""
    def after(first: str, second: str, folios: Callable[[Event, Event], int], nr: int) -> float:
        return traces.gap(first, second, runs=("after",), note=f", {nr} folios",
                          only=lambda a, b: folios(a, b) == nr)

    unmap = sum(after("mm_vmscan_lru_isolate", SENT, lambda a, b: a.number("nr_taken"), n) for n in SIZES)
    done = sum(after("mm_vmscan_write_folio", "mm_vmscan_lru_shrink_inactive",
                     lambda a, b: b.number("nr_reclaimed"), n) for n in SIZES)
    starts = ("mm_vmscan_memcg_reclaim_begin", *2 * ["mm_vmscan_lru_shrink_inactive"])
    isolate = sum(after(start, "mm_vmscan_lru_isolate", lambda a, b: b.number("nr_taken"), n)
                  for start, n in zip(starts, SIZES, strict=True))
    n = sum(SIZES)
    values = divide(unmap, vm16, scan=n, rmap=n, unmap=n, relock=n)
    values |= divide(done + isolate, vm16, reclaim_prio=3, lru_lock=6, lru_isolate=n, free=n)
    paid = (sum(vm16.costs[x] * n for x in ("scan", "rmap", "unmap", "relock", "lru_isolate", "free"))
            + 3 * vm16.costs["reclaim_prio"] + 6 * vm16.costs["lru_lock"]) / 1000
    return values, (unmap + done + isolate) / paid


def walks() -> dict[str, float]:
    """Costs of MGLRU's walks [ns], of two that differ in how many of their entries are young."""
    entries, us = WALKED_OLD
    entry = us / entries
    entries, young, us = WALKED_YOUNG
    return {"walk_pte": 1000 * entry, "walk_young": 1000 * (us - entries * entry) / young}


def measure(traces: Traces, vm16: Profile) -> tuple[dict[str, tuple[float, str]], float]:
    """(ns, rule) of each cost that the traces hold, and the slowdown of the kernel's code."""
    out: dict[str, tuple[float, str]] = {}

    def put(rule: str, values: dict[str, float]) -> None:
        out.update({name: (ns, rule) for name, ns in values.items()})

    traces.gap("csd_function_exit", "csd_function_entry", note=" (event)")
    fault = traces.fault()
    put("measured: fault to fault, split as vm16's",
        divide(fault - WRITER_THINK_NS / 1000, vm16, walk_warm=7 / 8, walk_cold=1 / 8, fault_entry=1,
               fault_swap=1, zram_read=1))
    charge = sum(traces.gap(*pair) for pair in CHARGE) - fault
    put("measured: a fault that reclaims, less reclaim and fault", {"charge": 1000 * charge})
    put("measured: write to write in a batch, split as vm16's",
        divide(traces.gap("mm_vmscan_write_folio", "mm_vmscan_write_folio", runs=("after",)), vm16,
               pageout=1, zram_write=1))
    values, slowdown = lists(traces, vm16)
    for name, ns in values.items():
        where = ("isolation to flush" if name in ("scan", "rmap", "unmap", "relock")
                 else "list to list, less unmap and write")
        put(f"measured: {where}, split as vm16's", {name: ns})
    put("measured: first event of a flush to its first target, and last target to IPI",
        {"flush_fixed": 1000 * (traces.gap(SENT, "csd_queue_cpu")
                                + traces.gap("csd_queue_cpu", ("ipi_send_cpu", "ipi_send_cpumask")))})
    put("measured: target to target; here the sender's time per target",
        {"csd_ack": 1000 * traces.gap("csd_queue_cpu", "csd_queue_cpu")})
    put("measured: one more IPI of a mask", {"ipi_send": 1000 * traces.ipis()})
    put("measured: vcpu_switch's gap holds it", {"ipi_delivery": 0, "ipi_delivery_cross": 0})
    put("measured: call_function entry to csd entry",
        {"irq_entry": 1000 * traces.gap(IPIS, "csd_function_entry")})
    put("measured: csd exit to the same CPU's next call_function entry (whose start it holds)",
        {"irq_exit": 1000 * traces.gap("csd_function_exit", IPIS)})
    put("measured: csd entry to exit with nothing flushed",
        {"tlb_check": 1000 * (traces.gap("csd_function_entry", CHECKED)
                              + traces.gap(CHECKED, "csd_function_exit"))})
    flush = traces.gap("csd_function_entry", FLUSHED) + traces.gap(FLUSHED, "csd_function_exit")
    put("measured: csd entry to exit with a full flush, and how much later the next write is",
        {"tlb_flush_full": 1000 * (flush + traces.refill())})
    put("measured: walks of MGLRU in such a guest of one CPU", walks())
    switch, leave = 1000 * traces.switch(), out["irq_exit"][0]
    put("measured: a CPU queues its target and spins, to the next CPU's call_function entry",
        {"vcpu_switch": switch})
    put("measured: csd exit on a CPU that spins to the next CPU's, less vcpu_switch, 2 irq_exit",
        {"tick": 1000 * traces.tick() - switch - 2 * leave})
    traces.kicks()
    traces.warming(fault)
    return out, slowdown


AS_VM16 = ("tlb_l2_hit",)

# MGLRU's walks, which the traces do not hold, in such a guest of one CPU and one worker: entries walked, young ones
# of them (/sys/kernel/debug/lru_gen_full) and us (walk_pud_range by function_graph): of the one walk in four runs
# that found none young, and of the first walk of each (20,661, 20,862, 20,901 and 21,374 us; their midmean).
WALKED_OLD, WALKED_YOUNG = (131_329, 5_143), (131_810, 130_783, 20_881)

HEAD = """\
# QEMU's TCG with all virtual CPUs round robin on one host CPU: use it with host_cpus = 1.
#
# Written by `python bench/tcg_rr.py` from the time stamps of two traces of such a guest (16 CPUs, zram, 64
# bytes of data a page). "measured" names the gap, or what else was measured; "vm16 x" is inherited, times the
# measured slowdown of reclaim's code; "as vm16" is inherited as it is. Nothing was fitted to a count.

description = "QEMU TCG guest, virtual CPUs round robin on one host CPU"

[tlb]                      # QEMU's own table is another and resizes itself; a writer's touches hardly use it
l1_entries = {tlb.l1_entries:<13} # as vm16
l1_ways = {tlb.l1_ways:<16} # as vm16
l2_entries = {tlb.l2_entries:<13} # as vm16
l2_ways = {tlb.l2_ways:<16} # as vm16

[scheduler]
hz = 1000                  # measured: tasks lose the host CPU at one phase of each ms
slice_ms = {scheduler.slice_ms:<15} # as vm16
migrations_per_s = {moves[0]:<7.3f} # measured: tasks that fault on another CPU than before, {moves[1]}
kthread_share = {scheduler.kthread_share:<10} # as vm16
kworkers = true            # seen in such a guest: they wait for the ring, and the balancer moves workers for them
cpus_per_socket = {scheduler.cpus_per_socket:<8} # as vm16
skew_tick = false          # measured: all at that phase, whichever CPUs' ticks

[costs]                    # ns
"""


def toml(costs: dict[str, tuple[float, str]], slowdown: float, moves: tuple[float, str], vm16: Profile) -> str:
    lines = [HEAD.format(tlb=vm16.tlb, scheduler=vm16.scheduler, moves=moves)]
    for name in names.COSTS:
        if name in costs:
            ns, source = costs[name]
        elif name in AS_VM16:
            ns, source = vm16.costs[name], "as vm16, which see"
        else:
            ns, source = vm16.costs[name] * slowdown, f"vm16 x {slowdown:.1f}, which see"
        entry = f"{name}_ns = {round(ns, 1 if ns < 100 else -1):.1f}"
        lines.append(f"{entry:<27} # {source}\n")
    return "".join(lines)


def main(before: str, after: str) -> None:
    vm16 = Profile.load("vm16")
    traces = Traces(read(before), read(after))
    costs, slowdown = measure(traces, vm16)
    say(f"slowdown of reclaim's code: {slowdown:.2f} times vm16")
    sys.stdout.write(toml(costs, slowdown, traces.moves(), vm16))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
