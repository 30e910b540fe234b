"""The digest (docs/model.md, section 7)."""

import hashlib
import struct

from ._load import names
from .rows import NUMBER
from .state import DEAD, MASK64, NONE


def _step(name):
    return NONE if name is None else NUMBER[name]


def _nr(thing):
    return NONE if thing is None else thing.nr


def _mask(works):
    return sum(1 << names.WORKS.index(w) for w in works)


class Digest:

    def columns(self):
        """(name, values) of every column, in the order that is hashed."""
        out = []
        for table, fields in names.DIGEST:
            if not fields:
                out.append((table, getattr(self, f"column_{table}")()))
                continue
            read = getattr(self, f"read_{table}")
            out += [(f"{table}.{field}", read(field)) for field in fields]
        return out

    def digest(self):
        h = hashlib.blake2b(digest_size=32)
        for name, values in self.columns():
            h.update(name.encode("ascii") + b"\0" + struct.pack("<Q", len(values)))
            h.update(struct.pack(f"<{len(values)}Q", *(int(v) & MASK64 for v in values)))
        return h.hexdigest()

    # -- tables: one value per object -----------------------------------------------------------

    def read_cpu(self, field):
        special = {
            "istep": lambda c: _step(c.istep),
            "sstep": lambda c: _step(c.sstep),
            "current": lambda c: _nr(c.current),
            "left": lambda c: c.left if c.in_irq else 0,
            "rq_nr": lambda c: len(c.runqueue),
            "works": lambda c: _mask(c.works),
            "nr_lru_add": lambda c: len(c.lru_add),
            "nr_lru_move_tail": lambda c: len(c.lru_move_tail),
            "nr_lru_activate": lambda c: len(c.lru_activate),
        }
        read = special.get(field, lambda c: getattr(c, field))
        return [read(c) for c in self.cpus]

    def read_host(self, field):
        return [_nr(h.running) if field == "running" else getattr(h, field) for h in self.hosts]

    def read_task(self, field):
        if field == "step":
            return [NONE if t.state == DEAD else _step(t.step) for t in self.tasks]
        return [getattr(t, "pass_" if field == "pass" else field) for t in self.tasks]

    def read_mm(self, field):
        return [getattr(m, field) for m in self.mms]

    def read_folio(self, field):
        if field == "gen":
            return [f.gen + 1 + 8 * f.refs for f in self.folios]
        return [getattr(f, field) for f in self.folios]

    def read_memcg(self, field):
        if field == "slots_free":
            return [self.slots_free]
        if field == "frames_free":
            return [len(self.free_frames)]
        if field == "works":
            return [_mask(self.memcg.works)]
        value = getattr(self.memcg, field)
        return list(value) if isinstance(value, list) else [value]

    def read_swapdev(self, field):
        return [getattr(self.swapdev, field)]

    def column_slot_cache(self):
        if not self.world.slot_cache:
            return []
        return [x for c in self.cpus for slots in (c.slots, c.slots_ret) for x in (len(slots), *slots)]

    # -- single columns -------------------------------------------------------------------------

    def _lists(self, of):
        out = []
        for c in self.cpus:
            members = of(c)
            out.append(len(members))
            out += [x.nr for x in members]
        return out

    def column_cpu_io(self):
        out = []
        for c in self.cpus:
            out.append(len(c.io))
            for request in c.io:
                out += request
        return out

    def column_task_plug(self):
        return [x for t in self.tasks for x in (len(t.plug), *(y for request in t.plug for y in request))]

    def column_cpu_queue(self):
        return self._lists(lambda c: c.queue)

    def column_cpu_runqueue(self):
        return self._lists(lambda c: c.runqueue)

    def column_cpu_lru_add(self):
        return self._lists(lambda c: c.lru_add)

    def column_cpu_lru_move_tail(self):
        return self._lists(lambda c: c.lru_move_tail)

    def column_cpu_lru_activate(self):
        return self._lists(lambda c: c.lru_activate)

    def column_asid_mm(self):
        return [x for c in self.cpus for x in c.asid_mm]

    def column_asid_gen(self):
        return [x for c in self.cpus for x in c.asid_gen]

    def _tlb(self, level):
        out = []
        for c in self.cpus:
            for ways in getattr(c, level):
                for entry in ways:
                    known = entry is not None and entry[1] in c.asid_stamp
                    out.append(entry[0] * 2 + entry[2] + 1 if known else 0)
        return out

    def column_tlb_l1(self):
        return self._tlb("l1")

    def column_tlb_l2(self):
        return self._tlb("l2")

    def column_mm_cpumask(self):
        words = -(-len(self.cpus) // 64)
        return [m.cpumask >> (64 * w) & MASK64 for m in self.mms for w in range(words)]

    def column_pte(self):
        return [pte | ro << 63 for pte, ro in zip(self.pte, self.read_only, strict=True)]

    def column_pt_present(self):
        return list(self.pt_present)

    def column_pt_young(self):
        return list(self.pt_young)

    def column_pt_filter(self):
        return list(self.pt_filter)

    def column_lru_gens(self):
        if not self.world.lru:
            return [0] * 4
        return [x for gen in self.lru.gens for x in self._lru(gen)]

    def _lru(self, lru):
        return [len(lru), *reversed(lru)]

    def column_lru_inactive(self):
        return self._lru(self.inactive)

    def column_lru_active(self):
        return self._lru(self.active)

    def column_slot_entry(self):
        return list(self.slot_entry)

    def column_slot_count(self):
        return list(self.slot_count)

    def column_counter(self):
        return list(self.counter.values())

    def column_time(self):
        return [x for cat in names.TIMES for x in self.time[cat]]
