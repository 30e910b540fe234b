"""Safety, checked with ghosts: the twin with the content of every page.

Every write of a touch makes a new version of its page.  Frames and slots carry versions; a TLB entry
remembers the frame it was filled from.  A touch must never reach a frame that was freed since, and
must always see the last version of its page.  Nothing of docs/model.md changes.
"""

from .state import KIND, K_PRESENT, K_ZERO, PAYLOAD


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
        frame, life = self.reach[c.nr, vp, c.asid_stamp[c.loaded_asid]]
        if frame < 0:
            assert not t.write, f"task {t.nr} writes the zero page at {vp}"
            assert self.latest[vp] == 0, f"task {t.nr} reads zeros at {vp}, where it wrote"
        else:
            assert self.life[frame] == life, f"task {t.nr}, page {vp}: frame {frame} was freed"
            seen = self.content[frame]
            assert seen == self.latest[vp], (
                f"task {t.nr}, page {vp}, frame {frame}: version {seen}, not {self.latest[vp]}")
            if t.write:
                self.version += 1
                self.content[frame] = self.latest[vp] = self.version
        super().complete(t, p)

    def step_F_FILL(self, c, t):
        self.content[t.f_pfn.nr] = 0 if t.f_old is None else self.content[t.f_old.nr]
        super().step_F_FILL(c, t)

    def step_F_SWAP_READ(self, c, t):
        self.content[t.f_pfn.nr] = self.stored[self.slot_of(t)]
        super().step_F_SWAP_READ(c, t)

    def step_P_WRITE(self, c, t):
        self.stored[t.folio.slot] = self.content[t.folio.nr]
        super().step_P_WRITE(c, t)

    def step_E_UNLOCK(self, c, t):
        for vp in self.zap_region(t)[1]:
            self.latest[vp] = 0
        super().step_E_UNLOCK(c, t)
