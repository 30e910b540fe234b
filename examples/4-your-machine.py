# %% [markdown]
# # 4. Your own machine: observe, calibrate, compare
#
# The simulator's costs come from a profile, and many of them are assumed. This notebook counts what your
# kernel does, measures what things cost on your CPUs, and puts both beside the simulator. It needs no
# root, changes no setting, and says what your machine does not let it see.

# %%
import importlib.resources
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import reclaim
from reclaim.calibration import calibrate
from reclaim.measured import Observation
from reclaim.observation import observe

work = Path(tempfile.mkdtemp(prefix="reclaim-"))

# %% [markdown]
# ## Observe
#
# `observe` runs a command and reads `/proc/vmstat`, `/proc/interrupts` and the command's memory cgroup
# meanwhile. Something must be short of memory: here a process that writes 96 MiB four times over, in a
# scope that may use 48 MiB, if your system lets you make one (`systemd-run --user`). If not, it runs
# without a limit, and nothing is reclaimed.

# %%
WRITER = "b = bytearray(96 << 20)\nfor i in range(4): b[::4096] = bytes([i]) * (len(b) >> 12)"
limit = ["systemd-run", "--user", "--scope", "--quiet", "-p", "MemoryMax=48M"]
try:
    usable = shutil.which("systemd-run") is not None and subprocess.run(
        [*limit, "true"], capture_output=True, timeout=10).returncode == 0
except (OSError, subprocess.TimeoutExpired):
    usable = False
print("with a limit of 48 MiB" if usable else "no user scopes here: without a limit")

runs = str(work / "real.jsonl")
try:
    command = [*(limit if usable else []), sys.executable, "-c", WRITER]
    seen = observe(command, runs, interval=0.1)
    counters = seen.line["repeats"][0]["whole"]["counters"]
    for name in ("pgfault", "pgsteal_anon", "pswpout", "tlb_shootdowns", "function_call_ipis"):
        print(f"{name:20} {counters.get(name, 'not counted here')}")
    reclaimed = counters.get("pgsteal_anon") or 0
    for note in seen.notes:
        print("note:", note)
except reclaim.ReclaimError as error:
    print("not observed:", error)
    reclaimed = 0

# %% [markdown]
# ## Calibrate
#
# `calibrate` measures faults, TLB misses, shootdowns and switches for a few seconds and makes a profile;
# what it cannot measure is inherited from `vm16` and marked. It needs Linux on x86 and two CPUs.

# %%
profile = None
try:
    measured = calibrate(2)
    profile = work / "here.toml"
    profile.write_text(measured.toml)
    print(measured.description)
    print("\n".join(line for line in measured.table().splitlines() if line.startswith(
        ("cost", "fault_entry", "page_copy", "walk_", "ipi_", "context"))))
except reclaim.ReclaimError as error:
    print("not calibrated:", error)

# %% [markdown]
# The whole 20 s of `reclaim calibrate -o here.toml` on a machine that does nothing else are better than
# these two.
#
# ## Compare
#
# Beside an observation `compare` counts for each reclaimed page. If nothing was reclaimed above, here is
# a machine that was: 6.18 in a virtual machine with two CPUs, four workers of stress-ng, half of their
# memory allowed. Its runs are part of the package, and its kernel has no series, so it stands beside
# `stage0`.

# %%
if reclaimed > 1000:
    observation = Observation.load(runs)
    scenario = reclaim.Scenario.load("small").replace(
        {"machine.cpus": 2, "workload.workers": 1, "workload.bytes": "96M",
         "memcg.limit": "48M", "swap.size": "256M"}, seconds=2)
else:
    packaged = importlib.resources.files("reclaim") / "data" / "kernel_runs.jsonl"
    observation = Observation.load(
        str(packaged), "host-2cpu-4w-stressng_flip-madvise_normal-zram-limit0.5-quiet")
    scenario = observation.as_scenario()
reclaim.compare(scenario, observation=observation)

# %% [markdown]
# With the costs that were measured here instead of the profile's: the counts for each page hardly move,
# since they follow from mechanisms; times and throughput do.

# %%
if profile is not None:
    vm16 = reclaim.simulate(scenario, seconds=1)
    here = reclaim.simulate(scenario.replace({"machine.profile": str(profile)}), seconds=1)
    for name, result in (("vm16", vm16), ("this machine", here)):
        pages = max(1, result.counters["pgsteal_anon"])
        print(f"{name:13} {result.counters['tlb_shootdowns'] / pages:.3f} shootdowns a page, "
              f"{sum(result.times['flush_wait']) / pages / 1000:.1f} us of waiting for flushes a page")

# %%
shutil.rmtree(work)

# %% [markdown]
# From the command line: `reclaim observe -o real.jsonl -- COMMAND`, `reclaim calibrate -o here.toml`,
# `reclaim compare real.jsonl --profile here.toml` (`docs/observe.md`, `docs/calibration.md`). How well
# the simulator does on 58 measured configurations: `docs/validation.md`.
