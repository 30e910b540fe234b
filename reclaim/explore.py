"""The interleaving explorer: tiny worlds, searches, counterexamples (docs/safety.md)."""

from __future__ import annotations

from typing import Any

import numpy as np

from reclaim import names, policies
from reclaim._core import Core
from reclaim._explore import DEFECTS, ENVIRONMENTS, MOVES, Explorer
from reclaim.world import PASS_DTYPE, World


def tiny_world(*, cpus: int, folios: int, layout: str = "own", slots: int | None = None,
               mask: str = "eager", device: str = "sync", swapin_cached: bool = False,
               pcid: bool = True, reclaimers: int = 1) -> tuple[World, dict[str, Any]]:
    writers = cpus - reclaimers
    if layout == "own":
        mms = reclaimers + max(writers, 0)
        task_mm = list(range(mms))
        pages = [[] for _ in range(mms)]
        for k in range(folios):
            pages[reclaimers + k % writers if writers else k % reclaimers].append(k)
    elif layout == "threads":
        task_mm = [*range(reclaimers), *[reclaimers] * writers]
        pages = [[] for _ in range(reclaimers)] + [list(range(folios))]
    else:
        task_mm = [0] * cpus
        pages = [list(range(folios))]
    mm_pages = tuple(max(1, len(p)) for p in pages)
    base = np.cumsum([0, *mm_pages])
    vp_of = {k: int(base[i]) + j for i, own in enumerate(pages) for j, k in enumerate(own)}
    tasks = len(task_mm)
    costs = [0] * len(names.COSTS)
    for name in ("ipi_delivery", "ipi_delivery_cross"):
        costs[names.COSTS.index(name)] = 1
    rows = [(names.PASS_KINDS.index("SEQ"), 1, 0, 0, 0, 1, 1, 2**62, 0, 0, 0)]
    rows += [(names.PASS_KINDS.index("DONTNEED"), 0, 0, 0, j, 1, 1, 1, 0, 0, 0)
             for j in range(max(mm_pages))]
    world = World(
        nr_cpus=cpus, cpus_per_socket=cpus, pcid=pcid, l1_sets=1, l1_ways=8, l2_sets=1, l2_ways=8,
        limit=1, kernel_pages=0, nr_folios=1 + 64 * tasks + 64, nr_slots=2 * folios + 1 if slots is None else slots,
        swappiness=60, cgroup=1, mask_lazy=mask == "lazy", trim=False, swap_sync=device == "sync",
        io_depth=4, io_latency=2, io_page=0, swapin_cached=swapin_cached, pgrefill_global=False,
        host_cpus=0, pv_flush=False, tick=10**12, tick_skew=0, slice_ticks=10**6, migrate_threshold=0,
        seed=0, costs=tuple(costs), passes=np.array(rows, dtype=PASS_DTYPE), task_mm=tuple(task_mm),
        task_cpu=tuple(range(tasks)), task_pinned=(False,) * tasks, task_first_pass=(0,) * tasks,
        task_nr_passes=tuple(1 + mm_pages[i] for i in task_mm), task_loop_to=(0,) * tasks,
        task_restart=(False,) * tasks, mm_pages=mm_pages, mm_recency=(True,) * len(mm_pages))
    return world, {"vp_of": vp_of, "tasks": tasks, "reclaimers": reclaimers}


def build(policy: Any, *, cpus=2, folios=2, writes=2, reads=0, rounds=1, actions=1, environment="none",
          defects=(), starts=True, reduce=True, **world) -> Explorer:
    w, info = tiny_world(cpus=cpus, folios=folios, **world)
    pages: list[Any] = [None] * sum(w.mm_pages)
    frames = {}
    for vp in sorted(info["vp_of"].values()):
        frames[vp] = len(frames)
    for k, vp in info["vp_of"].items():
        pages[vp] = True
    r = info["reclaimers"]
    lists = [[frames[info["vp_of"][k]] for k in range(folios) if k % r == i] for i in range(r)]
    setup = {
        "environment": sum(1 << ENVIRONMENTS.index(e) for e in environment.split("+") if e != "none"),
        "defects": sum(1 << DEFECTS.index(d) for d in defects),
        "starts": starts, "reduce": reduce, "frames": folios + info["tasks"] + 1, "rounds": rounds, "reads": reads, "writes": writes,
        "actions": actions, "nr_to_scan": folios, "pages": pages,
        "tasks": [(t, t < r, lists[t] if t < r else []) for t in range(info["tasks"])],
    }
    return Explorer(Core(w, policies.get(policy).bind()), setup)
