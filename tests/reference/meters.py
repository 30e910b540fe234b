"""Histograms and flushes by cause (docs/model.md, section 9): looked at from outside, before and after each row."""

from collections import Counter

from ._load import names
from .state import BLOCKED, LOCKED, MREMAP, NONE, SPIN_LOCK

_RETURNS = {step: cause for cause, steps, _ in names.CAUSES for step in steps}
_TIMES = {row[0] for row in names.HISTOGRAMS if row[3] == "log2"}
_SHRINKS = ("S_", "U_", "P_", "B_")


def bucket(ps):
    """Of a time: 0 to 7 ns by themselves, then 8 buckets for each power of two."""
    ns, first = ps // 1000, 0
    while ns >= 16:
        ns, first = ns // 2, first + 8
    return first + ns


class Meters:

    def start_meters(self):
        self.histogram = {row[0]: Counter() for row in names.HISTOGRAMS}
        self.flushed = {cause: Counter() for cause, _, _ in names.CAUSES}      # meter -> sum

    def record(self, name, value):
        self.histogram[name][bucket(value) if name in _TIMES else value] += 1

    def flush_cause(self, c, t):
        cause = _RETURNS.get(c.fl_ret, "other")
        if cause == "madvise" and t.call is None:
            return "exit"
        return "mremap" if cause == "munmap" and t.call == MREMAP else cause

    def times_of(self, c):
        return self.time["flush"][c.nr], self.time["flush_wait"][c.nr]

    def meter_before(self, row, c, t):
        """What the row is about to change."""
        if row == "Q_FUNC":
            return c.irq_cost, c.tlb_stamp, list(c.asid_gen), c.hand[0]
        if row == "FL_SEND":
            return c.fl_ipi
        if row == "FL_LOCAL":
            return self.times_of(c)[0]
        if row == "F_SWAP_MAP":
            return t.f_pfn
        if row[:2] in _SHRINKS:
            return t.folio, len(t.ret), len(t.list), len(t.flush_folios)
        return None

    def meter_after(self, row, c, t, before):
        if c.mode == SPIN_LOCK and not c.in_irq:
            c.spins_since = self.now
        if row in ("FL_START", "FL_SEND", "FL_LOCAL", "FL_DONE"):
            getattr(self, "meter_" + row)(c, t, before)
        elif row == "Q_TAKE":
            self.meter_interrupt(c)
        elif row == "Q_FUNC":
            self.meter_request(c, *before)
        elif row in ("TOUCH", "POPULATE") and t.step == "F_READ":
            t.f_began = self.now
        elif row == "F_DONE":
            self.record("fault_latency", self.now - t.f_began)
        elif row == "F_LOCK" and t.state == BLOCKED:
            t.wait_since = self.now
        elif row == "F_SWAP_MAP":
            if before.mapcount:
                self.unmapped_end("unmapped_mapped", before)
        elif row == "R_START":
            t.r_began = self.now
        elif row == "R_END" and t.step == "C_AFTER":
            self.record("direct_reclaim_latency", self.now - t.r_began)
        elif row == "S_PLAN":
            self.record("shrink_list_length", before[2])
        elif row == "B_START":
            self.record("flush_batch_size", before[3])
        elif row[:2] in _SHRINKS:
            self.meter_shrink(row, t, *before[:2])

    # -- flushes

    def meter_FL_START(self, c, t, before):
        t.fl_cause, t.fl_began, t.fl_own = self.flush_cause(c, t), self.now, 0
        t.fl_times = self.times_of(c)
        self.flushed[t.fl_cause]["flushes"] += 1

    def meter_FL_SEND(self, c, t, ipi):
        of = self.flushed[t.fl_cause]
        of["remote"] += 1
        of["targets"] += c.fl_n
        of["ipis"] += bin(ipi).count("1")
        self.record("targets_per_flush", c.fl_n)

    def meter_FL_LOCAL(self, c, t, before):
        t.fl_own = self.times_of(c)[0] - before

    def meter_FL_DONE(self, c, t, before):
        of = self.flushed[t.fl_cause]
        flush, wait = (now - then for now, then in zip(self.times_of(c), t.fl_times))
        of["elapsed"] += self.now - t.fl_began
        of["send"] += flush - t.fl_own
        of["own"] += t.fl_own
        of["wait"] += wait
        if c.fl_n:
            self.record("flush_latency", self.now - t.fl_began)
        for w in self.cpus:
            if w.mode == SPIN_LOCK and w.spins_for.holder is c:
                of["spin"] += self.now - max(w.spins_since, t.fl_began)
        if t.step[:2] in _SHRINKS:
            held = [t.folio, *t.flush_folios]
            for u in self.tasks:
                if u.state == BLOCKED and u.step == "F_RETRY" and u.f_pfn.flags & LOCKED and u.f_pfn in held:
                    of["sleep"] += self.now - max(u.wait_since, t.fl_began)

    def meter_interrupt(self, c):
        cause = c.hand[0].current.fl_cause if c.hand else "other"
        self.flushed[cause]["interrupt"] += self.cost["irq_entry"] + self.cost["irq_exit"]
        self.record("requests_per_ipi", len(c.hand))

    def meter_request(self, c, cost, stamp, gens, sender):
        of = self.flushed[sender.current.fl_cause]
        of["interrupt"] += c.irq_cost - cost
        of["flushed_all" if c.tlb_stamp != stamp else "flushed_pages" if list(c.asid_gen) != gens
           else "flushed_nothing"] += 1

    # -- folios that wait unmapped

    def unmapped_end(self, name, f):
        since = self.unmapped.pop(f, NONE)
        if since != NONE:
            self.record(name, self.now - since)

    def meter_shrink(self, row, t, folio, kept):
        if len(t.ret) > kept:
            self.unmapped_end("unmapped_put_back", t.ret[-1])
        elif row == "U_CLEAR":
            self.unmapped[t.folio] = self.now
        elif row == "P_WRITE":
            self.unmapped_end("unmapped_written", folio)
        elif row == "S_FREE":
            self.unmapped_end("unmapped_freed", folio)

    def meters(self, detail=True):
        """(histograms: name -> bucket -> count; causes: cause -> meter -> sum), without zeros."""
        always = {row[0] for row in names.HISTOGRAMS if detail or row[4] == "always"}
        shown = {row[0] for row in names.FLUSH_METERS if detail or row[2] == "always"}
        return ({name: dict(+of) for name, of in self.histogram.items() if name in always},
                {cause: {meter: n for meter, n in of.items() if n and meter in shown}
                 for cause, of in self.flushed.items()})
