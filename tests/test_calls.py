"""munmap, mprotect and mremap as passes of a program."""

from __future__ import annotations

import collections

import numpy as np
import pytest

import threads as worlds
from reclaim import names
from reclaim.errors import ReclaimError, WorldError
from reclaim.scenario import Scenario
from reclaim.simulation import Simulation
from reclaim.workloads.stress_ng import METHODS
from reclaim.workloads.synthetic import Pass, program
from reclaim.world import check
from reference.worlds import make_pass, make_passes
from threads import MS, STEP, calls_world, counters, one_mm, steps

READ_ONLY = 1 << 63
KIND = {name: i for i, name in enumerate(names.PASS_KINDS)}
CALLS = ("MUNMAP", "MPROTECT", "MREMAP")


def kinds(sim):
    """The PTEs' kinds, and their frames or slots."""
    pte = sim.view("pte")
    return pte & np.uint64(7), (pte & np.uint64(READ_ONLY - 1)) >> np.uint64(8)


def one_task(*rows, pages, loop=False, limit=None, **fields):
    """A process alone, on two CPUs."""
    return one_mm(*rows, threads=1, pages=pages, loop=loop, limit=limit or pages + 300,
                  **{"nr_cpus": 2, "task_cpu": (0,), **fields})


def acting(sim, row):
    return sim.view("task")[sim.view("cpu")["current"][row["cpu"]]]


# --- random worlds

def test_random_worlds_are_sound():
    """One by one or fused, the same bytes; every row of the calls is met."""
    seen = worlds.sound(calls_world, range(45), pieces=4)
    rare = {"V_FULL", "V_MOVE_PTES", "V_PTES"}            # have tests of their own
    for name in names.STEPS:
        assert name[:2] != "V_" or name.startswith(("V_FORK", "V_CHILD")) or name in rare or seen[STEP[name]], name


def test_every_step_of_some_worlds_is_sound():
    for seed in (4, 7, 13):
        sim = Simulation(calls_world(seed), "stage5")
        for i, (name, _) in enumerate(steps(sim, 2000)):
            if name[:2] in ("V_", "E_") or not i % 10:
                sim.verify()


@pytest.mark.parametrize("seed", range(6))
def test_pieces_and_pickles(seed):
    worlds.same_in_pieces(calls_world(seed), f"stage{5 * (seed % 2)}", worlds.pickled)


@pytest.mark.parametrize("seed", [1, 4, 7])
def test_stages_0_to_4_are_one(seed):
    worlds.stages_0_to_4_are_one(calls_world(seed))


def test_nothing_revoked_is_used():
    """Before folios go no CPU can reach them; before a moved page's locks go, none at its old place;
    and after an mprotect none can write."""
    checked = collections.Counter()
    for seed in range(70):
        world = calls_world(seed)
        sim = Simulation(world, "stage5")
        mm, pte = sim.view("mm"), sim.view("pte")
        for name, row in steps(sim, 3500):
            if name not in ("V_FREED", "V_MOVED", "V_END"):
                continue
            u = acting(sim, row)
            if name == "V_END":
                gone = {v for v in np.flatnonzero(pte >= np.uint64(READ_ONLY)).tolist()
                        if mm[u["mm"]]["base"] <= v < mm[u["mm"]]["base"] + mm[u["mm"]]["nr_pages"]}
                stale = [e for e in dirty_in_tlbs(sim, u["mm"]) if e[1] in gone]
                held = any(t["mm"] == u["mm"] and t["call"] == KIND["MPROTECT"] for t in sim.view("task"))
                if held:
                    continue
            else:
                a = world.passes[u["first_pass"] + u["pass_no"]]
                first = int(a["first"]) + (int(a["stride"]) if a["kind"] == KIND["MREMAP"] and u["phase"] == 0 else 0)
                low, high = first, first + int(a["nr"])
                if name == "V_MOVED":
                    high = low + int(u["v_at"])
                base = int(mm[u["mm"]]["base"])
                stale = [e for e in worlds.in_tlbs(sim, u["mm"]) if base + low <= e[1] < base + high]
            checked[name] += 1
            assert not stale, (seed, name)
    assert min(checked[name] for name in ("V_FREED", "V_MOVED", "V_END")) > 50, checked


def dirty_in_tlbs(sim, mm):
    """(CPU, page) of the entries through which a CPU that runs in the mm can write."""
    found = []
    for c, p in enumerate(sim.view("cpu")):
        if p["loaded_mm"] != mm or p["is_lazy"] or p["pv_flush"]:
            continue
        for level in ("tlb_l1", "tlb_l2"):
            entries = sim.view(level).reshape(len(sim.view("cpu")), -1)[c]
            live = entries >> np.uint64(32) == p["asid_stamp"][p["loaded_asid"]]
            found += [(c, int(e) >> 1 & 0x7fffffff) for e in entries[live].tolist() if e & 1]
    return found


# --- munmap

@pytest.mark.parametrize("first, nr, tables, one, full", [
    (0, 600, 2, 0, 1),             # the whole mm: its page-table pages go with the one flush
    (10, 20, 0, 20, 0),            # 33 pages at most are flushed one by one
    (10, 33, 0, 33, 0), (10, 34, 0, 0, 1),
    (512, 88, 1, 0, 1), (505, 95, 1, 0, 1), (0, 511, 0, 0, 1)])
def test_munmap_flushes_once(first, nr, tables, one, full):
    sim = Simulation(one_task(make_pass("SEQ", write=1, nr=600), make_pass("MUNMAP", first=first, nr=nr, count=1),
                              pages=600), "stage0")
    seen = {}
    for name, _ in steps(sim, 20_000):
        if name in ("V_CALL", "V_UNMAPPED"):
            seen[name] = counters(sim), int(sim.view("memcg")["kernel"][0]), int(sim.view("mm")["rss"][0])
    (before, kernel, rss), (after, less, left) = seen["V_CALL"], seen["V_UNMAPPED"]
    assert (rss, left, kernel - less) == (600, 600 - nr, tables)
    assert after["nr_tlb_local_flush_one"] - before["nr_tlb_local_flush_one"] == one
    assert after["nr_tlb_local_flush_all"] - before["nr_tlb_local_flush_all"] == full
    assert sim.view("mm")["tlb_gen"][0] == 1 + 1
    assert int(sim.view("folio")["refcount"].sum()) >= left
    sim.verify()


def test_what_is_unmapped_can_be_touched_again():
    world = one_task(make_pass("SEQ", write=1, nr=300, zero=1), make_pass("MUNMAP", nr=300, count=1), pages=300,
                     loop=True, limit=200)
    sim = Simulation(world, "stage0")
    rounds = 0
    for name, _ in steps(sim, 60_000):
        if name == "V_UNMAPPED":
            rounds += 1
            assert not sim.view("pte").any() and not sim.view("region")["present"].any()
            assert sim.view("memcg")["slots_free"][0] == world.nr_slots
            sim.verify()
    assert rounds > 3 and counters(sim)["pswpout"] + counters(sim)["swpout_zero"] > 300


def test_a_gather_that_is_full_is_flushed_and_freed():
    """9678 folios fill an mmu_gather: the rest of the range has a flush of its own."""
    sim = Simulation(worlds.full_gather(), "stage0")
    sim._core.run(1 << 50, actions=1 << 20, touches=10_000)
    before, seen = counters(sim), collections.Counter()
    for name, _ in steps(sim, 2000):
        seen[name] += 1
        if name == "V_FULL":
            assert sim.view("mm")["rss"][0] == 10_000 - 9678
            sim.verify()
    assert seen["V_FULL"] == 1 and seen["V_FREED"] == 20 + 1 and seen["V_UNMAPPED"] == 1
    assert counters(sim)["nr_tlb_local_flush_all"] - before["nr_tlb_local_flush_all"] == 2
    assert sim.view("mm")["rss"][0] == 0
    sim.verify()


@pytest.mark.parametrize("nr, reached", [(512, 1), (511, 0)])
def test_freed_tables_are_told_to_lazy_cpus(nr, reached):
    """Two threads; one ends, its CPU keeps the mm, lazily.  Only a flush before page-table pages are freed
    interrupts it."""
    rows = [make_pass("SEQ", write=1, nr=2), make_pass("SEQ", write=1, nr=600, think=MS // 100),
            make_pass("MUNMAP", nr=nr, count=1)]
    world = one_mm(*rows, threads=2, pages=600, limit=900, loop=False, task_first_pass=(0, 1),
                   task_nr_passes=(1, 2), mask_lazy=True, trim=False)
    sim = Simulation(world, "stage0")
    for name, _ in steps(sim, 20_000):
        if name == "V_CALL":
            before = counters(sim)
            assert sim.view("cpu")["is_lazy"][0] and sim.view("mm_cpumask")[0] == 3
    got = counters(sim)["nr_tlb_remote_flush_received"] - before["nr_tlb_remote_flush_received"]
    assert got == reached


# --- mprotect

def test_mprotect_takes_and_gives():
    """Young and dirty stay; one flush a call; exclusive pages are writable at once when it is given back."""
    rows = [make_pass("SEQ", write=1, nr=100), make_pass("SEQ", nr=20, first=100),
            make_pass("MPROTECT", first=10, nr=110, count=2), make_pass("SEQ", nr=120),
            make_pass("MPROTECT", write=1, first=10, nr=110, count=1), make_pass("SEQ", write=1, nr=120)]
    sim = Simulation(one_task(*rows, pages=120), "stage0")
    pte, words, faults = sim.view("pte"), [], []
    for name, row in steps(sim, 5000):
        if name in ("V_LOCK", "V_END"):
            words.append((name, pte.copy(), int(sim.view("mm")["tlb_gen"][0])))
            faults.append(counters(sim)["pgfault"])
    (_, before, gen), (_, taken, gen1), (_, _, same), (_, again, gen2), (_, _, _), (_, given, gen3) = words
    # a call that changes nothing flushes nothing
    assert (gen1, same, gen2, gen3) == (gen + 1, gen1, gen1, gen1 + 1)
    write, rest = np.uint64(1 << 5), np.uint64(READ_ONLY | 1 << 5)
    assert (taken & ~rest == before & ~rest).all() and (again == taken).all()
    assert (taken >= np.uint64(READ_ONLY)).tolist() == [10 <= p for p in range(120)]
    assert (taken[10:] & write == 0).all() and (taken[:10] & write != 0).all()
    assert (given == before).all()
    assert counters(sim)["pgfault"] == faults[-1] + 20                         # those of the zero page
    sim.verify()


def test_reads_fault_read_only_pages_in():
    """From swap they come without the right to write, which mprotect gives back."""
    rows = [make_pass("SEQ", write=1, nr=300), make_pass("MPROTECT", nr=300, count=1),
            make_pass("SEQ", nr=300, count=900), make_pass("MPROTECT", write=1, nr=300, count=1)]
    sim = Simulation(one_task(*rows, pages=300, limit=200), "stage0")
    checked = 0
    for name, _ in steps(sim, 60_000):
        kind, _ = kinds(sim)
        if name == "F_SWAP_MAP":
            ro = sim.view("pte") >= np.uint64(READ_ONLY)
            writable = sim.view("pte") & np.uint64(1 << 5) != 0
            if ro.all():
                checked += 1
                assert not writable.any()
    present = kinds(sim)[0] == names.PTE_KINDS.index("PRESENT")
    assert checked > 300 and (sim.view("pte")[present] & np.uint64(1 << 5)).all()
    assert not (sim.view("pte") >= np.uint64(READ_ONLY)).any()
    sim.verify()


def test_a_thread_that_writes_waits_for_the_right():
    """Its write faults until the other thread gives the right back; until then the page stays as it was."""
    sim = Simulation(worlds.writer_without_right(), "stage0")
    task, last, tried, written = sim.view("task"), 0, 0, 0
    for name, row in steps(sim, 8000):
        u = sim.view("cpu")["current"][row["cpu"]]
        ro = (sim.view("pte")[:8] >= np.uint64(READ_ONLY)).all() and not (task["call"] != 0).any()
        if name == "F_READ" and u == 1 and names.STEPS[task["step"][1]] == "TOUCH":
            tried += 1
            assert task["have"][1] and task["mmap"][1] == 0
        touches = int(task["touches"][1])
        written += touches > last
        assert not (ro and touches > last), "a write to a page that nobody may write"
        last = touches
    assert tried > 50 and written > 20
    sim.verify()


# --- mremap

@pytest.mark.parametrize("first, nr, by, tables", [
    (0, 40, 60, 0), (60, 40, -60, 0), (0, 512, 1024, 1), (512, 1024, 1024, 2), (3, 600, 1000, 0), (1030, 500, -900, 0)])
def test_mremap_moves_pages_and_swap_entries(first, nr, by, tables):
    """All that belongs to a page goes to its new place; the old one is empty."""
    pages = max(120, first + nr + max(by, 0) + 30)
    rows = [make_pass("SEQ", write=1, nr=pages, zero=1), make_pass("RAND", write=1, nr=pages),
            make_pass("MREMAP", first=first, nr=nr, stride=by, count=1),
            make_pass("RAND", write=2, nr=pages, count=500)]
    sim = Simulation(one_task(*rows, pages=pages, limit=max(100, pages * 2 // 3)), "stage0")
    now = {}
    present, swap = (names.PTE_KINDS.index(k) for k in ("PRESENT", "SWAP"))
    for name, row in steps(sim, 120_000):
        if name in ("V_LOCK", "V_END"):
            now[name] = (sim.view("pte").copy(), counters(sim), sim.view("region")["present"].copy())
            if name == "V_END":
                kind, index = kinds(sim)
                vp = np.flatnonzero(kind == present)
                assert (sim.view("folio")["vp"][index[vp]] == vp).all()
                sim.verify()
    (old, before, had), (new, after, has) = now["V_LOCK"], now["V_END"]
    moved = old[first:first + nr]
    still = moved == new[first + by:first + by + nr]
    if after["pgscan_anon"] == before["pgscan_anon"]:       # no reclaim for a page-table page meanwhile
        assert still.all()
    kind = moved & np.uint64(7)
    assert (kind == swap).any() and (kind == present).any()
    assert not new[first:first + nr].any() and (moved & np.uint64(1 << 7)).any()
    assert (first % 512 == by % 512 == 0 and nr >= 512) == (tables > 0)
    for region in range(tables):                       # such page-table pages go as they are
        assert has[(first + by) // 512 + region] == had[first // 512 + region] and not has[first // 512 + region]
    sim.verify()


def test_mremap_flushes_the_old_range_under_its_locks():
    rows = [make_pass("SEQ", write=1, nr=40), make_pass("MREMAP", first=0, nr=20, stride=60, count=1)]
    sim = Simulation(one_task(*rows, pages=100), "stage0")
    for name, row in steps(sim, 4000):
        if name == "V_CALL":
            before = counters(sim)
        if name == "FL_DONE":
            assert sim.view("region")["ptl"]["holder"][0] == row["cpu"]
            assert names.STEPS[acting(sim, row)["step"]] == "V_MOVED"
    after = counters(sim)
    assert after["nr_tlb_local_flush_one"] - before["nr_tlb_local_flush_one"] == 20
    assert (kinds(sim)[0] == 1).tolist() == [20 <= p < 40 or 60 <= p < 80 for p in range(100)]


def test_reclaim_follows_a_folio_that_moves():
    """A reclaimer waits for the lock of the page-table page where the folio was: it gives that back."""
    sim, waited = Simulation(worlds.followed_moves(), "stage5"), 0
    spins = names.CPU_MODES.index("SPIN_LOCK")
    for i, (name, row) in enumerate(steps(sim, 60_000)):
        if name == "V_MOVED":
            cpu = sim.view("cpu")
            for p in cpu[cpu["mode"] != spins]:
                t = sim.view("task")[p["current"]]
                if p["lock_at"] > 0 and names.STEPS[t["step"]] in ("S_REF", "S_UNMAP", "K_NEXT"):
                    f = sim.view("folio")[t["folio"]]
                    waited += f["mapcount"] > 0 and f["mm"] == 0 and p["lock_at"] - 1 != f["vp"] // 512
        if i % 500 == 0:
            sim.verify()
    assert waited > 0, "no reclaimer waited for a lock whose folio went away"
    sim.verify()


# --- what reclaim has not flushed yet

@pytest.mark.parametrize("kind, row", [("MUNMAP", "E_ZAP"), ("MPROTECT", "V_PROT"), ("MREMAP", "V_MOVE_NEW")])
def test_a_call_flushes_what_reclaim_left(kind, row):
    """A task of another mm, which the lock does not keep out, unmapped pages that a thread has in its TLB: without
    flush_tlb_batched_pending the call would return with that thread still using them.  After it none is left."""
    sim = Simulation(worlds.pending_calls(kind), "stage5")
    stale, met, left = set(), 0, 0
    for name, line in steps(sim, 150_000):
        if sim.view("cpu")["current"][line["cpu"]] != 0:
            continue
        at = names.STEPS[sim.view("task")["step"][0]]
        if name == row and at == "FL_START" and sim.view("cpu")["fl_ret"][line["cpu"]] == STEP["M_BATCHED"]:
            swapped = kinds(sim)[0] == names.PTE_KINDS.index("SWAP")
            stale = {e for e in worlds.in_tlbs(sim, 0) if swapped[e[1]]}
            met += bool(stale)
        if name == "M_BATCHED":
            present = kinds(sim)[0] == names.PTE_KINDS.index("PRESENT")
            left += len([e for e in stale & set(worlds.in_tlbs(sim, 0)) if not present[e[1]]])
            if met == 3:
                break
    assert met == 3 and not left


# --- the lock of an mm

def test_calls_exclude_faults():
    """While a task holds the lock to write nobody is in a fault of that mm; all get their turn."""
    sim = Simulation(one_mm(make_pass("SEQ", write=1, nr=300, count=60, think=1000),
                            make_pass("MREMAP", nr=40, stride=50, count=1), make_pass("MUNMAP", nr=300, count=1),
                            threads=4, pages=300, limit=420), "stage0")
    mm, task, held, waits = sim.view("mm"), sim.view("task"), set(), 0
    for name, _ in steps(sim, 60_000):
        if mm["writer"][0] >= 0:
            held.add(int(mm["writer"][0]))
            assert mm["readers"][0] == 0
            doing = [names.STEPS[s] for t, s in enumerate(task["step"]) if t != mm["writer"][0]]
            assert all(s in ("TOUCH", "F_READ", "V_CALL", "V_LOCK", "F_RETRY") for s in doing), doing
            waits += (task["mmap"] > 2).any()
    assert held == {0, 1, 2, 3} and waits > 50
    sim.verify()


def test_a_process_alone_takes_no_lock():
    rows = make_pass("SEQ", write=1, nr=50), make_pass("MUNMAP", nr=50, count=1)
    sim = Simulation(one_task(*rows, pages=50), "stage0")
    sim.run(1)
    assert not sim.view("mm")["locks"][0] and not sim.view("task")["mmap"].any()


# --- inputs

@pytest.mark.parametrize("rows, words", [
    ([make_pass("MPROTECT", nr=9, count=1), make_pass("SEQ", write=1, nr=9)], "a write to page 0"),
    ([make_pass("MPROTECT", nr=9, count=1), make_pass("RAND", write=2, first=8, nr=9),
      make_pass("MPROTECT", write=1, nr=9, count=1)], "a write to page 8"),
    ([make_pass("MPROTECT", nr=9, count=1)], "leaves page 0 read-only"),
    ([make_pass("MPROTECT", nr=9, count=1), make_pass("MREMAP", nr=9, stride=20, count=1),
      make_pass("SEQ", write=1, first=20, nr=1)], "a write to page 20"),
    ([make_pass("MPROTECT", write=2, nr=9, count=1)], "0 or 1 for MPROTECT"),
    ([make_pass("MREMAP", nr=9, stride=8, count=1)], "at least the 9 pages"),
    ([make_pass("MREMAP", nr=9, first=8, stride=-9, count=1)], "pages -1 to 7"),
    ([make_pass("MREMAP", nr=9, stride=92, count=1)], "pages 92 to 100")])
def test_worlds_that_are_refused(rows, words):
    with pytest.raises(WorldError, match=words):
        check(one_task(*rows, pages=100))


def test_worlds_that_are_not():
    take = make_pass("MPROTECT", nr=9, count=1)
    for rows in ([make_pass("MUNMAP", nr=9, count=1), make_pass("SEQ", write=1, nr=9)],
                 [make_pass("SEQ", write=1, first=9, nr=9), make_pass("MREMAP", nr=9, stride=20, count=2),
                  make_pass("SEQ", write=1, nr=40)]):
        check(one_task(take, *rows, pages=100))


@pytest.mark.parametrize("fields, words", [
    ({"kind": "MREMAP", "nr": 4}, "stride of an MREMAP"), ({"kind": "MREMAP", "nr": 4, "stride": -4}, "pages from 0"),
    ({"kind": "MPROTECT", "nr": 4, "write": 2}, "write of an MPROTECT")])
def test_passes_that_are_refused(fields, words):
    with pytest.raises(ReclaimError, match=words):
        Pass(**fields)


def test_programs():
    p = program([Pass(nr=8, write=1), Pass(nr=4, kind="MREMAP", stride=20), Pass(nr=8, kind="MUNMAP"),
                 Pass(nr=8, kind="MPROTECT", write=1)], workers=2, threads=True)
    assert p.mm_pages == (24,) and p.passes["count"].tolist() == [8, 1, 1, 1]
    with pytest.raises(ReclaimError, match="beyond"):
        program([Pass(nr=4, kind="MREMAP", stride=20)], pages=23)


def stress(**keys):
    keys = {"kind": "stress_ng.vm", "workers": 2, "bytes": "4M", "keep": False} | keys
    return Scenario.from_dict({"workload": keys})


@pytest.mark.parametrize("method", ["write64", "all"])
def test_stress_ng_without_vm_keep(method):
    """Each method call has a mapping of its own, with advice drawn at its start and at its end."""
    world = stress(method=method).lower()
    kind = world.passes["kind"]
    for t in range(2):
        own = kind[world.task_first_pass[t]:world.task_first_pass[t] + world.task_nr_passes[t]]
        assert (own == KIND["MUNMAP"]).sum() == (len(METHODS) if method == "all" else 16)
        assert own[-1] == KIND["MUNMAP"] and world.task_loop_to[t] == 0
    assert (world.passes["nr"][kind == KIND["MUNMAP"]] == 512).all()
    assert np.array_equal(world.passes, stress(method=method).lower().passes)
    given = stress(method="write64", madvise="populate-write").lower().passes
    assert make_passes([make_pass("SEQ", write=1, zero=1, nr=512, units=0)])[0] == given[0]


def test_stress_ng_runs_without_vm_keep():
    sim = Simulation(stress(method="write64"), "stage5")
    result = sim.run(0.05)
    assert result.counters["page_touches"] > 2000
    gens = [int(g) for g in sim.view("mm")["tlb_gen"]]
    assert min(gens) > 3
    sim.verify()
