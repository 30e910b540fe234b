"""Safety, checked with ghosts: the twin with the content of every page.

Every write of a touch makes a new version of its page.  Frames and slots carry versions; a TLB entry
remembers the frame it was filled from.  A touch must never reach a frame that was freed since, and
must always see the last version of its page.  Nothing of docs/model.md changes.

Asynchronous requests are the worst a device may do: until a read ends the frame holds garbage,
until a write ends the slot does; a page that changed on its way out leaves garbage in the slot.
"""

from .state import KIND, K_PRESENT, K_ZERO, PAYLOAD, WRITEBACK


class Ghost:
    """Mix in before Reference: class Checked(Ghost, Reference)."""

    def __init__(self, world, policy):
        super().__init__(world, policy)
        self.latest = [0] * len(self.pte)           # version of each virtual page; 0 all zero
        self.content = [0] * len(self.folios)
        self.stored = [0] * world.nr_slots
        self.life = [0] * len(self.folios)          # how often the frame was allocated
        self.reach = {}                             # (cpu, vp, stamp) -> (frame, its life); -1 zero page
        self.version = 0
        self.sent = {}                              # folio in a request -> (its life, content)
        self.moved = {}                             # virtual page -> where it is, until the move is flushed

    def alloc(self):
        f = super().alloc()
        self.life[f.nr] += 1
        self.content[f.nr] = -1                     # garbage
        return f

    def free_frame(self, f):
        self.life[f.nr] += 1
        super().free_frame(f)

    def tlb_fill_both(self, c, vp, d):
        super().tlb_fill_both(c, vp, d)
        pte = self.pte[vp]
        frame = pte >> PAYLOAD if pte & KIND == K_PRESENT else -1
        assert frame >= 0 or pte & KIND == K_ZERO
        self.reach[c.nr, vp, c.asid_stamp[c.loaded_asid]] = frame, self.life[frame] if frame >= 0 else 0

    def complete(self, t, p):
        c, vp = self.c, t.vp
        home = self.moved.get(vp, vp)
        frame, life = self.reach[c.nr, vp, c.asid_stamp[c.loaded_asid]]
        if frame < 0:
            assert not t.write, f"task {t.nr} writes the zero page at {vp}"
            assert self.latest[home] == 0, f"task {t.nr} reads zeros at {vp}, where it wrote"
        else:
            assert self.life[frame] == life, f"task {t.nr}, page {vp}: frame {frame} was freed"
            seen = self.content[frame]
            assert seen == self.latest[home], (
                f"task {t.nr}, page {vp}, frame {frame}: version {seen}, not {self.latest[home]}")
            if t.write:
                self.version += 1
                self.content[frame] = self.latest[home] = self.version
        super().complete(t, p)

    def step_F_FILL(self, c, t):
        self.content[t.f_pfn.nr] = 0 if t.f_old is None else self.content[t.f_old.nr]
        super().step_F_FILL(c, t)

    def step_F_SWAP_READ(self, c, t):
        f, stored = t.f_pfn, self.stored[self.slot_of(t)]
        super().step_F_SWAP_READ(c, t)
        if t.step != "F_SUBMIT":
            self.content[f.nr] = stored

    def step_F_RA_READ(self, c, t):
        f, stored = t.f_pfn, self.stored[t.f_pfn.slot]
        super().step_F_RA_READ(c, t)
        if t.step != "F_RA_SUBMIT":
            self.content[f.nr] = stored

    def step_P_WRITE(self, c, t):
        f, s = t.folio, t.folio.slot
        super().step_P_WRITE(c, t)
        self.stored[s] = -1 if t.step == "P_SUBMIT" else self.content[f.nr]

    def submit(self, f):
        super().submit(f)
        self.note(f)

    def plug(self, c, t, f):
        ready = super().plug(c, t, f)
        if ready:
            self.note(f)
        return ready

    def note(self, f):
        assert f not in self.sent, f"folio {f.nr} is in two requests"
        self.sent[f] = self.life[f.nr], self.content[f.nr]

    def step_IO_END(self, c, t):
        for f in self.request_folios(c.io[0]):
            life, content = self.sent.pop(f)
            assert self.life[f.nr] == life, f"folio {f.nr} was freed with its request in flight"
            if f.flags & WRITEBACK:
                self.stored[f.slot] = content if self.content[f.nr] == content else -1
            else:
                assert self.content[f.nr] == -1, f"folio {f.nr} was written while it was read"
                self.content[f.nr] = self.stored[f.slot]
        super().step_IO_END(c, t)

    def step_E_UNLOCK(self, c, t):
        for vp in self.zap_region(t)[1]:
            self.latest[vp] = 0
        super().step_E_UNLOCK(c, t)

    def step_V_UNMAPPED(self, c, t):
        for page in self.call_range(t):
            self.latest[t.mm.base + page] = 0
        super().step_V_UNMAPPED(c, t)

    def move_word(self, o, n):
        self.latest[n], self.latest[o] = self.latest[o], 0
        self.moved[o] = n
        super().move_word(o, n)

    def step_V_MOVE(self, c, t):
        before = t.v_at
        super().step_V_MOVE(c, t)
        self.forget(t, before, t.v_at)              # without a page table nobody can reach it

    def step_V_MOVED(self, c, t):
        before = t.v_at
        super().step_V_MOVED(c, t)
        self.forget(t, before, t.v_at)

    def step_V_FORKED(self, c, t):
        """What the parent wrote through old entries until the flush is the child's, too."""
        for page in self.call_range(t):
            vp = t.mm.base + page
            if self.pte[self.peer_of(vp)] & KIND:
                self.latest[self.peer_of(vp)] = self.latest[vp]
        super().step_V_FORKED(c, t)

    def forget(self, t, start, stop):
        """Pages of a move that are nowhere but at their new place."""
        first = t.mm.base + self.current_pass(t).first
        for vp in range(first + start, first + stop):
            del self.moved[vp]
