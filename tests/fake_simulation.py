"""A `Simulation` that only counts, so that tables and the command line are tested by themselves.
"""

import sys
import time
import types

import numpy as np

from reclaim import comparison, names
from reclaim.errors import PolicyError
from reclaim.result import Result

POLICIES = {"stage0": 2, "stage5": 1}   # shootdowns per stolen page


class Simulation:
    """Steals 1000 pages a second and seed, in ten slices."""

    slice_s = 0.0          # wall time of a slice
    interrupt_at = None    # (run, slice) in which a KeyboardInterrupt comes
    raises = None          # raised by run
    made = []              # (policy, seed) of each instance

    def __init__(self, scenario, policy="stage0", *, seed=None, record=False):
        name = getattr(policy, "name", policy)
        if name not in POLICIES:
            raise PolicyError(f"unknown policy {name!r}")
        self.scenario, self.policy = scenario, name
        self.seed = scenario.seed if seed is None else seed
        self.made.append((name, self.seed))

    def run(self, seconds=None, *, progress=None, exports=None, interval=None):
        done, partial = 0, False
        try:
            while done < 10:
                if self.raises is not None:
                    raise self.raises
                if self.interrupt_at == (len(self.made), done):
                    raise KeyboardInterrupt
                time.sleep(self.slice_s)
                done += 1
                if progress is not None:
                    progress(done / 10, self.scenario.seconds * done / 10)
        except KeyboardInterrupt:
            partial = True
        return self.result(self.scenario.seconds * done / 10, partial)

    def result(self, seconds, partial=False):
        steals = int(1000 * seconds) * self.seed
        counters = dict.fromkeys(names.COUNTERS, np.int64(0)) | {
            "pgsteal_anon": steals, "pgscan_anon": 2 * steals, "page_touches": 10 * steals,
            "nr_tlb_remote_flush_received": POLICIES[self.policy] * steals,
            "nr_tlb_remote_flush": steals, "function_call_ipis": steals,
            "bogo_units": 4096 * steals}
        return Result(self.scenario, self.policy, self.seed, counters,
                      times={"user": np.array([3.0, 1.0]), "idle": np.array([0.0, 4.0])},
                      histograms={}, seconds=seconds, partial=partial, provenance={},
                      digest=f"{self.policy}-{self.seed}", wall_s=0.5)


def install():
    """Put this module in the place of `reclaim.simulation`."""
    module = types.ModuleType("reclaim.simulation")
    module.Simulation = Simulation
    sys.modules["reclaim.simulation"] = module
    comparison.default_threads = lambda: 1      # it counts its instances in their order
