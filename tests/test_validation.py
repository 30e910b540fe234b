"""`reclaim validate`: the measured file, what is compared and how, the page that it writes."""

import json
import os
import re
from pathlib import Path

import pytest

from reclaim import measured, validation, validation_page
from reclaim.cli import main
from reclaim.errors import MeasuredError, ReclaimError, ScenarioError
from reclaim.measured import Case
from reclaim.scenario import Scenario
from reclaim.simulation import Simulation
from reclaim.pages import is_sealed
from reclaim.validation import PAIR, Prediction, Spread, rows, validate

PAGE = Path(__file__).parent.parent / "docs" / "validation.md"
SCENARIO = {"seconds": 0.02, "machine": {"cpus": 2}, "kernel": {"version": "6.12"}, "memcg": {"limit": "8M"},
            "memory": {"total": "1G"}, "swap": {"size": "64M"},
            "workload": {"kind": "writer", "workers": 2, "bytes": "16M"}}
WHOLE = "runs.jsonl:2: repeats[0].whole"


def line(**more):
    counters = {"pgsteal_anon": 5000, "pgscan_anon": 10000, "page_touches": 7000} | more.pop("counters", {})
    return {"case": "a", "policy": "stage0", "scenario": SCENARIO,
            "repeats": [{"whole": {"seconds": 1.0, "counters": counters}}]} | more


@pytest.fixture
def write(tmp_path):
    def write(*lines):
        path = tmp_path / "runs.jsonl"
        texts = [each if isinstance(each, str) else json.dumps(each) for each in lines]
        path.write_bytes("".join(text + "\n" for text in texts).encode(errors="surrogateescape"))
        return str(path)
    return write


# --- the file

def test_packaged_runs():
    cases = measured.load()
    assert len(cases) == 58 and len({case.key for case in cases}) == 58
    for case in cases:
        scenario = case.load_scenario()
        assert scenario.machine.profile == ("tcg-rr" if scenario.machine.host_cpus else "vm16")
        assert all(run["pgsteal_anon"] > 0 for run in case.repeats)
    assert cases[0].load_scenario("epyc").machine.profile == "tcg-rr"
    assert cases[-1].load_scenario("epyc").machine.profile == "epyc"


def test_counters_of_each_cpu_are_added_up(write):
    (case,) = measured.load(write(line(counters={"tlb_shootdowns": [3, 4]})))
    assert case.repeats[0]["tlb_shootdowns"] == 7


def test_lines_of_a_case_are_joined(write):
    """An observer appends a line for each run; how long it ran differs."""
    later = line(scenario=SCENARIO | {"seconds": 0.03}, counters={"pgscan_anon": 1}, partial=True)
    first, other = measured.load(write(line(), line(policy="stage5"), later))
    assert [run["pgscan_anon"] for run in first.repeats] == [10_000, 1] and first.seconds == (1.0, 1.0)
    assert first.partial and not other.partial and first.where.endswith(":3") and other.unknown == {}
    assert first.load_scenario().seconds == 0.03


@pytest.mark.parametrize("bad, says", [
    ("{", "runs.jsonl:2: not JSON"),
    ("[" * 100_000, "runs.jsonl:2: not JSON"),
    ("\udcff", "runs.jsonl:2: not JSON"),
    ("[]", "runs.jsonl:2: must be an object"),
    (line(case=""), "runs.jsonl:2: case: must be a string"),
    (line(case=1), "runs.jsonl:2: case: must be a string"),
    (line(policy="stage9"), "runs.jsonl:2: policy: unknown policy 'stage9'"),
    (line(source=1), "runs.jsonl:2: source: must be a string"),
    (line(partial=1), "runs.jsonl:2: partial: must be true or false"),
    (line(observed=3), "runs.jsonl:2: observed: must be an object"),
    (line(observed={"unknown": {"swap": 3}}), "runs.jsonl:2: observed.unknown: must be"),
    (line(repeats=[]), "runs.jsonl:2: repeats: must be a list of one run or more"),
    (line(repeats=[{"steady": {}}]), "runs.jsonl:2: repeats[0].whole: missing"),
    (line(repeats=[{"whole": {"counters": 3}}]), f"{WHOLE}.counters: must be an object"),
    (line(repeats=[{"whole": {"seconds": 1e999, "counters": {}}}]), "Infinity is not a count"),
    (line(repeats=[{"whole": {"seconds": 10**400, "counters": {}}}]), f"{WHOLE}.seconds = 1000"),
    (line(counters={"pgscan_anon": -1}), f"{WHOLE}.counters.pgscan_anon = -1: must be a count"),
    (line(counters={"pgscan_anon": 1.5}), f"{WHOLE}.counters.pgscan_anon = 1.5: must be"),
    (line(counters={"pgscan_anon": True}), f"{WHOLE}.counters.pgscan_anon = true: must be"),
    (line(counters={"pgscan_anon": 2**64}), f"{WHOLE}.counters.pgscan_anon = 18446744073709551616: must be"),
    (line(counters={"pgscan_anon": float("nan")}), "NaN is not a count"),
    (line(counters={"pgscan_anon": [1, "2"]}), f'{WHOLE}.counters.pgscan_anon = [1, "2"]: must be'),
    (line(counters={"pgscan_anon": []}), f"{WHOLE}.counters.pgscan_anon = []: must be"),
    (line(scenario=[]), "runs.jsonl:2: scenario: must be an object"),
    (line(case="good", scenario=SCENARIO | {"machine": {"cpus": 4}}),
     "runs.jsonl:2: scenario.machine.cpus: not as in"),
    (line(case="good", scenario=None), "runs.jsonl:2: scenario: not as in"),
])
def test_faults_are_located(write, bad, says, capsys):
    path = write(line(case="good"), bad)
    with pytest.raises(MeasuredError, match=re.escape(says)):
        measured.load(path)
    for argv in (["validate", path], ["compare", path, "small"]):
        assert main(argv) == 3
        err = capsys.readouterr().err
        assert says in err and "Traceback" not in err


def test_files_that_are_none(tmp_path, write, capsys, monkeypatch):
    os.mkfifo(tmp_path / "fifo.jsonl")
    (tmp_path / "dir.jsonl").mkdir()
    (tmp_path / "long.jsonl").write_text("\n" + "1" * 2000)
    monkeypatch.setattr(measured, "MAX_LINE", 1999)
    for name, says in (("none", "No such file"), ("dir", "directory"), ("fifo", "not a regular file"),
                       ("\0", "null"), ("long", "long.jsonl:2: longer than 1999 bytes"),
                       ("runs", "no case in it")):
        write("")
        path = str(tmp_path / f"{name}.jsonl")
        with pytest.raises(MeasuredError, match=says):
            measured.load(path)
        for argv in (["validate", path], ["compare", path, "small"]):
            assert main(argv) == 3 and says in capsys.readouterr().err


# --- what is compared

@pytest.fixture(scope="module")
def real():
    """Runs of the simulator itself, in the place of a kernel's."""
    found = {}
    for policy in ("stage0", "stage5"):
        scenario = Scenario.from_dict(SCENARIO | {"seconds": 0.1})
        found[policy] = dict(Simulation(scenario, policy, seed=9).run().counters)
    return found


def lines(real, **changes):
    def one(policy):
        counters = {name: value for name, value in real[policy].items() if isinstance(value, int)}
        return line(policy=policy, repeats=[{"whole": {"seconds": 0.1, "counters": counters | changes}}])
    return [one(policy) for policy in real]


def test_a_machine_like_the_model_scores_well(write, real):
    found = validate(write(*lines(real)), seeds=2)
    verdicts = {(row.policy, row.metric): row.verdict for row in found.rows}
    assert verdicts["stage5", "folios_per_batch"] == verdicts["stage0", "steal_per_scan"] == "ok"
    assert verdicts["stage5", PAIR.name] == "ok" and verdicts["stage0", "pgsteal_anon"] == "fixed"
    assert ("stage0", "folios_per_batch") not in verdicts
    assert verdicts["stage0", "shootdowns_per_page"] in ("in range", "out of range")      # shown, not scored
    assert found.scores and all(score.passed for score in found.scores) and not found.refused
    touches = real["stage0"]["page_touches"]
    (case, _) = measured.load(write(*lines(real)))
    assert [counters["page_touches"] for counters in validation.predict(case, 1)] == [touches]


def test_another_machine_misses(write, real, capsys):
    path = write(*lines(real, tlb_shootdowns=3 * real["stage5"]["tlb_shootdowns"]))
    found = validate(path, seeds=1)
    missed = {score.metric for score in found.scores if not score.passed}
    assert {"shootdowns_per_page", "ipis_per_shootdown"} <= missed
    assert "MISSED: a stage5" in repr(found)
    assert main(["validate", path, "--seeds", "1", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {"file", "seeds", "rows", "scores", "not_reproduced", "notes"} == set(data)
    (row,) = [r for r in data["rows"] if (r["policy"], r["metric"]) == ("stage5", "shootdowns_per_page")]
    assert row["verdict"] == "MISS" and row["ratio"] == pytest.approx(1 / 3, rel=0.1)


def test_what_the_model_refuses_is_listed(write, real, capsys):
    refused = [line(case="thp", scenario=SCENARIO | {"kernel": {"thp": True}}),
               line(case="none", scenario=None),
               line(case="typo", scenario=SCENARIO | {"memcg": {"limti": "8M"}}),
               line(case="idle", counters={"pgsteal_anon": 0})]
    path = write(*lines(real), *refused)
    found = validate(path, seeds=1)
    reasons = {case: reason for case, _, reason in found.refused}
    assert set(reasons) == {"thp", "none", "typo", "idle"} and len({row.policy for row in found.rows}) == 2
    assert reasons["thp"].endswith("runs.jsonl:3: kernel.thp = true: not modelled yet; must be false")
    assert "runs.jsonl:4: scenario: missing" in reasons["none"] and "did you mean 'limit'" in reasons["typo"]
    assert "runs.jsonl:6: no anonymous page was reclaimed in 1 of 1 runs" in reasons["idle"]
    assert "thp stage0: not reproduced: " in repr(found)
    assert main(["validate", write(*refused), "--seeds", "1"]) == 3
    assert "none of these cases is reproduced" in capsys.readouterr().err


def test_work_that_is_never_done_is_not_reproduced(write, monkeypatch):
    monkeypatch.setattr(validation, "MAX_SECONDS", 0.01)
    (case,) = measured.load(write(line(counters={"page_touches": 10**9})))
    with pytest.raises(ScenarioError, match="of 1,000,000,000 page_touches after 0 simulated seconds"):
        validation.predict(case, 1)


def test_runs_at_random_end_at_the_steals(write, real):
    scenario = SCENARIO | {"workload": SCENARIO["workload"] | {"pattern": "rand"}}
    (case,) = measured.load(write(line(scenario=scenario, counters={"pgsteal_anon": 20_000})))
    (counters,) = validation.predict(case, 1)
    assert 19_800 <= counters["pgsteal_anon"] <= 21_000


def prediction(got, want, *, policy="stage0", **kernel):
    """One seed and repeat each; `got` and `want`: pgsteal_anon is 5000 unless said."""
    whole = {"pgsteal_anon": 5000, "pgscan_anon": 10_000}
    case = Case("a", policy, "", SCENARIO, tuple(whole | run for run in want), (1.0,) * len(want), "x:1")
    scenario = Scenario.from_dict(SCENARIO | {"kernel": {"version": "6.12"} | kernel})
    return Prediction(case, scenario, (tuple(whole | run for run in got),))


@pytest.mark.parametrize("scans, lru, error", [(10_000 + 2048, "classic", 0), (10_000 - 2048, "classic", 0),
                                               (10_000 + 2 * 2048, "classic", 1 - 10_000 / 12_048),
                                               (10_000 + 2048, "mglru", 1 - 10_000 / 12_048)])
def test_scans_are_compared_up_to_a_sweep(scans, lru, error):
    """The limit is 2048 pages."""
    made = rows(prediction([{"pgscan_anon": scans}], [{}], lru=lru))
    (row,) = [row for row in made if row.metric == "steal_per_scan"]
    assert row.error == pytest.approx(error) and row.ratio == pytest.approx(10_000 / scans)


def test_what_rests_on_a_sweep_is_marked():
    def row(scans, **more):
        made = rows(prediction([{"pgscan_anon": scans}], [{}], **more))
        return next(row for row in made if row.metric == "steal_per_scan")
    assert row(12_048).told == "ok (sweep)" and row(10_500).told == "ok" and row(12_048, lru="mglru").told == "near"
    score = validation.Score.of("x", validation.METRICS[3], [row(12_048), row(10_500), row(10_500)])
    assert (score.swept, score.met) == (1, 0) and score.plain == pytest.approx(1 - 10_000 / 10_500)
    assert score.told() == "ok, of which 1 by a sweep (median without it 4.8%)"
    assert score.to_dict()["by_sweep"] == 1
    assert validation.Score.of("x", PAIR, []) is None


def test_cases_whose_pattern_was_chosen_are_scored_apart(write, real):
    """Two groups: with them and without."""
    mix = SCENARIO | {"workload": SCENARIO["workload"] | {"pattern": "mix"}}
    both = [line(case="m", scenario=mix, counters={"pgsteal_anon": 5000}), *lines(real)]
    groups = {score.group: score.nr for score in validate(write(*both), seeds=1).scores
              if score.metric == "steal_per_scan"}
    assert groups == {"machines": 3, "machines but mix": 2}


def targets(got, want, **more):
    def counters(values):
        return [{"arch_tlbbatch_flush_targets": round(4000 * v), "arch_tlbbatch_flush_remote": 4000}
                for v in values]
    made = rows(prediction(counters(got), counters(want), **more))
    return next(row.verdict for row in made if row.metric == "targets_per_flush")


def test_lazy_masks_before_are_ranges():
    assert targets([1.0, 2.6], [1.0, 1.2], mm_cpumask="lazy") == "meets"
    assert targets([1.0, 2.6], [1.0, 1.2], mm_cpumask="eager") == "MISS"
    assert targets([1.0, 2.6], [1.0, 1.2], mm_cpumask="lazy", policy="stage5") == "MISS"
    assert targets([2.0, 2.6], [1.0, 1.2], mm_cpumask="lazy") == "MISS"
    assert (targets([1.2], [1.0]), targets([1.1], [1.0])) == ("near", "ok")


def test_few_events_are_not_scored():
    few = {"arch_tlbbatch_flush_targets": 5, "arch_tlbbatch_flush_remote": 5}
    (row,) = [row for row in rows(prediction([few], [few])) if row.metric == "targets_per_flush"]
    assert (row.verdict, row.error) == ("few", None)


def test_spread():
    assert str(Spread.of([3, 1, 2])) == "2 (1..3)" and str(Spread.of([0.5])) == "0.500"
    assert Spread.of([1, 2]).meets(Spread.of([2, 3])) and not Spread.of([1, 2]).meets(Spread.of([2.1, 3]))


def test_shootdowns_that_were_not_counted_have_no_ratio(write, real):
    """Of a machine whose /proc/interrupts has no such row."""
    both = lines(real)
    for each in both:
        del each["repeats"][0]["whole"]["counters"]["tlb_shootdowns"]
    found = validate(write(*both), seeds=1)
    assert {row.policy for row in found.rows} == set(real)
    assert PAIR.name not in {row.metric for row in found.rows}


# --- running

def test_cases_are_chosen_by_pattern(write, real):
    path = write(*lines(real), line(case="b"))
    assert {row.case for row in validate(path, cases=["b*"], seeds=1).rows} == {"b"}
    with pytest.raises(ReclaimError, match="no case matches 'c'"):
        validate(path, cases=["c"])
    for wrong in ({"seeds": 0}, {"jobs": 0}, {"profile": "vm17"}):
        with pytest.raises(ReclaimError):
            validate(path, **wrong)


def test_an_interrupt_leaves_what_was_run(write, real, monkeypatch, capsys):
    calls = []

    def predict(case, seed, **more):
        calls.append(seed)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return once(case, seed, **more)
    once = validation.predict
    monkeypatch.setattr(validation, "predict", predict)
    path = write(*lines(real))
    assert main(["validate", path, "--seeds", "3", "--jobs", "1"]) == 130
    out = capsys.readouterr()
    assert "PARTIAL" in out.out and "a stage0" in out.out and "a stage5" not in out.out
    assert "partial" in out.err


def test_output_is_written_whole(write, real, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("old")
    path = write(*lines(real))
    assert main(["validate", path, "--seeds", "1", "--markdown", "-o", str(page)]) == 0
    assert capsys.readouterr().out == ""
    assert sorted(each.name for each in tmp_path.iterdir()) == ["page.md", "runs.jsonl"]
    text = page.read_text()
    assert f"`reclaim validate {path} --seeds 1 --markdown -o {page}`" in text
    assert is_sealed(text) and not is_sealed(text.replace("ratio", "ratios"))


# --- the page of the packaged runs

def test_every_note_is_about_a_case():
    keys = [case.key for case in measured.load()]
    metrics = {metric.name for metric in (*validation.METRICS, PAIR)}
    for note in validation.notes():
        one = Spread.of([1])
        row = [validation.Row(*key, metric, one, one, 1, None, "")
               for key in keys for metric in metrics]
        assert any(note.about(each) for each in row), note


def test_the_page_is_generated():
    """Its text is not edited, what it was made from has not changed, and a case of it comes out again."""
    text = PAGE.read_text()
    assert is_sealed(text), "edited by hand; run the command that it names"
    assert f"Inputs: `{validation_page.inputs()}`" in text, "its inputs changed; run the command that it names"
    for row in validate(cases=["guest-2cpu-2w-proc_seq-zram-classic-eager"]).rows:
        assert validation_page.line(row) in text, "the model changed; run the command that it names"
