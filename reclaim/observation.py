"""`reclaim observe`: a command on a real Linux machine, and what the kernel counted meanwhile.

One run becomes one line of JSON in the format of measured runs (docs/measured.md), which
`reclaim.measured` reads, with the windows ``whole`` and ``steady``.  ``observed`` holds the rest: the
command, what is not known, what could not be read and why, and the samples.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import signal
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from reclaim import __version__, names
from reclaim.errors import CommandError, ObservationError
from reclaim.files import replacing
from reclaim.procfs import INTERRUPT_WRAP, INTERRUPTS, Cgroup, Facts, System, stress_ng_keys

MAX_SAMPLES = 512        # then every other one is dropped and the interval doubles
FIRST_SAMPLE = 0.1       # s: by then a wrapper has moved itself to its cgroup
GRACE = 10.0             # s from a signal passed on to SIGKILL
LOOK = 0.25              # s: how late the end of the command is seen if another thread took its signal
MIN_INTERVAL, MAX_INTERVAL = 0.01, 3600.0

# Signals that end a run early.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_WATCHED = (*_ENDING, signal.SIGCHLD)
_SI_KERNEL = 0x80        # of a signal that the terminal sent to the command as well

# Lists of a window with a number for each CPU.
_PER_CPU = {"tlb_shootdowns": "shootdowns_per_cpu", "function_call_ipis": "ipis_per_cpu"}

# Counters that a line holds even if they are 0: read, and none was counted.
_KNOWN = frozenset(names.COUNTERS)


@dataclass
class Sample:
    """All counters at one moment.

    at : monotonic time [s].
    memcg : of the cgroup that the command was in, by its directory.
    """

    at: float
    vmstat: dict[str, int]
    interrupts: dict[str, dict[int, int]]
    memcg: dict[str, dict[str, int]]


@dataclass
class Run:
    """What `observe` saw.

    line : the line that it stored, or would have.
    status : the command's exit status, as a shell reports it.
    partial : a signal ended it early.
    notes : sentences for the user: what could not be read, what is not known.
    failed : why the line was not stored.
    """

    line: dict[str, Any]
    status: int
    partial: bool
    notes: list[str] = field(default_factory=list)
    failed: OSError | None = None


def observe(command: Sequence[str], file: str, *, interval: float = 1.0, cgroup: str | None = None,
            case: str | None = None, policy: str = "stage0", root: str = "/") -> Run:
    """Run `command`, count, and append one line to `file`.

    Parameters
    ----------
    command : its words.  It keeps stdin, stdout and stderr.
    file : the line is appended whole or not at all.
    interval : between samples [s].
    cgroup : a memory cgroup's directory or path, instead of the command's own.
    case : the line's name.
    policy : which policy of the series the running kernel has.
    root : where /proc and /sys are.

    Raises
    ------
    ObservationError : bad arguments; nothing was run.
    CommandError : the command could not be started; nothing is stored.
    """
    if not command:
        raise ObservationError("give a COMMAND after --")
    if not MIN_INTERVAL <= interval <= MAX_INTERVAL:
        raise ObservationError(f"interval = {interval}: must be {MIN_INTERVAL} to {MAX_INTERVAL:g} s")
    for name, value in (("case", case), ("policy", policy)):
        if value is not None and not (0 < len(value) <= 200 and value.isprintable()):
            raise ObservationError(f"{name} = {value!r}: must be 1 to 200 printable characters")
    _check_target(file)
    system = System(root)
    watch = _Watch(system, system.cgroup_named(cgroup) if cgroup is not None else None, interval)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)    # taken by sigtimedwait, also while storing
    try:
        status, partial = watch.run(command, before)
        line = _line(watch, command, status, partial, case, policy)
        failed = _stored(file, line)
    finally:
        while signal.sigtimedwait(_ENDING, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return Run(line, status if status >= 0 else 128 - status, partial, _notes(line, watch), failed)


class _Watch:
    """A command and its samples."""

    def __init__(self, system: System, cgroup: Cgroup | None, interval: float) -> None:
        self.system, self.named, self.interval = system, cgroup, interval
        self.cgroup = cgroup or system.cgroup_of("self")
        self.samples: list[Sample] = []
        self.notes: list[str] = []
        self.started = datetime.now(UTC)

    def run(self, command: Sequence[str], mask: Iterable[int]) -> tuple[int, bool]:
        """The command's status as `os.waitstatus_to_exitcode` gives it, and whether a signal ended it early.

        mask : the signals that it starts with blocked.
        """
        self._take()
        # Python ignores these two; whoever runs the command may not.
        try:
            child = os.posix_spawnp(command[0], list(command), os.environ, setsigmask=mask,
                                    setsigdef=(signal.SIGPIPE, signal.SIGXFSZ))
        except OSError as err:
            raise CommandError(f"{command[0]}: {err.strerror}", isinstance(err, FileNotFoundError)) from None
        try:
            status, partial = self._wait(child)
        except BaseException:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
            raise
        self._take()
        return status, partial

    def _wait(self, child: int) -> tuple[int, bool]:
        partial, kill_at = False, float("inf")
        due = self.samples[0].at + min(FIRST_SAMPLE, self.interval)
        while True:
            now = time.monotonic()
            told = signal.sigtimedwait(_WATCHED, min(max(0.0, min(due, kill_at) - now), LOOK))
            if told is not None and told.si_signo in _ENDING:
                partial = True
                kill_at = min(kill_at, time.monotonic() + GRACE)
                if told.si_code != _SI_KERNEL:
                    os.kill(child, told.si_signo)
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status), partial
            now = time.monotonic()
            if now >= kill_at:
                os.kill(child, signal.SIGKILL)
                kill_at = float("inf")
            if now >= due:
                self._follow(child)
                self._take()
                first = len(self.samples) <= 2
                due = self.samples[0].at + self.interval if first else max(due + self.interval, now)

    def _follow(self, child: int) -> None:
        """Look where the command is now: a wrapper may have moved it."""
        if self.named is not None:
            return
        now = self.system.cgroup_of(child)
        if now is not None and (self.cgroup is None or now.directory != self.cgroup.directory):
            after = time.monotonic() - self.samples[0].at
            self.notes.append(f"the command was seen in cgroup {now.name} from {after:.1f} s on: memcg "
                              "counters are that cgroup's from then on")
            self.cgroup = now

    def _take(self) -> None:
        memcg = {} if self.cgroup is None else {self.cgroup.directory: self.system.memcg_counts(self.cgroup)}
        self.samples.append(Sample(time.monotonic(), self.system.vmstat(), self.system.interrupts(), memcg))
        if len(self.samples) > MAX_SAMPLES:
            del self.samples[1:-1:2]
            self.interval *= 2

    def memcg_samples(self) -> list[tuple[Sample, dict[str, int]]]:
        """Samples of the last cgroup that could be read: it may be gone before the last one."""
        if self.cgroup is None:
            return []
        found = [(s, s.memcg.get(self.cgroup.directory) or {}) for s in self.samples]
        return [(s, counts) for s, counts in found if counts]


def _grown(first: Mapping[Any, int], last: Mapping[Any, int], wrap: int = 2**64) -> dict[Any, int]:
    """By how much each counter of both has grown; one that wrapped is counted on."""
    return {name: (last[name] - n) % wrap for name, n in first.items() if name in last}


def _window(first: Sample, last: Sample, memcg: Mapping[str, int]) -> dict[str, Any]:
    """A window of the format: the counters' growth between two samples."""
    counters = {name: n for name, n in _grown(first.vmstat, last.vmstat).items() if n or name in _KNOWN}
    window: dict[str, Any] = {"seconds": round(last.at - first.at, 3), "counters": counters}
    for name in INTERRUPTS.values():
        if name not in first.interrupts or name not in last.interrupts:
            continue
        per_cpu = _grown(first.interrupts[name], last.interrupts[name], INTERRUPT_WRAP)
        counters[name] = sum(per_cpu.values())
        if name in _PER_CPU:
            window[_PER_CPU[name]] = list(per_cpu.values())
    counters |= memcg
    return window


def _windows(watch: _Watch) -> dict[str, Any]:
    """``whole``: all of it.  ``steady``: from a third of it to the last sample before the end."""
    samples, of_cgroup = watch.samples, watch.memcg_samples()

    def memcg(first: Sample, last: Sample) -> dict[str, int]:
        inside = [counts for sample, counts in of_cgroup if first.at <= sample.at <= last.at]
        grown = _grown(inside[0], inside[-1]) if len(inside) > 1 else {}
        return {name: n for name, n in grown.items() if n or name in _KNOWN}
    first, last = samples[0], samples[-1]
    windows = {"whole": _window(first, last, memcg(first, last))}
    later = [s for s in samples[1:-1] if s.at - first.at >= (last.at - first.at) / 3]
    if len(later) > 1:
        windows["steady"] = _window(later[0], later[-1], memcg(later[0], later[-1]))
    return windows


def _series(samples: Sequence[Sample]) -> dict[str, Any]:
    """The samples, as growth since the first, of the counters that a simulation has too."""
    counters: dict[str, list[int]] = {}
    for name in sorted(_KNOWN & samples[0].vmstat.keys()):
        values = [s.vmstat.get(name) for s in samples]
        if None not in values:
            counters[name] = [((n or 0) - samples[0].vmstat[name]) % 2**64 for n in values]
    for name, row in samples[0].interrupts.items():
        if all(name in s.interrupts for s in samples):
            counters[name] = [sum(_grown(row, s.interrupts[name], INTERRUPT_WRAP).values()) for s in samples]
    return {"seconds": [round(s.at - samples[0].at, 3) for s in samples],
            "counters": {name: values for name, values in counters.items() if values[-1]}}


def _scenario(facts: Facts, command: Sequence[str], seconds: float) -> dict[str, Any]:
    """The line's scenario: only keys that are known."""
    workload = stress_ng_keys(command)
    if workload is None:
        facts.unknown["workload"] = "only stress-ng's vm stressor alone is understood"
    elif not workload["keep"]:
        facts.unknown["workload"] = "stress-ng without --vm-keep is not modelled"
    else:
        facts.known["workload"] = workload
    return {"seconds": round(min(max(seconds, 1e-3), 9000.0), 3), **facts.known}


def _line(watch: _Watch, command: Sequence[str], status: int, partial: bool, case: str | None,
          policy: str) -> dict[str, Any]:
    facts = watch.system.facts(watch.cgroup)
    windows = _windows(watch)
    missing = [name for name in ("nr_tlb_remote_flush", "pgsteal_anon", "swpin_zero")
               if name not in watch.samples[0].vmstat]
    if watch.samples[0].vmstat:
        why = {"nr_tlb_remote_flush": "no nr_tlb_*: the kernel is built without CONFIG_DEBUG_TLBFLUSH",
               "pgsteal_anon": "no pgsteal_anon: the kernel is older than 5.8",
               "swpin_zero": "no swpin_zero: the kernel is older than 6.12"}
        for name in missing:
            watch.system.unread.setdefault(f"{watch.system.path('/proc/vmstat')} {name}", why[name])
    when = watch.started.strftime("%Y-%m-%dT%H:%M:%SZ")
    word = re.sub(r"[^A-Za-z0-9._-]", "_", os.path.basename(command[0]))[:60]
    line: dict[str, Any] = {
        "case": case or f"observed-{word}-{when}", "policy": policy,
        "source": f"observed: {facts.facts['cpu']}, {facts.facts['cpus_online']} CPUs, kernel "
                  f"{facts.facts['kernel']}, {when}",
        "scenario": _scenario(facts, command, windows["whole"]["seconds"]),
        "repeats": [windows],
    }
    if partial:
        line["partial"] = True
    line["observed"] = {
        "reclaim": __version__, "command": list(command), "status": status, "interval": watch.interval,
        "cgroup": None if watch.cgroup is None else watch.cgroup.name, "facts": facts.facts,
        "unknown": facts.unknown, "unread": watch.system.unread, "notes": watch.notes,
        "samples": _series(watch.samples)}
    return line


def _notes(line: Mapping[str, Any], watch: _Watch) -> list[str]:
    notes = [*watch.notes]
    notes += [f"not read: {path}: {why}" for path, why in line["observed"]["unread"].items()]
    unknown = line["observed"]["unknown"]
    return notes + [f"not known, the line says why: {', '.join(unknown)}"] * bool(unknown)


# --- storing a line

def _check_target(file: str) -> None:
    """Refuse a file that the line could not be appended to, before anything runs."""
    target = os.path.realpath(file)
    folder = os.path.dirname(target)
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        if not os.path.isdir(folder):
            raise ObservationError(f"-o {file}: there is no directory {folder}") from None
        mode = stat.S_IFREG
    except OSError as err:
        raise ObservationError(f"-o {file}: {err.strerror}") from None
    if stat.S_ISDIR(mode):
        raise ObservationError(f"-o {file}: is a directory")
    if os.path.exists(target) and not os.access(target, os.W_OK):
        raise ObservationError(f"-o {file}: no permission to write to it")
    if stat.S_ISREG(mode) and not os.access(folder, os.W_OK):
        raise ObservationError(f"-o {file}: no permission to write in {folder}, where the new file is made")


def _stored(file: str, line: Mapping[str, Any]) -> OSError | None:
    try:
        append_line(file, line)
    except OSError as err:
        return err
    return None


def append_line(file: str, line: Mapping[str, Any]) -> None:
    """Append `line` as JSON to `file`, whole or not at all, whoever else appends and whenever this is killed.

    A copy with the line takes the file's place; its directory is locked meanwhile.

    Raises
    ------
    OSError : the file is as it was.
    """
    text = (json.dumps(line, allow_nan=False) + "\n").encode()
    target = os.path.realpath(file)
    if os.path.exists(target) and not os.path.isfile(target):
        with open(target, "wb", buffering=0) as out:         # a device or a pipe
            out.write(text)
        return
    folder = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        _append(target, text)
        os.fsync(folder)
    finally:
        os.close(folder)


def _append(target: str, text: bytes) -> None:
    """Put a copy of `target` with `text` at its end in its place."""
    with replacing(target) as out:
        if os.path.exists(target):
            found = os.stat(target)
            os.fchmod(out.fileno(), stat.S_IMODE(found.st_mode))
            if os.geteuid() == 0:
                os.fchown(out.fileno(), found.st_uid, found.st_gid)
            with open(target, "rb") as file:
                old = file.read()
            out.write(old if old.endswith(b"\n") or not old else old + b"\n")
        out.write(text)
        out.flush()
        os.fsync(out.fileno())


def summary(file: str, run: Run) -> str:
    """What is said to the user once the line is stored."""
    whole = run.line["repeats"][0]["whole"]
    counters = whole["counters"]
    told = ", ".join(f"{counters[name]:,} {name}"
                     for name in ("pgsteal_anon", "tlb_shootdowns", "function_call_ipis") if name in counters)
    command = shlex.join(run.line["observed"]["command"])
    if len(command) > 60:
        command = command[:57] + "..."
    return (f"{file}: {run.line['case']}: {whole['seconds']:g} s of {command}, {told or 'no counters'} (the "
            f"whole machine's){'; PARTIAL: ended by a signal' if run.partial else ''}")
