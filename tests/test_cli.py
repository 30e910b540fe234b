"""The command line: its output, its errors and exit codes, its manners on a terminal and a pipe."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fake_simulation
import reclaim
from fake_simulation import Simulation
from reclaim.cli import main

FAKE = "import fake_simulation; fake_simulation.install(); "
MAIN = "import sys; from reclaim.cli import main; sys.exit(main(sys.argv[1:]))"
ENV = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "TERM": "xterm"}


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setitem(sys.modules, "reclaim.simulation", sys.modules.get("reclaim.simulation"))
    monkeypatch.setattr("reclaim.comparison.default_threads", lambda: 1)
    fake_simulation.install()
    for name, value in (("slice_s", 0.0), ("interrupt_at", None), ("raises", None), ("made", [])):
        monkeypatch.setattr(Simulation, name, value)
    return Simulation


def call(capsys, *argv):
    """(exit code, stdout, stderr) of the command line `argv`, in this process."""
    try:
        code = main(list(argv))
    except SystemExit as err:
        code = err.code
    out, err = capsys.readouterr()
    return code, out, err


def python(code, *argv, **kwargs):
    return subprocess.run([sys.executable, "-c", code, *argv], env=ENV, capture_output=True,
                          text=True, timeout=60, **kwargs)


# --- what it prints -------------------------------------------------------------------------------

def test_compare(capsys):
    code, out, err = call(capsys, "compare", "--seconds", "1")
    assert (code, err) == (0, "")
    assert out.startswith("batch-tlb-flush: 1 s, simulated") and "55,428,953" in out


def test_compare_styles(capsys):
    code, out, _ = call(capsys, "compare", "small", "--style", "csv")
    assert code == 0 and out.startswith("metric,before,after")
    assert call(capsys, "compare", "small", "--style", "json")[1] == \
        call(capsys, "compare", "small", "--json")[1]
    code, out, _ = call(capsys, "compare", "--style", "help")
    assert code == 0 and {"lkml", "mmtests", "lkp", "markdown", "csv", "json"} <= {
        line.split()[0] for line in out.splitlines()}


def test_compare_json(capsys):
    code, out, _ = call(capsys, "compare", "small", "--before", "stage5", "--after", "stage0",
                        "--seeds", "2", "--json")
    data = json.loads(out)
    assert (code, data["scenario"], data["seconds"]) == (0, "small", 0.2)
    assert (data["before"]["policy"], data["after"]["policy"]) == ("stage5", "stage0")
    assert len(data["before"]["runs"]) == 2 and data["rows"][1]["metric"] == "tlb_shootdowns"


def test_run(capsys, tmp_path):
    code, out, _ = call(capsys, "run", "small", "--policy", "stage5", "--seed", "4", "--json")
    data = json.loads(out)
    assert code == 0 and {"scenario": "small", "policy": "stage5", "seed": 4,
                          "seconds": 0.2}.items() <= data.items()
    mine = tmp_path / "mine.toml"
    mine.write_text("seconds = 0.5\n")
    code, out, _ = call(capsys, "run", str(mine), "--seconds", "100ms")
    assert code == 0 and out.startswith("mine, stage0, seed 1: 0.1 s simulated")


def test_run_trace_in_a_scenario(capsys, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("reclaim.comparison.simulate",
                        lambda scenario, policy, **_: seen.append(scenario)
                        or Simulation(scenario, policy).run())
    assert call(capsys, "run", "small", "--trace", str(tmp_path / "t.txt"))[0] == 0
    assert (seen[0].workload.kind, seen[0].workload.file) == ("trace", str(tmp_path / "t.txt"))
    assert seen[0].memcg.limit == 8 << 20


def test_lists(capsys):
    code, out, _ = call(capsys, "scenarios")
    assert code == 0 and "batch-tlb-flush  60 s, 16 CPUs, 16 workers of stress_ng.vm" in out
    code, out, _ = call(capsys, "profiles")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == ["epyc", "skx2s", "tcg-rr", "vm16"]
    code, out, _ = call(capsys, "policies")
    assert code == 0 and {"stage0", "stage5"} <= {line.split()[0] for line in out.splitlines()}


# --- errors ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("argv, part", [
    ([], "COMMAND"), (["comapre"], "invalid choice"), (["comapre"], "did you mean 'compare'"),
    (["compare", "--json", "--style", "lkp"], "--json and --style lkp"),
    (["plot", "-o", "x.svg"], "give a RESULT"),
    (["plot", "r.json"], "-o"), (["plot", "r.json", "-o", "x.svg", "--over", "a=1"], "--kind grid"),
    (["plot", "small", "--kind", "grid", "-o", "x.svg", "--over", "a=1"], "twice"),
    (["plot", "--kind", "grid", "-o", "x.svg"], "one SCENARIO"),
    (["report", "-o", "x.html"], "RESULT|SCENARIO"),
    (["report", "a", "b", "-o", "x.html"], "one SCENARIO"),
    (["report", "a.json", "--seeds", "2", "-o", "x.html"], "--seeds is for a SCENARIO"),
    (["report", "small"], "-o"), (["doctor", "x"], "'x'"), (["rerun"], "RESULT"),
    (["run"], "give a SCENARIO, or --trace FILE"),
    (["run", "small", "--sede", "1"], "did you mean '--seed'"), (["run", "small", "extra"], "extra"),
    (["run", "small", "--secnods", "1"], "did you mean '--seconds'"),
    (["run", "small", "--seconds", "abc"], "is not a time"),
    (["run", "small", "--seed", "1.5"], "is not an integer"), (["run", "small", "--seed"], "--seed"),
    (["compare", "small", "batch-tlb-flush"], "one SCENARIO at most"),
    (["compare", "a.jsonl", "b.jsonl"], "RUNS at most"),
    (["compare", "small", "--case", "x"], "--case NAME needs"), (["observe"], "give the COMMAND after --"),
    (["observe", "true"], "'true'"),
    (["observe", "--intervall", "1", "--", "true"], "did you mean '--interval'"),
    (["calibrate", "-o", "here"], "name it here.toml"),
    (["compare", "--seeds", "many"], "is not an integer"), (["scenarios", "x"], "'x'")])
def test_usage(capsys, argv, part):
    code, out, err = call(capsys, *argv)
    assert (code, out) == (2, "") and part in err and "usage: reclaim" in err


@pytest.mark.parametrize("argv, part", [
    (["run", "smal"], "did you mean 'small'"), (["run", "no/such.toml"], "No such file"),
    (["compare", "smal"], "did you mean 'small'"), (["run", "small", "--policy", "x"], "'x'"),
    (["run", "small", "--seconds", "-1"], "--seconds: seconds = -1.0"),
    (["run", "small", "--seconds", "nan"], "--seconds: seconds = NaN"),
    (["run", "small", "--seconds", "1e9"], "1us to 9000s"),
    (["run", "small", "--seed", "-1"], "--seed: seed = -1"),
    (["run", "small", "--seed", str(2**64)], "0 to 2**64 - 1"),
    (["run", "small", "--trace", ""], "--trace: workload.file"),
    (["compare", "small", "--style", "lkm"], "did you mean 'lkml'"), (["rerun", "none.json"], "No such file"),
    (["plot", "none.json", "-o", "x.svg"], "No such file"),
    (["plot", "small", "-o", "x.svg"], "it is a scenario"),
    (["plot", "r.json", "-o", "x.svg", "--kind", "tiem"], "did you mean 'time'"),
    (["plot", "r.json", "-o", "x.jpg"], ".svg, .png, .pdf"),
    (["plot", "r.json", "-o", "no/x.svg"], "no directory"),
    (["report", "smal", "-o", "x.html"], "did you mean 'small'"),
    (["report", "small", "-o", "x.txt"], ".html"),
    (["report", "none.json", "small", "-o", "x.html"], "No such file"),
    (["compare", "small", "--seeds", "0"], "seeds = 0"),
    (["compare", "small", "--after", "x"], "'x'"), (["compare", ""], "unknown scenario")])
def test_bad_input(capsys, argv, part):
    code, out, err = call(capsys, *argv)
    assert (code, out) == (3, "") and part in err and err.startswith("reclaim: ")
    assert "Traceback" not in err


def test_faults_of_a_file_all_at_once(capsys, tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_text('[kernel]\nthp = true\n[memcg]\nlimt = "8M"\nswappiness = 300\n')
    code, out, err = call(capsys, "run", str(bad))
    assert (code, out) == (3, "") and "3 faults" in err
    assert f"{bad}: memcg.limt: unknown key; did you mean 'limit'?" in err
    assert f'{bad}: kernel.thp = true: not modelled yet' in err
    assert f"{bad}: memcg.swappiness = 300: must be an integer, 0 to 200" in err


@pytest.mark.parametrize("error, part", [
    (MemoryError(), "out of memory"), (OSError("disk gone"), "disk gone")])
def test_failures(capsys, fake, error, part):
    fake.raises = error
    code, out, err = call(capsys, "run", "small", "--json")
    assert (code, out) == (1, "") and part in err


# --- manners --------------------------------------------------------------------------------------

def test_help_and_version_without_numpy():
    for argv in (["--help"], ["--version"], ["compare", "--help"], ["run", "--help"],
                 ["observe", "--help"], ["calibrate", "--help"], ["plot", "--help"], ["report", "--help"],
                 ["rerun", "--help"], ["doctor", "--help"]):
        done = python("import sys\nfrom reclaim.cli import main\ntry: main(sys.argv[1:])\n"
                      "except SystemExit as e: assert e.code == 0\n"
                      "assert 'numpy' not in sys.modules and 'reclaim._core' not in sys.modules\n"
                      "assert not [m for m in sys.modules if m.startswith('reclaim.') and "
                      "m not in ('reclaim.cli', 'reclaim.errors')]", *argv)
        assert done.returncode == 0, done.stderr
        assert done.stdout
    assert python(MAIN, "--version").stdout == f"reclaim {reclaim.__version__}\n"


def test_python_m(capsys):
    done = subprocess.run([sys.executable, "-m", "reclaim", "scenarios"], env=ENV, text=True,
                          capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, call(capsys, "scenarios")[1])


def test_interrupted_run_is_printed_and_marked(capsys, fake):
    fake.interrupt_at = (1, 5)
    code, out, err = call(capsys, "run", "small", "--json")
    data = json.loads(out)
    assert (code, data["partial"], data["seconds"]) == (130, True, 0.1) and "partial" in err
    fake.interrupt_at, fake.made[:] = (2, 5), []
    code, out, err = call(capsys, "compare", "small")
    assert code == 130 and "PARTIAL" in out and "partial" in err


def test_interrupted_before_the_run(capsys, fake, monkeypatch):
    def init(self, *args, **kwargs):
        raise KeyboardInterrupt
    monkeypatch.setattr(fake, "__init__", init)
    code, out, err = call(capsys, "run", "small")
    assert (code, out) == (130, "") and "interrupted" in err


def test_ctrl_c():
    run = subprocess.Popen(
        [sys.executable, "-c", FAKE + "fake_simulation.Simulation.slice_s = 0.3; "
         "print('up', file=__import__('sys').stderr, flush=True); " + MAIN,
         "run", "small", "--json"], env=ENV, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    run.stderr.readline()
    time.sleep(1.0)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=30)
    assert run.returncode == 130 and json.loads(out)["partial"] is True
    assert "Traceback" not in err and err == "reclaim: interrupted: this is partial\n"


def test_closed_pipe():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", MAIN, "scenarios"], env=ENV, stdout=write,
                          stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_full_disk():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", MAIN, "scenarios"], env=ENV, stdout=full,
                              stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1 and "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_progress_only_on_a_terminal(capsys):
    assert call(capsys, "run", "small")[2] == ""
    master, slave = pty.openpty()
    done = subprocess.run([sys.executable, "-c", FAKE + "fake_simulation.Simulation.slice_s = 0.06; "
                           + MAIN, "run", "small", "--json"], env=ENV, stdout=subprocess.PIPE,
                          stderr=slave, text=True, timeout=60)
    os.close(slave)
    shown = os.read(master, 10_000).decode()
    os.close(master)
    assert json.loads(done.stdout)["seconds"] == 0.2
    assert "%" in shown and "simulated" in shown and shown.endswith("\r\x1b[K")


# --- the simulation itself ------------------------------------------------------------------------

def test_run_and_compare_for_real():
    done = python(MAIN, "run", "small", "--policy", "stage5", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    counters = json.loads(done.stdout)["counters"]
    assert counters["pgsteal_anon"] > 0 and counters["flush_batches"] > 0
    done = python(MAIN, "compare", "small", "--json")
    data = json.loads(done.stdout)
    assert data["after"]["counters"]["digest"] == counters["digest"]
    assert data["before"]["counters"]["tlb_flushes"] > data["after"]["counters"]["tlb_flushes"]


def test_ctrl_c_for_real():
    run = subprocess.Popen([sys.executable, "-c", "import sys; from reclaim.cli import main; "
                            "import reclaim.simulation; print('up', file=sys.stderr, flush=True); "
                            "sys.exit(main(sys.argv[1:]))",
                            "run", "small", "--seconds", "9000", "--json"],
                           env=ENV, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    run.stderr.readline()
    time.sleep(2.0)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=30)
    assert run.returncode == 130 and json.loads(out)["partial"] is True and "Traceback" not in err
