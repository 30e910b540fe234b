# %% [markdown]
# # 2. Write your own flush policy, and check it
#
# A policy has five slots, one for each patch of the series. The slot `flush` decides when the pending
# flushes of dirty folios are issued. It is asked once for each list of folios that `shrink_folio_list` is
# given.

# %%
import reclaim
import reclaim.plots
from reclaim.policies.flush import BatchFlush, PyFlushPolicy


class EveryEight(PyFlushPolicy):
    """One flush for every 8 dirty folios."""

    name = "every-8"

    def plan_list(self, pfns, flags, flush_after):
        flush_after[7::8] = True


table = reclaim.compare("small", "stage0", EveryEight())
table

# %% [markdown]
# What it does can be compared with any other policy: here with batches of 31, as the series has them.

# %%
runs = [reclaim.simulate("small", policy) for policy in ("stage0", EveryEight(), "stage5")]
reclaim.plots.plot(runs, "per-page")

# %% [markdown]
# ## A policy with a memory
#
# What a policy remembers is declared, so that it is part of snapshots: this one flushes less often while
# lists are full.

# %%
import numpy as np


class Careful(PyFlushPolicy):
    """Batches of 4, and of 16 once a list of 32 folios was seen."""

    name = "careful"
    state_dtype = np.dtype([("full_lists", "i8")])

    def plan_list(self, pfns, flags, flush_after):
        n = 16 if self.state["full_lists"][0] else 4
        flush_after[n - 1::n] = True
        self.state["full_lists"] += len(pfns) == 32


simulation = reclaim.Simulation(reclaim.Scenario.load("small"), Careful())
result = simulation.run()
print(simulation.view("policy_flush")["full_lists"][0], "lists of 32 folios")
per_batch = result.counters["folios_batched"] / result.counters["flush_batches"]
print(f"{per_batch:.1f} folios a batch")

# %% [markdown]
# ## Is it safe?
#
# A faster policy that loses one write in a billion is worth nothing. `explore` makes every interleaving
# of a tiny world: one CPU reclaims two folios under this policy, another writes to them at the worst
# moments.

# %%
reclaim.explore(EveryEight(), folios=2)

# %% [markdown]
# *Exhausted* and *no violation*: within this bound there is no interleaving that loses a write or reaches
# a freed page. It proves nothing beyond it; `environment="pin"`, `"migrate"` and others widen it
# (`docs/safety.md`).
#
# A policy that forgets the last, unfinished batch of a list is found at once. `remainder=False` plants
# that defect:

# %%
forgetful = reclaim.explore(BatchFlush(2, remainder=False), folios=2)
print(forgetful.violations[0].invariant)

# %% [markdown]
# And a kernel that leaves out the flush before the write-out, the one that this is all about, loses a
# write. The table reads downwards, a column for each CPU: the page is unmapped, CPU 1 still writes
# through its TLB entry (`TLB 1d`), after the copy for the swap device was taken.

# %%
broken = reclaim.explore("stage5", folios=1, defects=("no-flush-before-writeout",))
broken.violations[0]

# %% [markdown]
# A timed run can be watched as well: `check=True` looks at every step, and stops at the first that breaks
# an invariant.

# %%
small = reclaim.Scenario.load("small")
watched = reclaim.Simulation(small, BatchFlush(8, remainder=False), check=True)
try:
    watched.run()
except reclaim.SafetyError as error:
    print("found:", error.invariant)

# %% [markdown]
# `docs/policies.md` is the contract of all five slots, and shows a policy in Cython, which costs a few
# nanoseconds a call.
