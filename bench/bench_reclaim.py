"""Faults, reclaim and its parts."""

import time

import pytest
import worlds
from reclaim.policies import stages

LIMIT = 32768                # pages
TOUCHES = 400_000            # of 524288 pages: none twice


@pytest.mark.parametrize("name", ["fault_reclaim", "fault_reclaim_stage5", "generations"])
@pytest.mark.benchmark(group="fault and reclaim: per major fault", disable_gc=True)
def test_fault_and_reclaim(path, name):
    got = path(worlds.PATHS[name]).counted
    assert got["pgsteal_anon"] == pytest.approx(got["pgmajfault"], rel=0.1)
    assert got["pgscan_anon"] >= got["pgsteal_anon"]
    batched = got["folios_batched"]
    if name.endswith("stage5"):      # a round cuts a batch in two
        assert batched == pytest.approx(got["nr_vmscan_write"], abs=31 * 16)
    else:
        assert batched == 0


class Filling:
    """The first touches of `TOUCHES` pages with room for `limit`."""

    def __init__(self, limit, stage, touches):
        self.touches = touches
        self.sim = worlds.Simulation(worlds.first_touches(limit), stage)
        self.start = self.sim.snapshot()

    def back(self):
        self.sim.restore(self.start)

    def run(self):
        assert self.sim._core.run(worlds.END, actions=1 << 60, touches=self.touches) == "touches"

    @property
    def counted(self):
        return dict(zip(worlds.names.COUNTERS, self.sim.view("counter").tolist(), strict=True))

    def least(self, rounds):
        """CPU time of the shortest round."""
        found = []
        for _ in range(rounds):
            self.back()
            started = time.process_time()
            self.run()
            found.append(time.process_time() - started)
        return min(found)


@pytest.mark.parametrize("stage", [f"stage{k}" for k in range(6)])
@pytest.mark.benchmark(group="shrink_folio_list: per folio, the faults included", disable_gc=True)
def test_shrink_folio_list(timed, benchmark, smoke, stage):
    """`shrink_ns_per_folio` leaves the faults out: the time of these touches without reclaim is taken off."""
    touches = TOUCHES // (8 if smoke else 1)
    full = Filling(LIMIT, stage, touches)
    timed(full.run, setup=full.back, unit="pgsteal_anon", units=lambda: full.counted["pgsteal_anon"])
    got = full.counted
    assert got["page_touches"] == touches and got["pgmajfault"] == 0
    assert touches - LIMIT <= got["pgsteal_anon"] <= touches
    if stages.get(stage).strategies["flush"].name == "batch":
        assert 0 < got["flush_batches"] < got["folios_batched"]
        assert got["folios_batched"] == pytest.approx(got["nr_vmscan_write"], abs=31 * 16)
    else:
        assert got["flush_batches"] == 0
    if benchmark.stats is not None and not smoke:
        free = Filling(touches + 8192, stage, touches)
        bare = free.least(5)
        assert free.counted["pgscan_anon"] == 0
        benchmark.extra_info["shrink_ns_per_folio"] = round(
            (benchmark.stats.stats.min - bare) / got["pgsteal_anon"] * 1e9, 1)


@pytest.mark.benchmark(group="LRU: isolate, look, put back: per folio", disable_gc=True)
def test_isolate_and_put_back(path):
    got = path(worlds.PATHS["isolate"]).counted
    assert got["pgsteal_anon"] == got["pgactivate"] == got["page_touches"] == 0
    assert got["pgscan_anon"] > 25 * got["shrink_folio_list_calls"]      # lists of 32


@pytest.mark.benchmark(group="LRU: aging (activated and deactivated): per folio", disable_gc=True)
def test_aging(path):
    got = path(worlds.PATHS["aging"]).counted
    assert got["pgsteal_anon"] == got["page_touches"] == 0
    assert got["pgactivate"] == pytest.approx(got["pgdeactivate"], rel=0.1)


WALK = worlds.names.STEPS.index("G_WALK")


@pytest.mark.benchmark(group="MGLRU aging: per PTE of a walk", disable_gc=True)
def test_walk(timed):
    """A stretch of walk_mm and nothing else."""
    made = worlds.Round(worlds.Path(worlds.walks, "actions", 1 << 17, actions=80))
    sim, core = made.sim, made.sim._core
    for _ in range(100_000):
        core.run(worlds.END, actions=50)
        if sim.view("task")["step"][sim.view("cpu")["current"][0]] == WALK:
            break
    made.stay()
    rows, _ = core.run_log(worlds.END, actions=made.actions)
    assert set(rows["step"].tolist()) == {WALK}
    made.back()
    before = worlds.walked(sim)
    timed(made.run, setup=made.back, unit="PTEs", units=lambda: worlds.walked(sim) - before)
    assert worlds.walked(sim) - before == 512 * made.actions        # every region was young


@pytest.mark.parametrize("name", ["swap_queue", "swap_queue_full"])
@pytest.mark.benchmark(group="swap queue: per page in or out, fault and reclaim included", disable_gc=True)
def test_swap_queue(path, name):
    made = path(worlds.PATHS[name])
    got = made.counted
    assert got["pswpin"] > 0 and got["pswpout"] > 0
    assert (got["io_waits"] > 1000) == (name == "swap_queue_full") or made.actions < 10**6
    assert int(made.sim.view("swapdev")["in_flight"][0]) <= made.sim.world.io_depth
