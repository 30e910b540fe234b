"""What a running Linux tells of itself: counters and facts of /proc, /sys and the cgroup file systems.

Everything is read, nothing is written.  The parsers refuse what they do not know with the file and line;
`System` reads the files below a root, so that tests can make one up.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from reclaim.errors import ObservationError

MAX_FILE = 64 << 20      # bytes; /proc/interrupts of 512 CPUs is about 6 MiB
CHUNK = 1 << 20
MAX_COUNT = 2**64        # counters are unsigned long at most
MAX_CPU = 8192

# Rows of /proc/interrupts by their description (x86 calls them TLB, CAL and RES), and what they are called
# here.  The kernel keeps them in unsigned int, so their differences are taken modulo 2**32.
INTERRUPTS = {"TLB shootdowns": "tlb_shootdowns", "Function call interrupts": "function_call_ipis",
              "Rescheduling interrupts": "rescheduling_ipis"}
INTERRUPT_WRAP = 2**32

# /proc/vmstat and memory.stat mix counters of events with amounts; these are counters.
_EVENTS = re.compile(r"pg(?!table)|pswp|swpin_|swpout_|swap_ra|zswp|allocstall|kswapd_|slabs_scanned|oom_kill"
                     r"|thp_|workingset_(refault|activate|restore|nodereclaim)|nr_tlb_|nr_vmscan_|compact_")
_V1_EVENTS = re.compile(r"pg|workingset_(refault|activate|restore)|pswp")


def is_event(name: str) -> bool:
    """Whether `name` of vmstat or memory.stat counts events."""
    return _EVENTS.match(name) is not None


def parse_counts(text: str, where: str) -> dict[str, int]:
    """``name number`` a line, as vmstat, memory.stat and memory.events hold them.

    Raises
    ------
    ObservationError : with `where` and the line.
    """
    counts: dict[str, int] = {}
    for nr, line in enumerate(text.splitlines(), 1):
        name, _, value = line.partition(" ")
        if not name or not _number(value):
            raise ObservationError(f"{where}:{nr}: expected 'name count', found {_show(line)}")
        if name in counts:
            raise ObservationError(f"{where}:{nr}: {_show(name)} is here a second time")
        counts[name] = int(value)
    return counts


def parse_interrupts(text: str, where: str) -> dict[str, dict[int, int]]:
    """The rows of `INTERRUPTS` in /proc/interrupts: name -> CPU -> count.

    Raises
    ------
    ObservationError : with `where` and the line.
    """
    lines = text.splitlines()
    heads = lines[0].split() if lines else []
    cpus = [int(h[3:]) for h in heads if re.fullmatch(r"CPU[0-9]{1,4}", h)]
    if not cpus or len(cpus) != len(heads) or len(set(cpus)) != len(cpus):
        raise ObservationError(f"{where}:1: expected a heading 'CPU0 CPU1 ...', found "
                               f"{_show(lines[0] if lines else '')}")
    rows: dict[str, dict[int, int]] = {}
    for nr, line in enumerate(lines[1:], 2):
        name = next((n for told, n in INTERRUPTS.items() if line.rstrip().endswith(told)), None)
        if name is None:
            continue
        values = line.partition(":")[2].split()[:len(cpus)]
        if len(values) != len(cpus) or not all(map(_number, values)) or name in rows:
            raise ObservationError(f"{where}:{nr}: expected a count for each of {len(cpus)} CPUs, once, "
                                   f"found {_show(line)}")
        rows[name] = dict(zip(cpus, map(int, values), strict=True))
    return rows


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < MAX_COUNT


def _show(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


@dataclass(frozen=True)
class Cgroup:
    """A memory cgroup: its version, its directory, and what the kernel calls it."""

    version: int
    directory: str
    name: str


def parse_cgroup(text: str, where: str) -> tuple[int, str]:
    """The version and the path of the memory cgroup in /proc/PID/cgroup.

    With the memory controller in a hierarchy of version 1, that; else the one of version 2.

    Raises
    ------
    ObservationError : with `where` and the line, or if neither is there.
    """
    unified = None
    for nr, line in enumerate(text.splitlines(), 1):
        parts = line.split(":", 2)
        if len(parts) != 3 or not parts[0].isdigit() or not parts[2].startswith("/"):
            raise ObservationError(f"{where}:{nr}: expected 'number:controllers:/path', found {_show(line)}")
        if "memory" in parts[1].split(","):
            return 1, parts[2]
        if parts[0] == "0" and not parts[1]:
            unified = parts[2]
    if unified is None:
        raise ObservationError(f"{where}: neither a memory controller of cgroup v1 nor a cgroup v2")
    return 2, unified


def parse_mounts(text: str, where: str) -> list[tuple[int, str, str]]:
    """Where memory cgroups are mounted, from mountinfo: version, root within the hierarchy, mount point."""
    found = []
    for nr, line in enumerate(text.splitlines(), 1):
        left, dash, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        if not dash or len(fields) < 6 or len(kind) < 3:
            raise ObservationError(f"{where}:{nr}: expected a line of mountinfo, found {_show(line)}")
        root, point = (re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8) & 0xff), f) for f in fields[3:5])
        if kind[0] == "cgroup2":
            found.append((2, root, point))
        elif kind[0] == "cgroup" and "memory" in kind[2].split(","):
            found.append((1, root, point))
    return found


@dataclass
class Facts:
    """What the machine is.

    known : keys of a scenario, nested.
    unknown : dotted key -> why it is not known.
    facts : everything else worth a line, by name.
    """

    known: dict[str, Any] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def put(self, path: str, value: Any) -> None:
        """Set the key `path` of the scenario."""
        section, _, name = path.partition(".")
        self.known.setdefault(section, {})[name] = value


class System:
    """The files of a running Linux, or of a directory that looks like one.

    unread : file -> why, of what could not be read or understood.
    """

    def __init__(self, root: str = "/") -> None:
        self.root = root
        self.unread: dict[str, str] = {}

    def path(self, path: str) -> str:
        """`path` below the root."""
        return os.path.join(self.root, path.lstrip("/"))

    def read(self, path: str) -> str:
        """The text of a file.

        Raises
        ------
        OSError : it cannot be read.
        ObservationError : it is too long, or not text.
        """
        raw = b""
        # A FIFO must not hang; /proc/sys refuses a read as long as the longest file.
        fd = os.open(self.path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            while len(raw) <= MAX_FILE and (more := os.read(fd, CHUNK)):
                raw += more
        finally:
            os.close(fd)
        if path.endswith(".gz"):
            try:
                raw = zlib.decompressobj(wbits=31).decompress(raw, MAX_FILE + 1)
            except zlib.error as err:
                raise ObservationError(f"{self.path(path)}: not gzip: {err}") from None
        if len(raw) > MAX_FILE:
            raise ObservationError(f"{self.path(path)}: longer than {MAX_FILE} bytes")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as err:
            raise ObservationError(f"{self.path(path)}: not UTF-8 at byte {err.start}") from None

    def get(self, path: str, parse: Callable[[str, str], Any]) -> Any:
        """What `parse` makes of a file; None, and an entry in `unread`, if that cannot be."""
        try:
            return parse(self.read(path), self.path(path))
        except OSError as err:
            self.unread.setdefault(self.path(path), err.strerror or str(err))
        except ObservationError as err:
            self.unread.setdefault(self.path(path), str(err).removeprefix(self.path(path)).lstrip(": "))
        return None

    def line(self, path: str) -> str | None:
        """The first line of a small file; None if it cannot be read, which is nobody's fault."""
        try:
            return next(iter(self.read(path).splitlines()), "").strip()
        except (OSError, ObservationError):
            return None

    # --- cgroups

    def mounts(self) -> list[tuple[int, str, str]]:
        """Where memory cgroups are mounted."""
        return self.get("/proc/self/mountinfo", parse_mounts) or []

    def cgroup_of(self, pid: int | str) -> Cgroup | None:
        """The memory cgroup of a process; None if it cannot be told or is not mounted."""
        where = f"/proc/{pid}/cgroup"
        try:
            version, name = parse_cgroup(self.read(where), self.path(where))
        except OSError:              # it has gone
            return None
        except ObservationError as err:
            self.unread.setdefault(self.path(where), str(err))
            return None
        for mounted, root, point in self.mounts():
            base = root.rstrip("/")
            if mounted == version and (name + "/").startswith(base + "/") and "/../" not in name + "/":
                return Cgroup(version, self.path(os.path.join(point, name[len(base):].lstrip("/"))), name)
        self.unread.setdefault(self.path(where),
                               f"{name} of cgroup v{version} is not mounted where it can be read")
        return None

    def cgroup_named(self, name: str) -> Cgroup:
        """The memory cgroup of that directory, or of that path below the mount point.

        Raises
        ------
        ObservationError : there is none.
        """
        tried = []
        for version, _, point in self.mounts():
            mount = os.path.normpath(self.path(point))
            below = os.path.normpath(os.path.join(mount, name.lstrip("/")))
            for directory in (os.path.normpath(name), below):
                if directory == mount or directory.startswith(mount + "/"):
                    if os.path.isfile(os.path.join(directory, "memory.stat")):
                        return Cgroup(version, directory, directory[len(mount):] or "/")
                    tried.append(directory)
        raise ObservationError(f"--cgroup {name}: no memory cgroup: " + (
            "no memory.stat in " + " or ".join(dict.fromkeys(tried)) if tried
            else "no memory cgroups are mounted"))

    def memcg_counts(self, cgroup: Cgroup) -> dict[str, int]:
        """Counters of events of a cgroup and its descendants, as ``memcg_<name>``."""
        def read(name: str) -> dict[str, int]:
            path = os.path.join(cgroup.directory, name)
            return self.get(os.path.relpath(path, self.root), parse_counts) or {}
        stat = read("memory.stat")
        if cgroup.version == 1:
            counts = {name.removeprefix("total_"): n for name, n in stat.items() if name.startswith("total_")}
            counts = {name: n for name, n in (counts or stat).items() if _V1_EVENTS.match(name)}
            counts |= {name: n for name, n in read("memory.oom_control").items() if name == "oom_kill"}
        else:
            counts = {name: n for name, n in stat.items() if is_event(name)} | read("memory.events")
        return {f"memcg_{name}": n for name, n in counts.items()}

    def limit(self, cgroup: Cgroup) -> int | None:
        """The least limit of a cgroup and those above it, in bytes; None: none, or none that can be read."""
        files = {1: "memory.limit_in_bytes", 2: "memory.max"}
        limits, directory = [], cgroup.directory
        while os.path.isfile(os.path.join(directory, files[cgroup.version])):
            told = self.line(os.path.relpath(os.path.join(directory, files[cgroup.version]), self.root)) or ""
            if _number(told):
                limits.append(int(told))
            directory = os.path.dirname(directory)
        # "No limit" of version 1 is the largest multiple of the page size in a long.
        return min((n for n in limits if n < 2**62), default=None)

    # --- counters of the machine

    def vmstat(self) -> dict[str, int]:
        """Counters of events of /proc/vmstat."""
        counts = self.get("/proc/vmstat", parse_counts) or {}
        return {name: n for name, n in counts.items() if is_event(name)}

    def interrupts(self) -> dict[str, dict[int, int]]:
        """The rows of `INTERRUPTS`, per CPU."""
        return self.get("/proc/interrupts", parse_interrupts) or {}

    # --- facts

    def cpu(self) -> dict[str, str]:
        """The first processor of /proc/cpuinfo."""
        text = self.get("/proc/cpuinfo", lambda text, where: text) or ""
        pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
        return {name.strip(): value.strip() for name, _, value in pairs}

    def online(self) -> list[int]:
        """The CPUs that are online."""
        told = self.line("/sys/devices/system/cpu/online")
        if told is None or not re.fullmatch(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*", told):
            return []
        found: set[int] = set()
        for part in told.split(","):
            low, _, high = part.partition("-")
            if int(high or low) < MAX_CPU:
                found.update(range(int(low), int(high or low) + 1))
        return sorted(found)

    def release(self) -> str:
        """The kernel's release, as ``6.18.44-generic``."""
        return self.line("/proc/sys/kernel/osrelease") or "unknown"

    def config_hz(self) -> int | None:
        """CONFIG_HZ, if the kernel's configuration can be read."""
        for path in ("/proc/config.gz", f"/boot/config-{self.release()}"):
            try:
                found = re.search(r"^CONFIG_HZ=([0-9]{1,6})$", self.read(path), re.M)
            except (OSError, ObservationError):
                continue
            if found:
                return int(found[1])
        return None

    def facts(self, cgroup: Cgroup | None) -> Facts:
        """What the machine is, in keys of a scenario where they can be known."""
        found = Facts()
        self._cpu_facts(found)
        self._kernel_facts(found)
        self._memory_facts(found, cgroup)
        self._swap_facts(found)
        return found

    def _cpu_facts(self, found: Facts) -> None:
        cpu, online = self.cpu(), self.online()
        flags = cpu.get("flags", "").split()
        found.facts["cpu"] = cpu.get("model name", "unknown")
        found.facts["cpus_online"] = len(online) or "unknown"
        if online and len(online) <= 512:
            found.put("machine.cpus", len(online))
        else:
            found.unknown["machine.cpus"] = (f"/sys/devices/system/cpu/online names {len(online)} CPUs, "
                                             "not 1 to 512")
        if flags:
            found.put("machine.pcid", "pcid" in flags)
        else:
            found.unknown["machine.pcid"] = "/proc/cpuinfo has no flags"
        found.facts["hypervisor"] = "hypervisor" in flags if flags else "unknown"
        if "hypervisor" in flags:
            found.unknown["machine.host_cpus"] = "a virtual machine cannot see how its host runs it"
        found.unknown["machine.profile"] = "costs are not seen in counters: reclaim calibrate measures some"

    def _kernel_facts(self, found: Facts) -> None:
        from reclaim.memory import VERSIONS
        release = self.release()
        found.facts["kernel"] = release
        found.facts["hz"] = self.config_hz() or "unknown"
        version = ".".join(release.split(".")[:2])
        if version in VERSIONS:
            found.put("kernel.version", version)
        else:
            found.unknown["kernel.version"] = f"{release} is none of {', '.join(VERSIONS)}"
            found.unknown["kernel.mm_cpumask"] = "known for those versions only"
        lru_gen = self.line("/sys/kernel/mm/lru_gen/enabled")
        found.facts["lru_gen"] = lru_gen or "absent"
        if lru_gen is None or re.fullmatch(r"0x[0-9a-fA-F]{1,8}", lru_gen):
            found.put("kernel.lru", "mglru" if int(lru_gen or "0", 16) & 1 else "classic")
        else:
            found.unknown["kernel.lru"] = f"/sys/kernel/mm/lru_gen/enabled holds {_show(lru_gen)}"
        thp = self.line("/sys/kernel/mm/transparent_hugepage/enabled")
        found.facts["thp"] = thp or "absent"
        if thp is None or "[never]" in thp:
            found.put("kernel.thp", False)
        else:
            found.unknown["kernel.thp"] = f"{_show(thp)} lets some pages be huge, which is not modelled"

    def _memory_facts(self, found: Facts, cgroup: Cgroup | None) -> None:
        from reclaim.memory import MAX_SIZE, MIN_LIMIT
        from reclaim.units import format_size
        total = re.search(r"^MemTotal: +([0-9]{1,15}) kB$",
                          self.get("/proc/meminfo", lambda text, where: text) or "", re.M)
        ram = int(total[1]) << 10 if total else None
        if ram is not None and 1 << 20 <= ram <= MAX_SIZE:
            found.put("memory.total", format_size(ram))
        else:
            found.unknown["memory.total"] = "/proc/meminfo has no MemTotal of 1M to 1T"
        swappiness = self.line("/proc/sys/vm/swappiness")
        limit = None
        if cgroup is None:
            found.unknown["kernel.cgroup"] = "the command's memory cgroup was not found"
        else:
            found.put("kernel.cgroup", f"v{cgroup.version}")
            if cgroup.version == 1:
                own = os.path.relpath(os.path.join(cgroup.directory, "memory.swappiness"), self.root)
                swappiness = self.line(own) or swappiness
            limit = self.limit(cgroup)
        if limit is None:
            found.unknown["memcg.limit"] = "the cgroup has none that could be read"
        elif not MIN_LIMIT <= limit <= (ram or MAX_SIZE):
            found.unknown["memcg.limit"] = f"{limit} bytes is not within {MIN_LIMIT} and the machine's memory"
        else:
            found.put("memcg.limit", format_size(limit))
        found.facts["swappiness"] = swappiness or "unknown"
        if swappiness is not None and _number(swappiness) and int(swappiness) <= 200:
            found.put("memcg.swappiness", int(swappiness))
        else:
            found.unknown["memcg.swappiness"] = "/proc/sys/vm/swappiness could not be read"

    def _swap_facts(self, found: Facts) -> None:
        from reclaim.units import format_size
        devices = self.get("/proc/swaps", self._parse_swaps)
        found.facts["swaps"] = "unknown" if devices is None else devices
        zswap = self.line("/sys/module/zswap/parameters/enabled")
        found.facts["zswap"] = zswap or "absent"
        if devices is None:
            found.unknown["swap.kind"] = "/proc/swaps could not be read"
            return
        kinds = {(d["kind"], d["rotational"]) for d in devices}
        if zswap == "Y" and devices:
            found.unknown["swap.kind"] = "zswap is on, which is not modelled"
        elif not devices:
            found.put("swap.kind", "none")
        elif len(kinds) > 1:
            found.unknown["swap.kind"] = "there are devices of several kinds"
        else:
            ((kind, rotational),) = kinds
            if kind == "unknown":
                found.unknown["swap.kind"] = f"{devices[0]['name']} is on no device that /sys describes"
            else:
                found.put("swap.kind", kind)
            if kind == "ssd":
                found.put("swap.rotational", rotational)
            if kind in ("ssd", "nvme"):
                for name in ("depth", "latency", "bandwidth"):
                    found.unknown[f"swap.{name}"] = "not measured"
        if devices:
            found.put("swap.size", format_size(sum(d["bytes"] for d in devices)))

    def _parse_swaps(self, text: str, where: str) -> list[dict[str, Any]]:
        """The devices of /proc/swaps: name, type, bytes, kind as a scenario names it, whether it rotates."""
        devices = []
        for nr, line in enumerate(text.splitlines()[1:], 2):
            fields = line.split()
            if len(fields) != 5 or not _number(fields[2]) or int(fields[2]) > 2**40:
                raise ObservationError(f"{where}:{nr}: expected 'name type size used priority', found "
                                       + _show(line))
            name = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8) & 0xff), fields[0])
            kind, rotational = self._device_kind(name)
            devices.append({"name": name, "type": fields[1], "bytes": int(fields[2]) << 10, "kind": kind,
                            "rotational": rotational})
        return devices

    def _device_kind(self, name: str) -> tuple[str, bool]:
        block = os.path.basename(name) if name.startswith("/dev/") else self._holder(name)
        if block.startswith("zram"):
            return "zram", False
        if block.startswith("nvme"):
            return "nvme", False
        for up in ("", "/.."):       # a partition's queue is its disk's
            told = self.line(f"/sys/class/block/{block}{up}/queue/rotational") if block else None
            if told in ("0", "1"):
                return "ssd", told == "1"
        return "unknown", False

    def _holder(self, name: str) -> str:
        """The block device that holds the file `name`, as /sys calls it; empty if that cannot be told."""
        try:
            dev = os.stat(self.path(name)).st_dev
            at = os.path.realpath(self.path(f"/sys/dev/block/{os.major(dev)}:{os.minor(dev)}"), strict=True)
            return os.path.basename(at)
        except OSError:
            return ""


def stress_ng_keys(command: Iterable[str]) -> dict[str, Any] | None:
    """The section [workload] of a stress-ng command that runs the vm stressor alone; None for any other."""
    from reclaim.units import format_size, parse_size
    words = list(command)
    if not words or os.path.basename(words[0]) != "stress-ng":
        return None
    keys: dict[str, tuple[str, Callable[[str], Any] | None]] = {
        "--vm": ("workers", int), "-m": ("workers", int), "--vm-bytes": ("bytes", parse_size),
        "--vm-method": ("method", str), "--vm-madvise": ("madvise", str), "--vm-keep": ("keep", None)}
    other = {"--timeout": 1, "-t": 1, "--metrics": 0, "--metrics-brief": 0, "-M": 0, "--quiet": 0, "-q": 0,
             "--yaml": 1, "-Y": 1, "--times": 0, "--verbose": 0, "-v": 0}
    found: dict[str, Any] = {"kind": "stress_ng.vm", "keep": False}
    rest = iter(words[1:])
    for word in rest:
        name, equals, value = word.partition("=")
        if name in keys:
            target, read = keys[name]
            try:
                found[target] = True if read is None else read(value if equals else next(rest))
            except (ValueError, StopIteration):
                return None
        elif name in other:
            if other[name] and not equals:
                next(rest, None)
        else:
            return None
    if found.get("workers", 0) < 1 or "bytes" not in found:
        return None
    return found | {"bytes": format_size(found["bytes"])}
