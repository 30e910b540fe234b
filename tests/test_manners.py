"""Manners of all commands: --json, suggestions for every mistyped name, progress with a rate, no colours."""

import io
import json
import re

import pytest

import reclaim
from reclaim import cli
from reclaim.cli import main
from reclaim.errors import UnknownNameError

COMMANDS = cli._parser()._subparsers._group_actions[0].choices


def call(capsys, *argv):
    try:
        code = main(list(argv))
    except SystemExit as err:
        code = err.code
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json_and_explains_its_options(name):
    actions = COMMANDS[name]._actions
    assert any("--json" in action.option_strings for action in actions)
    for action in actions:
        assert action.help, action
    assert COMMANDS[name].description.rstrip().endswith(".")


def test_lists_as_json(capsys):
    for name, known in (("policies", "stage5"), ("scenarios", "small"), ("profiles", "vm16")):
        code, out, _ = call(capsys, name, "--json")
        rows = json.loads(out)
        assert code == 0 and known in [row["name"] for row in rows] and all(row["description"] for row in rows)
    code, out, _ = call(capsys, "sensitivity", "small", "--list", "--only", "swap", "--json")
    assert code == 0 and {row["name"] for row in json.loads(out)} == {"swap"}


def test_what_is_made_as_json(capsys, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert main(["run", "small", "--seconds", "0.02", "-o", "r.json", "--json"]) == 0
    capsys.readouterr()
    code, out, _ = call(capsys, "plot", "r.json", "-o", "x.svg", "--json")
    assert (code, json.loads(out)) == (0, {"output": "x.svg", "kind": "time", "results": ["r.json"]})
    code, out, _ = call(capsys, "plot", "--kind", "help", "--json")
    assert code == 0 and {"time", "batches", "grid"} <= {row["name"] for row in json.loads(out)}
    code, out, _ = call(capsys, "plot", "small", "--kind", "grid", "--over", "machine.cpus=1,2", "--over",
                        "policy=stage0,stage5", "--seconds", "0.01", "-o", "g.svg", "--json")
    grid = json.loads(out)
    assert code == 0 and grid["columns"] == {"machine.cpus": [1, 2]} and grid["rows"] == {
        "policy": ["stage0", "stage5"]} and len(grid["values"]) == 2 and len(grid["values"][0]) == 2
    code, out, _ = call(capsys, "report", "small", "--seconds", "0.01", "-o", "x.html", "--json")
    assert code == 0 and json.loads(out)["output"] == "x.html" and json.loads(out)["rows"]
    (tmp_path / "t.csv").write_text("page,write\n1,1\n2,0\n")
    code, out, _ = call(capsys, "convert", "t.csv", "t.txt", "--json")
    assert (code, json.loads(out)) == (0, {"output": "t.txt", "format": "txt", "references": 2, "tasks": 1})
    code, out, _ = call(capsys, "observe", "--json", "--", "true")
    assert code == 0 and json.loads(out)["repeats"]
    assert json.loads((tmp_path / "observed.jsonl").read_text()) == json.loads(out)


@pytest.mark.parametrize("argv, meant", [
    (["run", "smal"], "small"), (["run", "small", "--policy", "stgae5"], "stage5"),
    (["run", "small", "--policy", "v4:6"], "v4:5"), (["run", "small", "--profile", "vm61"], "vm16"),
    (["compare", "small", "--style", "lkmm"], "lkml"), (["compare", "small", "--sede", "1"], "--seeds"),
    (["plot", "r.json", "-o", "x.svg", "--kind", "per-pag"], "per-page"),
    (["plot", "small", "--kind", "grid", "--over", "machine.cpu=1,2", "--over", "seed=1,2", "-o", "x.svg"], "cpus"),
    (["plot", "small", "--kind", "grid", "--over", "policy.flsh=a,b", "--over", "seed=1,2", "-o", "x.svg"], "flush"),
    (["plot", "small", "--kind", "grid", "--over", "policy.flush=btch(1)", "--over", "seed=1,2", "-o", "x.svg"],
     "batch"),
    (["plot", "small", "--kind", "grid", "--over", "machine.cpus=1", "--over", "seed=1", "--metric", "pgstel_anon",
      "-o", "x.svg"], "pgsteal_anon"),
    (["explore", "v4:5", "--environment", "pinn"], "pin"), (["explore", "v4:5", "--without", "maped"], "mapped"),
    (["explore", "v4:5", "--defect", "no-freze"], "no-freeze"), (["explore", "v4:5", "--layout", "thread"], "threads"),
    (["ablate", "v44"], "v4"), (["validate", "--case", "guest-16cpu-32w-proc_sq"], "guest-16cpu-32w"),
    (["sensitivity", "--only", "memcg.limt", "--list"], "memcg"), (["calibrate", "--profile", "vm61"], "vm16"),
    (["observe", "--policy", "stge5", "--", "true"], "stage5"), (["convert", "a", "b", "--to", "cvs"], "csv"),
    (["convert", "a.csv", "b.txtt"], "txt"), (["run", "--trace", "x", "--format", "lacky"], "lackey"),
    (["convert", "a", "b.csv", "--writes", "frst"], "first"), (["pilicies"], "policies")])
def test_did_you_mean(capsys, tmp_path, monkeypatch, argv, meant):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("matplotlib")
    code, out, err = call(capsys, *argv)
    assert code in (2, 3) and out == "" and re.search(rf"did you mean '{re.escape(meant)}", err), err


def test_did_you_mean_in_files(capsys, tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_text('[machin]\ncpus = 2\n[swap]\nkind = "zrm"\n[workload]\nmethod = "flp"\n[costs]\nipi_sned_ns = 1\n')
    _, _, err = call(capsys, "run", str(bad))
    assert all(f"did you mean '{meant}'" in err for meant in ("machine", "zram", "flip", "ipi_send_ns"))


def test_did_you_mean_in_python():
    result = reclaim.simulate("small", seconds=0.01)
    for made, name, meant in ((result.counters, "tlb_shotdowns", "tlb_shootdowns"),
                              (result.times, "flush_wiat", "flush_wait"),
                              (result.histograms, "targets_per_fluhs", "targets_per_flush"),
                              (result.tables()["times"], "idel", "idle")):
        with pytest.raises(UnknownNameError, match=f"did you mean '{meant}'"):
            made[name]
    assert result.counters.get("tlb_shotdowns", 0) == 0
    with pytest.raises(KeyError, match="did you mean 'folio'"):
        reclaim.Simulation(reclaim.Scenario.load("small")).view("folo")


# --- progress, colours

class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_has_a_rate_and_the_time_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with cli._Progress() as progress:
        for share in (0.25, 0.5, 0.75):
            now[0] += 2.0
            progress.callback(share, 8 * share)
        shown = cli.sys.stderr.getvalue()
        assert " 25%  2 s simulated, 1 s/s, 6 s to go" in shown and " 75%  6 s simulated, 1 s/s, 2 s to go" in shown
        now[0] += 2.0
        progress.counted(8000, now[0])
        assert "8,000 in 8 s, 1,000/s" in cli.sys.stderr.getvalue()
    assert cli.sys.stderr.getvalue().endswith("\r\x1b[K")


def test_a_dumb_terminal_gets_no_control_sequences(monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setenv("TERM", "dumb")
    with cli._Progress() as progress:
        assert progress.callback is None
        progress.show(0.5, "half")
    assert cli.sys.stderr.getvalue() == ""


def test_no_colours(capsys, monkeypatch):
    """Nothing is told by colour: even a terminal gets none."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for argv in (["compare", "small", "--seconds", "0.01"], ["policies"], ["explore", "v4:5", "--folios", "1"]):
        assert "\x1b" not in "".join(map(str, call(capsys, *argv)))
