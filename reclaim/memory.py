"""The sections ``[kernel]``, ``[memcg]``, ``[memory]`` and ``[swap]`` of a scenario."""

from __future__ import annotations

from dataclasses import dataclass, replace

from reclaim.keys import Section, boolean, byte_size, choice, integer, key, time
from reclaim.units import PAGE_SIZE

MIN_LIMIT = 1 << 16      # bytes: sixteen pages
MAX_SIZE = 1 << 40       # bytes: every frame, page and slot number fits 32 bits with room


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelRules:
    """What a kernel version sets besides the keys of ``[kernel]``.

    mask_lazy : a bit of mm_cpumask stays at switch-out (after v6.12; by v6.18).
    trim : flush_tlb_mm_range() trims mm_cpumask once a second.
    swapin_cached : synchronous swap-in goes through the swap cache.
    pgrefill_global : cgroup reclaim counts pgrefill in /proc/vmstat too.
    slot_cache : swap slots are taken and given back through a cache of each CPU.
    mglru_batch : MGLRU's isolation also stops after nr_to_scan folios.
    mglru_stop : MGLRU's reclaim of a memcg stops at nr_to_reclaim.
    mglru_rework : MGLRU's references, tiers and aging as they were reworked.

    All but the first are known for a tree after v7.0 and for v6.12, but not dated: 6.18 is taken
    to be as 6.12 in them, and 7.0 as the later tree.
    """

    mask_lazy: bool
    trim: bool
    swapin_cached: bool
    pgrefill_global: bool
    slot_cache: bool
    mglru_batch: bool
    mglru_stop: bool
    mglru_rework: bool


_6_12 = KernelRules(mask_lazy=False, trim=False, swapin_cached=False, pgrefill_global=False,
                    slot_cache=True, mglru_batch=False, mglru_stop=False, mglru_rework=False)
VERSIONS = {
    "6.12": _6_12,
    "6.18": replace(_6_12, mask_lazy=True),
    "7.0": KernelRules(mask_lazy=True, trim=True, swapin_cached=True, pgrefill_global=True,
                       slot_cache=False, mglru_batch=True, mglru_stop=True, mglru_rework=True),
}

# Rules that a key of [kernel] overrides.
SWITCHES = ("trim", "swapin_cached", "pgrefill_global", "slot_cache",
            "mglru_batch", "mglru_stop", "mglru_rework")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernel(Section):
    """The variant of the kernel; `version` sets what the other keys leave "auto" (docs/kernels.md)."""

    version: str = key("7.0", choice(*VERSIONS))
    lru: str = key("classic", choice("classic", "mglru"))
    mm_cpumask: str = key("auto", choice("auto", "eager", "lazy"))
    cgroup: str = key("v2", choice("v1", "v2"))
    thp: bool = key(False, boolean(later=True))
    trim: str = key("auto", choice("auto", "yes", "no"))
    swapin_cached: str = key("auto", choice("auto", "yes", "no"))
    pgrefill_global: str = key("auto", choice("auto", "yes", "no"))
    slot_cache: str = key("auto", choice("auto", "yes", "no"))
    mglru_batch: str = key("auto", choice("auto", "yes", "no"))
    mglru_stop: str = key("auto", choice("auto", "yes", "no"))
    mglru_rework: str = key("auto", choice("auto", "yes", "no"))

    @property
    def rules(self) -> KernelRules:
        """What `version` sets, but for the switches that are not "auto"."""
        return replace(VERSIONS[self.version], mask_lazy=self.mask_lazy, **{
            name: getattr(self, name) == "yes" for name in SWITCHES if getattr(self, name) != "auto"})

    @property
    def mask_lazy(self) -> bool:
        """Whether mm_cpumask keeps its bit at switch-out: `mm_cpumask`, or what `version` says."""
        if self.mm_cpumask == "auto":
            return VERSIONS[self.version].mask_lazy
        return self.mm_cpumask == "lazy"


@dataclass(frozen=True, kw_only=True, slots=True)
class Memcg(Section):
    """The memory cgroup of the workload.  Sizes are bytes.

    kernel : kernel memory charged before the start, or "auto": `KERNEL_PAGES` per process.
    """

    limit: int = key(512 << 20, byte_size(MIN_LIMIT, MAX_SIZE))
    swappiness: int = key(60, integer(0, 200))
    kernel: int | str = key("auto", byte_size(0, MAX_SIZE, auto=True))


# Charged for each process besides its last-level page tables, which are charged as they are made:
# a stack of 4 pages, 4 upper page tables and 24 pages of slab (task, mm, VMAs, files; assumed).
KERNEL_PAGES = 4 + 4 + 24
THREAD_PAGES = 4 + 4     # of each further thread: its stack, and slab (task, assumed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory(Section):
    """The machine's RAM in bytes: only the bound of the memcg's limit, kswapd is not modelled."""

    total: int = key(31834 << 20, byte_size(1 << 20, MAX_SIZE))


@dataclass(frozen=True, kw_only=True, slots=True)
class Swap(Section):
    """The swap device.  `size` is bytes, `latency` seconds, `bandwidth` bytes per second.

    zram is synchronous; `ssd` and `nvme` are asynchronous: at most `depth` requests in flight, each
    done `latency` after it was submitted, and no sooner after the one before than `bandwidth` allows.
    These keys, and `rotational`, are read by asynchronous devices only.
    """

    kind: str = key("zram", choice("zram", "none", "ssd", "nvme"))
    size: int = key(8 << 30, byte_size(PAGE_SIZE, MAX_SIZE))
    rotational: bool = key(False, boolean())
    depth: int = key(64, integer(1, 65536))
    latency: float = key(80e-6, time(0.0, 10.0))
    bandwidth: int = key(2 << 30, byte_size(1024, MAX_SIZE, per_second=True))

    @property
    def synchronous(self) -> bool:
        """SWP_SYNCHRONOUS_IO: a request is done when its submission returns."""
        return self.kind in ("zram", "none")

    @property
    def rotates(self) -> bool:
        """Slots come by scanning and clusters of them are read ahead."""
        return self.rotational and not self.synchronous
