"""The slow twin: the simulator of docs/model.md once more, in plain Python.

It is written from that text alone; no line of the core was read for it.  `Reference(world, policy)`
is the machine, `act`, `run`, `digest` and `check` are what the tests use.
"""

from ._load import names
from .call_invariants import CallInvariants
from .calls import Calls
from .charge import Charge
from .digest import Digest
from .faults import Faults
from .flushing import Flushing
from .fork import Fork
from .generation_invariants import GenerationInvariants
from .generations import Generations, Lists
from .ghost import Ghost
from .host import Host
from .invariants import Invariants
from .lists import Classic
from .machine import Machine
from .memory import Memory
from .meters import Meters
from .pool import Pool
from .rows import NUMBER
from .sched import Sched
from .shrink import Shrink
from .state import State
from .user import User
from .zap import Zap

__all__ = ["Reference", "Checked", "STAGE0", "BATCH31", "names"]

_ALL = frozenset({"writeback", "lru", "mapped", "pinned"})
STAGE0 = {"activation": "kernel", "unmap": "kernel", "flush_every": 1, "keeps_locks": True,
          "rechecks": _ALL, "remainder": True}
BATCH31 = dict(STAGE0, flush_every=31, keeps_locks=False)


class Reference(Machine, State, Memory, Pool, User, Faults, Charge, Shrink, Flushing, Sched, Host, Zap,
                Calls, Fork, Generations, GenerationInvariants, CallInvariants, Digest, Invariants, Meters):
    """One machine; see docs/model.md."""

    def __init__(self, world, policy=STAGE0):
        assert set(policy) == set(STAGE0), f"policy keys {sorted(policy)}"
        assert policy["activation"] in ("kernel", "never")
        assert policy["unmap"] in ("kernel", "immediate")
        assert policy["flush_every"] >= 1 and set(policy["rechecks"]) <= _ALL
        self.policy = dict(policy)
        self.build(world)
        self.lru = (Lists if world.lru else Classic)(self)
        self.steps = {name: getattr(self, f"step_{name}", None) for name in NUMBER}

    def counters(self):
        return dict(self.counter)

    def times(self):
        return {cat: list(values) for cat, values in self.time.items()}


class Checked(Ghost, Reference):
    """The same machine with the contents of pages: no use after free, no lost write."""
