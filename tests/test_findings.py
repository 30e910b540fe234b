"""What real kernels showed comes out of the model, with no constant that says so.

Measured on Linux 6.12.117 guests (classic LRU, zram, one worker per CPU writing its own
mapping in order): a reclaim steals 5 + 11 + 22 folios between sweeps at a limit of 512 MiB, so
batches hold 38/3 = 12.7 folios; at 32 MiB 1 + 2 + 5 + 11 + 22, so 8.2; eager masks give one
target a flush; steals are 0.48 of scans; shootdowns a page 0.9 to 1.3 before and 0.12 after.
"""

import numpy as np
import pytest

from reclaim.scenario import Scenario
from reclaim.simulation import Simulation


def run(policy, *, limit="512M", size="1024M", cpus=16, mask="eager", seconds=0.6, **overrides):
    scenario = Scenario.from_dict({
        "name": "guest", "seconds": seconds,
        "machine": {"profile": "vm16", "cpus": cpus, "pcid": False},
        "kernel": {"version": "6.12", "mm_cpumask": mask},
        "memcg": {"limit": limit}, "memory": {"total": "3072M"},
        "swap": {"kind": "zram", "size": "2G"},
        "workload": {"kind": "writer", "workers": cpus, "bytes": size}, **overrides})
    simulation = Simulation(scenario, policy)
    return simulation, simulation.run().counters


@pytest.fixture(scope="module")
def before():
    return run("stage0")[1]


@pytest.fixture(scope="module")
def after():
    return run("stage5")


def test_targets_of_512m_are_5_11_22(after):
    simulation, c = after
    sizes = simulation.view("hist_flush_batch_size")
    assert set(np.argsort(sizes)[-3:]) == {5, 11, 22}
    assert sizes[[5, 11, 22]].sum() > 0.95 * sizes.sum()
    assert c["folios_batched"] / c["flush_batches"] == pytest.approx(38 / 3, rel=0.02)


def test_targets_of_32m_are_1_2_5_11_22():
    simulation, c = run("stage5", limit="32M", size="64M", cpus=1, seconds=0.2)
    sizes = simulation.view("hist_flush_batch_size")
    assert set(np.argsort(sizes)[-5:]) == {1, 2, 5, 11, 22}
    assert c["folios_batched"] / c["flush_batches"] == pytest.approx(8.2, rel=0.02)


def test_32m_batches_with_16_cpus():
    c = run("stage5", limit="32M", size="64M", seconds=0.1)[1]
    assert c["folios_batched"] / c["flush_batches"] == pytest.approx(8.2, rel=0.08)


def test_eager_masks_give_one_target_a_flush(before):
    assert before["arch_tlbbatch_flush_targets"] == pytest.approx(
        before["arch_tlbbatch_flush_remote"], rel=1e-3)


def test_shootdowns_per_page_before(before):
    assert 0.9 <= before["tlb_shootdowns"] / before["pgsteal_anon"] <= 1.3


def test_shootdowns_per_page_after(after):
    c = after[1]
    assert c["tlb_shootdowns"] / c["pgsteal_anon"] == pytest.approx(0.12, rel=0.15)


def test_half_of_the_scans_are_sweeps(before):
    assert before["pgsteal_anon"] / before["pgscan_anon"] == pytest.approx(0.48, rel=0.1)


def test_nothing_activates_in_a_sequential_run(before):
    assert before["memcg_pgrefill"] == before["pgactivate"] == before["workingset_activate_anon"] == 0


def test_call_queues_coalesce(before):
    """IPIs are fewer than shootdowns: k senders share one interrupt."""
    assert 0.5 < before["function_call_ipis"] / before["tlb_shootdowns"] < 0.95


def test_one_cpu_sends_nothing():
    c = run("stage0", limit="32M", size="64M", cpus=1, seconds=0.05)[1]
    assert c["pgsteal_anon"] > 0
    assert c["function_call_ipis"] == c["tlb_shootdowns"] == c["nr_tlb_remote_flush"] == 0


def test_oom_kills_and_the_others_live():
    simulation, c = run("stage0", limit="8M", size="16M", cpus=2, seconds=0.05,
                        swap={"kind": "none"})
    assert c["memcg_oom_kill"] >= 1 and c["pswpout"] == 0
    simulation.verify()


# --- stress-ng: read-populated pages, random advice, zero pages (findings 4 to 6)

def small(workload, policy="stage0"):
    c = run(policy, limit="32M", cpus=4, seconds=0.3,
            workload={"workers": 4, "bytes": "64M", "kind": "stress_ng.vm", **workload})[1]
    return c, lambda name: c[name] / c["pgsteal_anon"]


def test_the_dirty_flush_follows_the_pte():
    """Read-populated pages are dirty folios with clean PTEs: their flush waits for the end of the list."""
    _, plain = small({"kind": "writer"})
    counters, populated = small({"method": "write64", "madvise": "normal"})
    assert populated("try_to_unmap_flush_dirty_calls") == pytest.approx(1, abs=0.01)
    assert populated("try_to_unmap_flush_dirty_effective") < 0.7 * plain("try_to_unmap_flush_dirty_effective")
    assert plain("flush_at_list_end_effective") == 0 < counters["flush_at_list_end_effective"]
    assert populated("nr_tlb_local_flush_one") > plain("nr_tlb_local_flush_one")     # copies: ptep_clear_flush


@pytest.mark.parametrize("advice", ["sequential", "random"])
def test_advice_removes_the_protection_of_references(advice):
    assert small({"method": "write64", "madvise": advice})[1]("pgscan_anon") == pytest.approx(1, abs=0.02)
    assert small({"method": "write64", "madvise": "normal"})[1]("pgscan_anon") == pytest.approx(2.05, rel=0.05)


def test_zero_pages_are_stolen_and_flushed_for():
    counters, per_page = small({"method": "galpat-0", "madvise": "normal"})
    assert per_page("swpout_zero") + per_page("pswpout") == pytest.approx(1, abs=0.01)
    assert counters["swpout_zero"] > 0.3 * counters["pgsteal_anon"]
    flushed = small({"method": "galpat-0", "madvise": "normal"}, "stage5")[1]
    assert 0 < flushed("tlb_flushes") < 0.5 * per_page("tlb_flushes")


def test_zero_pages_never_reach_the_device():
    c = run("stage5", limit="16M", size="32M", cpus=2, seconds=0.1,
            workload={"kind": "stress_ng.vm", "workers": 2, "bytes": "32M", "method": "galpat-0"})[1]
    assert c["swpout_zero"] > 0 and c["pgsteal_anon"] >= c["swpout_zero"]


def test_512_cpus():
    simulation, c = run("stage5", limit="512M", size="1024M", cpus=512, seconds=0.02)
    assert c["page_touches"] > 100_000
    simulation.verify()


# Measured with an asynchronous disk and 8 CPUs, lazy masks: 5.20 shootdowns a page before, 0.43
# after, steal/scan 0.33 (each dirty page is scanned to be written and again to be freed), 0.98 of
# the pages written were rotated.  That disk rotates and its CPUs share one host CPU; not so here.

@pytest.fixture(scope="module")
def disk():
    return {stage: run(stage, cpus=8, mask="lazy", seconds=1.5,
                       swap={"kind": "ssd", "size": "1536M"})[1] for stage in ("stage0", "stage5")}


def test_workers_that_sleep_for_a_disk_spread_a_lazy_mask(disk):
    shootdowns = {stage: c["tlb_shootdowns"] / c["pgsteal_anon"] for stage, c in disk.items()}
    assert 2.5 < shootdowns["stage0"] < 10
    assert shootdowns["stage5"] < 0.6
    assert disk["stage0"]["migrations"] > 0


def test_idle_cpus_in_lazy_tlb_mode_are_skipped():
    """Finding 9: the owner sleeps for the disk, its CPU is idle, and the flush has nobody to ask.  The
    measured kernel counted the targets of the mask, so the counter does."""
    simulation, c = run("stage0", cpus=8, seconds=0.5, swap={"kind": "ssd", "size": "1536M"})
    targets = simulation.view("hist_targets_per_flush")
    assert targets[0] > 0.2 * targets.sum()
    assert c["tlb_shootdowns"] < 0.9 * c["tlb_flushes"]
    asked = (targets * np.arange(len(targets))).sum()
    assert asked < 0.9 * c["arch_tlbbatch_flush_targets"]
    assert c["arch_tlbbatch_flush_targets"] >= c["arch_tlbbatch_flush_remote"]


def test_an_asynchronous_disk_costs_two_scans_a_page(disk):
    for c in disk.values():
        assert c["pgsteal_anon"] / c["pgscan_anon"] == pytest.approx(0.33, rel=0.1)
        assert 0.3 < c["pgrotated"] / c["pswpout"] < 1
