/*
 * The least work that gives batch-tlb-flush's counts: what `bench/floor.py` compares the simulation with.
 *
 * Done here, on flat arrays of plain C: the access programs of the workers, page by page; a generation-tagged TLB
 * a CPU; PTEs; anonymous and swap-in faults; a limit; direct reclaim from an inactive list that an active list
 * refills, with second chances, refaults by age, lists of 32, batches of 31 folios a CPU, flushes deferred to a
 * mask; shootdowns as events: queued, coalesced while an IPI is under way, served when the target's clock gets
 * there, waited for; the CPU with the least clock goes next.
 *
 * Left out, all of which the simulation does: a turn looks at a whole folio or list, where the model has a step for
 * each access to shared state; touches run ahead of other CPUs by up to AHEAD of them, and a shootdown that comes
 * meanwhile is served late; no priorities and no scan targets, no stocks of charges, no folio flags but one, no
 * locks but the time of the LRU lock, no swap slots and no swap cache, no zero pages in swap, one level of TLB, no
 * ASIDs, no migrations (a worker stays on its CPU, so a mask is one CPU), no scheduler, no ticks, no lazy TLB, no
 * histograms, no times by category, no policy that could be replaced, no snapshots, no OOM, no checks.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CPUS = 64, TLB = 2048, LIST = 32, BATCH = 31, AHEAD = 1024 };
enum { SEQ, RAND, FWDREV, POPULATE };                       /* of World.passes */
enum { EMPTY, PRESENT, SWAPPED, ZERO };                     /* pte & 3; then YOUNG, DIRTY; then frame or age */
enum { YOUNG = 4, DIRTY = 8, SHIFT = 4 };                   /* an age has 28 bits: enough for 2^28 evictions */
enum { INACTIVE, ACTIVE };
#define NEVER (INT64_MAX >> 6)                               /* a key is time << 6 | cpu */
#define NOWHERE UINT32_MAX                                  /* place of a folio on no list: isolated, or in a batch */

typedef struct {                                            /* reclaim.world.PASS_DTYPE */
    uint8_t kind, write, zero, pad;
    uint32_t first, nr;
    int32_t stride;
    uint64_t count;
    int64_t think;
    uint32_t units, pad2;
} pass_t;

typedef struct { int64_t touches, faults, majfaults, scanned, stolen, received, ipis, activated, turns; } counts_t;

typedef struct { uint32_t head, tail, mask; int32_t nr; int32_t *ring; } list_t;
typedef struct { int32_t vp; uint32_t place; uint8_t on, referenced; uint16_t owner; } folio_t;
enum phase { USER, FAULT, RECLAIM, SCAN, FLUSH, WRITE, PUT };

typedef struct {
    int64_t clock, irq_at;
    int32_t waiting, acks;                                  /* for acknowledgements */
    uint64_t queue;                                         /* CPUs whose flush waits here */
    uint32_t gen;
    enum phase phase;
    const pass_t *passes;
    int32_t nr_passes, loop_to, pass, recency;
    uint64_t pos, rng;
    uint32_t base;
    int32_t vp, write, have;
    int32_t list[LIST], kept[LIST], dirty[LIST];            /* isolated folios; their fates */
    int32_t batch[BATCH];                                   /* faulted in, not on a list yet */
    int nr_batch, nr_list, nr_kept, nr_dirty, at, reclaimed, freed;
    uint64_t mask;                                          /* CPUs to flush before pages go */
    int writable;
    uint64_t tlb[TLB];
} cpu_t;

typedef struct {
    int nr_cpus, batch;                                     /* batch: dirty folios of a flush; 0: one */
    const int64_t *cost;
    int64_t touches_left, lru_free_at;
    cpu_t *cpu;
    folio_t *folio;
    list_t lru[2];
    uint32_t *pte;
    uint32_t age;                                           /* evictions and activations so far */
    int32_t *frames, nr_free;
    int64_t key[MAX_CPUS];
    counts_t n;
} machine_t;

#define COST(name) (m->cost[CO_##name])

/* When this CPU acts next. */
static inline void set_key(machine_t *m, int c)
{
    const cpu_t *p = &m->cpu[c];
    m->key[c] = (p->waiting || p->irq_at < p->clock ? p->irq_at : p->clock) << 6 | c;
}

static inline int least_cpu(const machine_t *m)
{
    int64_t least[4] = {m->key[0], m->key[1], m->key[2], m->key[3]};
    for (int i = 4; i < m->nr_cpus; i += 4)
        for (int j = 0; j < 4; j++) least[j] = m->key[i + j] < least[j] ? m->key[i + j] : least[j];
    least[0] = least[1] < least[0] ? least[1] : least[0];
    least[2] = least[3] < least[2] ? least[3] : least[2];
    return (least[2] < least[0] ? least[2] : least[0]) & 63;
}

/* A folio is on a list where its place says so; the list's other entries are of folios that left it. */
static inline void push(machine_t *m, int32_t f, int on)
{
    list_t *l = &m->lru[on];
    if (l->head - l->tail > l->mask) abort();
    m->folio[f].on = on;
    m->folio[f].place = l->head;
    l->ring[l->head++ & l->mask] = f;
    l->nr++;
}

/* Take up to 32 folios, the oldest first. */
static inline int take(machine_t *m, int on, int32_t *out)
{
    list_t *l = &m->lru[on];
    int n = 0;
    while (n < LIST && l->nr) {
        int32_t f = l->ring[l->tail & l->mask];
        __builtin_prefetch(&m->folio[l->ring[(l->tail + 8) & l->mask]]);
        if (m->folio[f].on == on && m->folio[f].place == l->tail) {
            out[n++] = f;
            m->folio[f].place = NOWHERE;
            l->nr--;
            __builtin_prefetch(&m->pte[m->folio[f].vp]);
        }
        l->tail++;
    }
    return n;
}

static inline uint64_t draw(uint64_t *rng)
{
    uint64_t z = *rng += 0x9E3779B97F4A7C15ull;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return z ^ z >> 31;
}

static inline uint32_t page_of(cpu_t *p, const pass_t *a)
{
    if (a->kind == SEQ || a->kind == POPULATE) {
        if (a->stride > 0) return a->first + p->pos * (uint64_t)a->stride % a->nr;
        return a->first + a->nr - 1 - p->pos * (uint64_t)-(int64_t)a->stride % a->nr;
    }
    if (a->kind == RAND) return a->first + ((draw(&p->rng) >> 32) * a->nr >> 32);
    return p->pos & 1 ? a->first + a->nr - 1 - (p->pos >> 1) % a->nr : a->first + (p->pos >> 1) % a->nr;
}

static inline void advance(cpu_t *p, const pass_t *a)
{
    p->have = 0;
    if (++p->pos < a->count) return;
    p->pos = 0;
    if (++p->pass == p->nr_passes) p->pass = p->loop_to;
}

/* madvise(MADV_POPULATE_READ) found the page: mark_page_accessed. */
static inline void accessed(machine_t *m, int32_t f)
{
    folio_t *q = &m->folio[f];
    if (!q->referenced) { q->referenced = 1; return; }
    if (q->on == ACTIVE) return;
    if (q->place == NOWHERE) {
        q->on = ACTIVE;
    } else {
        m->lru[INACTIVE].nr--;
        push(m, f, ACTIVE);
    }
    q->referenced = 0;
    m->age++;
    m->n.activated++;
}

/* Touches until one faults. */
static void user(machine_t *m, cpu_t *p)
{
    int left = AHEAD;
    while (left-- && p->clock < p->irq_at && m->touches_left > 0) {
        const pass_t *a = &p->passes[p->pass];
        uint64_t *e, tag;
        uint32_t pte;
        if (!p->have) {
            p->vp = p->base + page_of(p, a);
            p->write = a->write == 2 ? draw(&p->rng) >> 63 : a->write;
            p->have = 1;
        }
        if (a->kind == POPULATE) {
            p->clock += COST(gup_page);
            pte = m->pte[p->vp];
            if ((pte & 3) == PRESENT) accessed(m, pte >> SHIFT);
            else if ((pte & 3) != ZERO) { p->phase = FAULT; return; }
            advance(p, a);
            continue;
        }
        e = &p->tlb[p->vp & (TLB - 1)];
        tag = (uint64_t)p->gen << 32 | (uint32_t)p->vp << 1;
        if ((*e & ~1ull) != tag || (p->write && !(*e & 1))) {
            p->clock += p->vp & 7 ? COST(walk_warm) : COST(walk_cold);
            pte = m->pte[p->vp];
            if ((pte & 3) == PRESENT) m->pte[p->vp] = pte |= YOUNG | (p->write ? DIRTY : 0);
            else if ((pte & 3) != ZERO || p->write) {
                p->clock += COST(fault_entry);
                p->phase = FAULT;
                return;
            }
            *e = tag | !!(pte & DIRTY);
        }
        p->clock += a->think;
        m->touches_left--;
        m->n.touches++;
        advance(p, a);
    }
}

static inline void hold_lru(machine_t *m, cpu_t *p, int64_t cost)
{
    if (p->clock < m->lru_free_at) p->clock = m->lru_free_at;
    p->clock = m->lru_free_at = p->clock + COST(lru_lock) + cost;
}

/* lru_add_drain: what this CPU faulted in goes to the lists. */
static void drain(machine_t *m, cpu_t *p)
{
    for (int i = 0; i < p->nr_batch; i++) push(m, p->batch[i], m->folio[p->batch[i]].on);
    hold_lru(m, p, p->nr_batch * COST(lru_add));
    p->nr_batch = 0;
}

static void fault(machine_t *m, cpu_t *p, int c)
{
    uint32_t pte = m->pte[p->vp];
    int32_t f;
    int on = INACTIVE;
    m->n.faults++;
    if (((pte & 3) == EMPTY || (pte & 3) == ZERO) && !p->write) {
        m->pte[p->vp] = ZERO | YOUNG;
        p->clock += COST(fault_zero);
        p->phase = USER;
        return;
    }
    if (!m->nr_free) {
        m->n.faults--;                                      /* it comes again */
        p->reclaimed = 0;
        p->phase = RECLAIM;
        return;
    }
    f = m->frames[--m->nr_free];
    if ((pte & 3) == SWAPPED) {
        m->n.majfaults++;
        if (m->age - (pte >> SHIFT) <= (uint32_t)m->lru[ACTIVE].nr) {
            on = ACTIVE;
            m->age++;
            m->n.activated++;
        }
        p->clock += COST(zram_read) + COST(fault_swap);
    } else {
        p->clock += COST(fault_anon);
    }
    m->pte[p->vp] = PRESENT | YOUNG | (p->write ? DIRTY : 0) | (uint32_t)f << SHIFT;
    m->folio[f].vp = p->vp;
    m->folio[f].owner = c;
    m->folio[f].referenced = 0;
    m->folio[f].on = on;
    m->folio[f].place = NOWHERE;
    p->batch[p->nr_batch++] = f;
    if (p->nr_batch == BATCH) drain(m, p);
    p->phase = USER;
}

/* shrink_active_list: 32 of the active list to the inactive one. */
static void age_list(machine_t *m, cpu_t *p)
{
    int32_t list[LIST];
    int n = take(m, ACTIVE, list);
    for (int i = 0; i < n; i++) {
        m->pte[m->folio[list[i]].vp] &= ~YOUNG;
        push(m, list[i], INACTIVE);
    }
    hold_lru(m, p, n * (COST(lru_isolate) + COST(lru_putback) + COST(rmap)));
}

static void reclaim(machine_t *m, cpu_t *p)
{
    int n;
    if (!p->reclaimed) p->clock += COST(reclaim_prio);
    if (p->nr_batch) drain(m, p);
    if (m->lru[INACTIVE].nr < m->lru[ACTIVE].nr) age_list(m, p);
    n = take(m, INACTIVE, p->list);
    m->n.scanned += n;
    hold_lru(m, p, n * COST(lru_isolate));
    p->nr_list = n;
    p->nr_kept = p->nr_dirty = p->at = p->freed = 0;
    p->phase = SCAN;
}

/* Folios of the list up to one whose write-out is due. */
static void scan(machine_t *m, cpu_t *p)
{
    while (p->at < p->nr_list) {
        int32_t f = p->list[p->at++];
        folio_t *q = &m->folio[f];
        uint32_t pte = m->pte[q->vp];
        if (pte & YOUNG && m->cpu[q->owner].recency) {
            m->pte[q->vp] = pte & ~YOUNG;
            q->on = q->referenced ? ACTIVE : INACTIVE;
            q->referenced = 1;
            p->kept[p->nr_kept++] = f;
            p->clock += COST(scan) + COST(rmap);
            continue;
        }
        m->pte[q->vp] = SWAPPED | m->age++ << SHIFT;
        p->mask |= 1ull << q->owner;
        p->writable |= !!(pte & DIRTY);
        p->dirty[p->nr_dirty++] = f;
        p->clock += COST(scan) + COST(rmap) + COST(unmap);
        if (!m->batch || p->nr_dirty == m->batch) { p->phase = p->writable ? FLUSH : WRITE; return; }
    }
    if (p->nr_dirty) p->phase = p->writable ? FLUSH : WRITE;
    else p->phase = p->mask ? FLUSH : PUT;
}

static void flush(machine_t *m, cpu_t *p, int c)
{
    uint64_t rest = p->mask & ~(1ull << c);
    int64_t at = p->clock + COST(flush_fixed);
    if (p->mask >> c & 1) { p->gen++; p->clock += COST(tlb_flush_full); }
    p->mask = 0;
    p->writable = 0;
    p->phase = p->nr_dirty ? WRITE : PUT;
    for (; rest; rest &= rest - 1) {
        int j = __builtin_ctzll(rest);
        cpu_t *q = &m->cpu[j];
        if (!q->queue) {                                    /* else its IPI is under way */
            at += COST(ipi_send);
            q->irq_at = at + COST(ipi_delivery);
            set_key(m, j);
        }
        q->queue |= 1ull << c;
        p->acks++;
    }
    if (p->acks) { p->clock = at; p->waiting = 1; }
}

static void interrupt(machine_t *m, cpu_t *p)
{
    uint64_t from = p->queue;
    int64_t cost = COST(irq_entry) + COST(irq_exit) + COST(tlb_flush_full), done = p->irq_at + cost;
    m->n.ipis++;
    p->gen++;
    p->queue = 0;
    p->irq_at = NEVER;
    if (!p->waiting) p->clock += cost;
    for (; from; from &= from - 1) {
        cpu_t *s = &m->cpu[__builtin_ctzll(from)];
        m->n.received++;
        if (--s->acks) continue;
        s->waiting = 0;
        s->clock = (s->clock > done ? s->clock : done) + COST(csd_ack);
        set_key(m, s - m->cpu);
    }
}

static void write_out(machine_t *m, cpu_t *p)
{
    p->clock += p->nr_dirty * (COST(pageout) + COST(zram_write) + COST(free));
    for (int i = 0; i < p->nr_dirty; i++) m->frames[m->nr_free++] = p->dirty[i];
    p->freed += p->nr_dirty;
    p->nr_dirty = 0;
    p->phase = SCAN;
}

static void put_back(machine_t *m, cpu_t *p)
{
    for (int i = 0; i < p->nr_kept; i++) {
        int on = m->folio[p->kept[i]].on;
        m->n.activated += on;
        m->age += on;
        push(m, p->kept[i], on);
    }
    hold_lru(m, p, p->nr_kept * COST(lru_putback));
    m->n.stolen += p->freed;
    p->reclaimed += p->freed;
    p->phase = p->reclaimed >= LIST ? FAULT : RECLAIM;
}

static void turn(machine_t *m, int c)
{
    cpu_t *p = &m->cpu[c];
    if (p->waiting || p->irq_at <= p->clock) interrupt(m, p);
    else switch (p->phase) {
    case USER: user(m, p); break;
    case FAULT: fault(m, p, c); break;
    case RECLAIM: reclaim(m, p); break;
    case SCAN: scan(m, p); break;
    case FLUSH: flush(m, p, c); break;
    case WRITE: write_out(m, p); break;
    case PUT: put_back(m, p); break;
    }
    set_key(m, c);
}

/* Run until `touches` more were made. */
void floor_run(machine_t *m, int64_t touches, counts_t *out)
{
    memset(&m->n, 0, sizeof(m->n));
    m->touches_left = touches;
    while (m->touches_left > 0) {
        m->n.turns++;
        turn(m, least_cpu(m));
    }
    *out = m->n;
}

machine_t *floor_new(int nr_cpus, int batch, int32_t nr_frames, const int64_t *cost, const pass_t *passes,
                     const int32_t *first, const int32_t *nr, const int32_t *loop_to, const int32_t *recency,
                     const int32_t *pages)
{
    machine_t *m = calloc(1, sizeof(*m));
    uint32_t base = 0;
    m->nr_cpus = nr_cpus;
    m->batch = batch;
    m->cost = cost;
    m->cpu = calloc(nr_cpus, sizeof(cpu_t));
    for (int c = 0; c < MAX_CPUS; c++) m->key[c] = INT64_MAX;
    for (int c = 0; c < nr_cpus; c++) {
        cpu_t *p = &m->cpu[c];
        p->passes = passes + first[c];
        p->nr_passes = nr[c];
        p->loop_to = loop_to[c];
        p->recency = recency[c];
        p->rng = c + 1;
        p->base = base;
        p->gen = 1;
        p->irq_at = NEVER;
        set_key(m, c);
        base += pages[c];
    }
    m->pte = calloc(base, sizeof(*m->pte));
    m->folio = calloc(nr_frames, sizeof(folio_t));
    m->frames = malloc(nr_frames * sizeof(int32_t));
    for (m->nr_free = 0; m->nr_free < nr_frames; m->nr_free++) m->frames[m->nr_free] = m->nr_free;
    for (int i = 0; i < 2; i++) {
        for (m->lru[i].mask = 1; m->lru[i].mask < 4u * nr_frames; m->lru[i].mask *= 2) ;
        m->lru[i].ring = calloc(m->lru[i].mask--, sizeof(int32_t));
    }
    return m;
}

void floor_free(machine_t *m)
{
    free(m->cpu);
    free(m->pte);
    free(m->folio);
    for (int i = 0; i < 2; i++) free(m->lru[i].ring);
    free(m->frames);
    free(m);
}
