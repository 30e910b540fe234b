"""Events in the words of the kernel's tracepoints (include/trace/events, arch/x86/include/asm/trace).

A profile is a kernel's version: 6.12 and 6.18 as traces of real ones show them, 7.0 as 6.18 (assumed).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reclaim.exports import About, Event

BASE_ADDRESS = 0x7F0000000000     # of page 0 of every mm
FIRST_FRAME = 0x100000            # pfn of frame 0
IP = 0x401E8A                     # of the instruction that faults
PRIO = 120
TIMER_VECTOR = 236
SWAP_IRQ, SWAP_NAME = 24, "swap-req"
WRITE_FLAGS = "RECLAIM_WB_ANON|RECLAIM_WB_ASYNC"
CALLER = "on_each_cpu_cond_mask"
HANDLER = "generic_smp_call_function_single_interrupt"
_STATES = ("R", "R", "D", "X")    # of names.TASK_STATES
_LRUS = ("inactive_anon", "active_anon")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What differs between versions.

    classzone : of the measured kernels; it follows from the zones that they were built with.
    reasons : of tlb_flush, in the order of enum tlb_flush_reason.
    caller : offset and size in the function that sends flushes.
    preempt_count : the kernel keeps one, so the depth is known.
    """

    classzone: int
    reasons: Sequence[str]
    caller: tuple[str, str]
    preempt_count: bool


_6_12 = Profile(classzone=2, caller=("0x18", "0x20"), preempt_count=False, reasons=(
    "flush on task switch", "remote shootdown", "local shootdown", "local mm shootdown", "remote ipi send"))
_6_18 = Profile(classzone=4, caller=("0x20", "0x30"), preempt_count=True, reasons=(
    "flush on task switch", "remote shootdown", "local shootdown", "local MM shootdown", "remote IPI send"))
PROFILES = {"6.12": _6_12, "6.18": _6_18, "7.0": _6_18}

# Event: its system, whether interrupts are off there (beside those in an interrupt), the preempt depth.
SYSTEMS = {
    "page_fault_user": ("exceptions", True, 0),
    "mm_vmscan_memcg_reclaim_begin": ("vmscan", False, 0),
    "mm_vmscan_memcg_reclaim_end": ("vmscan", False, 0),
    "mm_vmscan_lru_isolate": ("vmscan", True, 1),
    "mm_vmscan_lru_shrink_inactive": ("vmscan", False, 0),
    "mm_vmscan_lru_shrink_active": ("vmscan", False, 0),
    "mm_vmscan_write_folio": ("vmscan", False, 0),
    "tlb_flush": ("tlb", True, 1),
    "csd_queue_cpu": ("csd", False, 1),
    "ipi_send_cpu": ("ipi", False, 1),
    "ipi_send_cpumask": ("ipi", False, 1),
    "csd_function_entry": ("csd", True, 1),
    "csd_function_exit": ("csd", True, 1),
    "call_function_single_entry": ("irq_vectors", True, 0),
    "call_function_single_exit": ("irq_vectors", True, 0),
    "call_function_entry": ("irq_vectors", True, 0),
    "call_function_exit": ("irq_vectors", True, 0),
    "local_timer_entry": ("irq_vectors", True, 0),
    "local_timer_exit": ("irq_vectors", True, 0),
    "irq_handler_entry": ("irq", True, 0),
    "irq_handler_exit": ("irq", True, 0),
    "sched_switch": ("sched", True, 2),
    "sched_waking": ("sched", True, 2),
    "sched_migrate_task": ("sched", True, 2),
}
_SEND = 4                         # reason of the one tlb_flush that has interrupts on


def profile_of(version: str) -> Profile:
    """The profile of a kernel's version."""
    return PROFILES[version]


def comm_of(text: str) -> str:
    """A task's name from a workload's: what tools split lines by must not be in it."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:15] or "task"


def irqs_off(event: Event) -> bool:
    """Whether interrupts are off where the event is told."""
    return SYSTEMS[event.name][1] and not (event.name == "tlb_flush" and event.v[1] == _SEND)


def _mix(x: int) -> int:
    """A 32-bit hash, as pointers are printed; never the same for two of one kind."""
    x = (x ^ x >> 16) * 0x7FEB352D & 0xFFFFFFFF
    x = (x ^ x >> 15) * 0x846CA68B & 0xFFFFFFFF
    return x ^ x >> 16


class Text:
    """The part of a line after the event's name; as ftrace prints it."""

    def __init__(self, about: About, profile: Profile) -> None:
        self.about, self.profile = about, profile
        self._of: dict[str, Callable[[Event], str]] = {
            "page_fault_user": self._fault,
            "mm_vmscan_memcg_reclaim_begin": lambda e: "order=0 gfp_flags=GFP_HIGHUSER_MOVABLE",
            "mm_vmscan_memcg_reclaim_end": lambda e: f"nr_reclaimed={e.v[0]}",
            "mm_vmscan_lru_isolate": self._isolate,
            "mm_vmscan_lru_shrink_inactive": self._shrink_inactive,
            "mm_vmscan_lru_shrink_active": self._shrink_active,
            "mm_vmscan_write_folio": self._write,
            "tlb_flush": lambda e: f"pages:{e.v[0]} reason:{profile.reasons[e.v[1]]} ({e.v[1]})",
            "csd_queue_cpu": lambda e: (f"cpu={e.v[0]} callsite={self.caller()} func=flush_tlb_func "
                                        f"csd={self.csd(e.cpu, e.v[0])}"),
            "ipi_send_cpu": lambda e: f"cpu={e.v[0]} callsite={self.caller()} callback={self.handler()}",
            "ipi_send_cpumask": lambda e: (f"cpumask={self._mask(e.v)} callsite={self.caller()} "
                                           f"callback={self.handler()}"),
            "csd_function_entry": self._function, "csd_function_exit": self._function,
            "irq_handler_entry": lambda e: f"irq={SWAP_IRQ} name={SWAP_NAME}",
            "irq_handler_exit": lambda e: f"irq={SWAP_IRQ} ret=handled",
            "sched_switch": self._switch, "sched_waking": self._waking, "sched_migrate_task": self._migrate,
        }
        vectors = {"call_function_single": 251, "call_function": 252, "local_timer": TIMER_VECTOR}
        for name, vector in vectors.items():
            for end in ("entry", "exit"):
                self._of[f"{name}_{end}"] = lambda e, vector=vector: f"vector={vector}"  # type: ignore[misc]

    def __call__(self, event: Event) -> str:
        return self._of[event.name](event)

    # What ftrace and perf print in their own ways.

    def caller(self) -> str:
        """%pS of the function that sends flushes."""
        return f"{CALLER}+{'/'.join(self.profile.caller)}"

    def handler(self) -> str:
        """%pS of what the IPI runs."""
        return f"{HANDLER}+0x0/0x10"

    def csd(self, sender: int, target: int) -> str:
        """%p of a sender's request to a target; sender -1: NULL."""
        return f"{_mix(1 + sender * self.about.nr_cpus + target) if sender >= 0 else 0:016x}"

    def page(self, frame: int) -> str:
        """%p of a frame's struct page."""
        return f"{_mix(0x80000000 + frame):016x}"

    # The kernel's print formats.

    def _fault(self, e: Event) -> str:
        return f"address={BASE_ADDRESS + (e.v[0] << 12):#x} ip={IP:#x} error_code={e.v[1]:#x}"

    def _isolate(self, e: Event) -> str:
        return (f"classzone={self.profile.classzone} order=0 nr_requested={e.v[0]} nr_scanned={e.v[1]} "
                f"nr_skipped=0 nr_taken={e.v[2]} lru={_LRUS[e.v[3]]}")

    def _shrink_inactive(self, e: Event) -> str:
        return (f"nid=0 nr_scanned={e.v[0]} nr_reclaimed={e.v[1]} nr_dirty=0 nr_writeback={e.v[2]} "
                f"nr_congested=0 nr_immediate=0 nr_activate_anon={e.v[3]} nr_activate_file=0 "
                f"nr_ref_keep={e.v[4]} nr_unmap_fail=0 priority={e.v[5]} flags={WRITE_FLAGS}")

    def _shrink_active(self, e: Event) -> str:
        return (f"nid=0 nr_taken={e.v[0]} nr_active=0 nr_deactivated={e.v[1]} nr_referenced=0 "
                f"priority={e.v[2]} flags={WRITE_FLAGS}")

    def _write(self, e: Event) -> str:
        return f"page={self.page(e.v[0])} pfn={FIRST_FRAME + e.v[0]:#x} flags={WRITE_FLAGS}"

    def _mask(self, cpus: Sequence[int]) -> str:
        mask = sum(1 << c for c in cpus)
        words = max(2, -(-self.about.nr_cpus // 64) * 2)
        return ",".join(f"{mask >> 32 * i & 0xFFFFFFFF:08x}" for i in reversed(range(words)))

    def _function(self, e: Event) -> str:
        return f"func=flush_tlb_func, csd={self.csd(e.v[0], e.cpu)}"

    def _comm(self, task: int, cpu: int) -> str:
        return self.about.comm if task >= 0 else f"swapper/{cpu}"

    def _switch(self, e: Event) -> str:
        prev, new, state = e.v[:3]
        return (f"prev_comm={self._comm(prev, e.cpu)} prev_pid={self.about.pid(prev)} prev_prio={PRIO} "
                f"prev_state={_STATES[state]} ==> next_comm={self._comm(new, e.cpu)} "
                f"next_pid={self.about.pid(new)} next_prio={PRIO}")

    def _waking(self, e: Event) -> str:
        return f"comm={self.about.comm} pid={self.about.pid(e.v[0])} prio={PRIO} target_cpu={e.v[1]:03d}"

    def _migrate(self, e: Event) -> str:
        return (f"comm={self.about.comm} pid={self.about.pid(e.v[0])} prio={PRIO} "
                f"orig_cpu={e.v[1]} dest_cpu={e.v[2]}")
