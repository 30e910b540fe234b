"""What a strategy costs, compiled and in Python: the same decisions, to the same digest."""

import dataclasses

import pytest
import worlds
from reclaim.policies.accounting import PyAccountingPolicy
from reclaim.policies.activation import PyActivationPolicy
from reclaim.policies.flush import BatchFlush, PyFlushPolicy
from reclaim.policies.free import PyFreePolicy
from reclaim.policies.unmap import PyUnmapPolicy


class Every31(PyFlushPolicy):
    """BatchFlush(31)."""

    name = "bench-every-31"

    def plan_list(self, pfns, flags, flush_after):
        flush_after[30::31] = True


class DeferAll(PyUnmapPolicy):
    """The kernel's unmap."""

    name = "bench-defer-all"

    def plan_list(self, pfns, flags, defer):
        defer[:] = True


class Activate(PyActivationPolicy):
    """The kernel's activation."""

    name = "bench-activate"

    def activate_folio(self, pfn, flags, refcount, mapcount):
        return True


class Free(PyFreePolicy):
    """The kernel's results of pageout(), in Python."""

    name = "bench-free"

    def dispatch_result(self, result, flags):
        return "free" if result == "success" else "keep_locked"

    def free_folio(self, flags):
        return True


class Count(PyAccountingPolicy):
    """Each folio counts."""

    name = "bench-count"

    def count_freed(self, nr):
        return nr


# A world, the unit, touches to begin with: folios under write-back are activated all the time.
PER_LIST = worlds.Path(worlds.mixed, "shrink_folio_list_calls", 130_000, 2_000_000)
PER_WRITE = dataclasses.replace(PER_LIST, unit="nr_vmscan_write")
PER_FREE = dataclasses.replace(PER_LIST, unit="pgsteal_anon")
PER_ACTIVATION = dataclasses.replace(worlds.PATHS["aging"], unit="pgactivate")
SLOTS = {
    "flush": (BatchFlush(31), Every31(), PER_LIST),
    "unmap": ("kernel", DeferAll(), PER_LIST),
    "activation": ("kernel", Activate(), PER_ACTIVATION),
    "free": ("inline", Free(), PER_WRITE),
    "accounting": ("reclaim_stat", Count(), PER_FREE),
}


@pytest.mark.parametrize("kind", ["compiled", "python"])
@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.benchmark(group="policy: the whole run, per time that it is asked", disable_gc=True)
def test_policy(path, slot, kind):
    *both, p = SLOTS[slot]
    compiled, python = (dataclasses.replace(p, policy={slot: strategy}) for strategy in both)
    made = path(python if kind == "python" else compiled, slot=slot, kind=kind)
    assert made.units > 300 or made.actions < 10**6
    if kind == "python":                # the compiled one decides alike
        other = worlds.Round(compiled, actions=made.actions)
        other.run()
        assert made.sim.digest() == other.sim.digest()
