"""``csv``, ``vmstat``, ``interrupts``: counters at the end or at intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reclaim.exports import FileKind, FileSink, Sample
from reclaim.names import COUNTERS

if TYPE_CHECKING:
    from reclaim.result import Result

PS_PER_S = 10**12
PARTS = 100               # rows of a csv file whose interval was left open

# /proc/vmstat's names in its order (mm/vmstat.c), so far as the model has them; those of the file LRU,
# which is empty, are left out, and so are those that cgroup reclaim does not count there.
VMSTAT = (
    "nr_zone_inactive_anon", "nr_zone_active_anon", "nr_inactive_anon", "nr_active_anon", "nr_isolated_anon",
    "workingset_refault_anon", "workingset_activate_anon", "workingset_restore_anon", "nr_anon_pages",
    "nr_writeback", "nr_vmscan_write", "nr_swapcached", "pswpin", "pswpout", "pgactivate", "pgdeactivate",
    "pgfault", "pgmajfault", "pgrefill", "pgreuse", "pgscan_anon", "pgscan_file", "pgsteal_anon",
    "pgsteal_file", "pgrotated", "oom_kill", "nr_tlb_remote_flush", "nr_tlb_remote_flush_received",
    "nr_tlb_local_flush_all", "nr_tlb_local_flush_one", "swap_ra", "swap_ra_hit", "swpin_zero", "swpout_zero",
)
_OURS = {"oom_kill": "memcg_oom_kill"}
_NONE = ("pgscan_file", "pgsteal_file")

# Rows of /proc/interrupts (arch/x86/kernel/irq.c) in its order.
INTERRUPTS = {"LOC": "Local timer interrupts", "CAL": "Function call interrupts", "TLB": "TLB shootdowns"}


def seconds(at: int) -> str:
    """A time [ps] in seconds, with what digits it needs."""
    whole, part = divmod(at, PS_PER_S)
    return f"{whole}.{part:012d}".rstrip("0").rstrip(".")


class _Sampled(FileSink):
    """One of these at the end; with --every also at the start and at intervals, each after its time."""

    def sampling(self) -> tuple[int, int]:
        return 0, self.about.every or self.about.end

    def sample(self, sample: Sample) -> None:
        text = self.snapshot(sample)
        if self.about.every:
            self.write(f"time: {seconds(sample.at)}\n{text}")
        else:                       # the last one stays
            self.file.seek(0)
            self.file.truncate()
            self.write(text)

    def snapshot(self, sample: Sample) -> str:
        """As the file in /proc prints it."""
        raise NotImplementedError

    def finish(self, result: Result, at: int) -> None:
        pass


class VmstatSink(_Sampled):
    """``name count`` a line."""

    def snapshot(self, sample: Sample) -> str:
        known = {**sample.counters, **sample.amounts, **dict.fromkeys(_NONE, 0)}
        return "".join(f"{name} {known[_OURS.get(name, name)]}\n" for name in VMSTAT)


class InterruptsSink(_Sampled):
    """A heading, then a row for each kind."""

    def snapshot(self, sample: Sample) -> str:
        lines = [" " * 11 + "".join(f"CPU{c:<8d}" for c in range(self.about.nr_cpus))]
        lines += [f"{name}: " + "".join(f"{count:10d} " for count in sample.interrupts[name]) + f"  {told}"
                  for name, told in INTERRUPTS.items()]
        return "".join(line + "\n" for line in lines)


class CsvSink(FileSink):
    """A row a sample: the time, then every counter since the start, then the amounts."""

    def sampling(self) -> tuple[int, int]:
        return 0, self.about.every or max(1, self.about.end // PARTS)

    def sample(self, sample: Sample) -> None:
        if not self.file.tell():
            self.write(",".join(["time_s", *COUNTERS, *sample.amounts]) + "\n")
        values = [*(sample.counters[name] for name in COUNTERS), *sample.amounts.values()]
        self.write(",".join([seconds(sample.at), *map(str, values)]) + "\n")

    def finish(self, result: Result, at: int) -> None:
        pass


class VmstatKind(FileKind):
    """/proc/vmstat."""

    name, sink = "vmstat", VmstatSink
    what = "/proc/vmstat at the end; with --every a stream of snapshots"


class InterruptsKind(FileKind):
    """/proc/interrupts."""

    name, sink = "interrupts", InterruptsSink
    what = "/proc/interrupts, likewise"


class CsvKind(FileKind):
    """Counters in a table."""

    name, sink = "csv", CsvSink
    what = "all counters, a row every hundredth of the run or --every"


KINDS = (VmstatKind(), InterruptsKind(), CsvKind())
