# %% [markdown]
# # 3. What batch size, how many CPUs, which swap device?
#
# A scenario is data. `run_grid` runs it for every pair of values of two of its keys and keeps one metric;
# the result is a table, an array, and a picture. 16 processes that write twice the memory they are
# allowed:

# %%
import reclaim
import reclaim.plots
from reclaim.grid import run_grid

writers = reclaim.Scenario.load("small").replace(
    {"machine.cpus": 16, "workload.workers": 16, "workload.bytes": "128M",
     "memcg.limit": "64M", "memory.total": "4G", "swap.size": "1G"}, seconds=0.15, warmup=0.05)

# %% [markdown]
# ## Batch size
#
# A slot of the policy is a parameter like any other. `batch(1)` flushes for every folio, `batch(31)` is
# the series.

# %%
sizes = [f"batch({n})" for n in (1, 2, 4, 8, 16, 31)]
grid = run_grid(writers, {"policy.flush": sizes, "machine.cpus": [4, 16]},
                metric="tlb_shootdowns_per_page")
grid

# %% [markdown]
# Most of the gain is there with 8 folios a batch: a batch of pages of many processes asks the CPUs of all
# of them, so each further folio saves less.

# %%
reclaim.plots.plot_grid(grid)

# %% [markdown]
# ## How many CPUs
#
# One writer for each CPU, and memory in proportion. A grid changes two keys at a time; where more keys
# must move together a loop is as good.

# %%
print(f"{'CPUs':>5} {'shootdowns a page':>24} {'bogo ops/s':>11}")
for cpus in (1, 2, 4, 8, 16, 32):
    scenario = writers.replace(
        {"machine.cpus": cpus, "workload.workers": cpus, "workload.bytes": cpus << 23,
         "memcg.limit": cpus << 22})
    runs = [reclaim.simulate(scenario, policy) for policy in ("stage0", "stage5")]
    first, last = (run.counters["tlb_shootdowns"] / run.counters["pgsteal_anon"]
                   for run in runs)
    gain = runs[1].counters["bogo_ops_per_s"] / runs[0].counters["bogo_ops_per_s"] - 1
    print(f"{cpus:5} {first:12.3f} -> {last:8.3f} {gain:+11.1%}")

# %% [markdown]
# ## Which swap device
#
# zram compresses at once, on the CPU that reclaims. An NVMe device has a queue: workers sleep, and are
# woken on other CPUs. With masks that keep the bit of a CPU that an mm has left (`lazy`, as kernels since
# 6.18 do) each flush then asks many more.

# %%
choices = {"swap.kind": ["zram", "nvme"], "kernel.mm_cpumask": ["eager", "lazy"]}
devices = run_grid(writers, choices, policy="stage0")
reclaim.plots.plot_grid(devices)

# %% [markdown]
# The same after the series:

# %%
run_grid(writers, choices, policy="stage5")

# %% [markdown]
# From the command line, with a picture: `reclaim plot small --kind grid --over machine.cpus=2,4,8 --over
# "policy.flush=batch(1),batch(31)" -o grid.svg`. More such questions, with answers: `docs/questions.md`.
