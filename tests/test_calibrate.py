"""`reclaim calibrate`: on this machine, whatever it is; no absolute time is asserted."""

import datetime
import math
import os
import platform
import re
import resource
import signal
import subprocess
import sys
import time
import tomllib
from array import array
from pathlib import Path

import pytest

from ordinary import open_directory, reclaim_as_nobody
from reclaim import calibration, names
from reclaim.calibration import SENDER, Quantity, calibrate, derive
from reclaim.cli import main
from reclaim.errors import MachineError, ReclaimError, ScenarioError
from reclaim.machine import Profile
from reclaim.scenario import Scenario
from reclaim.simulation import Simulation

ROOT = Path(__file__).parent.parent
MAIN = "import sys; from reclaim.cli import main; sys.exit(main(sys.argv[1:]))"
here = pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64"
                          or len(os.sched_getaffinity(0)) < 2,
                          reason="needs Linux on x86 with two CPUs")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(what was printed, the profile's path) of one short calibration."""
    file = tmp_path_factory.mktemp("profile") / "here.toml"
    done = subprocess.run([sys.executable, "-c", MAIN, "calibrate", "-o", str(file), "--seconds", "4"],
                          capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, file


@pytest.fixture(scope="module")
def measured(made):
    """The medians that it printed."""
    lines = made[0].split("\n\n")[0].splitlines()[1:]
    return {name: float(line[len(what):].split()[0].replace(",", ""))
            for name, what in calibration.WHAT.items() for line in lines if line.startswith(what + "  ")}


# --- this machine

@here
def test_the_profile_is_one(made):
    text = made[1].read_text()
    profile = Profile.load(str(made[1]))
    assert platform.release() in profile.description
    assert f"{datetime.datetime.now(datetime.UTC):%Y-%m}" in profile.description
    assert all(math.isfinite(ns) and ns >= 0 for ns in profile.costs.ns)
    values = [line for line in text.splitlines() if " = " in line
              and not line.startswith(("#", "description"))]
    assert len(values) == len(names.COSTS) + 11 and all("  # " in line or " # " in line for line in values)
    inherited = {line.split()[0].removesuffix("_ns") for line in values
                 if line.endswith("# inherited from vm16")}
    assert {"zram_write", "invlpg", "l2_ways", "slice_ms"} < inherited
    assert {"walk_cold", "fault_anon", "ipi_send", "irq_entry", "context_switch"}.isdisjoint(inherited)
    vm16 = Profile.load("vm16")
    assert all(profile.costs[name] == vm16.costs[name] for name in inherited & set(names.COSTS))


@here
def test_what_is_slower_is_slower(measured):
    m = measured
    assert set(m) == set(calibration.WHAT)
    assert all(value > 0 for value in m.values())
    assert m["unmap_spinning"] > m["unmap_alone"]          # there is an interrupt and a wait
    assert m["walk_evicted"] > m["zero"] and m["walk_line"] > 0.9 * m["zero"]
    assert m["touch_l2"] > 0.9 * m["touch_lines"] and m["refill_all"] > 0.9 * m["refill_hot"]
    assert m["fault_write"] > m["fault_read"] > 10 * m["touch"]
    assert m["ping_pong"] > m["pipe"] > m["touch"]
    assert m["copy"] > m["touch"] and m["clear"] > m["touch"]


@here
def test_a_scenario_runs_on_it(made, tmp_path, capsys):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/here.toml").write_text(made[1].read_text())
    (tmp_path / "mine.toml").write_text('seconds = 0.01\n[machine]\nprofile = "sub/here.toml"\ncpus = 2\n'
                                        '[memcg]\nlimit = "8M"\n'
                                        '[workload]\nkind = "writer"\nworkers = 2\nbytes = "16M"\n')
    mine = Scenario.load(tmp_path / "mine.toml")           # a path of its own directory
    assert mine.machine.load_profile().costs == Profile.load(str(made[1])).costs
    assert Scenario.from_dict(mine.to_dict()) == mine
    result = Simulation(mine).run()
    assert result.provenance["costs_ps"] == list(Profile.load(str(made[1])).costs.to_ps())
    for argv in (["run", "small"], ["compare", "small"]):
        assert main([*argv, "--seconds", "10ms", "--profile", str(made[1])]) == 0
    assert "simulated" in capsys.readouterr().out


@here
def test_nothing_is_left_behind():
    before = os.sched_getaffinity(0), signal.getsignal(signal.SIGINT)
    tasks = set(os.listdir("/proc/self/task"))
    found = calibrate(2)
    assert (os.sched_getaffinity(0), signal.getsignal(signal.SIGINT)) == before
    assert set(os.listdir("/proc/self/task")) <= tasks
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert tomllib.loads(found.toml)["costs"].keys() == {f"{name}_ns" for name in names.COSTS}


@here
def test_interrupted(tmp_path):
    file = tmp_path / "here.toml"
    file.write_text("as it was")
    run = subprocess.Popen([sys.executable, "-c", "import reclaim.calibration as c; old = c._Bench._moves\n"
                            "def moves(self): print('up', flush=True); old(self)\nc._Bench._moves = moves\n"
                            + MAIN,
                            "calibrate", "-o", str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           text=True)
    assert run.stdout.readline() == "up\n"
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=30)
    assert (run.returncode, err) == (130, "reclaim: interrupted: no profile was written\n")
    assert file.read_text() == "as it was" and len(list(tmp_path.iterdir())) == 1


@here
def test_an_ordinary_user():
    with open_directory() as folder:
        done = reclaim_as_nobody("calibrate", "-o", str(folder / "p.toml"), "--seconds", "2")
        assert (done.returncode, done.stderr) == (0, "")
        profile = Profile.load(str(folder / "p.toml"))
        assert profile.costs["ipi_send"] > 0 and profile.costs["context_switch"] > 0


@here
def test_it_keeps_to_its_time(capsys):
    start = time.monotonic()
    assert main(["calibrate", "--seconds", "2"]) == 0
    assert time.monotonic() - start < 21
    assert Profile.from_dict(tomllib.loads(capsys.readouterr().out), name="x", where="stdout")


# --- machines that cannot be measured

def test_one_cpu():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + MAIN
    done = subprocess.run([sys.executable, "-c", code, "calibrate"], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 1 and "needs two CPUs" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("system, cpu", [("darwin", "arm64"), ("linux", "aarch64")])
def test_not_linux_or_not_x86(monkeypatch, system, cpu):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: cpu)
    with pytest.raises(MachineError, match=f"this is {system} on {cpu}. Copy a packaged profile"):
        calibrate()


@pytest.mark.parametrize("seconds", [0, 1.9, 20.1, -1, math.nan, math.inf])
def test_bad_seconds(seconds):
    with pytest.raises(ReclaimError, match="must be 2 to 20"):
        calibrate(seconds)


def test_bad_parent(capsys):
    assert main(["calibrate", "--profile", "vm61"]) == 3
    assert "did you mean 'vm16'" in capsys.readouterr().err


@here
def test_no_time(monkeypatch):
    monkeypatch.setattr(calibration._Bench, "_cold_walks", lambda self: None)
    monkeypatch.setattr(calibration, "MAX_SECONDS", 2.0)
    with pytest.raises(MachineError, match="no time to measure walk_evicted"):
        calibrate(2)


@here
def test_what_the_kernel_refuses_is_inherited(monkeypatch):
    def refuse(self):
        raise OSError(22, "made up")
    monkeypatch.setattr(calibration._Bench, "_populate", refuse)
    found = calibrate(2)
    assert found.costs.keys() == set(COSTS) - {"gup_page"} and "made up" in found.notes[0]
    assert "# not measured, inherited instead: [Errno 22] made up" in found.toml
    assert "gup_page_ns = 60.0" in found.toml


# --- the arithmetic

COSTS = ("tlb_l2_hit", "walk_warm", "walk_cold", "fault_entry", "fault_zero", "fault_anon", "page_copy",
         "page_zero", "gup_page",
         "context_switch", "wakeup", "irq_entry", "irq_exit", "flush_fixed", "ipi_send", "ipi_delivery",
         "csd_ack",
         "ipi_delivery_cross")
MEDIANS = dict.fromkeys(calibration.WHAT, 1.0) | {
    "touch_l2": 5, "touch_lines": 3, "zero": 7, "zero_row": 6, "walk_line": 30, "walk_row": 15,
    "walk_evicted": 107,
    "fault_read": 600, "fault_write": 1400, "copy": 300, "clear": 150, "populate": 90, "pipe": 700,
    "ping_pong": 2500,
    "unmap_alone": 1000, "unmap_spinning": 13000, "away": 7110}


@pytest.mark.parametrize("parent", ["vm16", "skx2s", "epyc", "tcg-rr"])
def test_the_parts_make_the_whole(parent):
    """docs/model.md 5.7, 5.8: what the simulator does of a shootdown takes what was measured."""
    profile = Profile.load(parent)
    costs = {name: value for name, (value, _) in derive(MEDIANS, profile).items()}
    assert set(COSTS) - costs.keys() == ({"ipi_delivery_cross"} if parent == "tcg-rr" else set())
    assert sum(costs[name] for name in (*SENDER, "irq_entry")) == pytest.approx(12000)
    assert costs["irq_entry"] + costs["irq_exit"] + profile.costs["invlpg"] == pytest.approx(7110)
    for pair in (("ipi_send", "flush_fixed"), ("csd_ack", "ipi_send"), ("irq_entry", "irq_exit"),
                 ("context_switch", "wakeup"),
                 ("fault_entry", "fault_zero")):
        assert costs[pair[0]] / costs[pair[1]] == pytest.approx(
            profile.costs[pair[0]] / profile.costs[pair[1]])
    assert costs["fault_entry"] + costs["fault_zero"] == pytest.approx(600)
    assert costs["fault_entry"] + costs["fault_anon"] == pytest.approx(1400)
    assert costs["context_switch"] + costs["wakeup"] == pytest.approx(1800)
    assert (costs["tlb_l2_hit"], costs["walk_cold"]) == (2, 100)
    # A row: one new line, seven times the same.
    assert (7 * costs["walk_warm"] + 23) / 8 == pytest.approx(9)


def test_a_sender_that_waits_less_than_the_target_is_away():
    profile = Profile.load("vm16")
    costs = {name: value for name, (value, _) in derive(MEDIANS | {"unmap_spinning": 2000}, profile).items()}
    assert sum(costs[name] for name in (*SENDER, "irq_entry")) == pytest.approx(1000)
    assert all(value >= 0 for value in costs.values())


def test_noise_makes_no_negative_cost():
    costs = derive(dict.fromkeys(calibration.WHAT, 5.0) | {"unmap_spinning": 4.0}, Profile.load("vm16"))
    assert all(value >= 0 for value, _ in costs.values())


def test_quantiles():
    q = Quantity.of("x", [float(i) for i in range(100, 0, -1)])
    assert (q.p10, q.median, q.p90, q.nr) == (11, 51, 91, 100)


def test_hostile_names_stay_in_their_comment():
    found = calibration.Calibration('a "quoted" \\ name', Profile.load("vm16"), {}, {"scan": (1.0, "x")}, {},
                                    ["two\nlines = 1"])
    assert tomllib.loads(found.toml)["description"] == 'a "quoted" \\ name'


# --- profiles in files

def test_the_profile_of_the_docs():
    """docs/calibration.md, its table: still a profile, in the form that is written today."""
    file = ROOT / "docs" / "data" / "epyc-vm-2cpu.toml"
    profile, text = Profile.load(str(file)), file.read_text()
    assert f'description = "{profile.description}"' in text and "Linux 6.18" in profile.description
    medians = {name: float(re.search(rf"^#   {re.escape(what)}: ([0-9.,]+) ", text, re.M)[1].replace(",", ""))
               for name, what in calibration.WHAT.items()}
    for name, (value, how) in derive(medians, Profile.load("vm16")).items():
        assert profile.costs[name] == pytest.approx(value, rel=0.05, abs=2) and f"# {how}\n" in text, name


@pytest.mark.parametrize("content, part", [
    (None, "No such file"), ("", "description"), ("[costs]\nscan_ns = -1\n", "costs.scan_ns = -1"),
    ("= ", "not TOML"),
    (b"\xff", "not UTF-8"), ("x" * 2_000_000, "longer than"),
    ("[costs]\nsacn_ns = 1\n", "did you mean 'scan_ns'")])
def test_bad_files(tmp_path, capsys, content, part):
    path = tmp_path / "p.toml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["run", "small", "--profile", str(path)]) == 3
    err = capsys.readouterr().err
    assert f"{path}: " in err and part in err


def test_what_is_a_path():
    for name in ("vm61", "", 3, None, "a\nb.toml"):
        with pytest.raises(ScenarioError, match="or the path of a TOML file"):
            Scenario.load("small").replace({"machine.profile": name})
    assert Scenario.load("small").replace({"machine.profile": "./x"}).machine.profile == "./x"
    with pytest.raises(ScenarioError, match="not a regular file"):
        Scenario.load("small").replace({"machine.profile": "/dev/null"}).lower()


# --- the probe

@here
def test_probes_refuse_what_they_cannot_do():
    from reclaim import _probe
    out = array("d", bytes(8 * 4))
    pages = _probe.Pages(16)
    for call in (lambda: _probe.Pages(0), lambda: _probe.Pages(3), lambda: _probe.Pages(1 << 25),
                 lambda: _probe.Pages(16, every=0),
                 lambda: _probe.Pages(16, evict_bytes=-1), lambda: pages.chase(out, 32, 4096, 1, 10),
                 lambda: pages.chase(out, 16, 4096, 0, 10), lambda: pages.chase(out, 12, 64, 1, 10),
                 lambda: pages.chase(out, 16, 4096, 8, 1), lambda: pages.chase(out, 16, -1, 1, 10),
                 lambda: pages.chase(out, 1 << 62, 64, 1, 10), lambda: pages.refill(out, out[:2], 4, 1),
                 lambda: pages.refill(out, out, 16, 1), lambda: _probe.fault(out, 0, True),
                 lambda: _probe.move(out, -1, True),
                 lambda: _probe.pipe_alone(out, 0), lambda: _probe.ping_pong(out, 0),
                 lambda: _probe.populate(out, 1 << 40),
                 lambda: _probe.shootdown(out, out[:1], -1)):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(OSError):
        _probe.shootdown(out, array("d", bytes(32)), 8191)       # no such CPU
    with pytest.raises(TypeError):
        _probe.fault([1.0], 1, True)


@here
def test_probes_give_their_memory_back():
    from reclaim import _probe
    out = array("d", bytes(8 * 4))

    def mappings():
        with open("/proc/self/maps") as maps:
            return sum(1 for _ in maps)
    def once():
        _probe.Pages(1024, own=True, evict_bytes=1 << 20).chase(out, 1024, 4096, 1, 1024, True)
        for probe in (_probe.fault, _probe.move):
            probe(out, 64, True)
        _probe.shootdown(out, array("d", bytes(32)), -1)
        _probe.ping_pong(out, 5)
    once()
    before, fds = mappings(), os.listdir("/proc/self/fd")
    for _ in range(30):
        once()
    assert mappings() <= before + 2 and os.listdir("/proc/self/fd") == fds


@here
def test_a_probe_without_memory():
    from reclaim import _probe
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 32, hard))
    try:
        with pytest.raises(OSError, match="mmap"):
            _probe.Pages(1 << 24)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
