"""Would the twin notice?  Small errors put into the core on purpose, one at a time.

Each mutation is one replacement in one source file.  The package's source is copied to a temporary
directory, changed, built without optimisation (only ``_core``; the built ``_policy`` is reused), and
run beside the twin over `WORLDS` until something differs.

A build takes longer than all that follows.  So the mutations that are within one function share a
build: it has that function once for each of them, and a number in the environment says which is
called.  What the twin does in a world is recorded once, since no mutation changes it; and a mutant
begins with the world that noticed it when docs/mutations.md was made, or, not being there, with those
of its subject (`near`).

    python tests/mutations.py > docs/mutations.md     # all; progress on stderr
    python tests/mutations.py "tlb_gen" "OOM"         # those with one of these in their name

It fails when a mutation's text is not found exactly once, does not build, or is not noticed.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from threading import Lock

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
if __name__ == "__main__" and sys.argv[1:2] != ["--worlds"]:
    sys.path[:0] = [str(ROOT), str(HERE)]
TABLE = ROOT / "docs" / "mutations.md"
BUILD_TIMEOUT, WORLD_TIMEOUT = 300, 60      # [s]; a build takes 10, a world less than 1


# --- the worlds

def _random(seed: int):
    from reference.worlds import random_policy, random_world
    return random_world(seed), random_policy(seed)


def _ties():
    """Steps take quarters of a tick and interrupts nothing: much happens at the same time."""
    from reference.worlds import make_pass, make_passes, small_world
    from reclaim import names
    from twin import twin_policy
    tick = 10**7
    nothing = ("irq_entry", "irq_exit", "tick", "wakeup", "tlb_check", "tlb_flush_full", "invlpg")
    costs = tuple(0 if name in nothing else tick // 4 * (1 + i % 4)
                  for i, name in enumerate(names.COSTS))
    passes = make_passes([make_pass("SEQ", write=1, nr=96, think=tick // 4),
                          make_pass("RAND", write=2, nr=96, count=400, think=tick // 2)])
    return small_world(nr_cpus=4, mm_pages=(96,) * 6, limit=400, tick=tick, costs=costs,
                       passes=passes, task_first_pass=(0,) * 6, task_nr_passes=(2,) * 6,
                       migrate_threshold=2**61, slice_ticks=20), twin_policy(4)


def _ties_on_a_host(seed: int):
    from reference.worlds import random_policy, random_ties
    return random_ties(seed), random_policy(seed)


def _kworkers(make: str, seed: int):
    from reference import worlds
    return getattr(worlds, make)(seed), worlds.random_policy(seed)


def _asids():
    """More mms than ASIDs take turns on one CPU."""
    from reference.worlds import small_world
    from twin import twin_policy
    return small_world(nr_cpus=1, mm_pages=(24,) * 9, limit=180, tick=10**7,
                       slice_ticks=1), twin_policy(5)


def _wide():
    """CPU masks of three words, most CPUs idle."""
    from reference.worlds import small_world
    from twin import twin_policy
    return small_world(nr_cpus=130, cpus_per_socket=65, mm_pages=(300,) * 8, limit=1400,
                       nr_slots=4096, tick=10**7, slice_ticks=1,
                       task_cpu=(0, 1, 63, 64, 65, 127, 128, 129),
                       migrate_threshold=2**60), twin_policy(5)


def _kworker():
    """Draining the stock of a CPU that runs takes long, while others flush its mm."""
    from reference.worlds import COSTS, small_world
    from reclaim import names
    from twin import twin_policy
    costs = tuple(50_000_000_003 if name == "kworker" else cost
                  for name, cost in zip(names.COSTS, COSTS, strict=True))
    return small_world(nr_cpus=3, mm_pages=(200,) * 4, limit=460, nr_slots=200, tick=10**8,
                       costs=costs, swappiness=200, slice_ticks=30), twin_policy(4)


def _device(**fields):
    """A swap device slower than reclaim, so that tasks wait for it everywhere."""
    from reference.worlds import small_world
    from twin import twin_policy
    return small_world(swap_sync=False, swappiness=200, tick=10**7, **fields), \
        twin_policy(5)


def _threads(make: str, stage: int, *args) -> tuple:
    """A world of tests/threads.py."""
    import threads
    return getattr(threads, make)(*args), _stage(stage)


def _stage(stage: int) -> dict:
    from twin import twin_policy
    return twin_policy(stage)


def _generations(kind: str, seed: int | str):
    """MGLRU: random worlds, worlds of much reuse, one by name."""
    from reference import generation_worlds as known
    from reference.worlds import random_policy
    from twin import twin_policy
    if kind == "named":
        return known.GENERATIONS[seed](), twin_policy(4) | {"unmap": "immediate"}
    return getattr(known, kind)(seed), random_policy(seed)


def _seeds(*seeds: int) -> dict[str, tuple[Callable[[], tuple], int]]:
    return {f"random {seed}": ((lambda seed=seed: _random(seed)), 20_000) for seed in seeds}


def _slots(*seeds: int) -> dict[str, tuple[Callable[[], tuple], int]]:
    """Devices that rotate, slot caches: tests/test_twin.py says what they reach."""
    def make(seed: int) -> tuple:
        from reference.worlds import random_policy, random_slots
        return random_slots(seed), random_policy(seed)
    return {f"slots {seed}": ((lambda seed=seed: make(seed)), 60_000) for seed in seeds}


def _calls() -> dict[str, tuple[Callable[[], tuple], int]]:
    """munmap, mprotect, mremap: tests/threads.py says what they reach."""
    from threads import CALLS, RARE_CALLS

    def drawn(make: str, seed: int, stage: bool) -> tuple:
        from reference.worlds import random_policy
        world, policy = _threads(make, seed % 3 and 5, seed)
        return world, policy if stage else random_policy(seed)

    def named(name: str) -> tuple:
        return _threads(CALLS[name][0].__name__, 5, *CALLS[name][1])
    seeds = {"calls_world": (0, 2, 4, 14, 16, 187, 275), "busy_calls": (0, 1, 2, 16, *RARE_CALLS)}
    return {**{f"calls: {name}": ((lambda name=name: named(name)), CALLS[name][2]) for name in CALLS},
            **{f"{make} {seed}, {'stages' if stage else 'any policy'}": (
                (lambda make=make, seed=seed, stage=stage: drawn(make, seed, stage)), 20_000)
               for stage in (True, False) for make in seeds for seed in seeds[make]}}


def _forks() -> dict[str, tuple[Callable[[], tuple], int]]:
    """Parents and children: tests/threads.py says what they reach."""
    from threads import RARE_FORKS, ZAPPED_SHARES

    def drawn(seed: int) -> tuple:
        from reference.worlds import random_policy
        from threads import busy_forks
        return busy_forks(seed), random_policy(seed)
    return {**{f"forks {seed}": ((lambda seed=seed: drawn(seed)), 16_000) for seed in (10, 31, 52, *RARE_FORKS)},
            **{f"forks: zapped shares, {ZAPPED_SHARES[args]}": (
                (lambda args=args: _threads("zapped_shares", 5, *args)), 40_000) for args in ZAPPED_SHARES}}


# Name -> (world and policy, actions).  The first reach most of the model and notice most mutants;
# the last are there for what needs more luck.
WORLDS: dict[str, tuple[Callable[[], tuple], int]] = {
    **_seeds(7, 1, 53, 37, 25, 19, 2, 3, 4, 5, 6),
    **{name: ((lambda name=name: _generations("named", name)), 60_000) for name in (
        "tiers", "tiers, reworked", "young tiers, reworked", "tiers of two", "tiers near their margin",
        "tiers on a device", "aged under write-back", "a walk finds a lock held",
        "no look around a contended lock")},
    **{f"reuse {seed}": ((lambda seed=seed: _generations("reuse_generations", seed)), 40_000)
       for seed in range(8)},
    **{f"generations {seed}": ((lambda seed=seed: _generations("random_generations", seed)), 8000)
       for seed in (*range(16), 230, 245)},
    "ties": (_ties, 40_000),
    "ties on a host": (lambda: _ties_on_a_host(35), 10_000),
    "ties of wake-ups": (lambda: _ties_on_a_host(37), 5000),
    "asids": (_asids, 40_000),
    "wide": (_wide, 15_000),
    "kworker": (_kworker, 40_000),
    **{f"{make} {seed}": ((lambda make=make, seed=seed: _kworkers(make, seed)), 12_000)
       for make, seeds in (("random_kworkers", range(3)), ("busy_kworkers", range(4))) for seed in seeds},
    "fast device, kworkers": (lambda: _device(nr_cpus=3, mm_pages=(96,) * 4, limit=300, io_depth=64, io_latency=10**6,
                                              io_page=1, kworkers=True), 40_000),
    "slow device": (lambda: _device(cgroup=1, io_latency=3 * 10**9), 30_000),
    "full device": (lambda: _device(nr_cpus=4, mm_pages=(96,) * 6, limit=400, io_depth=2,
                                    slice_ticks=1), 40_000),
    "fast device": (lambda: _device(nr_cpus=3, mm_pages=(96,) * 4, limit=300, io_depth=64,
                                    io_latency=10**6, io_page=1), 40_000),
    **_slots(15, 288, 24, 57, 224, 235, 2798, 3472),
    "pending zaps": (lambda: _threads("pending_zaps", 5), 40_000),
    "page tables race": (lambda: _threads("page_tables_race", 0), 50_000),
    "zapped swap-ins": (lambda: _threads("zapped_swap_ins", 0), 60_000),
    "shared writes": (lambda: _threads("shared_writes", 0), 10_000),
    "killed threads": (lambda: _threads("killed_threads", 5, True), 30_000),
    **{f"threads {seed}": ((lambda seed=seed: _threads("busy_threads", 5, seed)), 15_000)
       for seed in (16, 19, 27, 45, 56, 61, 66)},
    **{f"few mms {seed}": ((lambda seed=seed: _threads("thread_world", 5, seed)), 12_000)
       for seed in (35, 41, 45)},
    **_calls(),
    **_forks(),
    **_seeds(89, 107, 1251, 712, 434, 695, 980, 600, 670, 3672, 4975),
    **_seeds(*range(8, 19), *range(20, 25), *range(26, 37), *range(38, 53), *range(54, 72)),
}


# --- the mutations

@dataclass(frozen=True)
class Mutation:
    name: str
    file: str          # under reclaim/
    old: str
    new: str
    near: str = ""     # what is in the names of the worlds to be tried first

    def source(self, tree: Path = ROOT) -> str:
        """The text of its file, where what it replaces is found once."""
        text = (tree / "reclaim" / self.file).read_text()
        found = text.count(self.old)
        assert found == 1, (f"mutation {self.name!r}: its text occurs {found} times in "
                            f"reclaim/{self.file}; it must once: adapt tests/mutations.py")
        return text

    def apply(self, tree: Path) -> None:
        """Change the copy of the package in `tree`."""
        text = self.source(tree)
        (tree / "reclaim" / self.file).write_text(text.replace(self.old, self.new))


CLOCK, FOLIO, MEMCG, MEMORY = "_mm/clock.pxd", "_mm/folio.pxd", "_mm/memcg.pxd", "_mm/memory.pxd"
SCHED, SMP, TLB, VMSCAN = "_mm/sched.pxd", "_mm/smp.pxd", "_mm/tlb.pxd", "_mm/vmscan.pxd"
WORKS = "_mm/works.pxd"
CLASSIC, LRU_GEN, GENERATIONS = "_mm/lru_classic.pxd", "_mm/lru_gen.pxd", "_mm/generations.pxd"
MMAP, CHAINS = "_mm/mmap.pxd", "_mm/chains.pxd"
RNG, TYPES, CORE = "_mm/rng.pxd", "_mm/types.pxd", "_core.pyx"
PROGRAM, SWAP, READAHEAD = "_mm/program.pxd", "_mm/swap.pxd", "_mm/readahead.pxd"
BLK, HOST, PTE = "_mm/blk.pxd", "_mm/host.pxd", "_mm/pte.pxd"
SWAPFILE = "_mm/swapfile.pxd"

# The first ones are those that run by default: one each of flushing, reclaim, time and charging.
MUTATIONS: tuple[Mutation, ...] = (
    Mutation("no tlb_gen bump when an unmap is deferred", VMSCAN,
             "    m.mm[unmap_mm(m, t)].tlb_gen += 1\n", "    pass\n"),
    Mutation("PG_referenced is not cleared", VMSCAN,
             "    q.flags &= ~<uint32_t>PG_referenced\n    if young:", "    if young:"),
    Mutation("an interrupt comes after the step it falls into", CLOCK,
             "        return t if t < p.clock else p.clock\n    if", "        return p.clock\n    if"),
    Mutation("drain_all_stock leaves the stock of idle CPUs", MEMCG,
             "if i == m.c or m.cpu[i].mode == CPU_IDLE:", "if i == m.c:"),

    # time, locks, interrupts
    Mutation("a spin lock's waiters are served last come, first", CLOCK,
             "    if l.head < 0:\n        l.head = m.c\n    else:\n"
             "        m.cpu[l.tail].lock_next = m.c\n    l.tail = m.c\n",
             "    p.lock_next = l.head\n    l.head = m.c\n    l.tail = m.c\n"),
    Mutation("a lock's hand-over is free", CLOCK,
             "wake_cpu(m, w, m.w.cost[CO_lock_handoff], TM_lock_wait)",
             "wake_cpu(m, w, 0, TM_lock_wait)"),
    Mutation("a waiter wakes before an interrupt it served is over", CLOCK,
             "u = p.clock if p.clock > m.now else m.now", "u = m.now"),
    Mutation("lru_lock_waits is not counted", CLOCK,
             "    m.counter[CN_lru_lock_waits] += 1\n", ""),
    Mutation("a CPU that spins with interrupts off is interrupted", CLOCK,
             "if p.mode == CPU_SPIN_LOCK and not p.last_on:", "if False:"),
    Mutation("a step with interrupts off is interrupted at its start", CORE,
             "    return m.irq_on[step]\n", "    return True\n"),
    Mutation("the rest of an interrupted step is lost", CORE,
             "p.left = p.clock - now", "p.left = 0"),
    Mutation("an interrupt that is due at the exit waits for the next step", SMP,
             "if at <= p.clock:                 #", "if at < p.clock - 100000:         #"),
    Mutation("a tick comes before an IPI of the same time", SMP,
             "    if p.irq_at == at:\n        return ST_Q_ENTRY\n",
             "    if p.irq_at == at and p.tick_at != at:\n        return ST_Q_ENTRY\n"),
    Mutation("a touch may take no time", MEMORY,
             "if m.row_cost == 0:               #", "if False:                         #"),
    Mutation("time of waiting for a lock counts as idle", CLOCK,
             "return TM_lock_wait", "return TM_idle"),

    # host CPUs
    Mutation("a lock goes to a waiter that does not run", CLOCK,
             "    while w >= 0 and not m.cpu[w].hosted and", "    while False and"),
    Mutation("timers that are due at once end a turn each", HOST,
             "elif kick and m.host[h].turned_at != m.now:", "elif kick:"),
    Mutation("the ring goes on from its first CPU", HOST,
             "host_next(m, h, nxt if nxt < m.w.nr_cpus else h, m.now)", "host_next(m, h, h, m.now)"),
    Mutation("what was left of a step is lost with the host CPU", HOST,
             "        p.host_left = p.clock - now\n", ""),
    Mutation("a CPU that spins with interrupts off yields to an interrupt", HOST,
             "        if not p.last_on:\n", "        if False:\n"),
    Mutation("a CPU forgets the flush that the host owes it", HOST,
             "            p.tlb_stamp += 1\n            p.asid_stamp[a] = p.tlb_stamp\n", "            pass\n"),
    Mutation("an IPI to a CPU that was just stopped is not heard", SMP,
             "            if at <= m.cpu[j].kicked_at:\n", "            if False:\n"),

    # scheduling
    Mutation("newidle balance takes the only task of a CPU that is about to run it", SCHED,
             "if nr_running(m, j) == 1:", "if False:"),
    Mutation("a task that is not off its CPU yet wakes elsewhere", SCHED,
             "return m.cg.nr_idle > 0 and p.current != u ", "return m.cg.nr_idle > 0 "),
    Mutation("a kernel thread drives a task away though no other CPU is idle", SCHED,
             "m.w.busy_threshold > 0 and m.cg.nr_idle > 1 ", "m.w.busy_threshold > 0 "),
    Mutation("a wake-up looks for an idle CPU from 0 on", SCHED,
             "        i = target\n", "        i = m.w.nr_cpus - 1\n"),
    Mutation("a wake-up costs nothing", SCHED,
             "    spend(m, TM_sched, m.w.cost[CO_wakeup])\n", ""),
    Mutation("a pushed task goes to the tail of the queue", SCHED,
             "rq_prepend(m, j, p.current)", "rq_append(m, j, p.current)"),
    Mutation("one random draw more at a migration", SCHED,
             "if rng_draw(&p.rng) < times(m.w.migrate_threshold, elapsed):",
             "if rng_draw(&p.rng) < times(m.w.migrate_threshold, elapsed) and rng_draw(&p.rng):"),
    Mutation("a migration's target may be the CPU itself", SCHED,
             "            if j >= m.c:\n", "            if j > m.c:\n"),
    Mutation("newidle balance takes the last of equal queues", SCHED,
             "if queued <= most:", "if queued < most:"),
    Mutation("newidle balance takes pinned tasks", SCHED,
             "    while m.task[u].pinned:\n", "    while False:\n"),
    Mutation("a lazy TLB is not flushed when its mm runs again", SCHED,
             "    if p.asid_gen[p.loaded_asid] != gen:\n", "    if False:\n"),
    Mutation("the mask keeps an mm that is switched away (wrong rule)", SCHED,
             "if loaded >= 0 and not m.w.mask_lazy:", "if loaded >= 0 and m.w.mask_lazy:"),
    Mutation("an ASID is used again without its flush", SCHED,
             "p.sw_flush = p.asid_gen[a] < p.sw_gen", "p.sw_flush = 0"),
    Mutation("an ASID is never found again", SCHED,
             "        if p.asid_mm[a] == mm:\n", "        if False:\n"),
    Mutation("the ASIDs start over at the one in use", SCHED,
             "        p.next_asid = 1\n", "        p.next_asid = 0\n"),
    Mutation("a kworker does not make the TLB lazy", SCHED,
             "        p.is_lazy = 1\n    p.sstep = ST_W_BACK", "        p.is_lazy = 0\n    p.sstep = ST_W_BACK"),
    Mutation("a kernel thread that waits has no place in the run queue", SCHED,
             "    return m.w.kworkers and m.cpu[c].works != 0\n", "    return 0\n", near="kworkers"),
    Mutation("a CPU whose task sleeps picks the next one before its kernel thread", SCHED,
             "    if p.works and m.w.kworkers:  ", "    if p.works and m.w.kworkers and p.rq_nr == 0:  ", near="kworkers"),
    Mutation("a kernel thread preempts within the slice of a task", SCHED,
             "if p.works and (not m.w.kworkers or p.slice_ticks >= m.w.slice_ticks): ", "if p.works: ", near="kworkers"),
    Mutation("memory.events is notified a tick too early", WORKS,
             "m.cg.notify_from = tick + 1 +", "m.cg.notify_from = tick +", near="kworkers"),
    Mutation("the last to be told within the interval has the timer of memory.events", WORKS,
             "    elif m.cg.notify_cpu < 0:\n", "    else:\n", near="kworkers"),
    Mutation("every CPU may have the work of memory.events at the same time", WORKS,
             "    if (p.works | m.cg.works) & work:\n", "    if p.works & work:\n", near="kworkers"),
    Mutation("a window of vmpressure begins before its work has run", WORKS,
             "        queue_work(m, p, WORK_VMPRESSURE)\n", "        queue_work(m, p, WORK_VMPRESSURE)\n        m.cg.tree_scanned = 0\n",
             near="kworkers"),
    Mutation("deep priorities are no pressure of their own", VMSCAN,
             "if unlikely(m.w.kworkers) and t.prio <= VMPRESSURE_PRIO:", "if False:", near="kworkers"),
    Mutation("a folio that could not be locked counts as scanned", VMSCAN,
             "        t.nr_scanned -= 1                 # S_END counts all of the list\n", "", near="kworkers"),
    Mutation("vmstat_update drifts with its ticks", WORKS,
             "        p.vmstat_at += SECOND * (1 + (m.now - p.vmstat_at) // SECOND)\n", "        p.vmstat_at = m.now + SECOND\n",
             near="kworkers"),
    Mutation("vmstat_update comes on all CPUs at once", WORKS,
             "return SECOND - VMSTAT_SKEW * c * m.w.tick % SECOND", "return SECOND", near="kworkers"),
    Mutation("a time slice is one tick longer", SCHED,
             "if p.slice_ticks >= m.w.slice_ticks and p.rq_nr", "if p.slice_ticks > m.w.slice_ticks and p.rq_nr"),
    Mutation("the first tick comes a whole tick after idle", SCHED,
             "return now - (now - offset) % m.w.tick + m.w.tick", "return now + m.w.tick"),
    Mutation("who gives way does not kick an idle CPU", SCHED,
             "        j = lowest_idle(m)\n", "        j = -1\n"),
    Mutation("throttling lasts 10 ms", CLASSIC,
             "<int64_t>20000000000", "<int64_t>10000000000"),
    Mutation("the timer of a throttled task stays armed", SCHED,
             "            m.cpu[m.task[u].cpu].timer_at = INF\n", ""),

    # flushing
    Mutation("an IPI goes out though the queue was not empty", SMP,
             "        m.csd_next[<int64_t>j * m.w.nr_cpus + q.q_tail] = <int16_t>m.c\n",
             "        m.csd_next[<int64_t>j * m.w.nr_cpus + q.q_tail] = <int16_t>m.c\n"
             "        mask_set(m.fl_ipi + <int64_t>m.c * words, j)\n"),
    Mutation("lazy CPUs are not skipped", SMP,
             "    if q.is_lazy or p.fl_tables:\n", "    if p.fl_tables:\n"),
    Mutation("a flush's fixed cost is dropped", SMP,
             "sent = m.w.cost[CO_flush_fixed], at", "sent = 0, at"),
    Mutation("the sockets are swapped", SMP,
             "if j // m.w.cpus_per_socket == socket", "if j // m.w.cpus_per_socket != socket"),
    Mutation("a flush never trims", SMP, "p.fl_trim = 1", "p.fl_trim = 0"),
    Mutation("one acknowledgement costs as much as all", SMP,
             "m.w.cost[CO_csd_ack] * m.cpu[s].fl_n", "m.w.cost[CO_csd_ack]"),
    Mutation("the CPUs of a mask's second word are not seen", TLB,
             "        i += 1\n        if i >= words:\n            return -1\n", "        return -1\n"),
    Mutation("a flush is done again though the mm's generation is reached", TLB,
             "    if g == gen:\n", "    if False:\n"),
    Mutation("INVLPG is not done", TLB,
             "            flush_tlb_one_user(m, c, s.fl_vp + i)\n", "            pass\n"),
    Mutation("INVLPG though generations were missed", TLB,
             "<uint64_t>s.fl_gen == g + 1 and ", ""),
    Mutation("the mask keeps a CPU that runs another mm", TLB,
             "            if m.w.mask_lazy:\n", "            if False:\n"),
    Mutation("nr_tlb_local_flush_all is counted for remote flushes too", TLB,
             "    if not remote:\n        m.counter[CN_nr_tlb_local_flush_all] += 1\n",
             "    m.counter[CN_nr_tlb_local_flush_all] += 1\n"),
    Mutation("the D bit of a TLB entry is ignored", MEMORY,
             "        if not t.write or e[0] & 1:\n", "        if True:\n"),
    Mutation("a hit in the L2 TLB does not fill L1", MEMORY,
             "lost = tlb_insert(l1, m.w.l1_ways, e[0])", "lost = 0"),
    Mutation("walk_line is not remembered", MEMORY, "        p.walk_line = vp >> 3\n", ""),

    # faults
    Mutation("whether a touch writes is not drawn", PROGRAM,
             "write = <int>rng_below(&t.rng, 2)", "write = <int>(t.rng >> 63)"),
    Mutation("a draw uses the low half", RNG,
             "((rng_draw(x) >> 32) * n) >> 32", "((rng_draw(x) & <uint64_t>0xffffffff) * n) >> 32"),
    Mutation("the zero page's PTE is not marked as zeros", MEMORY,
             "PTE_ZERO | PTE_YOUNG | PTE_Z", "PTE_ZERO | PTE_YOUNG"),
    Mutation("a folio batch is drained one folio early", FOLIO,
             "return p.nr_lru_add == BATCH", "return p.nr_lru_add == BATCH - 1"),
    Mutation("a fault during write-back keeps the PTE writable", MEMORY,
             "elif q.flags & PG_writeback and m.w.swap_sync:", "elif False:"),
    Mutation("a refault from as far as the active list is long is not activated", FOLIO,
             "g.nonresident_age - age > size", "g.nonresident_age - age >= size"),
    Mutation("a swapped-in page of zeros is decompressed", MEMORY,
             "spend(m, TM_swap, m.w.cost[CO_page_zero])", "spend(m, TM_swap, m.w.cost[CO_zram_read])"),
    Mutation("pgmajfault is not counted", MEMORY, "    m.counter[CN_pgmajfault] += 1\n", ""),

    # charging, OOM
    Mutation("a stock of exactly 64 is drained", MEMCG,
             "if p.stock > CHARGE_BATCH:", "if p.stock >= CHARGE_BATCH - 1:"),
    Mutation("one retry fewer before OOM", TYPES, "MAX_RETRIES = 16 ", "MAX_RETRIES = 15 "),
    Mutation("the OOM victim is the last of equals", MEMCG, "if size > most:", "if size >= most:"),
    Mutation("the OOM victim's swap does not count", MEMCG,
             " + m.mm[m.task[u].mm].swapents\n", "\n"),
    Mutation("a victim's pages are freed without a flush", MEMORY,
             "        flush(m, p, t, t.mm, last if t.call and mapped == 1 else -1, ST_E_FREE)\n",
             "        t.step = ST_E_FREE\n"),

    # reclaim
    Mutation("a scan target is one too large", CLASSIC,
             "return (size >> t.prio) * ap // (ap + fp)",
             "return (size >> t.prio) * ap // (ap + fp) + 1"),
    Mutation("32 reclaimed pages are not enough", VMSCAN,
             "if t.sc_reclaimed < CLUSTER:", "if t.sc_reclaimed <= CLUSTER:"),
    Mutation("no second walk of all priorities", VMSCAN,
             "            if not t.full_walk:\n", "            if False:\n"),
    Mutation("isolation takes from the head", CLASSIC,
             "f = m.cg.lru_tail[lru]", "f = m.cg.lru_head[lru]"),
    Mutation("too_many_isolated at a quarter", CLASSIC,
             "m.cg.lru_nr[0] >> 3", "m.cg.lru_nr[0] >> 2"),
    Mutation("advice against recency is ignored", VMSCAN,
             "young = m.pte[q.vp] & PTE_YOUNG and m.mm[q.mm].recency",
             "young = (m.pte[q.vp] & PTE_YOUNG) != 0"),
    Mutation("a deactivated folio is no workingset", CLASSIC,
             "q.flags = (q.flags & ~<uint32_t>PG_active) | PG_workingset",
             "q.flags = q.flags & ~<uint32_t>PG_active"),
    Mutation("every deferred unmap asks for a flush before write-out", VMSCAN,
             "    if t.old_pte & PTE_DIRTY:\n        t.ubc_writable = 1\n",
             "    t.ubc_writable = 1\n"),
    Mutation("the batch's mask holds the last mm only", VMSCAN,
             "m.w.words + i] |= mm_mask(m, mm)[i]", "m.w.words + i] = mm_mask(m, mm)[i]"),
    Mutation("folios of a list's end are freed without a flush", VMSCAN,
             "        flush(m, p, t, -1, -1, ST_S_END_FLUSHED)\n", "        t.step = ST_S_END_FLUSHED\n"),
    Mutation("31 freed folios are not uncharged", VMSCAN, "        m.cg.usage -= BATCH\n", ""),
    Mutation("31 folios are freed before their flush", VMSCAN,
             "            flush(m, p, t, -1, -1, ST_S_FREE_FLUSHED)\n",
             "            t.step = ST_S_FREE_FLUSHED\n"),
    Mutation("no re-check for mapped folios", VMSCAN,
             "elif m.flush_rechecks & RECHECK_MAPPED and q.mapcount > 0:", "elif False:"),
    Mutation("putback_locked is not counted", VMSCAN,
             "        m.counter[CN_putback_locked] += 1\n", ""),
    Mutation("an eviction does not age", FOLIO,
             "    m.cg.nonresident_age += 1\n    return shadow", "    return shadow"),
    Mutation("the cost of I/O halves too late", FOLIO,
             "(g.lru_nr[0] + g.lru_nr[1]) // 4", "(g.lru_nr[0] + g.lru_nr[1]) // 2"),
    Mutation("mm.pending is not counted", VMSCAN, "    m.mm[mm].pending += 1\n", ""),
    # asynchronous swap
    Mutation("a request is done without waiting for the one before", BLK,
             "    if after > done:\n", "    if False:\n"),
    Mutation("a request of several pages takes the time of one", BLK,
             "m.io[r].nr * m.w.io_page", "m.w.io_page"),
    Mutation("a task that sleeps keeps its plug", SCHED,
             "    if t.plug_nr > 0:\n", "    if t.plug_nr > 31:\n"),
    Mutation("reclaim within a readahead lets the readahead's plug go", BLK,
             "if t.plug_nr > 0 and not reading_ahead(t):", "if t.plug_nr > 0:"),
    Mutation("a plug keeps one request more", BLK,
             "t.plug_nr == BLK_MAX_REQUEST_COUNT", "t.plug_nr == BLK_MAX_REQUEST_COUNT + 1"),
    Mutation("a long request does not end the plug", BLK,
             "m.io[t.plug_head].nr >= BLK_PLUG_FLUSH_PAGES", "False"),
    Mutation("a plug looks at its last request", BLK,
             "m.io[t.plug_head].nr >= BLK_PLUG_FLUSH_PAGES",
             "m.io[t.plug_tail].nr >= BLK_PLUG_FLUSH_PAGES"),
    Mutation("one request more than the device has tags", SWAP,
             "if dev.in_flight < m.w.io_depth:", "if dev.in_flight < m.w.io_depth - 1 + (m.c & 1):"),
    Mutation("a completed request keeps its tag for a while", SWAP,
             "    dev.in_flight -= 1\n", "    dev.in_flight -= 1 if dev.in_flight > 1 else 0\n"),
    Mutation("a folio that is dirty again is rotated", SWAP,
             "if q.flags & (PG_locked | PG_dirty) or", "if q.flags & PG_locked or"),
    Mutation("a folio off the LRU is rotated", SWAP,
             "PG_dirty) or not q.flags & PG_lru:", "PG_dirty):"),
    Mutation("PG_reclaim outlives write-back", SWAP,
             "        q.flags &= ~<uint32_t>PG_reclaim\n        folio_rotate_reclaimable",
             "        folio_rotate_reclaimable"),
    Mutation("the rotation's batch takes no reference", SWAP,
             "    q.refcount += 1\n    p.lru_move_tail", "    p.lru_move_tail"),
    Mutation("rotated to the head", FOLIO,
             "            lruvec_add_folio_tail(m, f)\n", "            lruvec_add_folio(m, f)\n"),
    Mutation("rotated folios stay active", FOLIO,
             "            m.folio[f].flags &= ~<uint32_t>PG_active\n            lruvec_add_folio_tail",
             "            lruvec_add_folio_tail"),
    Mutation("pgrotated is not counted", FOLIO,
             "            m.counter[CN_pgrotated] += 1\n", ""),
    Mutation("lru_add_drain leaves lru_move_tail", VMSCAN,
             "    if t.d_which & 4:", "    if t.d_which & 8:"),
    Mutation("cgroup v1 does not wait for write-back", VMSCAN,
             "elif m.w.cgroup == 1 and folio_test(m, t.folio, PG_reclaim):",
             "elif m.w.cgroup == 3 and folio_test(m, t.folio, PG_reclaim):"),
    Mutation("cgroup v1 waits at the first sight of write-back", VMSCAN,
             "elif m.w.cgroup == 1 and folio_test(m, t.folio, PG_reclaim):",
             "elif m.w.cgroup == 1:"),
    Mutation("a folio waited for goes to the end of the list", VMSCAN,
             """    m.folio[f].next = t.list.head
    t.list.head = f
    if t.list.nr == 0:
        t.list.tail = f
    t.list.nr += 1
""", "    fifo_push(m, &t.list, f)\n"),
    Mutation("the end of write-back wakes those who wait for the lock", SWAP,
             "    folio_wake(m, f, 1)\n", "    folio_wake(m, f, 0)\n"),
    Mutation("an unlock wakes those who wait for write-back", SCHED,
             "        if m.task[u].wait_bit == bit:", "        if True:"),
    Mutation("a fault sleeps without its reference", MEMORY,
             "    folio_put(m, t.f_pfn)\n    t.f_pfn = -1\n    t.step = ST_F_READ\n",
             "    t.f_pfn = -1\n    t.step = ST_F_READ\n"),
    Mutation("a folio read by the device is mapped as fresh", MEMORY,
             "        t.f_cached = not m.w.swap_sync or t.f_kind == FAULT_SHARED\n", "        t.f_cached = 0\n"),
    Mutation("a zero page is read from the device", MEMORY,
             "            folio_unlock(m, t.f_pfn)\n            t.step = ST_F_LOCK",
             "            t.step = ST_F_SUBMIT"),
    Mutation("completions come before ticks", SMP,
             "    if p.tick_at == at:\n        return ST_T_TICK\n    return ST_T_TIMER if p.timer_at == at else ST_IO_ENTRY",
             "    if p.io_at == at:\n        return ST_IO_ENTRY\n    return ST_T_TICK if p.tick_at == at else ST_T_TIMER"),
    Mutation("a completion takes no time", SWAP,
             "    p.irq_cost += m.w.cost[CO_io_complete]\n", ""),
    Mutation("the tag's waiter is not woken", SWAP, "    if u >= 0:\n", "    if u >= 1:\n"),
    Mutation("a wake-up of an idle CPU is no IPI", SCHED,
             "            m.counter[CN_function_call_ipis] += 1       # ttwu_queue_wakelist\n", ""),
    # the multi-generational LRU: eviction
    Mutation("generations are made at the lowest priority too", LRU_GEN,
             "        age = age and t.prio < DEF_PRIORITY\n", ""),
    Mutation("three generations are never uneven", LRU_GEN,
             "            age = uneven(m, n)\n", "            pass\n"),
    Mutation("the oldest of three generations should hold half", LRU_GEN,
             "(MIN_NR_GENS + 2) < total", "MIN_NR_GENS < total"),
    Mutation("a memcg's reclaim does not stop at nr_to_reclaim", LRU_GEN,
             "m.w.mglru_stop and t.sc_reclaimed >= CLUSTER", "False"),
    Mutation("isolation does not stop after nr_to_scan folios", LRU_GEN,
             "min(MAX_LRU_BATCH, t.g_nr) if m.w.mglru_batch", "MAX_LRU_BATCH if m.w.mglru_batch"),
    Mutation("tiers have no margin", LRU_GEN,
             "pv_gain = 3 if m.w.mglru_rework else 2", "pv_gain = 2 if m.w.mglru_rework else 1"),
    Mutation("few refaults protect a tier", LRU_GEN,
             "    return (refaulted < MIN_LRU_BATCH\n            or refaulted", "    return (refaulted"),
    Mutation("averages of refaults do not decay", LRU_GEN,
             "tier_refaulted(m, tier) // 2", "tier_refaulted(m, tier)"),
    Mutation("what is protected does not count as met", LRU_GEN,
             " + m.cg.evicted[tier] + m.cg.protected[tier]", " + m.cg.evicted[tier]"),
    Mutation("protected folios go to the head", LRU_GEN,
             "        folio_inc_gen(m, f, oldest, True)\n", "        folio_inc_gen(m, f, oldest, False)\n"),
    Mutation("promoted folios go to the tail", LRU_GEN,
             "        gen_list_move(m, f, gen, False)\n    elif",
             "        gen_list_move(m, f, gen, True)\n    elif"),
    Mutation("a folio of all references is evicted like others", LRU_GEN,
             "tier > last_tier or refs > REFS_MAX:", "tier > last_tier:"),
    Mutation("a folio under write-back is isolated", LRU_GEN,
             "m.w.mglru_rework and q.flags & PG_writeback:", "False:"),
    Mutation("references survive isolation", LRU_GEN,
             "    if not q.flags & PG_referenced:\n        folio_clear_lru_refs(q)\n    q.flags &=",
             "    q.flags &="),
    Mutation("one eviction takes 32 folios", LRU_GEN,
             "t.list.nr < MIN_LRU_BATCH:", "t.list.nr < CLUSTER:"),
    Mutation("one empty generation is left behind at a time", LRU_GEN,
             "        while anon < last and", "        if anon < last and"),
    Mutation("the last two generations are evicted, too", LRU_GEN,
             "nr_gens(m, GEN_ANON) > MIN_NR_GENS:", "nr_gens(m, GEN_ANON) >= MIN_NR_GENS:"),
    Mutation("eviction goes on with two generations left", LRU_GEN,
             "        t.g_delta = 0\n    t.g_scanned", "        pass\n    t.g_scanned"),
    Mutation("clean folios are not tried again", LRU_GEN,
             "elif to_be_retried(t, q):", "elif False:"),
    Mutation("clean folios are tried for ever", LRU_GEN,
             "not t.g_retry and q.mapcount == 0", "q.mapcount == 0"),
    Mutation("rejected folios return to the oldest generation", LRU_GEN,
             "            q.flags |= PG_active             #", "            pass             #"),
    Mutation("PG_referenced is not restored under write-back", LRU_GEN,
             "            if q.flags & PG_workingset:\n                q.flags |= PG_referenced\n",
             "            pass\n"),
    # and references, aging
    Mutation("no look around at the end of a page-table page", LRU_GEN,
             "            start = end - MIN_LRU_BATCH\n", "            end = q.vp + 1\n"),
    Mutation("a look around takes a contended lock", LRU_GEN,
             "if ptl.head < 0 and look_range(m, t, q):", "if look_range(m, t, q):"),
    Mutation("the dirty bit of a PTE that was young is forgotten", LRU_GEN,
             "    if pte & PTE_DIRTY and q.flags & PG_swapcache:\n        q.flags |= PG_dirty\n    return True",
             "    return True"),
    Mutation("a look around activates folios of the youngest generation", LRU_GEN,
             "    if gen == gen_of_seq(t.look_seq):\n        return False\n", ""),
    Mutation("the full batch of a look around is left", LRU_GEN,
             "        drain(t, 2, ST_S_LOOK)\n        return\n", "        pass\n"),
    Mutation("one young page of four makes a page table worth a walk", LRU_GEN,
             "    return young * 8 >= total\n", "    return young * 4 >= total\n"),
    Mutation("reworked: the working set does not count as referenced", LRU_GEN,
             "LRU_REFS_FLAGS if m.w.mglru_rework else PG_referenced", "PG_referenced"),
    Mutation("mms that did not run are walked", LRU_GEN,
             "    if not t.g_force and not used:\n        return False\n", ""),
    Mutation("a new mm does not force the walk", LRU_GEN,
             "        t.g_force = 1\n        mm.lru_gen", "        mm.lru_gen"),
    Mutation("page tables that no CPU walked are looked at", LRU_GEN,
             "    if not r.young:\n        return True\n", ""),
    Mutation("the walk marks the filter that it reads", LRU_GEN,
             "update_bloom_filter(m, r, t.g_seq + 1)", "update_bloom_filter(m, r, t.g_seq)"),
    Mutation("an old filter is not cleared", LRU_GEN,
             "        m.region[i].filter &= ~bit\n", "        pass\n"),
    Mutation("a walk does not mind who holds the page-table lock", LRU_GEN,
             "    if r.ptl.holder >= 0:  ", "    if False:  "),
    Mutation("a walk does not pay for the folios of young pages", LRU_GEN,
             "spend(m, TM_scan, look_cost(m, end - first, young))",
             "spend(m, TM_scan, look_cost(m, end - first, 0))"),
    Mutation("a look around pays for young pages again after a drain", LRU_GEN,
             "look_cost(m, t.look_at - first, t.look_young - young)",
             "look_cost(m, t.look_at - first, t.look_young - 1)"),
    Mutation("a walk forgets the sizes of generations", LRU_GEN,
             "        m.cg.gen_nr[gen] += t.g_moved[gen]\n", ""),
    Mutation("a walk's moves are told twice", LRU_GEN,
             "        t.g_moved[gen] = 0\n", "        pass\n"),
    # its lists and refaults
    Mutation("new folios of no recency are the youngest", GENERATIONS,
             "        seq = g.max_seq - 1\n", "        seq = g.max_seq\n"),
    Mutation("folios of the swap cache go to the oldest of four generations", GENERATIONS,
             "    elif not reclaiming and seq + MIN_NR_GENS < g.max_seq:\n        seq += 1\n", ""),
    Mutation("an active folio keeps its references", GENERATIONS,
             "        folio_set_lru_refs(q, 0)\n        q.flags &= ~<uint32_t>(PG_referenced | PG_active)\n",
             "        q.flags &= ~<uint32_t>(PG_referenced | PG_active)\n"),
    Mutation("a promotion keeps references", GENERATIONS,
             "        folio_clear_lru_refs(q)\n        folio_set_gen(q, gen)\n",
             "        folio_set_gen(q, gen)\n"),
    Mutation("a walk does not see isolated folios", GENERATIONS,
             "        q.flags |= PG_referenced             #", "        pass             #"),
    Mutation("two references are of the third tier", GENERATIONS,
             "refs - (1 if refs > 2 else 0)", "refs"),
    Mutation("a rotated folio goes to the head of its generation", GENERATIONS,
             "    gen_list_add(m, f, gen, reclaiming)\n", "    gen_list_add(m, f, gen, False)\n"),
    Mutation("references saturate one early", GENERATIONS,
             "    elif refs < REFS_MAX:\n", "    elif refs < REFS_MAX - 1:\n"),
    Mutation("refaults of any generation count", GENERATIONS,
             "    if <int64_t>(token >> 2) != m.cg.min_seq[GEN_ANON]:\n        return\n", ""),
    Mutation("a shadow loses whether the folio was of the working set", GENERATIONS,
             "    return ((token | <uint64_t>(refs - 1)) << 3) | 4 | 1",
             "    return ((token | <uint64_t>(refs - 1)) << 3) | 1"),

    # readahead
    Mutation("a hit does not move the remembered page", READAHEAD,
             "    mm.ra_page = t.vp - mm.base\n", ""),
    Mutation("hits are not forgotten", READAHEAD, "    mm.ra_hits = 0\n", ""),
    Mutation("the window shrinks at once", READAHEAD,
             "return max(pages, mm.ra_win // 2)", "return pages"),
    Mutation("the window is not aligned to the page-table page", READAHEAD,
             "min(mm.nr_pages, first + PTRS_PER_PTE)", "mm.nr_pages"),
    Mutation("backward faults read forward", READAHEAD,
             "page - n + 1 if page == prev - 1", "page if page == prev - 1"),
    Mutation("the fault's own page is marked as read ahead", READAHEAD,
             "    if not own:\n", "    if True:\n"),
    Mutation("no lru_add_drain after reading ahead", READAHEAD,
             "        drain_all(m, t, ST_F_TARGET)\n", "        t.step = ST_F_TARGET\n"),
    Mutation("a page in the swap cache is read again", READAHEAD,
             "    return pte_kind_of(pte) == PTE_SWAP and not m.slot_count[pte_index(pte)] & SLOT_HAS_CACHE\n",
             "    return pte_kind_of(pte) == PTE_SWAP and m.w.nr_slots > 0\n"),
    Mutation("a page that was read ahead is a major fault too", READAHEAD,
             "        m.counter[CN_swap_ra] += 1\n",
             "        m.counter[CN_swap_ra] += 1\n        m.counter[CN_pgmajfault] += 1\n"),
    # devices that rotate
    Mutation("a cluster that is used up is not followed by a free one", SWAPFILE,
             "        if m.cg.slots_free + n >= SWAPFILE_CLUSTER:\n", "        if False:\n"),
    Mutation("a returned slot is free at once", FOLIO,
             "    if m.dev.cache_active:\n        slot_return", "    if False:\n        slot_return"),
    Mutation("slot caches stop too late", SWAPFILE,
             "m.cg.slots_free < 2 * SWAP_BATCH * m.w.nr_cpus",
             "m.cg.slots_free < SWAP_BATCH * m.w.nr_cpus"),
    Mutation("a slot taken from a folio goes through the slot cache", SWAPFILE,
             "    pool_put(m, s)\n    folio_put(m, f)\n", "    slot_free(m, s)\n    folio_put(m, f)\n"),
    Mutation("clusters are aligned as if there were no header", READAHEAD,
             "first = (s + 1) // n * n ", "first = s // n * n + 1 "),
    Mutation("only the last hit counts for the next cluster", READAHEAD,
             "        m.dev.ra_hits += hit\n", "        m.dev.ra_hits = hit\n"),
    Mutation("the last cluster's slot is remembered after hits too", READAHEAD,
             "    if dev.ra_hits == 0:\n        dev.ra_prev = s\n", "    dev.ra_prev = s\n"),
    Mutation("what a cluster brings in is taken for the reader's page", READAHEAD,
             "read_async(m, t, t.ra_vp, -1, -1,", "read_async(m, t, t.ra_vp, t.mm, t.vp,"),
    # threads of one mm
    Mutation("a zap does not flush what reclaim left pending", SMP,
             "    if mm.pending == mm.flushed:\n", "    if True:\n"),
    Mutation("what was unmapped during that flush counts as flushed", SMP,
             "    if m.mm[t.mm].pending == t.batched:\n        m.mm[t.mm].flushed = t.batched\n",
             "    m.mm[t.mm].flushed = m.mm[t.mm].pending\n"),
    Mutation("OOM kills one thread of an mm only", MEMCG,
             "m.task[u].mm != best or m.task[u].state", "m.cg.nr_dying > 0 or m.task[u].mm != best or m.task[u].state"),
    Mutation("the page-table page that came second stays charged", MEMORY,
             "        m.cg.usage -= 1\n        return\n    pte_region", "        return\n    pte_region"),
    Mutation("the end of a swap-in does not wake those who lost the slot", MEMORY,
             "    if direct:\n        wake_up(m, SLEEP_SWAPCACHE)\n    t.step = ST_F_WP if",
             "    t.step = ST_F_WP if"),
    Mutation("a swap-in whose PTE went away keeps its slot", MEMORY,
             "            swapcache_clear(m, q, pte_index(t.f_orig))\n", "            pass\n"),
    Mutation("a PTE that is being zapped is taken for a swap entry", MEMORY,
             "    if kind == PTE_ZAPPED: ", "    if False: "),
    Mutation("touches are made ahead in a shared mm", MEMORY,
             "by_the_kernel(a) or m.mm[t.mm].shared", "by_the_kernel(a)"),
    Mutation("touches that walk are made ahead while others reclaim", MEMORY,
             "m.nr_reclaiming > 0 or m.w.lru", "m.w.lru"),
    Mutation("a page walk that is taken back leaves the TLB as it was", PROGRAM,
             "w.filled & FILLED_L2", "False"),
    Mutation("the balancer rounds the average load up", SCHED,
             "average = average * 1024 // m.w.nr_cpus\n", "average = average * 1024 // m.w.nr_cpus + 1\n"),
    Mutation("the balancer moves more than is missing", SCHED,
             "        if 1024 >> p.balance_failed > imbalance:\n            break\n", ""),
    Mutation("the balancer moves one task at most", SCHED, "        imbalance -= 1024\n", "        imbalance = 0\n"),
    Mutation("a balancer that failed waits as long as one that found nothing", SCHED,
             "    p.balance_long = moved < 0\n", "    p.balance_long = moved <= 0\n"),
    Mutation("a slice counts ticks that came, not those that were due", SCHED,
             "min(p.slice_ticks + elapsed, MAX_SLICE)", "min(p.slice_ticks + 1, MAX_SLICE)"),
    # munmap, mprotect, mremap: what is gathered and how it is flushed
    *(Mutation(*row, near="calls") for row in (
        ("a flush forgets that page tables are freed", MMAP,
         "t.v_lo, t.v_hi, t.v_tables > 0, ret)", "t.v_lo, t.v_hi, False, ret)"),
        ("a flush remembers the freed tables of the one before", SMP,
         "    p.fl_tables = 0\n    p.fl_ret", "    p.fl_ret"),
        ("freed tables are not told to CPUs that are lazy", SMP,
         "    if q.is_lazy or p.fl_tables:\n        return p.fl_tables ",
         "    if q.is_lazy or p.fl_tables:\n        return not q.is_lazy "),
        ("33 pages are flushed as a whole", SMP, "if hi - lo <= FLUSH_CEILING else",
         "if hi - lo < FLUSH_CEILING else"),
        ("34 pages are flushed one by one", SMP, "if hi - lo <= FLUSH_CEILING else",
         "if hi - lo <= FLUSH_CEILING + 1 else"),
        ("a gather is full one page early", MEMORY, "t.v_nr == GATHER_PAGES:", "t.v_nr == GATHER_PAGES - 1:"),
        ("a gather holds one page more", MEMORY, "t.v_nr == GATHER_PAGES:", "t.v_nr == GATHER_PAGES + 1:"),
        ("a gather that was flushed still counts as full", MMAP,
         "    t.v_nr = 0\n    t.v_at = call_first", "    t.v_at = call_first"),
        ("after a full gather the page table is looked at again", MMAP,
         "    if vp == zap_to(m, t, t.zap):\n", "    if False:\n"),
        ("a batch of page tables is full one early", MMAP, "t.v_tables == TABLE_BATCH:",
         "t.v_tables == TABLE_BATCH - 1:"),
        ("a batch holds one page table more", MMAP, "t.v_tables == TABLE_BATCH:",
         "t.v_tables == TABLE_BATCH + 1:"),
        ("page tables go though pages beside the range are mapped", MMAP,
         "            and zap_to(m, t, region) ==", "            or zap_to(m, t, region) =="),
        ("the last page of a gather is not flushed", MEMORY,
         "    if vp >= t.v_hi:\n        t.v_hi = vp + 1\n",
         "    if vp >= t.v_hi:\n        t.v_hi = max(vp, 1)\n"),
        ("a gather begins with the page that came first", MEMORY,
         "    if t.v_hi == 0 or vp < t.v_lo:\n", "    if t.v_hi == 0:\n"),
        ("the flush of madvise is off by one page", MEMORY,
         "flush(m, p, t, t.mm, last if t.call and mapped == 1 else -1, ST_E_FREE)",
         "flush(m, p, t, t.mm, last - 1 if t.call and mapped == 1 else -1, ST_E_FREE)"),
        ("madvise flushes one page of two", MEMORY,
         "last if t.call and mapped == 1 else", "last if t.call and mapped <= 2 else"),
        ("madvise flushes where nothing was mapped", MEMORY,
         "    elif t.call and mapped == 0:  ", "    elif False:  "),
        ("mprotect does not flush what reclaim left pending", MMAP,
         "ptl) and not flush_tlb_batched_pending(m, p, t, ST_V_PTES):", "ptl):"),
        ("mremap does not flush what reclaim left pending", MMAP,
         "    if moves_table(m, t) or not flush_tlb_batched_pending",
         "    if True or not flush_tlb_batched_pending"),
        ("a page table that moves is flushed for what is pending, too", MMAP,
         "    if moves_table(m, t) or not flush_tlb_batched_pending", "    if not flush_tlb_batched_pending"),
        ("there is no cond_resched between page tables", MMAP,
         "    if not resched_guard(m, p, t):\n        t.step = t.v_next",
         "    if True:\n        t.step = t.v_next"),
        # protection
        ("a page that is read from swap may be written whatever its rights", MEMORY,
         "PTE_EXCL if pte >= PTE_RO else PTE_EXCL | PTE_WRITE\n", "PTE_EXCL | PTE_WRITE\n"),
        ("a fault does not see the protection", MEMORY, "    if unlikely(pte >= PTE_RO):\n",
         "    if False:\n"),
        ("a write without the right keeps the lock of its mm", MEMORY,
         "    mmap_unlock(m, t)\n    spend(m, TM_fault, m.w.cost[CO_fault_entry])\n    t.step = ST_TOUCH\n",
         "    spend(m, TM_fault, m.w.cost[CO_fault_entry])\n    t.step = ST_TOUCH\n"),
        ("the zero page loses the protection", MEMORY,
         "PTE_ZERO | PTE_YOUNG | PTE_Z | (m.pte[t.vp] & PTE_RO)", "PTE_ZERO | PTE_YOUNG | PTE_Z"),
        ("what reclaim unmaps loses the protection", VMSCAN,
         "    m.pte[vp] &= PTE_PAGE\n    t.step = ST_U_GEN", "    m.pte[vp] &= PTE_Z\n    t.step = ST_U_GEN"),
        ("a zap ends the protection", MEMORY, "        ro = pte & PTE_RO\n", "        ro = 0\n"),
        ("freeing what was zapped ends the protection", MEMORY,
         "        m.pte[vp] &= PTE_RO\n", "        m.pte[vp] = 0\n"),
        ("the protection outlives munmap", MMAP, "        m.pte[vp] = 0\n    if",
         "        m.pte[vp] &= PTE_RO\n    if"),
        ("the protection outlives the process", MEMORY, "        m.pte[u] &= ~PTE_RO  ", "        pass  "),
        ("mprotect gives pages that are not exclusive the right at once", MMAP,
         "            elif pte & PTE_EXCL: ", "            else: "),
        ("mprotect leaves PTEs writable", MMAP,
         "                new &= ~<uint64_t>PTE_WRITE\n", "                pass\n"),
        ("mprotect flushes what it did not change", MMAP,
         "            if (new ^ pte) & PTE_WRITE:\n", "            if True:\n"),
        ("mprotect pays for pages of other VMAs", MMAP,
         "            continue\n        n += 1\n        new",
         "            n += 1\n            continue\n        n += 1\n        new"),
        # moves
        ("a page that moved is looked for where it was", MMAP, "        m.folio[f].vp = new\n",
         "        pass\n"),
        ("a move does not tell the folio of a swap entry", MMAP,
         "        f = swap_cache_folio(m, pte_index(pte))\n", "        pass\n"),
        ("what is written while a move is flushed stays behind", MMAP,
         "(m.pte[to + i] & ~<uint64_t>PTE_Z) | (m.pte[from_ + i] & PTE_Z)", "m.pte[to + i]"),
        ("a move of swap entries is flushed, too", MMAP,
         "need_flush |= pte_kind_of(m.pte[base + from_ + i]) != PTE_SWAP", "need_flush = True"),
        ("a page table that moved is not flushed", MMAP, "        need_flush = True\n", "        pass\n"),
        ("page tables never move as a whole", MMAP,
         "extent(m, t) == PTRS_PER_PTE and not new_table(m, t).present", "False"),
        ("where a page table goes is locked by nobody", MMAP,
         "    if not lock(m, &new_table(m, t).ptl):\n",
         "    if not moves_table(m, t) and not lock(m, &new_table(m, t).ptl):\n"),
        ("the other lock of a move stays held", MMAP,
         "    if new_table(m, t) != old_table(m, t):\n        unlock", "    if False:\n        unlock"),
        ("a page table that moved is as young as it was", MMAP,
         "new_table(m, t).young = m.w.lru != 0  ", "new_table(m, t).young = 0  "),
        ("the place that a page table left keeps its filter", MMAP, "        old_table(m, t).filter = 0\n",
         ""),
        ("a killed task that lacks a page table moves on", MMAP,
         "    if t.c_failed:\n        t.step = ST_V_END\n        return\n    new_table", "    new_table"),
        ("who waited for the lock of where a page was keeps it", VMSCAN,
         "        unlock(m, was)\n", "        pass\n"),
        ("S_REF keeps the lock of where a page was", VMSCAN,
         "        lock_moved(m, q)\n        young", "        young"),
        ("S_UNMAP keeps the lock of where a page was", VMSCAN,
         "    if unlikely(m.w.moves or m.w.forks):\n        lock_elsewhere(m, ptl)\n    if not lock", "    if not lock"),
        ("S_GEN keeps the lock of where a page was", LRU_GEN, "        lock_moved(m, q)\n", ""),
        # the lock of an mm
        ("a reader passes a writer that waits", SCHED,
         "    if mm.wait_head < 0 and mm.writer < 0",
         "    if (mm.wait_head < 0 or kind == MMAP_READ) and mm.writer < 0"),
        ("a writer comes in beside readers", SCHED, "(kind == MMAP_READ or mm.readers == 0)", "True"),
        ("one reader is woken at a time", SCHED,
         "        if mm.writer < 0 and (writer", "        if mm.writer < 0 and mm.readers == 0 and (writer"),
        ("a writer is woken with the readers in front of it", SCHED,
         "        if mm.writer < 0 and (writer or m.task[u].mmap == MMAP_READ + MMAP_WAIT):\n",
         "        if mm.writer < 0:\n"),
        ("a writer leaves the lock held", SCHED, "        mm.writer = -1\n", "        pass\n"),
        ("a reader leaves the lock held", SCHED, "        mm.readers -= 1\n", "        pass\n"),
        ("a lock is handed on while readers hold it", SCHED,
         "    if mm.readers == 0 and mm.wait_head >= 0:\n", "    if mm.wait_head >= 0:\n"),
        ("madvise takes no lock", MEMORY,
         "    if t.call == PASS_DONTNEED and not mmap_lock", "    if False and not mmap_lock"),
        ("a fault sleeps with the lock of its mm", MEMORY,
         "    if unlikely(t.mmap):              # release", "    if False:              # release"),
    )),
    # fork
    *(Mutation(*row, near="forks") for row in (
        ("a fork leaves the parent the right to write", MMAP, "    m.pte[vp] = pte\n    m.pte[to] = pte &",
         "    m.pte[to] = pte &"),
        ("the child's pages are as young as the parent's", MMAP,
         "    m.pte[vp] = pte\n    m.pte[to] = pte & ~<uint64_t>PTE_YOUNG\n", "    m.pte[vp] = m.pte[to] = pte\n"),
        ("a swap entry that is shared stays exclusive", MMAP,
         "    cdef uint64_t pte = m.pte[vp] & ~<uint64_t>PTE_EXCL\n", "    cdef uint64_t pte = m.pte[vp]\n"),
        ("a fork does not flush the parent", MMAP, "        flush(m, p, t, t.mm, -1, ST_V_FORKED)\n",
         "        t.step = ST_V_FORKED\n"),
        ("what is written while a fork is flushed is not the child's", MMAP,
         "        m.pte[to] = (m.pte[to] & ~<uint64_t>PTE_Z) | (m.pte[vp] & PTE_Z)\n    m.task",
         "        pass\n    m.task"),
        ("a parent that was killed copies on", MMAP,
         "    if t.c_failed:\n        t.zap = zap_end_region(m, t)\n        return\n    child_table",
         "    child_table"),
        ("reclaim unmaps one page of a shared folio", VMSCAN,
         "        t.step = ST_S_UNMAP if q.mapcount > 0 else ST_S_PIN\n", "        t.rmap = 0\n"),
        ("references to shared folios are cleared, not told", VMSCAN, "            t.rmap |= RMAP_YOUNG\n",
         "            pass\n"),
        ("the lock of a page that is gone is kept", VMSCAN,
         "    lock_elsewhere(m, ptl)\n    if vp < 0:", "    if vp < 0:"),
        ("what is unmapped is the page that the folio was last mapped at", PTE,
         "rmap_page(m, q, t.rmap & 3) if unlikely(m.w.forks) else q.vp", "q.vp"),
        ("a folio that is still mapped is written", VMSCAN,
         " or (unlikely(m.w.forks) and m.folio[t.folio].mapcount > 0):", ":"),
        ("zeros are what either page says", VMSCAN,
         "        if vp >= 0 and pte_kind_of(m.pte[vp]) == PTE_SWAP and pte_index(m.pte[vp]) == q.slot:\n",
         "        if vp >= 0:\n"),
        ("a slot that two map is read past the swap cache", READAHEAD,
         "unlikely(m.w.forks) and m.w.swap_sync and slot_maps(m, pte_index(t.f_orig)) > 1", "False"),
        ("a slot that two map is paid for as if read past the cache", MEMORY,
         "        t.step = ST_F_LOCK\n        return\n    spend(m, TM_fault",
         "        t.step = ST_F_LOCK\n    spend(m, TM_fault"),
        ("the reverse map of the active list is free", CLASSIC,
         "        t.owed += m.w.cost[CO_rmap] * (t.rmap > 0)\n", ""),
        ("K_NEXT gives way when it has waited for a lock", CLASSIC,
         "return t.rmap > 0 or (m.p.lock_at > 0 and lock_of(m, m.p).holder == m.c)", "return t.rmap > 0"),
    )),
    # runs of steps made one after the other: the same bytes as one by one
    Mutation("a chain goes on though another CPU is due", CHAINS,
             "    return t.step == step and not m.turn\n", "    return t.step == step\n"),
    Mutation("a chain of a fault takes less of the budget", CHAINS, "    return left - 6\n",
    "    return left - 5\n"),
    Mutation("a chain of a write takes nothing of the budget", CHAINS,
             "    step_P_WRITE(m, p, t)\n    return left - 1\n",
             "    step_P_WRITE(m, p, t)\n    return left\n"),
    Mutation("a chain leaves out the batch's mask", CHAINS, "    step_U_MASK(m, p, t)\n", ""),
    Mutation("a chain does not stop where an unmap is not deferred", CHAINS,
             "    if t.step != ST_U_GEN:\n        return left - 2\n", ""),
    Mutation("a chain of a list's folios does not look at the budget", CHAINS,
             "        if left <= CHAIN or not goes_on(m, t, ST_S_NEXT):\n",
             "        if not goes_on(m, t, ST_S_NEXT):\n"),
    Mutation("a chain of a batch's folios does not look at the budget", CHAINS,
             "    while left > CHAIN and goes_on(m, t, ST_B_LOCK):\n",
             "    while goes_on(m, t, ST_B_LOCK):\n"),
)

# Not among them: what _HEAD says that no world here tells from the core.

DEFAULT = MUTATIONS[:4]


@dataclass(frozen=True)
class Outcome:
    """`world` is None when nothing differed."""
    world: str | None
    difference: str
    build_s: float
    run_s: float


def build_env(**extra: str) -> dict[str, str]:
    """The environment without this run's RECLAIM_ variables, plus `extra`."""
    return {k: v for k, v in os.environ.items() if not k.startswith("RECLAIM_")} | extra


def copy_tree(target: Path, *, only_core: bool) -> None:
    """The package's source in `target`; of its extension modules only _core and the built _policy if asked."""
    import reclaim._policy
    shutil.copy(ROOT / "setup.py", target)
    shutil.copytree(ROOT / "reclaim", target / "reclaim",
                    ignore=shutil.ignore_patterns("*.so", "*.pyd", "*.c", "__pycache__"))
    built = Path(reclaim._policy.__file__)
    newest = max(path.stat().st_mtime for path in (ROOT / "reclaim").glob("_policy.p*"))
    if not only_core:
        return
    needed = {"_core.pyx"}
    if built.stat().st_mtime >= newest:
        shutil.copy(built, target / "reclaim")
    else:                                                  # an older one may not fit: both then
        needed.add("_policy.pyx")
    for source in (target / "reclaim").glob("*.pyx"):      # setup.py builds what it finds
        if source.name not in needed:
            source.unlink()


def build(tree: Path, **env: str) -> None:
    """Build the copy in place, one compiler at a time."""
    done = subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "-i", "-j1"], cwd=tree,
                          env=build_env(**env), capture_output=True, text=True, timeout=BUILD_TIMEOUT)
    assert done.returncode == 0, f"the build failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"


# --- many mutants in one build

FUNCTION = re.compile(r"^cdef inline (?P<type>[\w \*]*?)(?P<name>\w+)\((?P<args>[^()]*)\)[^:\n]*:\n"
                      r"(?:(?:[ )].*)?\n)+", re.MULTILINE)
CHOICE = '''
cdef extern from *:
    """
    #include <stdlib.h>
    static inline int reclaim_mutant(void) {
        static int number = -1;
        if (number < 0)
            number = getenv("RECLAIM_MUTANT") ? atoi(getenv("RECLAIM_MUTANT")) : 0;
        return number;
    }
    """
    int reclaim_mutant() noexcept nogil
'''


def function_of(mutation: Mutation) -> re.Match | None:
    """The function of a .pxd that the mutation is in, if in one, and not in its first line."""
    text = mutation.source()
    start = text.index(mutation.old)
    for found in FUNCTION.finditer(text):
        if found.start() < start and start + len(mutation.old) <= found.end():
            return found if mutation.file.endswith(".pxd") and mutation.old in _body(found) else None
    return None


def _body(function: re.Match) -> str:
    return function[0][function[0].index(":\n") + 2:]


def _named(function: re.Match, suffix: str, body: str) -> str:
    head = function[0][:-len(_body(function))]
    return head.replace(f"{function['name']}(", f"{function['name']}{suffix}(", 1) + body.rstrip("\n") + "\n\n"


def _chosen_at_run_time(function: re.Match, variants: dict[int, str]) -> str:
    """The function, once as it is and once for each mutation; and the one that calls one of them."""
    names = ", ".join(re.findall(r"(\w+)\s*(?:,|$)", function["args"]))
    void = function["type"].split() == ["void"]
    calls = "".join(
        f"    if reclaim_mutant() == {k}:\n"
        + (f"        {function['name']}__{k}({names})\n        return\n" if void
           else f"        return {function['name']}__{k}({names})\n") for k in variants)
    last = f"    {'' if void else 'return '}{function['name']}__0({names})\n"
    return "".join(_named(function, f"__{k}", body) for k, body in {0: _body(function), **variants}.items()) \
        + _named(function, "", calls + last)


def apply_all(tree: Path, mutations: Sequence[Mutation]) -> None:
    """Change the copy so that RECLAIM_MUTANT says which mutation is in force: 1 is the first, 0 none."""
    for file in {m.file for m in mutations}:
        path, variants, functions = tree / "reclaim" / file, {}, {}
        for k, mutation in enumerate(mutations, start=1):
            if mutation.file == file:
                function = function_of(mutation)
                functions[function["name"]] = function
                body = _body(function).replace(mutation.old, mutation.new)
                variants.setdefault(function["name"], {})[k] = body
        text = path.read_text()
        for name, function in functions.items():
            text = text.replace(function[0], _chosen_at_run_time(function, variants[name]) + "\n")
        first = text.index("cdef inline")
        path.write_text(text[:first] + "from reclaim._mm.types cimport reclaim_mutant\n\n" + text[first:])
    types = tree / "reclaim" / TYPES
    text = types.read_text()
    first = text.index("cdef ")
    types.write_text(text[:first] + CHOICE.lstrip("\n") + "\n" + text[first:])


# --- running one

@cache
def _records() -> tempfile.TemporaryDirectory:
    """Where the workers of this process keep what the twin does in each world."""
    return tempfile.TemporaryDirectory(prefix="twin-")


@cache
def _noticed_by() -> dict[str, str]:
    """Mutation -> the world that noticed it when the table was made."""
    rows = (line.split(" | ") for line in TABLE.read_text().splitlines() if line.startswith("| "))
    return {row[0].removeprefix("| "): row[2] for row in rows if len(row) > 2}


def worlds_for(first: str) -> list[str]:
    """The names of all worlds: `first`, those with it in their name, the others."""
    return sorted(WORLDS, key=lambda name: (name != first, not first or first not in name))


class Builds:
    """Builds of mutants: a common one, when it is first asked for, and one for each that it cannot have."""

    def __init__(self, mutations: Sequence[Mutation]):
        self.common = [m for m in mutations if function_of(m)]
        self.lock = Lock()
        self.tree: tempfile.TemporaryDirectory | None = None

    def run(self, mutation: Mutation | None) -> Outcome:
        """Run the mutant (None: the core as it is) beside the twin."""
        start = time.perf_counter()
        if mutation is None or mutation in self.common:
            with self.lock:
                if self.tree is None:
                    tree = tempfile.TemporaryDirectory(prefix="mutations-")
                    self._build(tree.name, self.common)
                    self.tree = tree
            number = self.common.index(mutation) + 1 if mutation else 0
            return _run(self.tree.name, mutation, start, RECLAIM_MUTANT=str(number))
        with tempfile.TemporaryDirectory(prefix="mutation-") as name:
            self._build(name, mutation)
            return _run(name, mutation, start)

    @staticmethod
    def _build(name: str, what: Mutation | Sequence[Mutation]) -> None:
        tree = Path(name)
        copy_tree(tree, only_core=True)
        if isinstance(what, Mutation):
            what.apply(tree)
        else:
            apply_all(tree, what)
        build(tree, RECLAIM_OPT="-O0")


def _run(tree: str, mutation: Mutation | None, start: float, **env: str) -> Outcome:
    first = "" if mutation is None else _noticed_by().get(mutation.name, mutation.near)
    built = time.perf_counter()
    done = subprocess.run([sys.executable, __file__, "--worlds", _records().name, first], cwd=tree, text=True,
                          env=build_env(PYTHONPATH=os.pathsep.join((tree, str(HERE))), **env),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    took = time.perf_counter() - built
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"world"')]
    last = json.loads(lines[-1]) if lines else {"world": None, "difference": None}
    how = ""
    if done.returncode < 0:
        how = (f"no end within {WORLD_TIMEOUT} s" if done.returncode == -signal.SIGALRM
               else f"killed by {signal.Signals(-done.returncode).name}")
    elif done.returncode > 0:
        raise RuntimeError(f"the comparison itself failed:\n{done.stdout[-4000:]}")
    found = how or last["difference"]
    return Outcome(last["world"] if found else None, found or "", built - start, took)


def _difference(error: BaseException) -> str:
    """What differed; a bare assert of `twin.assert_same` compares counters."""
    if not isinstance(error, AssertionError) or str(error):
        return f"{'' if isinstance(error, AssertionError) else type(error).__name__ + ': '}{error}"
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    got, twin = trace.tb_frame.f_locals.get("counters"), trace.tb_frame.f_locals.get("twin")
    if got is None or twin is None:
        return "the digest"
    name, want = next((n, w) for n, w in twin.counters().items() if got.get(n) != w)
    return f"counter {name}: core {got.get(name)}, twin {want}"


def _recorded(records: Path, name: str, world, policy: dict, actions: int):
    """What the twin does in the world: by the first worker that asks, then from its file."""
    from twin import Recorded
    path = records / f"{list(WORLDS).index(name)}.pickle"
    if not path.exists():
        own = path.with_suffix(f".{os.getpid()}")
        own.write_bytes(pickle.dumps(Recorded(world, policy, actions)))
        own.replace(path)
    return pickle.loads(path.read_bytes())


def _compare(world, policy: dict, twin, actions: int) -> None:
    """The core step for step beside the twin, and fused beside itself."""
    from reclaim.simulation import Simulation
    from twin import compare_recorded, core_policy
    # Without sim.verify(): what is asked here is whether the twin alone notices.
    compare_recorded(world, policy, twin)
    fused, single = (Simulation(world, core_policy(policy)) for _ in range(2))
    for some in (*range(1, 100, 3), *(1 + actions // 25,) * 25):      # budgets that end within a chain, too
        fused._core.run(1 << 50, actions=some)
        single._core.run(1 << 50, actions=some, fuse=False)
        assert fused.digest() == single.digest(), "fused, the steps go another way"


def worker(records: Path, first: str) -> None:
    """In the copy: every world until one differs; a JSON line before each and at the difference."""
    import reclaim._core
    assert Path(reclaim._core.__file__).is_relative_to(Path.cwd()), reclaim._core.__file__
    for name in worlds_for(first):
        print(json.dumps({"world": name, "difference": None}), flush=True)
        make, actions = WORLDS[name]
        world, policy = make()
        twin = _recorded(records, name, world, policy, actions)
        signal.alarm(WORLD_TIMEOUT)                 # ends the process, wherever it is
        try:
            _compare(world, policy, twin, actions)
        except Exception as error:                  # also what the core raises about itself
            print(json.dumps({"world": name, "difference": _difference(error)}), flush=True)
            return
        finally:
            signal.alarm(0)


# --- the table

_HEAD = """# Mutations

Would the twin notice an error in the core?  Each row is one small error, put into a copy of the core
on purpose; the last columns say which world of `tests/mutations.py` told the two apart, and at what.
Made by `python tests/mutations.py > docs/mutations.md`; `RECLAIM_MUTATIONS=all pytest
tests/test_mutations.py` asserts the same, `pytest` alone takes the first four.

Errors are known that no world here shows: another threshold in swap_full (only a read fault on a folio still
in the swap cache asks for it), a flush that is done again when its own generation is the one reached
(flush_tlb_func, at equality: it needs three senders in three page-table pages of one mm), no merging at the
front of a request (slots are handed out in ascending order), and the lock of where a folio was, kept for a while
when the folio was unmapped at its new place meanwhile (the next folio's lock_moved gives it back), or, of a folio
that two map, when S_UNMAP finds it mapped nowhere.  Three make no difference: a page table that moves whether
or not there is one where it goes (munmap of that place, which comes first, has freed it); the lock of an mm,
taken where nobody could wait for it; and a chain that does not look whether alloc_frame ended it (only the
error that there is no frame does).
"""


def _cell(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= 160 else text[:157] + "..."


def tried(builds: Builds, mutation: Mutation) -> Outcome:
    try:
        return builds.run(mutation)
    except (AssertionError, RuntimeError) as error:
        return Outcome(None, f"**not run**: {error}", 0, 0)


def main(wanted: list[str]) -> int:
    chosen = [m for m in MUTATIONS if not wanted or any(w in m.name for w in wanted)]
    start, builds = time.perf_counter(), Builds(chosen)
    sound = builds.run(None)
    print(f"as it is: {sound}", file=sys.stderr, flush=True)
    if sound.world is not None:
        print(f"the core as it is differs from the twin, {sound.world}: {sound.difference}",
              file=sys.stderr)
        return 1
    rows, missed = [], 0
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for mutation, got in zip(chosen, pool.map(partial(tried, builds), chosen), strict=True):
            missed += got.world is None
            rows.append((mutation.name, f"`{mutation.file}`", got.world or "**none**", got.difference))
            print(f"{mutation.name}: {got}", file=sys.stderr, flush=True)
    print(_HEAD)
    print(f"{len(chosen)} mutations, {len(chosen) - missed} noticed.\n")
    print("| mutation | in `reclaim/` | world | first difference |\n|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(map(_cell, row)) + " |")
    print(f"{len(chosen)} mutations, {missed} not noticed, {time.perf_counter() - start:.0f} s",
          file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worlds"]:
        worker(Path(sys.argv[2]), sys.argv[3])
    else:
        sys.exit(main(sys.argv[1:]))
