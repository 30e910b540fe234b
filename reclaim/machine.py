"""The machine: the section ``[machine]`` of a scenario, and the profiles it names.

A profile is ``profiles/NAME.toml`` of the package: TLB geometry, scheduler and costs.
"""

from __future__ import annotations

import functools
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from reclaim import names
from reclaim.errors import ScenarioError, did_you_mean
from reclaim.keys import (Fault, Kind, Section, boolean, check, check_section, integer, key, kinds,
                          number, place, raise_faults, read_toml, text, unknown)

COST_KIND = number(0, 1e9)   # ns: up to a second
COST_KEYS = tuple(f"{name}_ns" for name in names.COSTS)


@functools.cache
def profile_names() -> tuple[str, ...]:
    """The packaged profiles, sorted."""
    entries = resources.files("reclaim").joinpath("profiles").iterdir()
    return tuple(sorted(e.name.removesuffix(".toml") for e in entries if e.name.endswith(".toml")))


def is_path(profile: str) -> bool:
    """Whether `profile` names a file, not a packaged profile."""
    return profile.endswith(".toml") or os.sep in profile


def _profile_kind() -> Kind:
    def parse(value: Any) -> str:
        if not isinstance(value, str) or not value.isprintable() or (
                value not in profile_names() and not is_path(value)):
            raise ValueError(did_you_mean(value, profile_names()) if isinstance(value, str) else "")
        return str(value)
    return Kind(parse, "a packaged profile, " + ", ".join(f'"{name}"' for name in profile_names())
                + ", or the path of a TOML file")


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine(Section):
    """The simulated machine.

    profile : where its TLBs, scheduler and costs come from.
    cpus : CPUs, 1 to 512.
    pcid : whether a switch of mm keeps the TLB; without it every switch is a full flush.
    host_cpus : host CPUs that run the CPUs in turn; 0: each has its own.
    pv_flush : the host flushes for a CPU that it does not run, which gets no IPI (kvm_flush_tlb_multi).
    """

    profile: str = key("vm16", _profile_kind())
    cpus: int = key(16, integer(1, 512))
    pcid: bool = key(True, boolean())
    host_cpus: int = key(0, integer(0, 512))
    pv_flush: bool = key(False, boolean())

    def load_profile(self) -> Profile:
        """The profile that `profile` names."""
        return Profile.load(self.profile)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tlb(Section):
    """Geometry of a CPU's data TLBs, in 4 KiB entries; entries / ways is a power of two."""

    l1_entries: int = key(64, integer(1, 65536))
    l1_ways: int = key(4, integer(1, 65536))
    l2_entries: int = key(1536, integer(1, 65536))
    l2_ways: int = key(12, integer(1, 65536))

    def __post_init__(self) -> None:
        Section.__post_init__(self)
        for level in ("l1", "l2"):
            entries, ways = getattr(self, f"{level}_entries"), getattr(self, f"{level}_ways")
            sets = entries // ways
            if entries % ways or sets & (sets - 1):
                raise ScenarioError(f"tlb.{level}_entries = {entries}, tlb.{level}_ways = {ways}: "
                                    "entries / ways must be a power of two")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheduler(Section):
    """Ticks and time slices.

    hz : ticks a second and CPU.
    slice_ms : time slice [ms]; rounded to ticks, one at least.
    migrations_per_s : moves of running tasks, per CPU, that no mechanism here makes (other tasks come and
        go). A tick draws a push; where every CPU is busy a second move answers it: half as many pushes.
    kthread_share : how often a wake-up finds a kernel thread on its idle CPU, and goes to another idle one.
    kworkers : kernel threads bound to a CPU take a place in its run queue and time of it: vmstat_update, the
        notification of memory.events, vmpressure; false: only drain_local_stock preempts a task.
    cpus_per_socket : CPU c is on socket c // cpus_per_socket.
    skew_tick : CPU c's ticks come c / cpus of half a tick later (the boot parameter), not all at once.
    """

    hz: int = key(1000, integer(1, 100_000))
    slice_ms: float = key(3.0, number(0, 10_000))
    migrations_per_s: float = key(0.0, number(0, 100_000))
    kthread_share: float = key(0.01, number(0, 1))
    kworkers: bool = key(True, boolean())
    cpus_per_socket: int = key(16, integer(1, 512))
    skew_tick: bool = key(False, boolean())

    @property
    def tick_ps(self) -> int:
        """Length of a tick [ps]."""
        return 10**12 // self.hz

    @property
    def slice_ticks(self) -> int:
        """Length of a time slice in ticks."""
        return max(1, round(self.slice_ms * self.hz / 1000))

    @property
    def migrate_threshold(self) -> int:
        """A tick pushes its task to another CPU if a 64-bit draw is below it."""
        return min(2**64 - 1, int(self.migrations_per_s / 2 * (self.tick_ps / 1e12) * 2**64))

    @property
    def busy_threshold(self) -> int:
        """A wake-up finds a kernel thread on its CPU if a 64-bit draw is below it."""
        return min(2**64 - 1, int(self.kthread_share * 2**64))

    def world_fields(self, cpus: int) -> dict[str, Any]:
        """The fields of a `World` of that many CPUs that this section sets."""
        return {"cpus_per_socket": self.cpus_per_socket, "tick": self.tick_ps,
                "tick_skew": self.tick_ps // 2 // cpus if self.skew_tick else 0,
                "slice_ticks": self.slice_ticks, "migrate_threshold": self.migrate_threshold,
                "busy_threshold": self.busy_threshold, "kworkers": self.kworkers}


@dataclass(frozen=True, slots=True)
class Costs:
    """What each operation costs, one number per name of `reclaim.names.COSTS`.

    ns : nanoseconds, in the order of `reclaim.names.COSTS`.
    """

    ns: tuple[float, ...]

    def __getitem__(self, name: str) -> float:
        """Nanoseconds of the cost `name`, as ``costs["ipi_send"]``."""
        return self.ns[names.COSTS.index(name)]

    def replace(self, overrides: Mapping[str, float]) -> Costs:
        """A copy with the entries ``<name>_ns`` of `overrides` [ns] put in."""
        return Costs(tuple(overrides.get(name, ns)
                           for name, ns in zip(COST_KEYS, self.ns, strict=True)))

    def to_ps(self) -> tuple[int, ...]:
        """Whole picoseconds, as the core takes them."""
        return tuple(round(ns * 1000) for ns in self.ns)


def check_costs(data: Any, *, where: str, faults: list[Fault]) -> dict[str, float]:
    """The entries ``<name>_ns`` of `data` [ns], with a fault for each that is refused."""
    if not isinstance(data, Mapping):
        faults.append(Fault(f"{place(where, 'costs')}: must be a table of <name>_ns = nanoseconds"))
        return {}
    values = {}
    for name, value in data.items():
        if name in COST_KEYS:
            values[name] = check(name, COST_KIND, value, where=where, prefix="costs.", faults=faults)
        else:
            hint = did_you_mean(name, COST_KEYS) or "; every profile lists the names"
            faults.append(Fault(f"{place(where, f'costs.{name}')}: unknown cost{hint}"))
    return values


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """A machine profile: all that a scenario does not say about the hardware."""

    name: str
    description: str
    tlb: Tlb
    scheduler: Scheduler
    costs: Costs

    @classmethod
    def load(cls, name: str) -> Profile:
        """The packaged profile `name`, or the one in the TOML file of that path.

        Raises
        ------
        ScenarioError : there is none of that name, or its file has faults.
        """
        if is_path(name):
            return cls.from_dict(read_toml(name, "profile"), name=name, where=name)
        if name not in profile_names():
            raise ScenarioError(f"unknown profile {name!r}{did_you_mean(name, profile_names())} "
                                f"(profiles: {', '.join(profile_names())}, or the path of a TOML file)")
        return _load_profile(name)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, name: str, where: str) -> Profile:
        """A profile from parsed TOML; it must give every cost.

        Raises
        ------
        ScenarioError : with all its faults.
        """
        faults: list[Fault] = []
        sections: dict[str, type] = {"tlb": Tlb, "scheduler": Scheduler}
        known = ["description", *sections, "costs"]
        faults += [unknown(k, known, where=where, prefix="") for k in data if k not in known]
        description = check("description", text(1, 200), data.get("description", ""), where=where,
                            prefix="", faults=faults)
        values = {}
        for section, kind in sections.items():
            values[section] = check_section(kind, data.get(section, {}), where=where,
                                            prefix=section + ".", faults=faults)
            faults += [Fault(f"{place(where, section)}.{k}: missing")
                       for k in kinds(kind) if k not in data.get(section, {})]
        costs = check_costs(data.get("costs", {}), where=where, faults=faults)
        faults += [Fault(f"{place(where, 'costs')}.{k}: missing") for k in COST_KEYS if k not in costs]
        raise_faults(faults)
        return cls(name=name, description=description, tlb=Tlb(**values["tlb"]),
                   scheduler=Scheduler(**values["scheduler"]),
                   costs=Costs(tuple(costs[k] for k in COST_KEYS)))


@functools.cache
def _load_profile(name: str) -> Profile:
    path = resources.files("reclaim").joinpath("profiles", f"{name}.toml")
    return Profile.from_dict(tomllib.loads(path.read_text("utf-8")), name=name, where=f"{name}.toml")
