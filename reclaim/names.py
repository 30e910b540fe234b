"""The names that the specification, the core, the twin and the tools share; no logic.

``docs/model.md`` says what each name means.  The order of every tuple is its numbering:
``python -m reclaim.names`` prints the C enumerations of ``_mm/names.pxd`` from it.
"""

# Micro-steps, in the order of the tables of docs/model.md.
STEPS = (
    # user accesses
    "TOUCH", "POPULATE", "DONTNEED",
    # faults (mm/memory.c)
    "F_READ", "F_PT", "F_PT_SET", "F_ZERO", "F_ALLOC", "F_CHARGED", "F_FILL", "F_MAP",
    "F_WP", "F_WP_REUSE", "F_WP_CLEAR", "F_WP_SET",
    "F_CACHE", "F_RA_WIN", "F_RA_NEXT", "F_RA_CHARGED", "F_RA_READ", "F_RA_SUBMIT", "F_TARGET",
    "F_CL_WIN", "F_CL_NEXT", "F_CL_CHARGED",
    "F_PREPARE", "F_BACKOFF", "F_SWAP_READ", "F_SUBMIT", "F_LOCK", "F_RETRY", "F_RECHECK",
    "F_SWAP_MAP", "F_DONE",
    # charging (mm/memcontrol.c)
    "C_TRY", "C_AFTER",
    # direct reclaim (mm/vmscan.c)
    "R_START", "R_PRIO", "R_LIST", "R_AGE", "R_END",
    "I_START", "I_LOCK", "I_UNLOCK", "I_PUT", "I_PUT_UNLOCK",
    "K_LOCK", "K_UNLOCK", "K_NEXT", "K_PUT", "K_PUT_UNLOCK",
    # the multi-generational LRU: eviction, then aging
    "G_SHRINK", "G_NEXT", "G_ISOLATE", "G_UNLOCK", "G_KEEP", "G_PUT", "G_PUT_UNLOCK", "G_MORE",
    "G_MM", "G_WALK", "G_BATCH", "G_BATCH_UNLOCK", "G_AGAIN", "G_MAX", "G_MAX_UNLOCK",
    # shrink_folio_list
    "S_PLAN", "S_NEXT", "S_LOCK", "S_WB", "S_WB_WAIT", "S_REF",
    "S_GEN", "S_LOOK", "S_YOUNG", "S_SLOT", "S_ADD", "S_UNMAP",
    "U_DEFER", "U_CLEAR", "U_GEN", "U_MASK", "U_FLUSH", "U_SET",
    "S_PIN", "S_DIRTY", "S_FREE", "S_FREE_FLUSHED", "S_TAIL", "S_END", "S_END_FLUSHED",
    # pageout and its batch
    "P_OUT", "P_WRITE", "P_SUBMIT", "P_END", "P_DISPATCH",
    "B_START", "B_LOCK", "B_OUT",
    # draining the per-CPU folio batches (mm/swap.c)
    "D_LOCK", "D_UNLOCK",
    # flushing (arch/x86/mm/tlb.c, kernel/smp.c)
    "FL_START", "FL_QUEUE", "FL_SEND", "FL_LOCAL", "FL_WAIT", "FL_DONE", "M_BATCHED",
    # interrupts on the target
    "Q_ENTRY", "Q_TAKE", "Q_FUNC", "Q_ACK", "Q_EXIT", "T_TICK", "T_TIMER",
    "IO_ENTRY", "IO_END",
    # scheduling (kernel/sched, switch_mm_irqs_off)
    "SW_PICK", "SW_CLEAR", "SW_SET", "SW_GEN", "SW_CR3", "W_WORK", "W_BACK",
    # host CPUs that run the CPUs in turn
    "H_EVENT", "H_YIELD",
    # exit of an OOM victim, MADV_DONTNEED
    "E_LEFT", "E_ZAP", "E_PTES", "E_FREE", "E_UNLOCK", "E_DONE",
    # munmap, mprotect, mremap (mm/vma.c, mm/mprotect.c, mm/mremap.c)
    "V_CALL", "V_LOCK", "V_UNMAP", "V_MORE", "V_FULL", "V_TABLES", "V_FREE", "V_FREED", "V_UNMAPPED",
    "V_PROT", "V_PTES", "V_MOVE", "V_PT", "V_MOVE_NEW", "V_MOVE_PTES", "V_MOVED", "V_END",
    # fork (dup_mmap in kernel/fork.c, mm/memory.c)
    "V_FORK", "V_FORK_PT", "V_FORK_PTES", "V_FORKED", "V_CHILD",
)

# Entries of a cost profile; nanoseconds in TOML, picoseconds in the core.
COSTS = (
    "tlb_l2_hit", "walk_warm", "walk_cold",
    "fault_entry", "fault_anon", "fault_zero", "fault_swap", "page_copy", "page_zero", "gup_page",
    "charge", "lru_lock", "lru_isolate", "lru_putback", "lru_add",
    "reclaim_prio", "scan", "rmap", "unmap", "pageout", "relock", "free",
    "zram_write", "zram_read", "io_submit", "io_complete",
    "flush_fixed", "ipi_send", "ipi_delivery", "ipi_delivery_cross",
    "irq_entry", "irq_exit", "tlb_check", "tlb_flush_full", "invlpg", "csd_ack",
    "lock_handoff", "context_switch", "wakeup", "kworker", "tick", "zap_pte", "vcpu_switch",
    "walk_pte", "walk_young",
)

# Where a CPU's time goes; the parts sum to its clock.
TIMES = ("user", "walk", "fault", "scan", "unmap", "flush", "flush_wait", "interrupt",
         "lock_wait", "swap", "sched", "idle", "steal")

# Counters, the kernel's names where the kernel has one.
COUNTERS = (
    "pgscan_anon", "pgsteal_anon", "pswpin", "pswpout", "pgfault", "pgmajfault",
    "pgactivate", "pgdeactivate", "pgrefill", "pgrotated", "pgreuse",
    "workingset_refault_anon", "workingset_activate_anon", "workingset_restore_anon",
    "swpin_zero", "swpout_zero", "nr_vmscan_write",
    "nr_tlb_remote_flush", "nr_tlb_remote_flush_received",
    "nr_tlb_local_flush_all", "nr_tlb_local_flush_one",
    "function_call_ipis",
    "memcg_max", "memcg_oom_kill", "memcg_pgrefill", "memcg_pgactivate", "memcg_pgdeactivate",
    "page_touches", "bogo_units", "shrink_folio_list_calls", "shrink_active_list_calls",
    "direct_reclaims",
    "try_to_unmap_flush_dirty_calls", "try_to_unmap_flush_dirty_effective",
    "flush_before_free_effective", "flush_at_list_end_effective",
    "arch_tlbbatch_flush_remote", "arch_tlbbatch_flush_targets", "arch_tlbbatch_flush_local",
    "flush_mm_remote", "flush_mm_targets", "flush_mm_local", "flush_tlb_batched_pending",
    "flush_batches", "folios_batched",
    "putback_locked", "putback_writeback", "putback_lru", "putback_mapped", "putback_pinned",
    "putback_refcount",
    "context_switches", "migrations", "ticks", "throttled", "drain_all_stock", "lock_waits",
    "lru_lock_waits", "io_waits", "writeback_waits", "swapcache_waits", "swap_ra", "swap_ra_hit", "restarts",
    "vcpu_switches", "pv_flushes",
    "stock_drains", "vmstat_updates", "memcg_notifies", "vmpressures",
)

# Histograms, recorded by `record` (_mm/meters.pxd) at one place each: name, unit of its values, what is
# counted, buckets, when, percentiles that a comparison shows, kernel function.
# Buckets: n: the values 0 to n - 1; "cpus": 0 to the number of CPUs - 1; the last one holds all above, too.
# "log2": nanoseconds, exact below LOG2_SUB, then LOG2_SUB buckets for each power of two (at most 1/8 wide).
# When: "always", or "detail": only in a simulation with record=True.
HISTOGRAMS = (
    ("flush_batch_size", "folios", "flushes", 33, "always", (), "pageout_batch"),
    ("targets_per_flush", "targets", "flushes", "cpus", "always", (), "smp_call_function_many_cond"),
    ("shrink_list_length", "folios", "calls", 65, "always", (), "shrink_folio_list"),
    ("flush_latency", "ns", "flushes", "log2", "detail", (50, 99), "flush_tlb_mm_range, arch_tlbbatch_flush"),
    ("direct_reclaim_latency", "ns", "direct reclaims", "log2", "always", (50, 99),
     "try_to_free_mem_cgroup_pages"),
    ("requests_per_ipi", "requests", "interrupts", "cpus", "detail", (), "__flush_smp_call_function_queue"),
    ("fault_latency", "ns", "faults", "log2", "detail", (50, 99), "handle_mm_fault"),
    ("unmapped_written", "ns", "folios", "log2", "detail", (), "try_to_unmap_one to swap_writepage"),
    ("unmapped_freed", "ns", "folios", "log2", "detail", (), "try_to_unmap_one to __remove_mapping"),
    ("unmapped_put_back", "ns", "folios", "log2", "detail", (), "try_to_unmap_one to the keep label"),
    ("unmapped_mapped", "ns", "folios", "log2", "detail", (), "try_to_unmap_one to do_swap_page"),
)
LOG2_SUB_BITS = 3
LOG2_SUB = 1 << LOG2_SUB_BITS
LOG2_BUCKETS = (44 - LOG2_SUB_BITS) * LOG2_SUB + LOG2_SUB     # up to 2**44 ns, past the end of time

# Why a flush was asked for: name, the steps that it goes on to, kernel function.  `flush_cause` tells those
# apart that share a step; a step that none names is of the last one.
CAUSES = (
    ("batch", ("B_OUT",), "try_to_unmap_flush_dirty, once for a batch of dirty folios"),
    ("dirty_folio", ("P_OUT",), "try_to_unmap_flush_dirty, before the write of one dirty folio"),
    ("free", ("S_FREE_FLUSHED",), "try_to_unmap_flush, before 31 folios are freed"),
    ("list_end", ("S_END_FLUSHED",), "try_to_unmap_flush, at the end of shrink_folio_list"),
    ("unmap", ("U_SET",), "ptep_clear_flush in try_to_unmap_one: not deferred"),
    ("pending", ("M_BATCHED",), "flush_tlb_batched_pending, before PTEs are changed"),
    ("copy_on_write", ("F_WP_SET",), "ptep_clear_flush in wp_page_copy"),
    ("madvise", ("E_FREE",), "tlb_finish_mmu of MADV_DONTNEED"),
    ("exit", (), "tlb_finish_mmu of exit_mmap"),
    ("munmap", ("V_FULL", "V_TABLES", "V_FREE"), "tlb_flush_mmu of munmap"),
    ("mprotect", ("V_END",), "tlb_finish_mmu of mprotect"),
    ("mremap", ("V_MOVED",), "flush_tlb_range of move_ptes; tlb_flush_mmu of what it unmaps"),
    ("fork", ("V_FORKED",), "flush_tlb_mm of dup_mmap"),
    ("other", (), "none of these; interrupts that found their requests served by an earlier one"),
)

# What is metered of each cause: name, unit, when.  docs/results.md defines them.
FLUSH_METERS = (
    ("flushes", "flushes", "always"), ("remote", "flushes", "always"), ("targets", "requests", "always"),
    ("ipis", "IPIs", "always"),
    ("elapsed", "ns", "detail"), ("send", "ns", "detail"), ("own", "ns", "detail"), ("wait", "ns", "detail"),
    ("flushed_all", "requests", "detail"), ("flushed_pages", "requests", "detail"),
    ("flushed_nothing", "requests", "detail"), ("interrupt", "ns", "detail"),
    ("spin", "ns", "detail"), ("sleep", "ns", "detail"),
)

PTE_KINDS = ("NONE", "PRESENT", "SWAP", "ZERO", "ZAPPED")
FOLIO_FLAGS = ("LOCKED", "LRU", "ACTIVE", "REFERENCED", "DIRTY", "SWAPCACHE", "WRITEBACK",
               "RECLAIM", "WORKINGSET", "WAITERS")
TASK_STATES = ("RUNNING", "QUEUED", "BLOCKED", "DEAD")
CPU_MODES = ("RUN", "SPIN_ACK", "SPIN_LOCK", "IDLE")
PASS_KINDS = ("SEQ", "RAND", "FWDREV", "POPULATE", "TRACE", "DONTNEED", "MUNMAP", "MPROTECT", "MREMAP",
              "FORK")
LISTS = ("INACTIVE", "ACTIVE", "GEN0", "GEN1", "GEN2", "GEN3")

# What a bound kernel thread is woken for; a set of them is a mask, in this order (docs/model.md 3).
WORKS = ("DRAIN", "VMSTAT", "NOTIFY", "VMPRESSURE")

# What a trace tells of a run (docs/timeline.md): the kernel's tracepoints, then where functions of the
# model begin and end that have none.
EVENTS = (
    "page_fault_user", "mm_vmscan_memcg_reclaim_begin", "mm_vmscan_memcg_reclaim_end",
    "mm_vmscan_lru_isolate", "mm_vmscan_lru_shrink_inactive", "mm_vmscan_lru_shrink_active",
    "mm_vmscan_write_folio", "tlb_flush", "csd_queue_cpu", "ipi_send_cpu", "ipi_send_cpumask",
    "csd_function_entry", "csd_function_exit", "call_function_single_entry", "call_function_single_exit",
    "call_function_entry", "call_function_exit", "local_timer_entry", "local_timer_exit",
    "irq_handler_entry", "irq_handler_exit", "sched_switch", "sched_waking", "sched_migrate_task",
    "fault_begin", "fault_end", "shrink_folio_list_begin", "shrink_folio_list_end",
    "flush_begin", "flush_end", "flush_wait_begin", "flush_wait_end", "lock_wait_begin", "lock_wait_end",
)

# The columns of the digest, in its order (docs/model.md, "Digest").
DIGEST = (
    ("cpu", ("clock", "mode", "in_irq", "istep", "sstep", "current", "irq_at", "tick_at",
             "timer_at", "io_at", "left", "loaded_mm", "loaded_asid", "is_lazy", "next_asid",
             "need_resched", "slice_ticks", "rq_nr", "stock", "works", "acks",
             "nr_lru_add", "nr_lru_move_tail", "nr_lru_activate", "walk_line", "rng",
             "hosted", "ask", "pv_flush", "kicked_at", "on_at", "host_left",
             "balance_at", "balance_long", "balance_failed", "vmstat_at")),
    ("host", ("running", "turned_at")),
    ("cpu_io", ()), ("cpu_queue", ()), ("cpu_runqueue", ()),
    ("cpu_lru_add", ()), ("cpu_lru_move_tail", ()), ("cpu_lru_activate", ()),
    ("asid_mm", ()), ("asid_gen", ()), ("tlb_l1", ()), ("tlb_l2", ()),
    ("task", ("state", "cpu", "step", "dying", "pass", "pos", "rng", "touches",
              "owed", "nr_scanned")),
    ("task_plug", ()),
    ("mm", ("tlb_gen", "pending", "flushed", "rss", "swapents", "next_trim", "ra_page", "ra_win",
            "ra_hits", "lru_gen")),
    ("mm_cpumask", ()),
    ("pte", ()), ("pt_present", ()), ("pt_young", ()), ("pt_filter", ()),
    ("folio", ("flags", "refcount", "mapcount", "vp", "slot", "gen")),
    ("lru_inactive", ()), ("lru_active", ()), ("lru_gens", ()),
    ("slot_entry", ()), ("slot_count", ()),
    ("memcg", ("usage", "kernel", "nr_isolated", "anon_cost", "nonresident_age",
               "refaults_snapshot", "slots_free", "frames_free", "max_seq", "min_seq", "gen_nr",
               "refaulted", "evicted", "protected", "avg_refaulted", "avg_total",
               "mm_seq", "mm_head", "filters", "works", "notify_from", "notify_cpu", "tree_scanned")),
    ("swapdev", ("in_flight", "last", "cluster_next", "cluster_nr", "lowest", "highest",
                 "cache_active", "ra_hits", "ra_prev", "ra_win")),
    ("slot_cache", ()),
    ("counter", ()), ("time", ()),
)

_ENUMS = (("step", "ST_", STEPS), ("cost", "CO_", COSTS), ("timecat", "TM_", TIMES),
          ("counter_id", "CN_", COUNTERS), ("pte_kind", "PTE_", PTE_KINDS),
          ("task_state", "TASK_", TASK_STATES), ("cpu_mode", "CPU_", CPU_MODES),
          ("pass_kind", "PASS_", PASS_KINDS), ("event", "EV_", EVENTS),
          ("histogram", "HI_", tuple(row[0] for row in HISTOGRAMS)),
          ("cause", "CA_", tuple(row[0] for row in CAUSES)),
          ("flush_meter", "FM_", tuple(row[0] for row in FLUSH_METERS)))


def as_pxd() -> str:
    """The C enumerations of these names, as the text of ``_mm/names.pxd``."""
    lines = ["# Written by `python -m reclaim.names`; do not edit.", ""]
    for name, prefix, members in _ENUMS:
        lines.append(f"cdef enum:   # {name}")
        lines += [f"    {prefix}{m} = {i}" for i, m in enumerate(members)]
        lines += [f"    {prefix}NR = {len(members)}", ""]
    lines.append("cdef enum:   # folio_flag")
    lines += [f"    PG_{m.lower()} = {1 << i}" for i, m in enumerate(FOLIO_FLAGS)]
    lines += ["", "cdef enum:   # work"]
    lines += [f"    WORK_{m} = {1 << i}" for i, m in enumerate(WORKS)]
    lines += ["", "cdef enum:   # buckets of a histogram of times", f"    LOG2_SUB_BITS = {LOG2_SUB_BITS}",
              f"    LOG2_BUCKETS = {LOG2_BUCKETS}",
              f"    HI_OF_TIMES = {sum(1 << i for i, row in enumerate(HISTOGRAMS) if row[3] == 'log2')}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_pxd(), end="")
