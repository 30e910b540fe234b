# %% [markdown]
# # 5. Why CAL is below TLB: inside a flush
#
# `/proc/interrupts` of the series' test shows more TLB shootdowns (row TLB) than function-call interrupts
# (row CAL), 55 million to 34 million. How can a CPU be asked to flush without an interrupt? This notebook
# looks at every step of it.

# %%
from collections import Counter

import reclaim
from reclaim.names import STEPS

scenario = reclaim.Scenario.load("small").replace(
    {"machine.cpus": 8, "workload.workers": 8, "workload.bytes": "64M",
     "memcg.limit": "32M", "swap.size": "256M"})
simulation = reclaim.Simulation(scenario, "stage0")
simulation.run(0.05)                       # until the cgroup is full and everybody reclaims
log = simulation.log(actions=400_000)      # then every step: when, which CPU, what, what it cost
steps = [STEPS[number] for number in log["step"]]
now = (log["now"] - log["now"][0]) / 1000  # ns
print(len(log), "steps in", f"{now[-1] / 1e6:.2f} ms;", len(set(steps)), "kinds")

# %% [markdown]
# ## One flush
#
# The names are those of `docs/model.md`; the kernel's functions are beside them. A sender reads the mask
# (`FL_START`), puts its request on the queue of each target (`FL_QUEUE`), sends interrupts (`FL_SEND`),
# flushes its own TLB if it must, and spins until all have answered (`FL_WAIT`, `FL_DONE`). On the target:
# `Q_ENTRY`, `Q_TAKE` takes all that is queued, `Q_FUNC` flushes, `Q_ACK` answers.

# %%
FUNCTION = {
    "FL_START": "reads mm_cpumask", "FL_QUEUE": "smp_call_function_many_cond: llist_add",
    "FL_SEND": "arch_send_call_function_ipi_mask", "FL_LOCAL": "flush_tlb_func, own CPU",
    "FL_WAIT": "csd_lock_wait", "FL_DONE": "goes on",
    "Q_ENTRY": "interrupt", "Q_TAKE": "llist_del_all", "Q_FUNC": "flush_tlb_func",
    "Q_ACK": "csd_unlock", "Q_EXIT": "interrupt ends"}


def show(first, last):
    """The flush steps among these, a line each."""
    for i in range(first, last):
        if steps[i] in FUNCTION:
            print(f"{now[i] - now[first]:8.0f} ns  CPU {log['cpu'][i]}  {steps[i]:9} {FUNCTION[steps[i]]}")


def ends(start):
    """Where the flush that begins at step `start` is over."""
    cpu = log["cpu"][start]
    return next(i for i in range(start, len(steps)) if steps[i] == "FL_DONE" and log["cpu"][i] == cpu)


start = next(i for i, step in enumerate(steps) if step == "FL_SEND")
start = max(i for i in range(start) if steps[i] == "FL_START" and log["cpu"][i] == log["cpu"][start])
show(start, ends(start) + 1)

# %% [markdown]
# ## Two senders, one interrupt
#
# `llist_add` tells whether the queue was empty. If it was not, somebody has sent an interrupt that the
# target has not served yet, and it will find the new request as well: no second interrupt is sent. Here
# is a target that answers several senders in one interrupt:

# %%
answered = []           # (step of Q_ENTRY, CPU, answers) of each interrupt
entry = {}
for i, step in enumerate(steps):
    cpu = int(log["cpu"][i])
    if step == "Q_ENTRY":
        entry[cpu] = [i, 0]
    elif step == "Q_FUNC" and cpu in entry:
        entry[cpu][1] += 1
    elif step == "Q_EXIT" and cpu in entry:
        first, answers = entry.pop(cpu)
        answered.append((first, cpu, answers))
first, target, answers = max(answered, key=lambda row: row[2])
print(f"CPU {target} answers {answers} senders in one interrupt:")
for i in range(first, len(steps)):
    if log["cpu"][i] == target:
        print(f"{now[i] - now[first]:8.0f} ns  {steps[i]:8} {FUNCTION.get(steps[i], '')}")
        if steps[i] == "Q_EXIT":
            break

# %% [markdown]
# ## Counted
#
# The kernel counts a shootdown (TLB) for every flush function that a target runs, and an interrupt (CAL)
# for every one it takes. So CAL / TLB is one over the mean number of answers.

# %%
histogram = Counter(answers for _, _, answers in answered if answers)
functions = sum(answers * number for answers, number in histogram.items())
interrupts = sum(histogram.values())
for answers, number in sorted(histogram.items()):
    print(f"{answers} answers: {number:6} interrupts  {'#' * round(50 * number / interrupts)}")
print(f"TLB {functions}, CAL {interrupts}: {interrupts / functions:.3f} interrupts a shootdown")

# %% [markdown]
# ## And after the series
#
# Batches change two things. Flushes are rarer, so that two senders meet less often: the ratio rises. But
# each flush asks more CPUs, and several senders then ask the same ones: it falls. Which wins depends on
# the workload. In the published table it rises, from 0.615 to 0.823: there, what is saved in shootdowns
# is not all saved in interrupts.

# %%
for name, what in (("these writers", scenario),
                   ("the series' test", reclaim.Scenario.load("batch-tlb-flush").replace(seconds=1))):
    for policy in ("stage0", "stage5"):
        counters = reclaim.simulate(what, policy).counters
        shootdowns, interrupts = counters["tlb_shootdowns"], counters["function_call_ipis"]
        print(f"{name:17} {policy}: TLB {shootdowns:8,}  CAL {interrupts:8,}  "
              f"ratio {interrupts / shootdowns:.3f}")

# %% [markdown]
# More senders at once meet more often: the ratio over the number of CPUs, before the series.

# %%
for cpus in (2, 4, 8, 16, 32):
    wider = scenario.replace(
        {"machine.cpus": cpus, "workload.workers": cpus, "workload.bytes": cpus << 23,
         "memcg.limit": cpus << 22}, seconds=0.1)
    counters = reclaim.simulate(wider, "stage0").counters
    print(f"{cpus:3} CPUs: {counters['function_call_ipis'] / counters['tlb_shootdowns']:.3f}")
