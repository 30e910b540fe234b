"""Asynchronous swap: the device's limits, write-back, waiting."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from reclaim import names
from reclaim.errors import WorldError
from reclaim.scenario import Scenario
from reclaim.simulation import Simulation
from reference.worlds import make_pass, make_passes, small_world
from slots import Slots

PS = 10**12


def scenario(**swap):
    return Scenario.from_dict({
        "name": "a disk", "seconds": 0.3, "machine": {"cpus": 4}, "kernel": {"version": "7.0"},
        "memcg": {"limit": "32M"}, "swap": {"kind": "ssd", "size": "256M", **swap},
        "workload": {"kind": "writer", "workers": 4, "bytes": "64M"}})


def run(policy="stage5", *, kernel=None, **swap):
    what = scenario(**swap)
    simulation = Simulation(what.replace(kernel) if kernel else what, policy)
    return simulation, simulation.run().counters


def test_stages_0_to_4_only_move_code():
    assert len({run(f"stage{k}")[0].digest() for k in range(5)}) == 1
    assert run("stage5")[0].digest() != run("stage4")[0].digest()


def test_bandwidth_bounds_the_requests():
    simulation, c = run(bandwidth="64M")
    done = c["pswpin"] + c["pswpout"]
    assert 0.95 * 0.3 * 2**26 / 4096 < done < 0.3 * 2**26 / 4096 + 64 + 2
    simulation.verify()


def test_one_tag_is_one_request_at_a_time():
    _, c = run(depth=1, latency="100us")
    done = c["pswpin"] + c["pswpout"]
    assert done <= 0.3 / 100e-6 + 2
    assert c["io_waits"] > 0.8 * done        # nearly everybody waits


def test_the_device_never_holds_more_than_its_tags():
    simulation = Simulation(scenario(depth=5), "stage5")
    for k in range(1, 60):
        simulation.run(0.005 * k)
        device = simulation.view("swapdev")[0]
        assert 0 <= device["in_flight"] <= 5
        simulation.verify()


def test_zram_uses_no_device():
    simulation, c = run(kind="zram")
    assert c["io_waits"] == c["writeback_waits"] == c["pgrotated"] == c["swap_ra"] == 0
    assert simulation.view("swapdev")[0]["last"] == 0


def test_cgroup_v1_waits_for_write_back_that_it_marked():
    slow = {"latency": "20ms", "depth": 4096, "size": "256M"}
    v1 = run(kernel={"kernel.cgroup": "v1", "memcg.limit": "4M"}, **slow)[1]
    v2 = run(kernel={"kernel.cgroup": "v2", "memcg.limit": "4M"}, **slow)[1]
    assert v1["writeback_waits"] > 0 and v2["writeback_waits"] == 0
    assert v1["pgactivate"] == 0 < v2["pgactivate"]          # v2 activates instead


def test_sequential_faults_read_ahead_and_hit():
    _, c = run()
    assert c["swap_ra"] > 3 * c["pgmajfault"]          # windows of up to 8
    assert c["swap_ra_hit"] > 0.8 * c["swap_ra"]


def test_random_faults_read_ahead_less():
    what = scenario().replace({"workload.pattern": "rand"})
    c = Simulation(what, "stage5").run().counters
    assert c["swap_ra"] < 3 * c["pgmajfault"]


def test_pieces_and_pickles_change_nothing():
    whole, _ = run()
    pieces = Simulation(scenario(), "stage5")
    for k in range(1, 11):
        pieces.run(0.03 * k if k < 10 else 0.3)
        pieces = pickle.loads(pickle.dumps(pieces))
    assert pieces.digest() == whole.digest()


@pytest.mark.parametrize("version", ["6.12", "6.18", "7.0"])
@pytest.mark.parametrize("mask", ["eager", "lazy"])
def test_every_kernel_runs(version, mask):
    simulation, c = run(kernel={"kernel.version": version, "kernel.mm_cpumask": mask})
    simulation.verify()
    assert c["pgsteal_anon"] > 1000 and c["memcg_oom_kill"] == 0


# --- devices that rotate

def rotating(**changes):
    what = scenario(rotational=True).replace({"kernel.version": "6.12"})
    return what.replace(changes) if changes else what


def counted(policy="stage5", seconds=None, **changes):
    simulation = Simulation(rotating(**changes), policy)
    return simulation, simulation.run(seconds).counters


def slots_of(simulation):
    """The slot of every page that is swapped out, by page; -1 for the others."""
    pte = simulation.view("pte")
    swapped = (pte & np.uint64(7)) == names.PTE_KINDS.index("SWAP")
    return np.where(swapped, (pte >> np.uint64(8)).astype(np.int64), -1)


def in_caches(simulation):
    return sum(int(row["nr"] + row["n_ret"]) for row in simulation.view("slot_cache"))


def shuffling(nr_slots, slot_cache, *, write=2, pages=(300, 300), **fields):
    """Two tasks that touch their pages at random: slots come back in no order."""
    rows = [row for n in pages for row in (
        make_pass("SEQ", write=1, nr=n, think=10**6),
        make_pass("RAND", write=write, nr=n, count=4000, think=10**6))]
    return small_world(**{"swap_sync": False, "rotational": True, "limit": 240, **fields},
                       slot_cache=slot_cache, nr_slots=nr_slots, mm_pages=pages, swappiness=200,
                       passes=make_passes(rows), task_first_pass=(0, 2), task_nr_passes=(2, 2),
                       task_loop_to=(1, 1), tick=10**8)


def steps(simulation, actions):
    """Made one at a time: each row of the log, after its action."""
    for _ in range(actions):
        yield simulation._core.run_log(1 << 52, actions=1)[0][0]


def test_slots_are_handed_out_in_runs():
    """A sequential writer's pages lie beside each other, and low: reclaim takes them in their order."""
    simulation, _ = counted(**{"workload.workers": 1, "machine.cpus": 1})
    slots = slots_of(simulation)
    beside = (slots[:-1] >= 0) & (slots[1:] >= 0)
    assert beside.sum() > 4000
    assert (np.diff(slots) == 1)[beside].mean() > 0.95
    assert slots.max() < simulation.world.nr_slots // 3


def test_a_sequential_writer_reads_clusters_and_hits():
    _, c = counted(**{"workload.workers": 1, "machine.cpus": 1})
    assert c["swap_ra"] > 3 * c["pgmajfault"]                 # of up to 8 slots
    assert c["swap_ra_hit"] > 0.95 * c["swap_ra"]
    assert c["pswpin"] == c["swap_ra"] + c["pgmajfault"]      # each read is one of the two
    assert c["pswpin"] > 7.9 * c["pgmajfault"]                # the window is all but always at its widest


def test_random_faults_read_small_clusters():
    _, c = counted(**{"workload.pattern": "rand"})
    assert c["swap_ra"] < 3 * c["pgmajfault"]


def test_clusters_bring_in_pages_of_other_processes():
    """The second task ended: nobody but the first one's faults can read its pages."""
    passes = make_passes([make_pass("SEQ", write=1, nr=96, think=10**6),
                          make_pass("SEQ", write=1, nr=96, stride=-1, think=10**6),
                          make_pass("SEQ", write=1, nr=96, think=10**6)])
    world = small_world(rotational=True, swap_sync=False, swappiness=200, limit=110, tick=10**7,
                        passes=passes, task_first_pass=(0, 2), task_nr_passes=(2, 1),
                        task_loop_to=(0, -1), task_restart=(False, False))
    simulation, before, foreign = Simulation(world, "stage5"), 0, 0
    for k in range(1, 200):
        simulation.run(0.0005 * k)
        slots, folio = slots_of(simulation), simulation.view("folio")
        if simulation.view("task")["state"][1] != names.TASK_STATES.index("DEAD"):
            before = simulation.view("counter")[names.COUNTERS.index("swap_ra")]
            continue
        brought = (folio["vp"] < 0) & ((folio["flags"] & 32) != 0)         # SWAPCACHE
        foreign += np.isin(folio["slot"][brought], slots[96:]).sum()
        assert (folio["mapcount"][brought] == 0).all() and (folio["mm"][brought] == -1).all()
        simulation.verify()
    assert foreign > 20
    assert simulation.view("counter")[names.COUNTERS.index("swap_ra")] > before


@pytest.mark.parametrize("size, cached", [("256M", "yes"), ("36M", "yes"), ("36M", "no"), ("6M", "yes")])
def test_slots_are_conserved(size, cached):
    simulation = Simulation(rotating(**{"swap.size": size, "kernel.slot_cache": cached}), "stage5")
    seen = set()
    for k in range(1, 60):
        simulation._core.run(1 << 52, actions=3001)
        count, entry = simulation.view("slot_count"), simulation.view("slot_entry")
        free, held = int(simulation.view("memcg")["slots_free"][0]), in_caches(simulation)
        hand = sum(names.STEPS[u["step"]] == "S_ADD" for u in simulation.view("task") if u["step"] >= 0)
        owned = ((count & 0x3f) > 0) | ((entry & np.uint64(3)) == 2)
        assert free + held + hand + int(owned.sum()) == len(count)
        assert free == int((count == 0).sum())
        seen.add((held > 0, bool(simulation.view("swapdev")["cache_active"][0])))
        simulation.verify()
    assert (True, True) in seen if (size, cached) == ("256M", "yes") else True
    assert seen == {(False, False)} if cached == "no" else True


def test_slot_caches_stop_when_slots_get_few_and_start_again():
    """Below 128 a CPU, above 320 a CPU; between, they stay as they are."""
    simulation = Simulation(shuffling(760, True, pages=(400, 400)), "stage5")
    device, memcg = simulation.view("swapdev"), simulation.view("memcg")
    active, free, changes = 0, 760, []
    for row in steps(simulation, 60_000):
        if device["cache_active"][0] != active:
            active = int(device["cache_active"][0])
            changes.append(active)
            assert names.STEPS[row["step"]] == "S_SLOT"
            assert free > 640 if active else free < 256
            assert active or in_caches(simulation) == 0
        elif names.STEPS[row["step"]] == "S_SLOT":
            assert free >= 256 if active else free <= 640
        free = int(memcg["slots_free"][0])
    assert changes[:2] == [1, 0]


def test_a_returned_slot_is_not_free_until_64_are():
    """Synchronous swap-in of 6.12 gives its slot back, to the CPU's cache."""
    world = shuffling(2000, True, swap_sync=True, rotational=False)
    simulation = Simulation(world, "stage5")
    cache, memcg = simulation.view("slot_cache"), simulation.view("memcg")
    held, free, seen = [0, 0], 2000, set()
    for row in steps(simulation, 60_000):
        cpu = int(row["cpu"])
        now, freed = int(cache["n_ret"][cpu]), int(memcg["slots_free"][0]) - free
        if now != held[cpu]:
            assert names.STEPS[row["step"]] == "F_SWAP_MAP"
            assert (now, freed) == ((1, 64) if held[cpu] == 64 else (held[cpu] + 1, 0))
            slot = int(cache["slots_ret"][cpu][now - 1])
            assert simulation.view("slot_count")[slot] == 0x40
            assert simulation.view("slot_entry")[slot] == 0
            seen.add(now)
        held[cpu], free = now, int(memcg["slots_free"][0])
    assert seen == set(range(1, 65))
    simulation.verify()


TURNS = {"run", "run further on", "no run", "few left", "beyond the highest", "the last one",
         "gave way", "gave way in search", "next in a gap", "gap too wide", "wrapped",
         "reclaimed", "not reclaimed"}


def test_every_slot_is_the_one_of_the_specification():
    """The core beside tests/slots.py at each S_SLOT, until every turn of the scan was taken."""
    met, wanted = set(), names.STEPS.index("S_SLOT")
    for world in (shuffling(500, False), shuffling(900, False, write=0), shuffling(1000, True),
                  shuffling(1250, True)):
        simulation, compared = Simulation(world, "stage5"), 0
        task, folio, before = simulation.view("task"), simulation.view("folio"), None
        for row in steps(simulation, 150_000):
            if row["step"] == wanted:
                slot = before.alloc(int(row["cpu"]))
                assert (-1 if slot is None else slot) == folio["slot"][row["folio"]]
                after = Slots(simulation)
                after.flags[row["folio"]] = before.flags[row["folio"]]      # unlocked if it got none
                assert after.state() == before.state()
                met |= before.met
                compared += 1
            before = Slots(simulation) if (task["step"] == wanted).any() else None
        assert compared > 1000
    assert met >= TURNS


def test_a_device_that_rotates_keeps_one_digest_from_stage_0_to_4():
    assert len({counted(f"stage{k}", seconds=0.1)[0].digest() for k in range(5)}) == 1


@pytest.mark.parametrize("size", ["256M", "36M"])
def test_a_device_that_rotates_in_pieces(size):
    whole, _ = counted(**{"swap.size": size})
    pieces = Simulation(rotating(**{"swap.size": size}), "stage5")
    for k in range(1, 11):
        pieces.run(0.03 * k if k < 10 else 0.3)
        kept = pieces.snapshot()
        pieces._core.run(1 << 52, actions=777)                # forth ...
        pieces.restore(kept)                                  # ... and back
        pieces = pickle.loads(pickle.dumps(pieces))
    assert pieces.digest() == whole.digest()


@pytest.mark.parametrize("slots, cached", [(500, False), (1000, True)])
def test_fusing_steps_changes_nothing_there(slots, cached):
    fused, single = (Simulation(shuffling(slots, cached), "stage5") for _ in range(2))
    for k in range(20):
        fused._core.run(1 << 52, actions=3000)
        single._core.run(1 << 52, actions=3000, fuse=False)
        assert fused.digest() == single.digest()


@pytest.mark.parametrize("version", ["6.12", "6.18", "7.0"])
def test_every_kernel_rotates(version):
    simulation, c = counted(**{"kernel.version": version})
    simulation.verify()
    assert c["pgsteal_anon"] > 1000 and c["swap_ra_hit"] > 1000 and c["memcg_oom_kill"] == 0


def test_a_device_that_rotates_uses_no_readahead_by_address():
    rows, _ = Simulation(shuffling(900, True), "stage5")._core.run_log(1 << 52, actions=100_000)
    made = {names.STEPS[i] for i in np.unique(rows["step"])}
    assert made >= {"F_CL_WIN", "F_CL_NEXT", "F_CL_CHARGED", "F_RA_READ", "F_RA_SUBMIT", "F_TARGET"}
    assert not made & {"F_RA_WIN", "F_RA_NEXT", "F_RA_CHARGED"}


def test_only_asynchronous_devices_rotate():
    with pytest.raises(WorldError, match="rotational"):
        Simulation(small_world(rotational=True), "stage5")
