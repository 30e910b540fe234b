"""Asynchronous swap: the device's limits, write-back, waiting."""

from __future__ import annotations

import pytest

from reclaim.scenario import Scenario
from reclaim.simulation import Simulation

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
    import pickle
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
