"""Histograms, flushes by cause, who pays, series: that they are right, and change nothing."""

import json
import pickle

import numpy as np
import pytest

from reclaim import histograms, names
from reclaim.anatomy import anatomy, flushes, pick
from reclaim.audit import _RETURNS
from reclaim.cli import main
from reclaim.comparison import compare, simulate
from reclaim.errors import ResultError, ScenarioError, SnapshotError
from reclaim.result import Result
from reclaim.scenario import Scenario
from reclaim.simulation import Simulation
from threads import busy_calls, busy_threads

STEP = {name: i for i, name in enumerate(names.STEPS)}
COUNTED = [row[0] for row in names.FLUSH_METERS if row[2] == "always"]


@pytest.fixture(scope="module")
def recorded():
    return {policy: simulate("small", policy, seconds=0.05, record=True, interval=0.01) for policy in ("stage0", "stage5")}


# --- the tables of names

def test_every_histogram_says_what_it_is():
    assert len({row[0] for row in names.HISTOGRAMS}) == len(names.HISTOGRAMS)
    for name, unit, counts, buckets, when, shown, source in names.HISTOGRAMS:
        assert name.isidentifier() and unit and counts and source and when in ("always", "detail")
        assert buckets in ("cpus", "log2") or isinstance(buckets, int)
        assert not shown or buckets == "log2"
        assert (unit == "ns") == (buckets == "log2")


def test_every_flush_has_one_cause():
    of = [step for _, steps, _ in names.CAUSES for step in steps]
    assert len(of) == len(set(of)) and set(of) <= set(names.STEPS)
    assert set(of) == set(_RETURNS["fl_ret"])
    assert names.CAUSES[-1][0] == "other"


# --- buckets

def test_buckets_are_narrow_and_whole():
    edges = histograms.edges("fault_latency", names.LOG2_BUCKETS)
    widths = np.diff(edges)
    assert edges[0] == 0 and edges[-1] == 2**44 and (widths >= 1).all()
    assert (widths[16:] * 8 <= edges[16:-1]).all() and (widths[:16] == 1).all()
    assert histograms.edges("flush_batch_size", 33).tolist() == list(range(34))


def test_percentiles_are_those_of_the_values_within_a_bucket():
    rng = np.random.default_rng(1)
    values = np.exp(rng.uniform(0, 20, 4000)).astype(np.int64)
    edges = histograms.edges("fault_latency", names.LOG2_BUCKETS)
    counts = np.histogram(values, edges)[0]
    for q in (0, 1, 50, 90, 99, 99.9, 100):
        exact = np.sort(values)[max(1, int(np.ceil(len(values) * q / 100 - 1e-9))) - 1]
        got = histograms.percentile("fault_latency", counts, q)
        assert exact <= got <= exact * 9 / 8
    assert histograms.mean("fault_latency", counts) == pytest.approx(values.mean(), rel=0.02)
    assert histograms.percentile("fault_latency", np.zeros(9), 50) is None
    with pytest.raises(ValueError, match="0 to 100"):
        histograms.percentile("fault_latency", counts, 101)


def test_percentile_of_a_result(recorded):
    result = recorded["stage0"]
    assert result.percentile("direct_reclaim_latency", 50) > 1000
    with pytest.raises(ResultError, match="choose from"):
        result.percentile("reclaim_latency", 50)
    with pytest.raises(ResultError, match="record=True"):
        simulate("small", seconds=0.001).percentile("fault_latency", 50)


# --- what is recorded, beside the log of the steps

def test_latencies_are_those_of_the_log():
    sim = Simulation(Scenario.load("small"), "stage5", record=True)
    log = sim.log(0.02, actions=40_000)
    edges = histograms.edges("fault_latency", names.LOG2_BUCKETS)
    found = {name: [] for name in ("direct_reclaim_latency", "fault_latency", "flush_latency")}
    touched, faults, reclaims, ended, flushed, called = {}, {}, {}, {}, {}, {}
    for now, cpu, step, other in zip(*(log[k].tolist() for k in ("now", "cpu", "step", "other")), strict=True):
        name = names.STEPS[step]
        if name == "TOUCH":
            touched[cpu] = now
        elif name == "F_READ":
            faults.setdefault(cpu, touched[cpu])
        elif name == "F_DONE":
            found["fault_latency"].append(now - faults.pop(cpu))
        elif name == "R_START":
            reclaims[cpu] = now
        elif name == "R_END":
            ended[cpu] = now
        elif name == "C_AFTER" and cpu in reclaims:
            found["direct_reclaim_latency"].append(ended[cpu] - reclaims.pop(cpu))
        elif name == "FL_START":
            flushed[cpu], called[cpu] = now, 0
        elif name == "FL_QUEUE":
            called[cpu] += other >= 0
        elif name == "FL_DONE" and called[cpu]:
            found["flush_latency"].append(now - flushed[cpu])
    for name, values in found.items():
        got = sim.view(f"hist_{name}")
        assert len(values) > 5 and (got == np.histogram(np.array(values) // 1000, edges)[0]).all(), name


def test_recording_changes_nothing(recorded):
    for policy, result in recorded.items():
        plain = simulate("small", policy, seconds=0.05)
        assert plain.digest == result.digest and plain.counters["pgfault"] == result.counters["pgfault"]
        assert set(plain.histograms) == {row[0] for row in names.HISTOGRAMS if row[4] == "always"}
        for name, counts in plain.histograms.items():
            assert np.array_equal(counts, result.histograms[name]), name
        assert set(plain.flushes) == set(COUNTED)
        for name, values in plain.flushes.items():
            assert np.array_equal(values, result.flushes[name]), name
        for name, values in plain.times.items():
            assert np.array_equal(values, result.times[name]), name


@pytest.mark.parametrize("world", [busy_threads(3), busy_calls(5)])
def test_unfused_in_pieces_restored_and_pickled(world):
    whole = Simulation(world, "stage5", record=True)
    want = whole.run(0.004)
    unfused = Simulation(world, "stage5").run(0.004, fuse=False)
    cut = Simulation(world, "stage5", record=True)
    cut.run(0.001)
    snapshot = cut.snapshot()
    cut.run(0.003)
    cut.restore(snapshot)
    cut = pickle.loads(pickle.dumps(cut))
    cut.run(0.002, interval=0.0001)
    got = cut.run(0.004)
    assert want.digest == unfused.digest == got.digest
    for name, counts in want.histograms.items():
        assert np.array_equal(counts, got.histograms[name]), name
        if name in unfused.histograms:
            assert np.array_equal(counts, unfused.histograms[name]), name
    for name, values in want.flushes.items():
        assert np.array_equal(values, got.flushes[name]), name


def test_counts_agree_with_the_counters(recorded):
    for result in recorded.values():
        c, f, h = result.counters, result.flushes, result.histograms
        assert f["remote"].sum() == c["nr_tlb_remote_flush"] == h["targets_per_flush"].sum()
        masks = c["arch_tlbbatch_flush_targets"] + c["flush_mm_targets"]
        assert 0.99 * masks < f["targets"].sum() <= masks        # CPUs that are lazy, here for a kworker, are skipped
        served = sum(f[f"flushed_{what}"].sum() for what in ("all", "pages", "nothing"))
        assert f["targets"].sum() == pytest.approx(served, abs=4)
        assert served == c["nr_tlb_remote_flush_received"]
        taken = h["requests_per_ipi"]
        assert (taken * np.arange(len(taken))).sum() == pytest.approx(served, abs=4)
        assert f["ipis"].sum() == pytest.approx(taken.sum(), abs=4)
        assert h["shrink_list_length"].sum() == c["shrink_folio_list_calls"]
        assert h["fault_latency"].sum() == c["pgfault"]
        assert h["direct_reclaim_latency"].sum() == pytest.approx(c["direct_reclaims"], abs=4)
        assert h["unmapped_written"].sum() == pytest.approx(c["nr_vmscan_write"], abs=4)


def test_who_pays_is_the_time_of_flushes(recorded):
    for result in recorded.values():
        f, t = result.flushes, {name: values.sum() for name, values in result.times.items()}
        paid = f["send"].sum() + f["own"].sum() + f["wait"].sum()
        assert paid <= t["flush"] + t["flush_wait"] and paid == pytest.approx(t["flush"] + t["flush_wait"], rel=0.002)
        assert (f["elapsed"] >= f["send"] + f["own"] + f["wait"] - 1e-6).all()
        assert f["interrupt"].sum() == pytest.approx(
            t["interrupt"] - result.counters["ticks"] * ticks(result), rel=0.01)
    before, after = (recorded[policy].flushes for policy in ("stage0", "stage5"))
    assert after["wait"].sum() < before["wait"].sum() / 4


def ticks(result):
    """Of a tick's interrupt [ns]."""
    world = result.scenario.lower()
    return sum(world.costs[names.COSTS.index(name)] for name in ("tick", "irq_exit")) / 1000


def test_causes_of_calls():
    """Threads that call munmap, mprotect, mremap while they are reclaimed from."""
    met = set()
    for seed in range(12):
        for draw in (busy_calls, busy_threads):
            flushed = Simulation(draw(seed), "stage5").run(0.01).flushes["flushes"]
            met |= {names.CAUSES[i][0] for i in np.flatnonzero(flushed)}
    assert {"batch", "unmap", "pending", "copy_on_write", "madvise", "munmap", "mprotect", "mremap"} <= met
    assert "other" not in met


def test_a_batch_lengthens_the_time_unmapped(recorded):
    before, after = (r.percentile("unmapped_written", 50) for r in recorded.values())
    assert after > 5 * before


def test_warm_up_is_left_out():
    scenario = Scenario.load("small").replace(seconds=0.05, warmup=0.03)
    result = Simulation(scenario, "stage0", record=True).run(interval=0.005)
    whole = Simulation(scenario.replace(warmup=0.0), "stage0", record=True).run()
    assert result.digest == whole.digest
    assert 0 < result.histograms["fault_latency"].sum() == result.counters["pgfault"] < whole.counters["pgfault"]
    assert result.flushes["remote"].sum() == result.counters["nr_tlb_remote_flush"]
    assert result.series["from_s"][0] == 0.03 and len(result.series["to_s"]) == 4
    assert result.series["pgfault"].sum() == result.counters["pgfault"]


# --- snapshots of others

def test_a_snapshot_is_of_a_recording_simulation_or_not():
    plain, recording = (Simulation(busy_threads(3), "stage5", record=record) for record in (False, True))
    with pytest.raises(SnapshotError, match="another world"):
        plain.restore(recording.snapshot())


def test_check_and_record_are_two_runs():
    with pytest.raises(ValueError, match="one of them"):
        Simulation(busy_threads(3), "stage5", record=True, check=True)


# --- series

def test_series_sum_to_the_result(recorded):
    result = recorded["stage5"]
    series = result.series
    assert np.allclose(series["to_s"], [0.01, 0.02, 0.03, 0.04, 0.05]) and series["from_s"][0] == 0
    for name in names.COUNTERS:
        assert series[name].sum() == result.counters[name], name
    for name in names.TIMES:
        assert series[name].sum() == pytest.approx(result.times[name].sum()), name
    parts = sum(series[name] for name in names.TIMES)
    assert np.allclose(parts, 2 * 0.01e9, rtol=0.002)       # two CPUs, but for steps across an end


def test_series_of_a_run_that_ends_early_or_goes_on():
    sim = Simulation(Scenario.load("small"), "stage0")
    first = sim.run(0.0137, interval=0.005)
    assert np.allclose(first.series["to_s"], [0.005, 0.01, 0.0137])
    second = sim.run(0.02, interval=0.005)
    assert second.series["from_s"][0] == pytest.approx(0.0137, abs=1e-6)
    assert np.allclose(second.series["to_s"], [0.015, 0.02])
    assert first.series["pgfault"].sum() + second.series["pgfault"].sum() == second.counters["pgfault"]
    touched = Simulation(Scenario.load("small"), "stage0").run(0.05, touches=500, interval=0.0001)
    assert touched.series["page_touches"].sum() == 500 and touched.series["to_s"][-1] < 0.05
    assert Simulation(Scenario.load("small"), "stage0").run(0.01).series == {}


@pytest.mark.parametrize("interval", [0, -1, 1e-12, 1e9, 1e-8])
def test_bad_intervals(interval):
    with pytest.raises(ScenarioError, match="interval"):
        simulate("small", interval=interval)


# --- files, tables, comparison

def test_saved_whole(recorded, tmp_path):
    result = recorded["stage5"]
    result.save(tmp_path / "r.json")
    again = Result.load(tmp_path / "r.json")
    for group in ("histograms", "flushes", "series"):
        old, new = getattr(result, group), getattr(again, group)
        assert list(old) == list(new)
        assert all(np.array_equal(old[name], new[name]) for name in old), group
    assert repr(again) == repr(result)


def test_tables(recorded):
    tables = recorded["stage5"].tables()
    assert {"percentiles", "causes", "series"} <= set(tables)
    causes = tables["causes"]
    assert set(causes["cause"]) <= {row[0] for row in names.CAUSES} and causes.units["wait"] == "ns"
    percentiles = tables["percentiles"]
    row = percentiles.array[percentiles["histogram"] == "direct_reclaim_latency"][0]
    assert 0 < row["p50"] <= row["p90"] <= row["p99"] <= row["p99.9"] and row["unit"] == "ns"
    latency = tables["direct_reclaim_latency"]
    assert latency.units["from_ns"] == "ns" and (latency["from_ns"] <= latency["to_ns"]).all()
    assert latency["direct_reclaims"].sum() == recorded["stage5"].histograms["direct_reclaim_latency"].sum()
    assert len(tables["series"]) == 5 and tables["series"].units["user"] == "ns"
    html = recorded["stage5"]._repr_html_()
    assert "direct_reclaim_latency" in html and "p99.9" in html


def test_rows_of_a_comparison():
    plain = compare("batch-tlb-flush", seconds=0.04, seeds=2, interval=0.01)
    rows = {row.metric: row for row in plain.rows}
    row = rows["direct_reclaim_latency_p99_ns"]
    assert row.direction == -1 and len(row.before_runs) == 2 and row.p is not None
    assert row.before == np.median([run.percentile("direct_reclaim_latency", 99) for run in plain.before.runs])
    assert "fault_latency_p99_ns" not in rows
    assert all(len(run.series["to_s"]) == 4 for run in plain.before.runs)
    rows = {row.metric for row in compare("small", seconds=0.02, record=True).rows}
    assert set(histograms.METRICS) <= rows
    for style in ("table", "lkml", "mmtests", "lkp", "markdown", "csv", "json"):
        assert "direct_reclaim_latency_p50_ns" in plain.to_text(style)


# --- one flush

def test_anatomy_is_in_order():
    flush = anatomy("batch-tlb-flush", "stage0")
    assert flush.whole and flush.targets and flush.cause == "dirty_folio"
    assert flush.began <= flush.sent_from < flush.sent_to <= flush.waits_from <= flush.ended
    for target in flush.targets:
        assert flush.began <= target.queued <= target.entered <= target.began < target.ended <= target.left
        assert target.cpu != flush.cpu and target.ended <= flush.ended
    table = flush.table()
    assert table["role"][0] == "initiator" and len(table) == 1 + len(flush.targets) + len(flush.spinners)
    assert table["left"][0] == (flush.ended - flush.began) / 1000
    assert str(table["left"][0].astype(int)) in repr(flush).replace(",", "")


def test_anatomies_are_what_the_meters_count():
    """Every flush of a window, taken apart, beside the sums of the same window."""
    sim = Simulation(busy_threads(3), "stage5", record=True)
    found = flushes(sim.log(1.0, actions=30_000))
    meters = sim.view("flushes").reshape(len(names.CAUSES), -1)
    column = {row[0]: i for i, row in enumerate(names.FLUSH_METERS)}
    for i, (cause, _, _) in enumerate(names.CAUSES):
        mine = [flush for flush in found if flush.cause == cause]
        assert len(mine) == meters[i, column["flushes"]], cause
        assert sum(f.ended - f.began for f in mine if f.ended >= 0) == meters[i, column["elapsed"]], cause
        assert sum(f.own_to - f.own_from for f in mine if f.ended >= 0) == meters[i, column["own"]], cause
        assert sum(len(f.targets) for f in mine) == pytest.approx(meters[i, column["targets"]], abs=1)
    assert sum(len(f.targets) for f in found) > 100
    assert {t.place for f in found for t in f.targets} >= {0, 1}, "no request came along"


def test_bystanders_are_those_that_the_meters_know():
    sim = Simulation(busy_threads(1), "stage5", record=True)
    sim.run(0.02)
    spun = sim.view("flushes").reshape(len(names.CAUSES), -1)[:, [row[0] for row in names.FLUSH_METERS].index("spin")]
    assert spun.sum() > 0


def test_what_cannot_be_taken_apart(capsys, tmp_path):
    with pytest.raises(ResultError, match="look later"):
        pick([])
    with pytest.raises(ResultError, match="from 1"):
        anatomy("small", "stage0", number=10**6)
    with pytest.raises(ResultError, match="start"):
        anatomy("small", "stage0", start=1e6)
    with pytest.raises(SystemExit):
        main(["plot", "a", "b", "--kind", "anatomy", "-o", str(tmp_path / "x.svg")])
    assert "one RESULT or SCENARIO, got 2" in capsys.readouterr().err


# --- commands

def test_commands(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "r.json"
    assert main(["run", "small", "--seconds", "0.02", "--record", "--interval", "5ms", "-o", str(file)]) == 0
    assert "fault_latency: p50" in capsys.readouterr().out
    assert len(Result.load(file).series["to_s"]) == 4
    for what in (str(file), "small"):
        assert main(["plot", what, "--kind", "anatomy", "--flush", "2", "-o", str(tmp_path / "x.svg")]) == 0
        assert "initiator" in capsys.readouterr().out
    assert main(["compare", "small", "--seconds", "0.02", "--record", "--json"]) == 0
    rows = [row["metric"] for row in json.loads(capsys.readouterr().out)["rows"]]
    assert "flush_latency_p99_ns" in rows
