# The structs of the arena's tables and the machine that points into it.
#
# Rows hold indices, never pointers; -1 is "none".  Fields are ordered so that no struct has
# implicit padding: the NumPy dtypes of the views are derived from these declarations.

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from reclaim._mm.names cimport *

cdef extern from *:
    """
    #define RECLAIM_INF (((int64_t)1) << 62)
    #define RECLAIM_LEAF_INF INT64_MAX
    #define RECLAIM_PTE_RO (((uint64_t)1) << 63)
    #define RECLAIM_PTE_PAGE (RECLAIM_PTE_RO | 1 << 7)
    static inline int reclaim_ctz64(uint64_t x) { return __builtin_ctzll(x); }
    static inline int reclaim_log2_64(uint64_t x) { return 63 - __builtin_clzll(x); }
    /* the asm: gcc drops calls of functions that only prefetch, as if they were pure */
    #define reclaim_prefetch(p) do { __builtin_prefetch(p); __asm__ volatile(""); } while (0)
    """
    uint64_t PTE_RO "RECLAIM_PTE_RO"      # of the page, as Z: its VMA is read-only
    uint64_t PTE_PAGE "RECLAIM_PTE_PAGE"  # what a page keeps when its PTE is written
    int64_t INF "RECLAIM_INF"             # a time that never comes
    int64_t LEAF_INF "RECLAIM_LEAF_INF"
    int ctz64 "reclaim_ctz64"(uint64_t x) noexcept nogil
    int log2_64 "reclaim_log2_64"(uint64_t x) noexcept nogil
    void prefetch "reclaim_prefetch"(const void *p) noexcept nogil
    bint unlikely(bint x) noexcept nogil        # of Cython's own: keeps the other path straight

cdef enum:
    NR_ASIDS = 6              # TLB_NR_DYN_ASIDS
    BATCH = 31                # PAGEVEC_SIZE
    CLUSTER = 32              # SWAP_CLUSTER_MAX
    BLK_MAX_REQUEST_COUNT = 32
    BLK_PLUG_FLUSH_PAGES = 32     # BLK_PLUG_FLUSH_SIZE
    BLK_MAX_SEGMENTS = 128
    VMPRESSURE_WIN = 512
    VMPRESSURE_PRIO = 3       # vmpressure_level_critical_prio
    CHARGE_BATCH = 64         # MEMCG_CHARGE_BATCH
    SWAP_BATCH = 64           # SWAP_SLOTS_CACHE_SIZE too
    MAX_LIST = 64             # folios of one shrink_folio_list call: MIN_LRU_BATCH, or CLUSTER
    MAX_RETRIES = 16          # MAX_RECLAIM_RETRIES
    DEF_PRIORITY = 12
    PIN_BIAS = 1024           # GUP_PIN_COUNTING_BIAS
    PTRS_PER_PTE = 512
    GATHER_PAGES = 9678       # of an mmu_gather until it flushes: 7 + 19 * 509
    TABLE_BATCH = 509         # MAX_TABLE_BATCH
    FLUSH_CEILING = 33        # tlb_single_page_flush_ceiling
    MMAP_READ = 1             # task_t.mmap: holds the mmap_lock, ...
    MMAP_WRITE = 2
    MMAP_WAIT = 2             # ... or, this much higher, waits for it
    MM_INIT = -1              # init_mm
    MM_SWITCHING = -2         # LOADED_MM_SWITCHING
    SLOT_COUNT_MASK = 0x3f
    SLOT_HAS_CACHE = 0x40
    SLOT_ZERO = 0x80
    FAULT_ANON = 0
    FAULT_COPY = 1
    FAULT_SWAP = 2
    FAULT_SHARED = 3          # from a synchronous device, but other PTEs name the slot, too
    RMAP_YOUNG = 4            # task_t.rmap: one of the PTEs was young
    SLEEP_THROTTLED = 0       # why a task of the list of sleepers sleeps: reclaim_throttle
    SLEEP_SWAPCACHE = 1       # another task reads the slot that its fault wants

cdef enum:
    PTE_YOUNG = 1 << 3
    PTE_DIRTY = 1 << 4
    PTE_WRITE = 1 << 5
    PTE_EXCL = 1 << 6
    PTE_Z = 1 << 7
    PTE_KIND_MASK = 7

cdef enum:
    NR_GENS = 4               # MAX_NR_GENS
    MIN_NR_GENS = 2
    NR_TIERS = 4              # MAX_NR_TIERS
    REFS_MAX = 3              # LRU_REFS_MASK: two bits
    MIN_LRU_BATCH = 64
    MAX_LRU_BATCH = 4096
    GEN_ANON = 0
    GEN_FILE = 1
    GEN_LIST = 2              # the lists of memcg_t: inactive, active, then one per generation
    NR_LISTS = 6
    GEN_MASK = 7              # folio_t.gen: generation + 1, or 0; LRU_REFS; on which GEN_LIST
    GEN_REFS_SHIFT = 3
    GEN_REFS_MASK = 3 << 3
    GEN_ON_SHIFT = 5
    MM_USED = 1               # mm_t.lru_gen: switched to since it was walked last
    MM_FRESH = 2              # never walked
    MM_GONE = 4               # exiting

cdef enum:
    WALK_MAX = 32             # touches with traces that a CPU makes ahead
    FILLED_L1 = 1
    FILLED_L2 = 2

cdef enum:
    MAX_SLICE = (1 << 30) - 1  # ticks of a slice are counted up to here

cdef enum:
    RECHECK_WRITEBACK = 1
    RECHECK_LRU = 2
    RECHECK_MAPPED = 4
    RECHECK_PINNED = 8

cdef struct qlock:            # a spin lock: a fair queue, or test-and-set with host CPUs
    int32_t holder
    int32_t head              # first waiting CPU; the rest through cpu.lock_next
    int32_t tail

cdef struct fifo:             # folios linked through folio.next
    int32_t head
    int32_t tail
    int32_t nr

cdef struct cpu_t:             # the first cache line is what every turn reads
    int64_t clock
    int64_t irq_at
    int64_t tick_at
    int64_t timer_at
    int64_t io_at
    int32_t current
    int32_t sstep
    int32_t istep
    int32_t loaded_mm
    uint8_t mode
    uint8_t in_irq
    uint8_t last_on
    uint8_t is_lazy
    uint8_t need_resched
    uint8_t works             # WORK_: what its bound kernel thread has to run
    uint8_t loaded_asid
    uint8_t next_asid
    int64_t left              # second line: interrupts and flushes
    int64_t fl_gen
    int64_t irq_cost
    int32_t fl_mm
    int32_t fl_vp
    int32_t fl_scan
    int32_t fl_n
    int32_t fl_ret
    int32_t acks
    int32_t q_head
    int32_t q_tail
    int32_t hand
    int32_t walk_line
    uint32_t asid_stamp[6]    # third and fourth: address spaces
    uint32_t tlb_stamp
    int32_t asid_mm[6]
    int32_t lock_next
    int32_t rq_nr
    int32_t push
    int32_t rq_head
    int32_t rq_tail
    int32_t stock
    int32_t nr_lru_add
    uint64_t asid_gen[6]
    uint64_t sw_gen
    uint64_t rng
    int64_t kicked_at         # host CPUs: up to here its timers have been heard
    int64_t on_at             # since when it runs on its host CPU
    int64_t host_left         # what was left of its step as it lost its host CPU
    int64_t balance_at        # when the periodic load balancer looks next
    int32_t slice_ticks
    int32_t nr_lru_move_tail
    int32_t nr_lru_activate
    int32_t io_head           # of the requests that it submitted, linked through io.next
    int32_t io_tail
    int32_t lock_at           # what it spins for: 0 the LRU lock, 1 + r the page-table lock of region r
    int32_t lru_add[31]
    int32_t lru_move_tail[31]
    int32_t lru_activate[31]
    uint8_t sw_asid
    uint8_t sw_flush
    uint8_t fl_trim
    uint8_t hosted            # runs on its host CPU
    uint8_t ask               # was woken without one
    uint8_t pv_flush          # a flush that the host owes it
    uint8_t fl_nr             # pages of its flush from fl_vp on, if that is one of pages
    uint8_t fl_tables         # page-table pages are freed after it
    uint32_t irq_call_count   # meters, as of /proc/interrupts
    uint32_t irq_tlb_count
    uint32_t apic_timer_irqs
    uint8_t balance_long      # the balancer found nothing to do last time: it waits twice as long
    uint8_t balance_failed    # how often in a row it found work and no task that it might move
    uint16_t fl_ipis          # meters: IPIs that it is to send
    uint8_t pad[28]
    int64_t vmstat_at         # bound kernel threads: when vmstat_update is due
    int64_t lock_since        # meters: when it began to spin for a lock

cdef struct task_t:            # the first cache line is what nearly every step reads
    int32_t step
    int32_t folio
    int32_t f_pfn
    int32_t vp
    int32_t mm
    int32_t pass_no
    uint64_t f_orig
    uint64_t pos
    uint64_t old_pte
    int32_t first_pass
    uint8_t write
    uint8_t have
    uint8_t dying
    uint8_t f_kind
    uint8_t f_cached
    uint8_t zero
    uint8_t defer
    uint8_t in_batch
    uint8_t ubc_required
    uint8_t ubc_writable
    uint8_t state
    uint8_t pinned
    fifo list                 # second: shrink_folio_list
    fifo ret
    int32_t index
    int32_t ordinal
    int32_t nr_free
    int32_t nr_flush
    int32_t b_i
    int32_t b_w
    int32_t b_ret
    int32_t freed_ret
    int32_t nr_pageout
    int32_t nr_activate
    uint64_t plan_defer       # third: bit i is the i-th folio's
    uint64_t plan_flush
    fifo clean                # evict_folios: to be tried once more
    int32_t look_at           # lru_gen_look_around: the next page, the end, ...
    int32_t look_end
    int32_t g_delta           # what the last evict_folios returned
    int64_t look_seq
    uint8_t look_nr           # ... how many pages, how many of them young
    uint8_t look_young
    uint8_t g_retry
    uint8_t g_can_swap
    uint8_t g_force           # force_scan
    uint8_t phase             # mremap: 0 unmaps the destination, 1 moves, 2 unmaps the source
    uint8_t mmap              # MMAP_READ, MMAP_WRITE, waiting for one of them, or 0
    uint8_t v_last            # all is zapped: what is freed now is the rest
    uint8_t pad2[4]
    int32_t nr_scanned        # folios that shrink_folio_list locked since vmpressure() was told
    int32_t free_folios[31]
    int32_t flush_folios[31]
    uint64_t rng
    int64_t wake_at
    int64_t touches
    int64_t reclaimed_local   # patch 1: where the count lives before ...
    int64_t reclaimed_stat    # ... and after
    int64_t owed              # time of checks of folios, charged once per list [ps]
    int32_t cpu
    int32_t nr_passes
    int32_t loop_to
    int32_t rq_next
    int32_t wait_next
    int32_t f_old
    int32_t c_nr
    int32_t c_ret
    int32_t c_batch
    int32_t c_retries
    int32_t c_reclaimed
    int32_t prio
    int32_t sc_reclaimed
    int32_t r_nr[2]
    int32_t r_loop
    int32_t k_ret
    int32_t nr_to_scan
    int32_t taken
    int32_t scanned
    int32_t d_ret
    int32_t zap
    int32_t sleep_next
    int32_t batched_ret       # flush_tlb_batched_pending: what follows, and mm.pending before
    uint32_t batched
    int32_t ra_at             # readahead: the next page (or slot) to look at, the end, the one in hand
    int32_t ra_end
    int32_t ra_vp
    int64_t g_seq             # aging: the walk's max_seq
    int64_t g_scanned
    int32_t plug_head         # requests that it has not let go yet, linked through io.next
    int32_t plug_tail
    int32_t plug_nr
    int32_t g_nr              # nr_to_scan
    int32_t g_mm
    int32_t g_region
    int32_t g_batched
    int32_t g_moved[4]
    int32_t v_at              # the region to be freed next; mremap: pages moved
    int32_t v_lo              # mmu_gather: the pages to be flushed (v_hi 0: none), ...
    int32_t v_hi
    int32_t v_nr              # ... the folios held
    int32_t v_next            # what follows V_MORE
    uint8_t c_drained
    uint8_t c_failed
    uint8_t full_walk
    uint8_t force_deact
    uint8_t skipped_deact
    uint8_t may_deact
    uint8_t r_visit
    uint8_t stalled
    uint8_t d_which
    uint8_t restart
    uint8_t wait_bit          # 0: waits for the folio's lock, 1: for the end of its write-back
    uint8_t sleep_on
    uint8_t call              # the PASS_ kind of the system call on its mm that it is in, or 0
    uint8_t rmap              # forks: the mapping of `folio` that the reverse map is at; RMAP_YOUNG
    uint16_t v_tables         # page-table pages that go with the next flush
    int64_t fl_began          # meters, that no step reads: when its last flush began, ...
    int64_t fl_spent          # ... what its CPU had spent on and waited for flushes before, ...
    int64_t fl_waited
    int64_t fl_own            # ... and what this one's own TLB took
    int64_t f_began           # its fault
    int64_t r_began           # its direct reclaim
    int64_t wait_since        # its sleep for a folio
    uint8_t fl_cause          # why its last flush was asked for
    uint8_t pad3[7]

cdef struct mm_t:
    uint64_t tlb_gen
    int64_t next_trim
    uint32_t pending
    uint32_t flushed
    int32_t base
    int32_t nr_pages
    int32_t first_region
    int32_t nr_regions
    int32_t rss
    int32_t swapents
    int32_t ra_page           # swap_readahead_info
    int32_t ra_win
    int32_t ra_hits
    uint8_t recency
    uint8_t shared            # several tasks name it
    uint16_t users            # tasks that neither ended nor left to be killed
    uint8_t lru_gen           # MM_USED, MM_FRESH, MM_GONE
    uint8_t locks             # threads share it and one of them changes its mappings
    uint8_t is_child          # of a fork
    uint8_t pad[1]
    int32_t readers           # of its mmap_lock
    int32_t writer            # a task, or -1
    int32_t wait_head         # tasks that wait for it, linked through task.wait_next
    int32_t wait_tail
    int32_t peer              # its child's mm, or its parent's, or -1

cdef struct folio_t:           # half a cache line
    uint16_t flags
    uint8_t mapcount
    uint8_t gen               # GEN_MASK, GEN_REFS_MASK, GEN_ON_SHIFT
    int32_t refcount
    int32_t vp
    int32_t mm
    int32_t slot
    int32_t prev
    int32_t next
    int32_t wait_head

cdef struct region_t:
    qlock ptl
    uint8_t present
    uint8_t young             # the accessed bit of the PMD entry
    uint8_t filter            # bit s & 1: in the Bloom filter of the walk of max_seq s
    uint8_t pad

cdef struct memcg_t:
    int64_t usage
    int64_t kernel
    int64_t nr_isolated
    int64_t anon_cost
    int64_t nonresident_age
    int64_t refaults_snapshot
    int64_t touches_left      # user touches until the run ends
    int32_t lru_head[6]
    int32_t lru_tail[6]
    int32_t lru_nr[6]
    int32_t slots_free
    int32_t slot_top
    int32_t slot_fresh        # slots from here on were never used
    int32_t frames_free
    int32_t frame_top
    int32_t frame_fresh
    int32_t sleep_head
    int32_t sleep_tail
    int32_t nr_idle
    int32_t nr_alive
    int32_t nr_dying
    int32_t notify_cpu        # on which CPU the timer of memory.events is, or -1
    qlock lru_lock
    int32_t mm_head           # lru_gen_mm_state: the mm that was taken last, or -1
    int64_t max_seq           # lru_gen_folio
    int64_t min_seq[2]
    int64_t mm_seq
    int64_t gen_nr[4]         # nr_pages, by folio_t.gen; what walks moved is added late
    uint64_t refaulted[4]     # by tier
    uint64_t evicted[4]
    uint64_t protected[4]
    uint64_t avg_refaulted[4]
    uint64_t avg_total[4]
    int64_t filters           # bit s & 1: that Bloom filter exists
    int64_t notify_from       # from which tick on memory.events may be notified again
    int64_t tree_scanned      # vmpressure's window
    int64_t works             # WORK_NOTIFY, WORK_VMPRESSURE: some CPU has it

cdef struct swapdev_t:
    int64_t last              # when the last request submitted is done
    int32_t in_flight
    int32_t free_row          # free rows of `io`, linked
    int32_t wait_head         # tasks that wait for a tag, linked through task.wait_next
    int32_t wait_tail
    int32_t cluster_next      # rotational: where the next scan begins ...
    int32_t cluster_nr        # ... and how many slots it may take until it seeks a free run
    int32_t lowest            # no slot below is unused, none above highest
    int32_t highest
    int32_t ra_hits           # swap_cluster_readahead's, of all mms together
    int32_t ra_prev
    int32_t ra_win
    int32_t cache_active      # slot caches are in use

cdef struct slot_cache_t:      # swap_slots_cache of a CPU
    int32_t cur               # slots[cur : cur + nr] are to be handed out
    int32_t nr
    int32_t n_ret             # slots_ret[:n_ret] go back to the pool together
    int32_t pad
    int32_t slots[64]
    int32_t slots_ret[64]
    uint8_t pad2[48]

cdef struct host_t:
    int64_t turned_at         # when a timer last ended a turn, or -1
    int32_t running           # the CPU that it runs, or -1
    int32_t pad

cdef struct io_t:              # one request with a tag
    int64_t done
    int32_t slot              # its first page's; the folios are those of the swap cache
    int32_t nr
    int32_t next
    int32_t pad

cdef struct pass_t:
    uint8_t kind
    uint8_t write
    uint8_t zero
    uint8_t pad
    uint32_t first
    uint32_t nr
    int32_t stride
    uint64_t count
    int64_t think
    uint32_t units
    uint32_t pad2

cdef struct world_t:          # constants of a run
    int32_t nr_cpus
    int32_t nr_tasks
    int32_t nr_mms
    int32_t nr_regions
    int32_t nr_vps
    int32_t nr_folios
    int32_t nr_slots
    int32_t nr_passes
    int32_t words             # 64-bit words in a CPU mask
    int32_t cpus_per_socket
    int32_t l1_sets
    int32_t l1_ways
    int32_t l2_sets
    int32_t l2_ways
    int32_t slice_ticks
    int32_t swappiness
    int32_t cgroup
    int32_t pcid
    int32_t mask_lazy
    int32_t trim
    int32_t swapin_cached
    int32_t pgrefill_global
    int32_t swap_sync
    int32_t rotational
    int32_t slot_cache
    int32_t io_depth
    int32_t host_cpus
    int32_t pv_flush
    int64_t tick_skew
    int32_t lru               # 0 classic, 1 generations
    int32_t mglru_batch
    int32_t mglru_stop
    int32_t mglru_rework
    int32_t moves             # some program moves mappings
    int32_t forks             # some mm has a child: folios may be mapped twice
    int32_t kworkers          # bound kernel threads run more than drains of stocks
    int64_t io_latency
    int64_t io_page
    int64_t limit
    int64_t tick
    int64_t balance
    uint64_t migrate_threshold
    uint64_t busy_threshold
    int64_t trace_len
    int64_t cost[64]

cdef struct run_t:             # what a CPU remembers to save work: no state, no effect on results
    int32_t nr                # touches made ahead: see program.pxd
    int32_t limit             # how many are tried: twice what was kept of the last run
    uint64_t missed           # this tag, | 1, is in neither TLB level; 0: not known
    int32_t hold              # touches until a run is tried again ...
    int32_t patience          # ... and how many those were at first
    int32_t walked            # the touches made ahead left traces: see walk_t
    int32_t listed            # the CPU is one of `walkers`

cdef struct walk_t:            # a touch made ahead, and what was there before it
    int64_t start
    int64_t walk              # its time under walk
    uint64_t rng
    uint64_t pte
    uint64_t l1_lost          # what the TLB levels that it filled lost
    uint64_t l2_lost
    int32_t vp
    int32_t last_vp           # the access before it
    int32_t walk_line
    uint8_t last_write
    uint8_t last_zero
    uint8_t filled            # FILLED_L1, FILLED_L2
    uint8_t pad

cdef struct machine:
    world_t w
    # tables of the arena
    cpu_t *cpu
    task_t *task
    mm_t *mm
    folio_t *folio
    region_t *region
    memcg_t *cg
    swapdev_t *dev
    io_t *io
    host_t *host
    slot_cache_t *slot_cache  # [cpu], if the world has slot caches
    uint64_t *pte
    uint64_t *slot_entry
    uint8_t *slot_count
    uint64_t *mm_cpumask      # [mm][word]
    uint64_t *ubc_mask        # [task][word]
    uint64_t *fl_mask         # [cpu][word]
    uint64_t *fl_ipi          # [cpu][word]
    uint64_t *l1              # [cpu][set][way]
    uint64_t *l2
    int16_t *csd_next         # [target][sender]
    # meters, in the arena too
    int64_t *counter
    int64_t *time             # [cpu][category]
    int64_t *hist[HI_NR]      # counts by bucket
    int32_t hist_last[HI_NR]  # the last bucket
    int64_t *flushes          # [cause][meter]
    int64_t *unmapped_at      # [folio]: -1 unless it waits unmapped; with `detail` only
    int32_t detail            # record=True
    uint8_t cause_of[256]     # by the step that a flush goes on to
    # read-only inputs
    const pass_t *passes
    const uint32_t *trace
    # outside the arena: the winner tree and what one action leaves behind
    int64_t *tree
    int32_t tree_size
    cpu_t *p                  # the acting CPU, its row of `time`, its number
    int64_t *times
    int32_t c
    int32_t row_step
    int32_t turn               # the turn may pass: see task_steps
    int32_t runs               # touches that hit may be made ahead
    run_t *run                 # [nr_cpus]
    walk_t *walk               # [nr_cpus][WALK_MAX]
    int32_t *walkers           # CPUs that made touches ahead that left traces
    int32_t nr_walkers
    int32_t nr_reclaiming      # tasks that look at others' PTEs: no such touches then
    int64_t touches_ahead      # made ahead so far, and of these taken back
    int64_t touches_back
    int64_t end                # of this call of the loop
    int64_t now
    int64_t leaf               # of the acting CPU, as the action began
    int64_t row_cost
    uint8_t irq_on[256]       # the column irq of every step
    int32_t *trail[2]         # hints, no state: see prefetch_trail
    uint32_t trail_head[2]
    uint32_t trail_tail[2]
    uint32_t trail_folios[2]  # up to where they were fetched
    uint32_t trail_ptes[2]
    uint32_t trail_mask
    int32_t bad               # an invariant of the model broke: which
    int32_t flush_keeps
    int32_t flush_rechecks
    int32_t flush_remainder
