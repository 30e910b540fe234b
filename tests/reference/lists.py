"""The classic lists, behind the interface that the generations share (generations.py).

`add`, `add_tail` and `delete` move one folio (LRU itself is the caller's); `shrink`, `check_row` and
`putback` are the rows that only one of the two has.
"""

from .state import ACTIVE, LRU, REFERENCED, WORKINGSET


class Classic:
    """The inactive and the active list: `machine.inactive`, `machine.active`."""

    shrink, check_row, putback = "R_PRIO", "S_REF", "I_PUT"

    def __init__(self, machine):
        self.machine = machine

    def named(self):
        """(name, list, what ACTIVE of its folios is)"""
        return [("INACTIVE", self.machine.inactive, 0), ("ACTIVE", self.machine.active, ACTIVE)]

    def add(self, f):
        m = self.machine
        (m.active if f.flags & ACTIVE else m.inactive)[f.nr] = f

    def add_tail(self, f):
        inactive = self.machine.inactive
        inactive[f.nr] = f
        inactive.move_to_end(f.nr, last=False)

    def delete(self, f):
        if self.machine.inactive.pop(f.nr, None) is None:
            del self.machine.active[f.nr]

    def in_fault(self, f):
        """Before the fault's folio goes into a batch."""

    def mark_accessed(self, c, f):
        """5.1.2; true if the activate batch became full."""
        full = False
        if not f.flags & REFERENCED:
            f.flags |= REFERENCED
        elif not f.flags & ACTIVE:
            if f.flags & LRU:
                full = self.machine.activate_add(c, f)
            elif f in c.lru_add:
                f.flags |= ACTIVE
            f.flags &= ~REFERENCED
            self.machine.memcg.nonresident_age += 1
        return full

    def eviction(self, f):
        """The shadow that f leaves."""
        m = self.machine.memcg
        m.nonresident_age += 1
        return (m.nonresident_age - 1) * 8 + (4 if f.flags & WORKINGSET else 0) + 1

    def refault(self, f, shadow):
        """5.2.1"""
        machine, m, counter = self.machine, self.machine.memcg, self.machine.counter
        counter["workingset_refault_anon"] += 1
        distance = m.nonresident_age - (shadow >> 3)
        size = len(machine.active) if machine.slots_free else 0
        if distance <= size:
            f.flags |= ACTIVE
            m.nonresident_age += 1
            counter["workingset_activate_anon"] += 1
            if shadow & 4:
                f.flags |= WORKINGSET
                machine.note_cost(1, 0)
                counter["workingset_restore_anon"] += 1

    def snapshot(self):
        """R_END"""
        self.machine.memcg.refaults_snapshot = self.machine.counter["workingset_activate_anon"]

    def isolated(self, n):
        """What nr_isolated says of n folios that a task has taken."""
        return n

    # An mm is walked by generations only.

    def walked(self, region):
        """A page walk of a CPU went through the page-table page."""

    def use_mm(self, mm):
        """A CPU switches to it."""

    def exit_mm(self, mm):
        """Its last task takes it down."""

    def new_mm(self, mm):
        """Its tasks start anew."""

    def region_gone(self, region):
        """Its page-table page was freed."""
