"""`reclaim sensitivity`: what is varied, what moves, and the page that it writes."""

import json
import re
from pathlib import Path

import pytest

from reclaim import sensitivity
from reclaim.cli import main
from reclaim.errors import ReclaimError
from reclaim.machine import COST_KEYS
from reclaim.memory import SWITCHES
from reclaim.pages import is_sealed
from reclaim.scenario import Scenario
from reclaim.sensitivity import WHAT, Cell, Plan, choices, show
from reclaim.sensitivity_page import inputs

PAGE = Path(__file__).parent.parent / "docs" / "sensitivity.md"


@pytest.fixture(scope="module")
def scenario():
    return Scenario.load("small").replace(seconds=0.02)


@pytest.fixture(scope="module")
def found(scenario):
    return Plan.of(scenario, seeds=3, choice_seeds=2,
                   only=["costs.ipi_send_ns", "costs.io_*", "swap", "kernel.*"]).run(jobs=1)


def named(found, factor, value):
    return next(choice for choice in found.found if (choice.factor, choice.value) == (factor, value))


def test_every_cost_and_everything_open_is_varied(scenario):
    every = {(choice.factor, choice.value) for choice in choices(scenario)}
    assert {(f"costs.{name}", by) for name in COST_KEYS for by in ("x0.5", "x2")} <= every
    assert {(f"kernel.{name}", value) for name in SWITCHES for value in ('"yes"', '"no"')} <= every
    factors = {factor for factor, _ in every}
    assert {"swap", "kernel.lru", "kernel.mm_cpumask", "kernel.cgroup", "kernel.version", "machine.pcid",
            "machine.profile", "memcg.kernel", "memcg.swappiness", "tlb.l2_entries", "workload.pattern",
            "workload.pin", "scheduler.migrations_per_s", "scheduler.kthread_share", "scheduler.hz"} <= factors
    stress = {choice.factor for choice in choices(Scenario.load("batch-tlb-flush"))}
    assert stress - factors == {"workload.madvise", "workload.method"}


def test_each_choice_makes_another_world(scenario):
    plan = Plan.of(scenario)
    worlds = [sensitivity._key(choice.lower(scenario, 1)) for choice in plan.choices]
    assert len(set(worlds) | {sensitivity._key(scenario.lower(1))}) == len(worlds) + 1
    assert ("swap", "zram") not in {(c.factor, c.value) for c in plan.choices}      # it is the scenario's


def test_a_choice_is_what_it_says(scenario):
    by = {(choice.factor, choice.value): choice for choice in choices(scenario)}
    world = scenario.lower(1)
    assert by["costs.scan_ns", "x2"].lower(scenario, 1).costs != world.costs
    assert by["tlb.l2_entries", "x0.5"].lower(scenario, 1).l2_sets == world.l2_sets // 2
    assert by["memcg.kernel", "x2"].lower(scenario, 1).kernel_pages == 2 * world.kernel_pages
    assert by["scheduler.hz", "100"].lower(scenario, 1).tick == 10 * world.tick
    assert by["scheduler.migrations_per_s", "10.0"].lower(scenario, 1).migrate_threshold > 0 == world.migrate_threshold
    assert not by["swap", "nvme"].lower(scenario, 1).swap_sync


def test_what_moves_and_what_does_not(found):
    """An asynchronous device scans each page twice; its costs and MGLRU's switches are not read here."""
    nvme = {(cell.row, cell.what): cell for cell in found.cells(named(found, "swap", "nvme"))}
    moved = nvme["steal_per_scan", "before"]
    assert moved.value < 0.8 * moved.base and not moved.in_noise
    still = {(choice.factor, choice.value) for choice in found.without_effect()}
    assert {("costs.io_submit_ns", "x2"), ("kernel.mglru_stop", '"no"')} <= still
    ranked = [choice.factor for choice, effect, _ in found.ranked() if effect]
    assert {"swap", "kernel.lru"} == set(ranked[:3]) and not still & {(c.factor, c.value) for c, *_ in found.ranked()}
    # Nothing was run twice for what has no effect.
    assert all(len(found.found[choice]) == (1 if choice in found.without_effect() else 2) for choice in found.found)


def test_same_seeds_same_table(scenario, found):
    again = Plan.of(scenario, seeds=3, choice_seeds=2, only=["swap"]).run(jobs=2)
    for name in ("nvme", "disk"):
        one, other = ([str(cell) for cell in each.cells(named(each, "swap", name))] for each in (found, again))
        assert one == other


def test_noise():
    def cell(base, value, noise, what="before"):
        return Cell("x", what, base, value, noise)
    assert cell(1.0, 1.1, 0.1000001).in_noise and not cell(1.0, 1.1, 0.09).in_noise
    assert str(cell(1.0, 1.1, 0.2)) == "~1.100" and str(cell(-50.0, -75.0, 1, "change")) == "-75.0%"
    assert cell(-50.0, -75.0, 1, "change").effect == pytest.approx(-0.693, abs=1e-3)
    assert cell(1.0, 2.0, 0).effect == pytest.approx(0.693, abs=1e-3) and cell(1.0, 0.0, 0).effect == float("inf")


def test_only_the_first_seed_is_exact(scenario):
    world = scenario.lower(2)
    other = sensitivity._jittered(world, 2)
    assert other.costs != world.costs and other == sensitivity._jittered(world, 2)
    assert all(abs(a - b) <= 1e-3 * b + 1 for a, b in zip(other.costs, world.costs, strict=True))


def test_an_interrupt_leaves_what_was_run(scenario, monkeypatch):
    ran, one = [], Plan._one

    def interrupted(self, *args):
        ran.append(args)
        if len(ran) == 6:
            raise KeyboardInterrupt
        return one(self, *args)
    monkeypatch.setattr(Plan, "_one", interrupted)
    found = Plan.of(scenario, seeds=1, only=["swap", "kernel.lru"]).run(jobs=1)
    assert found.partial and len(found.found) == 1 and "PARTIAL" in repr(found)
    assert found.to_dict()["partial"] is True


def test_command_line(capsys):
    assert main(["sensitivity", "small", "--list", "--only", "kernel.lru"]) == 0
    assert capsys.readouterr().out == 'kernel.lru  "mglru"\n'
    args = ["sensitivity", "small", "--seconds", "5ms", "--seeds", "2", "--only", "kernel.lru"]
    assert main(args) == 0
    out = capsys.readouterr()
    assert "kernel.lru = " in out.out and "1 choices with 2 of 2 seeds" in out.err
    assert main([*args, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {"scenario", "seconds", "policies", "seeds", "base", "choices", "without_effect"} == set(data)
    assert 0 < len(data["choices"][0]["cells"]) <= len(WHAT)


@pytest.mark.parametrize("wrong, says", [({"only": ["kernl.lru"]}, "did you mean 'kernel.lru'"), ({"seeds": 0}, "seeds = 0"),
                                         ({"seeds": 2, "choice_seeds": 3}, "choice_seeds = 3"),
                                         ({"before": "stage9"}, "unknown policy"), ({"after": "stage9"}, "unknown")])
def test_bad_input(scenario, wrong, says):
    with pytest.raises(ReclaimError, match=says):
        Plan.of(scenario, **wrong)
    with pytest.raises(ReclaimError, match="jobs = 0"):
        Plan.of(scenario, only=["swap"]).run(jobs=0)


def test_a_page_without_published_values(found):
    text = found.markdown("reclaim sensitivity small")
    assert "Beside the published table" not in text and "| `swap = nvme` |" in text
    assert is_sealed(text)


def test_the_page_is_generated():
    """Its text is not edited, what it was made from has not changed, and a choice of it comes out again."""
    text = PAGE.read_text()
    assert is_sealed(text), "edited by hand; run the command that it names"
    seconds = float(re.search(r"All simulated: ([\d.]+) s", text)[1])
    plan = Plan.of(Scenario.load("batch-tlb-flush").replace(seconds=seconds), seeds=1, only=["kernel.lru"])
    found = plan.run()
    assert f"Inputs: `{inputs(found)}`" in text, "its inputs changed; run the command that it names"
    row = re.search(r'\| `kernel\.lru = "mglru"` \| \S+ \| (.*) \|', text)[1].replace("~", "").split(" | ")
    cells = found.cells(named(found, "kernel.lru", '"mglru"'))
    assert row == [show(cell.what, cell.value) for cell in cells], "the model changed; run the command that it names"
