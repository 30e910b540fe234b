"""`Scenario`: a machine, its memory, its work and how long, as read from TOML.

``docs/scenario.md`` lists every key.  `Scenario.lower` turns one into a `reclaim.world.World`,
the integers and arrays that the core runs.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from reclaim import units
from reclaim.errors import ScenarioError, did_you_mean
from reclaim.keys import (Fault, Section, Table, boolean, byte_size, check, check_section, choice,
                          integer, key, kinds, number, place, raise_faults, read_toml, show_value, text,
                          time, toml_value, unknown)
from reclaim.machine import Machine, check_costs, is_path
from reclaim.memory import (KERNEL_PAGES, MAX_SIZE, MIN_LIMIT, THREAD_PAGES, Kernel, KernelRules, Memcg, Memory,
                            Swap)
from reclaim.units import PAGE_SIZE

if TYPE_CHECKING:
    from reclaim.world import World

MAX_SECONDS = 9000.0     # the core's clock: signed 64-bit picoseconds, less 10 bits for the CPU
SPARE_FOLIOS = 256       # frames besides the limit's and 64 per task
BALANCE_PS = 16 * 10**9    # busy_factor (16) times 1 ms, for each CPU of the domain: kernel/sched/fair.c get_sd_balance_interval

KINDS = ("stress_ng.vm", "writer", "trace")


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload(Section):
    """What the tasks do; `kind` says which of the other keys are read.

    bytes : size of all mappings together, divided by the workers [bytes].
    """

    kind: str = key("stress_ng.vm", choice(*KINDS))
    workers: int = key(16, integer(1, 4096))
    bytes: int = key(2 << 30, byte_size(PAGE_SIZE, MAX_SIZE))
    keep: bool = key(True, boolean())
    method: str = key("all", text(1, 40))
    madvise: str = key("default", text(1, 40))
    mode: str = key("proc", choice("proc", "thread"))
    pattern: str = key("seq", choice("seq", "rand", "mix"))
    pin: bool = key(False, boolean())
    file: str = key("", text(0, 4096))
    format: str = key("auto", text(1, 40))


SECTIONS: dict[str, type] = {"machine": Machine, "kernel": Kernel, "memcg": Memcg,
                             "memory": Memory, "swap": Swap, "workload": Workload}


def _no_show(value: float) -> float:
    return value


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario(Section):
    """An experiment: everything about it but the policy.

    A section may be given as its dataclass or as a mapping of its keys.

    name : shown in tables.
    seconds : simulated time [s]; a run ends there at the latest.
    touches : stop after that many page touches in all; 0: no such end.
    warmup : counters start after this much simulated time [s], less than `seconds`.
    seed : of every random draw.
    costs : overrides of the profile, ``{"ipi_send_ns": 1000.0}`` [ns].
    published : a table to compare with: ``source``, ``seconds``, ``before`` and ``after``.

    Raises
    ------
    ScenarioError : with every fault found.
    NotModelledError : if all that is wrong is not modelled yet.
    """

    name: str = key("unnamed", text(1, 200))
    seconds: float = key(60.0, time(1e-6, MAX_SECONDS, show=_no_show))
    touches: int = key(0, integer(0, 2**63 - 1))
    warmup: float = key(0.0, time(0.0, MAX_SECONDS, show=_no_show))
    seed: int = key(1, integer(0, 2**64 - 1))
    machine: Machine = field(default_factory=Machine)
    kernel: Kernel = field(default_factory=Kernel)
    memcg: Memcg = field(default_factory=Memcg)
    memory: Memory = field(default_factory=Memory)
    swap: Swap = field(default_factory=Swap)
    workload: Workload = field(default_factory=Workload)
    costs: Mapping[str, float] = field(default_factory=Table)
    published: Mapping[str, Any] = field(default_factory=Table)

    def __post_init__(self) -> None:
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name, value in _check_scenario(data, where="").items():
            object.__setattr__(self, name, value)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The packaged scenarios, sorted."""
        return _packaged_names()

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str]) -> Scenario:
        """The packaged scenario of that name, or the TOML file at that path.

        A relative ``workload.file``, and a relative path in ``machine.profile``, is taken from the directory
        of the file that names it.

        Raises
        ------
        ScenarioError : no such scenario, an unreadable file, or all the faults in it.
        """
        name = os.fspath(name_or_path)
        if name in _packaged_names():
            source = resources.files("reclaim").joinpath("scenarios", f"{name}.toml")
            return cls.from_dict(tomllib.loads(source.read_text("utf-8")), where=f"{name}.toml")
        if not name.endswith(".toml") and os.sep not in name and not os.path.exists(name):
            raise ScenarioError(
                f"unknown scenario {show_value(name)}: neither a packaged name "
                f"({', '.join(_packaged_names())}) nor the path of a TOML file{did_you_mean(name, _packaged_names())}")
        data = read_toml(name, "scenario")
        data.setdefault("name", os.path.basename(name).removesuffix(".toml"))
        scenario = cls.from_dict(data, where=name)
        named = {"workload.file": scenario.workload.file}
        if is_path(scenario.machine.profile):
            named["machine.profile"] = scenario.machine.profile
        return scenario.replace({key_: os.path.join(os.path.dirname(name), path)
                                 for key_, path in named.items() if path})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, where: str = "scenario") -> Scenario:
        """A scenario from nested mappings, as TOML and JSON give them.

        where : what a fault names as the place it was read.
        """
        return cls(**_check_scenario(data, where=where))

    @classmethod
    def for_trace(cls, file: str | os.PathLike[str], *, format: str = "auto") -> Scenario:
        """`small`'s machine replaying the trace `file`, with a limit of half of its pages.

        No kernel memory is charged in advance, so that the limit is the trace's own.

        Raises
        ------
        TraceError : the trace cannot be read.
        """
        from reclaim.workloads import KINDS as COMPILERS
        workload = Workload(kind="trace", workers=1, file=os.fspath(file), format=format)
        distinct = sum(COMPILERS["trace"](workload, seed=1).mm_pages)   # numbered without gaps
        limit = max(MIN_LIMIT, distinct // 2 * PAGE_SIZE)
        return cls.load("small").replace({
            "name": os.path.basename(workload.file), "seconds": MAX_SECONDS, "workload": workload,
            "memcg.limit": limit, "memcg.kernel": 0,
            "memory.total": max(limit, 1 << 30), "swap.size": max(64 << 20, 2 * limit)})

    def replace(self, changes: Mapping[str, Any] | None = None, *, where: str = "replace()",
                **more: Any) -> Scenario:
        """A copy with some keys changed, checked as a whole.

        Keys are dotted or nested: ``replace({"memcg.limit": "64M"}, machine={"cpus": 4})``.

        Raises
        ------
        ScenarioError : as for a new scenario; `where` is named as the place.
        """
        data: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for path, value in {**(changes or {}), **more}.items():
            section, dot, name = path.partition(".")
            nested = {name: value} if dot else value
            old = data.get(section)
            if isinstance(nested, Mapping) and section in data and section not in kinds(type(self)):
                inner = {k: getattr(old, k) for k in kinds(type(old))} if isinstance(old, Section) \
                    else dict(old or {})
                data[section] = inner | dict(nested)
            else:
                data[path if dot else section] = value
        return self.from_dict(data, where=where)

    def to_dict(self) -> dict[str, Any]:
        """Every key, as TOML and JSON hold it; `from_dict` gives an equal scenario."""
        data = {name: kind.show(getattr(self, name)) for name, kind in kinds(type(self)).items()}
        data |= {name: getattr(self, name).to_dict() for name in SECTIONS}
        for name in ("costs", "published"):
            table = Table(getattr(self, name)).to_dict()
            if table:
                data[name] = table
        return data

    def to_toml(self) -> str:
        """The scenario as the text of a TOML file."""
        return "".join(_toml_lines(self.to_dict(), ""))

    def lower(self, seed: int | None = None) -> World:
        """The scenario in integers and arrays, for the core and the twin.

        seed : instead of the scenario's.

        Raises
        ------
        ScenarioError : the work does not fit the machine.
        TraceError : the trace cannot be read.
        """
        from reclaim.workloads import KINDS as COMPILERS
        from reclaim.world import World

        seed = self.seed if seed is None else self.replace(seed=seed, where="seed").seed
        program = COMPILERS[self.workload.kind](self.workload, seed=seed)
        profile = self.machine.load_profile()
        rules, tlb, scheduler = self.kernel.rules, profile.tlb, profile.scheduler
        nr_tasks, limit = len(program.task_mm), self.memcg.limit // PAGE_SIZE
        kernel_pages = self._kernel_pages(program.nr_processes, nr_tasks - len(program.mm_pages))
        if kernel_pages >= limit:
            raise ScenarioError(
                f"memcg.limit = {show_value(units.format_size(self.memcg.limit))}: the kernel memory "
                f"of {program.nr_processes} processes, {kernel_pages} pages, leaves no page of it; "
                "raise the limit, or lower memcg.kernel or workload.workers")
        return World(
            **scheduler.world_fields(self.machine.cpus), nr_cpus=self.machine.cpus,
            pcid=self.machine.pcid,
            l1_sets=tlb.l1_entries // tlb.l1_ways, l1_ways=tlb.l1_ways,
            l2_sets=tlb.l2_entries // tlb.l2_ways, l2_ways=tlb.l2_ways,
            limit=limit, kernel_pages=kernel_pages,
            nr_folios=limit + 64 * nr_tasks + SPARE_FOLIOS,
            nr_slots=0 if self.swap.kind == "none" else self.swap.size // PAGE_SIZE,
            swappiness=self.memcg.swappiness, cgroup=int(self.kernel.cgroup[1:]),
            mask_lazy=self.kernel.mask_lazy, trim=rules.trim,
            swapin_cached=rules.swapin_cached and self.swap.synchronous,
            swap_sync=self.swap.synchronous, io_depth=1 if self.swap.synchronous else self.swap.depth,
            io_latency=round(self.swap.latency * 1e12), io_page=-(-PAGE_SIZE * 10**12 // self.swap.bandwidth),
            pgrefill_global=rules.pgrefill_global, rotational=self.swap.rotates,
            slot_cache=self._slot_cache(rules),
            host_cpus=self.machine.host_cpus, pv_flush=self.machine.pv_flush,
            lru=int(self.kernel.lru == "mglru"), mglru_batch=rules.mglru_batch,
            mglru_stop=rules.mglru_stop, mglru_rework=rules.mglru_rework,
            balance=BALANCE_PS, seed=seed,
            costs=profile.costs.replace(self.costs).to_ps(),
            passes=program.passes, task_mm=program.task_mm,
            task_cpu=tuple(i % self.machine.cpus for i in range(nr_tasks)),
            task_pinned=(self.workload.pin,) * nr_tasks,
            task_first_pass=program.task_first_pass, task_nr_passes=program.task_nr_passes,
            task_loop_to=program.task_loop_to, task_restart=program.task_restart,
            mm_pages=program.mm_pages, mm_recency=program.mm_recency, trace=program.trace)

    def _slot_cache(self, rules: KernelRules) -> bool:
        """Left to the version, only a device whose slot numbers mean something has slot caches."""
        return rules.slot_cache and (self.swap.rotates or self.kernel.slot_cache == "yes")

    def _kernel_pages(self, nr_processes: int, nr_threads: int) -> int:
        """nr_threads: besides the first one of each process."""
        if isinstance(self.memcg.kernel, str):
            return nr_processes * KERNEL_PAGES + nr_threads * THREAD_PAGES
        return -(-self.memcg.kernel // PAGE_SIZE)


@cache
def _packaged_names() -> tuple[str, ...]:
    entries = resources.files("reclaim").joinpath("scenarios").iterdir()
    return tuple(sorted(e.name.removesuffix(".toml") for e in entries if e.name.endswith(".toml")))


def _check_scenario(data: Any, *, where: str) -> dict[str, Any]:
    """The fields of a `Scenario` from what was written.

    Raises
    ------
    ScenarioError : with every fault, each with its place.
    """
    faults: list[Fault] = []
    if not isinstance(data, Mapping):
        raise ScenarioError(f"{where or 'scenario'}: must be a table, got {show_value(data)}")
    scalars = kinds(Scenario)
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name in scalars:
            values[name] = check(name, scalars[name], value, where=where, prefix="", faults=faults)
        elif name in SECTIONS:
            values[name] = _check_part(SECTIONS[name], value, name, where, faults)
        elif name == "costs":
            values[name] = Table(check_costs(value, where=where, faults=faults))
        elif name == "published":
            values[name] = Table(_check_published(value, where, faults))
        else:
            faults.append(unknown(name, [*scalars, *SECTIONS, "costs", "published"],
                                  where=where, prefix=""))
    _check_together(values, where, faults)
    raise_faults(faults)
    return values


def _check_part(cls: type, value: Any, name: str, where: str, faults: list[Fault]) -> Any:
    if isinstance(value, cls):
        return value
    before = len(faults)
    parts = check_section(cls, value, where=where, prefix=name + ".", faults=faults)
    return cls(**parts) if len(faults) == before else None


_METRIC = number(0, 1e18)


def _check_published(data: Any, where: str, faults: list[Fault]) -> dict[str, Any]:
    """The optional table of published values: ``before`` and ``after`` map metrics to numbers."""
    checks = {"source": text(1, 200), "seconds": time(1e-6, 1e9, show=_no_show)}
    known = [*checks, "before", "after"]
    if not isinstance(data, Mapping):
        faults.append(Fault(f"{place(where, 'published')}: must be a table of {', '.join(known)}"))
        return {}
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name in checks:
            values[name] = check(name, checks[name], value, where=where, prefix="published.",
                                 faults=faults)
        elif name in known and isinstance(value, Mapping):
            values[name] = {metric: check(str(metric), _METRIC, number_, where=where,
                                          prefix=f"published.{name}.", faults=faults)
                            for metric, number_ in value.items()}
        elif name in known:
            faults.append(Fault(f"{place(where, 'published.' + name)} = {show_value(value)}: "
                                "must be a table of metric = number"))
        else:
            faults.append(unknown(name, known, where=where, prefix="published."))
    return values


def _check_together(values: dict[str, Any], where: str, faults: list[Fault]) -> None:
    """The rules that hold between keys, for those keys that are themselves right."""
    def value(section: str, name: str) -> Any:
        if section not in values:
            return _default(SECTIONS[section], name)
        return getattr(values[section], name, None)   # None: refused already

    def fault(path: str, shown: Any, rest: str, later: bool = False) -> None:
        faults.append(Fault(f"{place(where, path)} = {show_value(shown)}: {rest}", later))

    seconds, warmup = values.get("seconds", 60.0), values.get("warmup", 0.0)
    if None not in (seconds, warmup) and warmup >= seconds:
        fault("warmup", warmup, f"must be less than seconds, {seconds:g}")
    limit, total, kernel = value("memcg", "limit"), value("memory", "total"), value("memcg", "kernel")
    if None not in (limit, total) and limit > total:
        fault("memcg.limit", units.format_size(limit),
              f"must be {units.format_size(MIN_LIMIT)} to memory.total, {units.format_size(total)}: "
              "kswapd is not modelled, so nothing would reclaim above it")
    if isinstance(kernel, int) and limit is not None and kernel >= limit:
        fault("memcg.kernel", units.format_size(kernel),
              f"must be less than memcg.limit, {units.format_size(limit)}")
    cpus, host_cpus = value("machine", "cpus"), value("machine", "host_cpus")
    if None not in (cpus, host_cpus) and host_cpus > cpus:
        fault("machine.host_cpus", host_cpus, f"must be at most machine.cpus, {cpus}")
    if value("machine", "pv_flush") and host_cpus == 0:
        fault("machine.pv_flush", True, "read only when machine.host_cpus is above 0; "
                                        "set it, or remove this")
    _check_workload(value, fault)


# Kinds whose workers cannot be threads, and why.
_PROCESSES = {"stress_ng.vm": "stress-ng's vm workers are processes, each with a mapping of its own",
              "trace": "the file says which tasks there are; each has an mm of its own"}


def _check_workload(value: Any, fault: Any) -> None:
    kind, workers, nbytes, file = (value("workload", k) for k in ("kind", "workers", "bytes", "file"))
    if kind == "trace":
        if file == "":
            fault("workload.file", "", 'must be the path of a trace when workload.kind is "trace"')
        _check_named(value, fault, "format", "auto", _trace_formats)
    elif kind is not None:
        for name, none in (("file", ""), ("format", "auto")):
            told = value("workload", name)
            if told not in (None, none):
                fault(f"workload.{name}", told, f'read only when workload.kind is "trace", not '
                                                f'"{kind}"; remove it or change the kind')
        if None not in (workers, nbytes) and nbytes < workers * PAGE_SIZE:
            fault("workload.bytes", units.format_size(nbytes),
                  f"must be at least a page of {PAGE_SIZE} bytes for each of {workers} workers")
    if value("swap", "rotational") and value("swap", "kind") == "nvme":
        fault("swap.rotational", True, 'must be false when swap.kind is "nvme"; an asynchronous device '
                                       'that says it rotates is kind = "ssd"')
    if kind in _PROCESSES and value("workload", "mode") == "thread":
        fault("workload.mode", "thread",
              f'must be "proc" when workload.kind is "{kind}": {_PROCESSES[kind]}')
    if kind == "stress_ng.vm":
        _check_stress_ng(value, fault)


def _check_named(value: Any, fault: Any, name: str, default: str,
                 others: Callable[[], Iterable[str]]) -> None:
    """workload.`name` is `default`, which needs no import, or one of `others`."""
    chosen = value("workload", name)
    if chosen not in (None, default):
        choices = (default, *others())
        if chosen not in choices:
            fault(f"workload.{name}", chosen, f"must be one of {', '.join(choices)}"
                                              f"{did_you_mean(chosen, choices)}")


def _trace_formats() -> Iterable[str]:
    from reclaim import formats
    return formats.names()


def _stress_ng(table: str) -> Iterable[str]:
    from reclaim.workloads import stress_ng    # needs NumPy
    names: Iterable[str] = getattr(stress_ng, table)
    return names


def _check_stress_ng(value: Any, fault: Any) -> None:
    _check_named(value, fault, "method", "all", lambda: _stress_ng("METHODS"))
    _check_named(value, fault, "madvise", "default", lambda: _stress_ng("ADVICE"))


def _default(cls: type, name: str) -> Any:
    """The default of key `name` of section `cls`."""
    return next(f.default for f in dataclasses.fields(cls) if f.name == name)


def _toml_lines(table: Mapping[str, Any], path: str) -> list[str]:
    """`table` as lines of TOML: its values, then its tables under ``[path]`` headings."""
    lines = [f"{_toml_key(k)} = {toml_value(v)}\n" for k, v in table.items()
             if not isinstance(v, Mapping)]
    for name, inner in table.items():
        if isinstance(inner, Mapping):
            inner_path = f"{path}.{_toml_key(name)}" if path else _toml_key(name)
            lines += [f"\n[{inner_path}]\n", *_toml_lines(inner, inner_path)]
    return lines


def _toml_key(name: str) -> str:
    bare = name and name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if bare else toml_value(name)
