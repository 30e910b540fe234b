"""What must hold of generations after every action; invariants.py calls it."""

from .state import NONE


class GenerationInvariants:

    def _check_generations(self):
        m = self.memcg
        for t in self.tasks:
            most = 64 if self.world.lru else 32
            assert len(t.list) <= most, f"task {t.nr} took {len(t.list)} folios"
        assert m.protected[0] == 0, f"protected: {m.protected}"
        if not self.world.lru:
            assert not any((m.max_seq, *m.min_seq, *m.gen_nr, *m.refaulted, *m.evicted, m.mm_seq, m.mm_head,
                            m.filters, *self.pt_young, *self.pt_filter)), "generations in a classic world"
            assert not any(f.refs or f.gen != NONE for f in self.folios), "a folio has a generation"
            assert not any(mm.lru_gen for mm in self.mms), "an mm is to be walked"
            return
        self._check_sequences(m)
        self._check_walks(m)
        counted = [0] * len(m.gen_nr)
        listed = {f for gen in self.lru.gens for f in gen.values()}
        for f in self.folios:
            assert (f.gen != NONE) == (f in listed), f"folio {f.nr}: gen {f.gen}, on a list: {f in listed}"
            assert 0 <= f.refs <= 3, f"folio {f.nr}: refs {f.refs}"
            if f.gen != NONE:
                counted[f.gen] += 1
        walked = [sum(moved) for moved in zip(*(t.g_moved for t in self.tasks))]
        assert [a + b for a, b in zip(m.gen_nr, walked)] == counted, (
            f"gen_nr {m.gen_nr}, walks in hand {walked}, counted {counted}")

    def _check_sequences(self, m):
        anon, file = (m.max_seq - seq + 1 for seq in m.min_seq)
        assert 2 <= file <= anon <= 4, f"{anon} and {file} generations"
        ending = sum(1 for t in self.tasks if t.step == "G_MAX")    # who ended the walk of all mms
        assert m.mm_seq == m.max_seq - 1 + ending, f"mm_seq {m.mm_seq}, max_seq {m.max_seq}"
        assert NONE <= m.mm_head < len(self.mms), f"mm_head {m.mm_head}"
        assert m.mm_head == NONE or m.mm_seq < m.max_seq, "an mm is next in a walk that is over"
        if self.lru.inverted:           # then folios may be older than their list
            return
        living = {seq % 4 for seq in range(m.min_seq[0], m.max_seq + 1)}
        for g, gen in enumerate(self.lru.gens):
            assert g in living or not gen, f"folios on list {g}, generations {m.min_seq[0]} to {m.max_seq}"
            for f in gen.values():
                assert f.gen in living, f"folio {f.nr}: gen {f.gen} is over"
                older = (f.gen - m.min_seq[0]) % 4 < (g - m.min_seq[0]) % 4
                assert not older, f"folio {f.nr}: gen {f.gen}, on the list of {g}"

    def _check_walks(self, m):
        for region, present in enumerate(self.pt_present):
            marks = self.pt_filter[region]
            assert present or not (self.pt_young[region] or marks), f"region {region} is gone, and marked"
            assert not marks & ~m.filters, f"region {region} is in a filter that is none"
        for mm in self.mms:
            assert 0 <= mm.lru_gen < 8, f"mm {mm.nr}: lru_gen {mm.lru_gen}"
        for t in self.tasks:
            inner = self._inner(t)
            assert sum(t.g_moved) == 0 and t.g_batched >= sum(n for n in t.g_moved if n > 0), (
                f"task {t.nr} moved {t.g_moved}, {t.g_batched} folios")
            if inner not in ("G_WALK", "G_BATCH"):
                assert not t.g_batched and not any(t.g_moved), f"task {t.nr} keeps moves in {t.step}"
            if inner in ("G_WALK", "G_BATCH", "G_BATCH_UNLOCK", "G_AGAIN"):
                assert 0 <= t.g_region <= t.g_mm.nr_regions, f"task {t.nr}: region {t.g_region}"
            if inner == "S_LOOK":
                region = self.region_of[t.folio.vp]
                assert t.look_at <= t.look_end and 1 <= t.look_nr <= 64, f"task {t.nr}: look-around"
                assert self.region_of[t.look_end - 1] == region == self.region_of[t.look_end - t.look_nr], (
                    f"task {t.nr} looks around beyond its page-table page")
            if inner in ("G_KEEP", "G_PUT", "G_PUT_UNLOCK"):
                assert not t.list and not t.flush_folios, f"task {t.nr}: folios left in {t.step}"
            assert not t.clean or inner in ("G_PUT", "G_PUT_UNLOCK"), f"task {t.nr}: clean folios in {t.step}"
