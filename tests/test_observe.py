"""`reclaim observe` and its files: made-up machines for what they may hold, this one for the rest."""

import fcntl
import gzip
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

import fake_simulation
from ordinary import open_directory, reclaim_as_nobody
from reclaim import measured, observation, procfs
from reclaim.cli import main
from reclaim.errors import CommandError, MeasuredError, ObservationError
from reclaim.measured import Observation
from reclaim.observation import append_line, observe
from reclaim.procfs import (Cgroup, System, parse_cgroup, parse_counts, parse_interrupts, parse_mounts,
                            stress_ng_keys)
from reclaim.scenario import Scenario

MAIN = "import sys; from reclaim.cli import main; sys.exit(main(sys.argv[1:]))"

INTERRUPTS = """\
           CPU0       CPU2
 24:          1          0  IO-APIC   5-edge      ACPI:Ged
NMI:          0          0   Non-maskable interrupts
RES:          7          9   Rescheduling interrupts
CAL:       4000         50   Function call interrupts
TLB:       3000         20   TLB shootdowns
ERR:          0
"""
V2 = {"memory.stat": "anon 4096\npagetables 4096\npgscan 10\npgsteal 4\npgrefill 3\n"
                     "workingset_refault_anon 2\nworkingset_nodes 9\npswpin 1\nzswapped 7\n",
      "memory.events": "low 0\nhigh 0\nmax 12\noom 0\noom_kill 1\n", "memory.max": "268435456\n"}
V1 = {"memory.stat": "cache 0\npgpgin 5\npgfault 6\nhierarchical_memory_limit 268435456\ntotal_cache 0\n"
                     "total_pgpgin 50\ntotal_pgfault 60\ntotal_pgmajfault 2\n",
      "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "memory.swappiness": "30\n",
      "memory.limit_in_bytes": "9223372036854771712\n"}


def machine(root: Path, **files: str | bytes) -> Path:
    """A made-up /proc and /sys; `files` replace some of it, with __ for / in their names."""
    made = {
        "proc/vmstat": "nr_free_pages 5\npgfault 100\npgscan_anon 8\npgsteal_anon 4\nswpin_zero 0\n"
                       "nr_tlb_remote_flush 3\n",
        "proc/interrupts": INTERRUPTS,
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: Made Up\nflags\t\t: fpu pcid\n\nprocessor\t: 1\n",
        "proc/meminfo": "MemTotal:        8388608 kB\nMemAvailable:    4194304 kB\n",
        "proc/swaps": "Filename\tType\tSize\tUsed\tPriority\n/dev/zram0 partition 2097152 0 100\n",
        "proc/self/cgroup": "0::/job\n",
        "proc/self/mountinfo": "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "proc/sys/kernel/osrelease": "6.12.7-generic\n",
        "proc/sys/vm/swappiness": "60\n",
        "sys/devices/system/cpu/online": "0,2-3\n",
        "sys/kernel/mm/lru_gen/enabled": "0x0007\n",
        "sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]\n",
    } | {f"sys/fs/cgroup/job/{name}": text for name, text in V2.items()}
    made |= {name.replace("__", "/"): text for name, text in files.items()}
    for name, text in made.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def facts(root: Path) -> procfs.Facts:
    system = System(str(root))
    return system.facts(system.cgroup_of("self"))


# --- what the files hold

def test_counts():
    most = {"pgfault": 1, "pgscan_anon": 2**64 - 1}
    assert parse_counts("pgfault 1\npgscan_anon 18446744073709551615\n", "f") == most


@pytest.mark.parametrize("line", ["pgfault", "pgfault ", "pgfault -1", "pgfault 1 2", "pgfault 1e3",
                                  "pgfault 18446744073709551616",
                                  "pgfault " + "9" * 5000, "pgfault ٣", " 5", "", "pgscan 1"])
def test_hostile_counts_are_located(line):
    with pytest.raises(ObservationError, match="^here:2: ") as err:
        parse_counts(f"pgscan 1\n{line}\npgsteal 1\n", "here")
    assert len(str(err.value)) < 200


def test_interrupts():
    rows = parse_interrupts(INTERRUPTS, "f")
    assert rows == {"rescheduling_ipis": {0: 7, 2: 9}, "function_call_ipis": {0: 4000, 2: 50},
                    "tlb_shootdowns": {0: 3000, 2: 20}}
    arm = "  CPU0 CPU1\nIPI0:  1 2  Rescheduling interrupts\nIPI1: 3 4  Function call interrupts\n"
    assert parse_interrupts(arm, "f")["function_call_ipis"] == {0: 3, 1: 4}


@pytest.mark.parametrize("text, where", [
    ("", "f:1"), ("CPU0 CPU0\n", "f:1"), ("CPU0 X\n", "f:1"), ("CPU99999\n", "f:1"),
    ("CPU0 CPU1\nTLB: 5  TLB shootdowns\n", "f:2"),
    ("CPU0\nTLB: -5  TLB shootdowns\n", "f:2"), ("CPU0\nTLB TLB shootdowns\n", "f:2"),
    ("CPU0\nTLB: 1 TLB shootdowns\nTLB: 1 TLB shootdowns\n", "f:3")])
def test_hostile_interrupts_are_located(text, where):
    with pytest.raises(ObservationError, match=f"^{where}: "):
        parse_interrupts(text, "f")


def test_cgroups():
    assert parse_cgroup("9:name=systemd:/\n4:cpu,memory:/a b/c\n0::/\n", "f") == (1, "/a b/c")
    assert parse_cgroup("3:cpu:/x\n0::/y:z\n", "f") == (2, "/y:z")
    for text, where in (("", "f: "), ("1:cpu:/\n", "f: "), ("0::/\nnonsense\n", "f:2: "),
                        ("x::/\n", "f:1: ")):
        with pytest.raises(ObservationError, match=f"^{where}"):
            parse_cgroup(text, "f")
    mounts = parse_mounts("1 2 0:5 / /sys/fs/cg\\040x rw,nosuid shared:3 - cgroup2 cgroup rw\n"
                          "1 2 0:6 /ns /m rw - cgroup cgroup rw,memory\n"
                          "1 2 0:7 / /c rw - cgroup cgroup rw,cpu\n", "f")
    assert mounts == [(2, "/", "/sys/fs/cg x"), (1, "/ns", "/m")]
    with pytest.raises(ObservationError, match="^f:1: "):
        parse_mounts("1 2 - \n", "f")


def test_memory_of_v2(tmp_path):
    system = System(str(machine(tmp_path, sys__fs__cgroup__memory="")))
    cgroup = system.cgroup_of("self")
    assert (cgroup.version, cgroup.name, cgroup.directory) == (2, "/job", str(tmp_path / "sys/fs/cgroup/job"))
    assert system.memcg_counts(cgroup) == {
        "memcg_pgscan": 10, "memcg_pgsteal": 4, "memcg_pgrefill": 3, "memcg_workingset_refault_anon": 2,
        "memcg_pswpin": 1,
        "memcg_low": 0, "memcg_high": 0, "memcg_max": 12, "memcg_oom": 0, "memcg_oom_kill": 1}
    assert system.limit(cgroup) == 256 << 20 and system.unread == {}


def test_memory_of_v1_in_a_namespace(tmp_path):
    files = {f"m__job__{name}": text for name, text in V1.items()}
    files |= {"m__memory.limit_in_bytes": "134217728\n"}
    system = System(str(machine(tmp_path, **files, proc__self__cgroup="4:memory:/ns/job\n0::/\n",
                                proc__self__mountinfo="1 2 0:6 /ns /m rw - cgroup cgroup rw,memory\n")))
    cgroup = system.cgroup_of("self")
    assert (cgroup.version, cgroup.directory) == (1, str(tmp_path / "m/job"))
    assert system.memcg_counts(cgroup) == {"memcg_pgpgin": 50, "memcg_pgfault": 60, "memcg_pgmajfault": 2,
                                           "memcg_oom_kill": 3}
    assert system.limit(cgroup) == 128 << 20        # the parent's: "no limit" of the cgroup itself is none
    known = system.facts(cgroup).known
    assert known["memcg"] == {"limit": "128M", "swappiness": 30} and known["kernel"]["cgroup"] == "v1"


def test_a_cgroup_out_of_sight(tmp_path):
    for text in ("0::/../elsewhere\n", "4:memory:/x\n", "0::/jobs\n"):
        root = machine(tmp_path, proc__self__cgroup=text,
                       proc__self__mountinfo="1 2 0:6 /job /m rw - cgroup2 c rw\n")
        system = System(str(root))
        assert system.cgroup_of("self") is None and "is not mounted" in str(system.unread)
        assert "memcg.limit" in system.facts(None).unknown and "kernel.cgroup" in system.facts(None).unknown


def test_a_named_cgroup(tmp_path):
    system = System(str(machine(tmp_path)))
    for name in ("job", "/job", str(tmp_path / "sys/fs/cgroup/job")):
        assert system.cgroup_named(name) == Cgroup(2, str(tmp_path / "sys/fs/cgroup/job"), "/job")
    for name in ("no", "../../../../etc", "/etc", ""):
        with pytest.raises(ObservationError, match="no memory cgroup"):
            system.cgroup_named(name)


def test_facts_become_keys(tmp_path):
    found = facts(machine(tmp_path))
    assert found.known == {"machine": {"cpus": 3, "pcid": True}, "memory": {"total": "8G"},
                           "kernel": {"version": "6.12", "lru": "mglru", "thp": False, "cgroup": "v2"},
                           "memcg": {"limit": "256M", "swappiness": 60},
                           "swap": {"kind": "zram", "size": "2G"}}
    assert list(found.unknown) == ["machine.profile"]
    Scenario.from_dict(found.known)
    assert found.facts["cpu"] == "Made Up" and found.facts["hz"] == "unknown"


def test_hz(tmp_path):
    root = machine(tmp_path)
    (root / "proc/config.gz").write_bytes(gzip.compress(b"CONFIG_HZ_250=y\nCONFIG_HZ=250\n"))
    assert System(str(root)).config_hz() == 250
    (root / "proc/config.gz").write_bytes(b"not gzip")
    assert System(str(root)).config_hz() is None
    (root / "boot").mkdir()
    (root / "boot/config-6.12.7-generic").write_text("CONFIG_HZ=1000\n")
    assert System(str(root)).config_hz() == 1000


@pytest.mark.parametrize("files, key", [
    ({"proc__sys__kernel__osrelease": "5.10.0\n"}, "kernel.version"), ({"proc__cpuinfo": ""}, "machine.pcid"),
    ({"sys__devices__system__cpu__online": "0-999999999999\n"}, "machine.cpus"),
    ({"sys__devices__system__cpu__online": "zero\n"}, "machine.cpus"),
    ({"sys__kernel__mm__lru_gen__enabled": "y\n"}, "kernel.lru"),
    ({"sys__kernel__mm__transparent_hugepage__enabled": "[always] madvise never\n"}, "kernel.thp"),
    ({"proc__meminfo": "MemTotal: lots\n"}, "memory.total"),
    ({"proc__sys__vm__swappiness": "999\n"}, "memcg.swappiness"),
    ({"sys__fs__cgroup__job__memory.max": "max\n"}, "memcg.limit"),
    ({"sys__fs__cgroup__job__memory.max": "1\n"}, "memcg.limit"),
    ({"proc__swaps": "x\n/dev/zram0 partition 99 0\n"}, "swap.kind"),
    ({"proc__swaps": "x\n/dev/zram0 partition 99 0 -2\n/dev/nvme0n1p2 partition 99 0 -3\n"}, "swap.kind"),
    ({"proc__swaps": "x\n/swap\\040file file 99 0 -2\n"}, "swap.kind"),
    ({"sys__module__zswap__parameters__enabled": "Y\n"}, "swap.kind")])
def test_what_is_not_known_is_said(tmp_path, files, key):
    found = facts(machine(tmp_path, **files))
    section, _, name = key.partition(".")
    assert name not in found.known.get(section, {}) and found.unknown[key]
    Scenario.from_dict(found.known)


def test_kinds_of_swap(tmp_path):
    def swap(lines, **files):
        return facts(machine(tmp_path, proc__swaps="Filename\n" + lines, **files)).known["swap"]
    assert swap("")["kind"] == "none"
    assert swap("/dev/nvme0n1p2 partition 1048576 0 -2\n")["kind"] == "nvme"
    queue = {"sys__class__block__sda2__size": "1", "sys__class__block__queue__rotational": "1\n"}
    assert swap("/dev/sda2 partition 1048576 0 -2\n", **queue) == {"kind": "ssd", "rotational": True,
                                                                   "size": "1G"}


def test_the_command_tells_the_work():
    words = ("/usr/bin/stress-ng --vm 4 --vm-bytes=1G --vm-keep --vm-method flip --vm-madvise normal -t 10 "
             "--metrics").split()
    assert stress_ng_keys(words) == {"kind": "stress_ng.vm", "workers": 4, "bytes": "1G", "keep": True,
                                     "method": "flip",
                                     "madvise": "normal"}
    for other in (["stress-ng"], ["stress-ng", "--vm", "2"], ["stress-ng", "--vm", "x", "--vm-bytes", "1G"],
                  ["stress-ng", "--vm", "2", "--vm-bytes", "75%"], ["stress-ng", "--cpu", "2", *words[1:]],
                  ["stress-ng", "--vm"], ["sort"], []):
        assert stress_ng_keys(other) is None


# --- a run

def the_line(file):
    (line,) = file.read_text().splitlines()
    (case,) = measured.load(str(file))          # whatever the machine is like
    assert case.where == f"{file}:1"
    return json.loads(line)


def test_a_made_up_machine(tmp_path):
    root, out = machine(tmp_path / "root"), tmp_path / "o.jsonl"
    run = observe(["true"], str(out), root=str(root), case="mine", policy="stage5")
    line = the_line(out)
    assert (run.status, run.partial, run.line) == (0, False, line)
    assert (line["case"], line["policy"]) == ("mine", "stage5")
    assert list(line) == ["case", "policy", "source", "scenario", "repeats", "observed"]
    whole = line["repeats"][0]["whole"]
    assert whole["shootdowns_per_cpu"] == [0, 0] and whole["counters"]["pgsteal_anon"] == 0
    assert "nr_free_pages" not in whole["counters"] and whole["counters"]["memcg_max"] == 0
    assert line["observed"]["unread"] == {} and "workload" in line["observed"]["unknown"]


NASTY = [b"", b"\xff\xfe\x00", b"pgfault one\n", b"\n" * 1000, b"x" * 100_000, b"pgfault 1\npgfault 1\n"]


@pytest.mark.parametrize("bad", range(len(NASTY)))
def test_a_hostile_machine_costs_nobody_the_run(tmp_path, bad):
    root, out = machine(tmp_path / "root"), tmp_path / "o.jsonl"
    for path in [p for p in root.rglob("*") if p.is_file()]:
        path.write_bytes(NASTY[bad])
    run = observe(["sh", "-c", "exit 3"], str(out), root=str(root))
    assert run.status == 3 and the_line(out) == run.line
    unread = run.line["observed"]["unread"]
    assert any(path.startswith(str(root)) for path in unread) and all(unread.values())
    Scenario.from_dict(run.line["scenario"])


def test_a_machine_with_nothing(tmp_path):
    run = observe(["true"], str(tmp_path / "o.jsonl"), root=str(tmp_path / "none"))
    assert run.line["repeats"][0]["whole"]["counters"] == {}
    assert run.line["observed"]["unread"][str(tmp_path / "none/proc/vmstat")] == "No such file or directory"
    assert any(note.startswith("not read: ") for note in run.notes)


def test_a_row_that_comes_or_goes(tmp_path):
    """A counter that was not read both times is not taken to be 0."""
    root = machine(tmp_path / "root")
    file = root / "proc/interrupts"
    short = INTERRUPTS.replace("TLB shootdowns", "other")
    for command in (f"cp {tmp_path}/short {file}", f"cp {tmp_path}/long {file}"):
        (tmp_path / "short").write_text(short)
        (tmp_path / "long").write_text(INTERRUPTS)
        run = observe(["sh", "-c", command], str(tmp_path / "o.jsonl"), root=str(root))
        whole = run.line["repeats"][0]["whole"]
        assert "tlb_shootdowns" not in whole["counters"] and "shootdowns_per_cpu" not in whole
        assert whole["counters"]["function_call_ipis"] == 0


def test_counters_that_wrap():
    assert observation._grown({0: 2**32 - 1, 1: 5}, {0: 1, 1: 9, 2: 7}, 2**32) == {0: 2, 1: 4}


def test_samples_are_thinned_out(tmp_path, monkeypatch):
    monkeypatch.setattr(observation, "MAX_SAMPLES", 8)
    run = observe(["sleep", "0.6"], str(tmp_path / "o.jsonl"), interval=0.01)
    seconds = run.line["observed"]["samples"]["seconds"]
    assert 4 <= len(seconds) <= 8 and seconds == sorted(seconds) and run.line["observed"]["interval"] > 0.01
    steady = run.line["repeats"][0]["steady"]
    assert 0 < steady["seconds"] < run.line["repeats"][0]["whole"]["seconds"]


def test_a_wrapper_that_moves_itself(tmp_path, monkeypatch):
    root = machine(tmp_path / "root", **{f"sys__fs__cgroup__new__{name}": text for name, text in V2.items()})
    real = System.cgroup_of

    def moved(self, pid):
        found = real(self, "self")
        return found if pid == "self" else Cgroup(2, found.directory.replace("job", "new"), "/new")
    monkeypatch.setattr(System, "cgroup_of", moved)
    line = observe(["sleep", "0.4"], str(tmp_path / "o.jsonl"), interval=0.1, root=str(root)).line
    assert line["observed"]["cgroup"] == "/new" and "cgroup /new from 0." in line["observed"]["notes"][0]
    assert line["repeats"][0]["whole"]["counters"]["memcg_max"] == 0


def test_this_machine(tmp_path, capfd):
    out = tmp_path / "o.jsonl"
    assert main(["observe", "-o", str(out), "--interval", "50ms", "--", sys.executable, "-c",
                 "b = bytearray(64 << 20); b[::4096] = bytes(16384); import time; time.sleep(0.3); "
                 "print('done')"]) == 0
    line = the_line(out)
    whole, steady = (line["repeats"][0][name] for name in ("whole", "steady"))
    assert whole["counters"]["pgfault"] > steady["counters"]["pgfault"] >= 0 and whole["seconds"] > 0.3
    assert all(type(n) is int and 0 <= n < 2**40 for n in whole["counters"].values())
    assert len(whole["shootdowns_per_cpu"]) == os.cpu_count()
    assert sum(whole["shootdowns_per_cpu"]) == whole["counters"]["tlb_shootdowns"]
    assert line["scenario"]["machine"]["cpus"] == os.cpu_count()
    stdout, stderr = capfd.readouterr()
    assert stdout == "done\n" and f"{out}: observed-" in stderr
    assert Observation.load(str(out)).case == line["case"]


@pytest.mark.parametrize("command, status", [
    (["sh", "-c", "exit 7"], 7), (["sh", "-c", "kill -9 $$"], 137), (["./nosuch"], 127), (["/"], 126),
    (["true"], 0)])
def test_exit_status(tmp_path, capfd, command, status):
    out = tmp_path / "o.jsonl"
    assert main(["observe", "-o", str(out), "--", *command]) == status
    assert out.exists() == (status not in (126, 127))
    if out.exists():
        assert "partial" not in the_line(out)


def test_bad_arguments(tmp_path, capsys):
    out, ran = str(tmp_path / "o.jsonl"), tmp_path / "ran"
    for argv, part in ((["-o", str(tmp_path)], "is a directory"),
                       (["-o", str(tmp_path / "no/x")], "there is no directory"),
                       (["-o", out, "--interval", "0"], "interval = 0"),
                       (["-o", out, "--cgroup", "/etc"], "no memory cgroup"),
                       (["-o", out, "--case", "a\nb"], "printable"),
                       (["-o", out, "--policy", "stagge"], "stagge")):
        assert main(["observe", *argv, "--", "touch", str(ran)]) == 3
        assert part in capsys.readouterr().err and not ran.exists() and not os.path.exists(out)
    with pytest.raises(CommandError):
        observe(["/nosuch"], out)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


def test_it_only_reads(tmp_path):
    """It opens to write the output only, makes what is beside it only, and runs the command only."""
    hook = """
import os, sys
log = []
def hook(event, args):
    if event == "open" and (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
        log.append(str(args[0]))
    elif event.startswith(("os.rename", "os.remove", "os.mkdir", "os.chmod", "os.chown", "os.truncate")):
        log.append(str(args[0]))
    elif event.startswith(("os.posix_spawn", "os.fork", "subprocess", "os.system")):
        log.append("run " + str(args[0]))
from reclaim import cli, observation, memory
sys.addaudithook(hook)
code = cli.main(sys.argv[1:])
print(*log, sep="\\n")
sys.exit(code)
"""
    out = tmp_path / "o.jsonl"
    done = subprocess.run([sys.executable, "-c", hook, "observe", "-o", str(out), "--", "true"],
                          capture_output=True,
                          text=True, timeout=60, check=True)
    touched = [p for p in done.stdout.splitlines() if not p.isdigit() and not p.endswith(".pyc")]
    assert "run true" in touched
    assert all(p == "run true" or p.startswith(str(tmp_path)) for p in touched), touched


def test_an_ordinary_user():
    with open_directory() as folder:
        out = folder / "o.jsonl"
        done = reclaim_as_nobody("observe", "-o", str(out), "--", "sh", "-c", "id -u; exit 5")
        assert done.returncode == 5 and done.stdout.strip() != "0", done.stderr
        counters = the_line(out)["repeats"][0]["whole"]["counters"]
        assert counters["pgfault"] > 0 and "tlb_shootdowns" in counters
        if os.geteuid() == 0:         # then nobody may not write where root may
            os.chmod(folder, 0o755)
            done = reclaim_as_nobody("observe", "-o", str(folder / "p.jsonl"), "--", "echo", "ran")
            assert (done.returncode, done.stdout) == (3, "") and "no permission" in done.stderr


# --- ended early

def start(out, command, *, trap="", grace=None, **kwargs):
    # who runs the tests may have told them to ignore it: nohup
    prelude = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    if grace:
        prelude += f"import reclaim.observation as o; o.GRACE = {grace}; "
    run = subprocess.Popen([sys.executable, "-c", prelude + MAIN, "observe", "-o", str(out), "--interval",
                            "0.1", "--",
                            "sh", "-c", f"{trap}\necho $$\n{command}"], stdout=subprocess.PIPE, text=True,
                           **kwargs)
    return run, int(run.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_what_there_is_is_kept(tmp_path, number):
    run, child = start(tmp_path / "o.jsonl", "exec sleep 60", stderr=subprocess.PIPE)
    time.sleep(0.3)
    run.send_signal(number)
    _, err = run.communicate(timeout=20)
    assert run.returncode == 128 + number and "PARTIAL" in err and "Traceback" not in err
    line = the_line(tmp_path / "o.jsonl")
    assert line["partial"] is True and line["observed"]["status"] == -number
    assert Observation.load(str(tmp_path / "o.jsonl")).partial
    assert not os.path.exists(f"/proc/{child}")


def test_a_command_that_will_not_end(tmp_path):
    run, child = start(tmp_path / "o.jsonl", "while :; do sleep 0.05; done", trap="trap '' INT", grace=0.3,
                       stderr=subprocess.DEVNULL)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=20)
    assert run.returncode == 137 and the_line(tmp_path / "o.jsonl")["partial"] is True
    assert not os.path.exists(f"/proc/{child}")


def test_a_command_that_cleans_up_ends_as_it_likes(tmp_path):
    run, _ = start(tmp_path / "o.jsonl", "while :; do sleep 0.05; done", trap="trap 'exit 9' TERM",
                   stderr=subprocess.DEVNULL)
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=20)
    assert run.returncode == 9 and the_line(tmp_path / "o.jsonl")["partial"] is True


def test_ctrl_c_on_a_terminal(tmp_path):
    """The terminal interrupts both; the command is not interrupted twice."""
    ours, theirs = pty.openpty()
    counted = tmp_path / "counted"
    run, _ = start(tmp_path / "o.jsonl", "while [ -z \"$n\" ]; do sleep 0.05; done; sleep 0.4; exit 4",
                   trap=f"trap 'echo x >> {counted}; n=1' INT", stdin=theirs, stderr=subprocess.DEVNULL,
                   start_new_session=True,
                   preexec_fn=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0))
    os.write(ours, b"\x03")
    run.communicate(timeout=20)
    assert run.returncode == 4 and the_line(tmp_path / "o.jsonl")["partial"] is True
    assert counted.read_text() == "x\n"
    os.close(ours)
    os.close(theirs)


# --- the file

def test_appending(tmp_path):
    real, link = tmp_path / "real.jsonl", tmp_path / "link.jsonl"
    real.write_text('{"a": 1}')            # without an end of line
    real.chmod(0o640)
    link.symlink_to(real)
    append_line(str(link), {"b": "\n"})
    append_line(str(link), {"c": 3})
    assert [json.loads(line) for line in real.read_text().splitlines()] == [{"a": 1}, {"b": "\n"}, {"c": 3}]
    assert link.is_symlink() and real.stat().st_mode & 0o777 == 0o640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.jsonl", "real.jsonl"]


def test_appending_together(tmp_path):
    out = tmp_path / "o.jsonl"
    code = (f"import sys\nfrom reclaim.observation import append_line\n"
            f"for i in range(20):\n"
            f"    append_line({str(out)!r}, {{'who': sys.argv[1], 'i': i, 'pad': 'x' * 20000}})")
    runs = [subprocess.Popen([sys.executable, "-c", code, str(who)]) for who in range(4)]
    assert [run.wait(60) for run in runs] == [0] * 4
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted((line["who"], line["i"]) for line in lines) == [
        (str(w), i) for w in range(4) for i in range(20)]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path):
    out = tmp_path / "o.jsonl"
    append_line(str(out), {"a": 1})
    before = out.read_bytes()
    code = ("import resource, signal, sys; from reclaim.cli import main; "
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
            "resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600)); sys.exit(main(sys.argv[1:]))")
    done = subprocess.run([sys.executable, "-c", code, "observe", "-o", str(out), "--", "true"],
                          capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 1 and "File too large" in done.stderr and "Traceback" not in done.stderr
    assert json.loads(done.stdout)["observed"]["command"] == ["true"]
    assert out.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["o.jsonl"]


# --- beside the simulator

def run_line(case="real", policy="stage0", workload=True, **counters):
    counters = {"pgsteal_anon": 100, "pgscan_anon": 250, "tlb_shootdowns": [30, 20]} | counters
    return {"case": case, "policy": policy, "source": "made up",
            "scenario": {"seconds": 1, "machine": {"cpus": 4}} | (
                {"workload": {"kind": "writer", "workers": 2, "bytes": "16M"}, "memcg": {"limit": "8M"}}
                if workload else {}),
            "repeats": [{"whole": {"seconds": 1.0, "counters": counters}}]}


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setitem(sys.modules, "reclaim.simulation", sys.modules.get("reclaim.simulation"))
    monkeypatch.setattr("reclaim.comparison.default_threads", lambda: 1)
    fake_simulation.install()


def runs_file(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_compare_with_runs(tmp_path, capsys, fake):
    file = runs_file(tmp_path / "r.jsonl", run_line(), run_line(pgscan_anon=350),
                     run_line(policy="stage5", tlb_shootdowns=5))
    assert main(["compare", file, "small"]) == 0
    out = capsys.readouterr().out
    head = out.splitlines()[2]
    assert head.split("  ")[0] == "simulated" and head.endswith("measured stage0  measured stage5")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[3:] if line and line[0].islower()}
    assert rows["tlb_shootdowns_per_page"] == ["2.000", "1.000", "-50.0%", "0.500", "0.050"]
    assert rows["pgscan_anon_per_page"][-2:] == ["3.000", "2.500"]       # the median of two, and one
    assert "pswpin_per_page" not in rows and "pgsteal_anon" not in rows
    assert "The machine's machine.cpus = 4, here 2." in out and "2 of stage0, 1 of stage5" in out
    assert main(["compare", file, "small", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["observed"]["case"] == "real"
    assert data["rows"][0]["measured"] == {"stage0": 0.5, "stage5": 0.05}


def test_compare_with_the_runs_own_scenario(tmp_path, capsys, fake):
    file = runs_file(tmp_path / "r.jsonl", run_line("a"), run_line("b", workload=False))
    assert main(["compare", file, "--case", "a"]) == 0
    assert capsys.readouterr().out.startswith("a: 1 s, simulated")
    for argv, part in (([], "holds 2 cases: choose one with --case: a, b"),
                       (["--case", "aa"], "did you mean 'a'"),
                       (["--case", "b"], "give a SCENARIO too: it names no workload")):
        assert main(["compare", file, *argv]) == 3
        assert part in capsys.readouterr().err


def test_nothing_reclaimed(tmp_path, capsys, fake):
    file = runs_file(tmp_path / "r.jsonl", run_line(pgsteal_anon=0))
    assert main(["compare", file, "small"]) == 0
    assert "No anonymous page was reclaimed there" in capsys.readouterr().out


# --- what is stored is read

STRESS = ("--vm", "2", "--vm-bytes", "8M", "--vm-keep", "-t", "1")


def observed(tmp_path, *grown, name="stress-ng", words=STRESS, **kwargs):
    """A file of runs on a made-up machine with a limit of 4M, whose counters grow so: one line for each."""
    root = machine(tmp_path / "root", **{"sys__fs__cgroup__job__memory.max": f"{4 << 20}\n"})
    vmstat, command, out = root / "proc/vmstat", tmp_path / name, tmp_path / "o.jsonl"
    for counters in grown:
        before = parse_counts(vmstat.read_text(), "vmstat")
        after = "".join(f"{key} {n + counters.get(key, 0)}\n" for key, n in before.items())
        command.write_text(f"#!/bin/sh\ncat > {vmstat} << end\n{after}end\n")
        command.chmod(0o755)
        assert observe([str(command), *words], str(out), root=str(root), case="mine", **kwargs).status == 0
    return str(out)


def test_what_is_stored_is_validated_and_compared(tmp_path, capsys):
    """Two runs, whose lengths differ, are repeats of one case."""
    file = observed(tmp_path, {"pgsteal_anon": 3000, "pgscan_anon": 7000, "nr_tlb_remote_flush": 40},
                    {"pgsteal_anon": 3100, "pgscan_anon": 6800})
    (case,) = measured.load(file)
    assert [run["pgsteal_anon"] for run in case.repeats] == [3000, 3100] and len(case.seconds) == 2
    assert case.where == f"{file}:2" and "machine.profile" in case.unknown and not case.partial
    assert main(["validate", file, "--seeds", "1"]) == 0
    out = capsys.readouterr().out
    assert "mine stage0\n" in out and "  steal_per_scan" in out and "not reproduced" not in out
    assert main(["compare", file, "--seconds", "0.02"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("mine: 0.02 s, simulated") and "2 of stage0" in out
    assert "Not known of the machine: machine.profile" in out
    assert main(["compare", file, "small", "--seconds", "0.02"]) == 0
    assert 'The machine\'s memcg.limit = "4M", here ' in capsys.readouterr().out


def test_a_run_without_reclaim_says_so(tmp_path, capsys):
    file = observed(tmp_path, {"pgsteal_anon": 3000, "pgscan_anon": 7000}, {})
    assert main(["validate", file, "--seeds", "1"]) == 3
    out, err = capsys.readouterr()
    assert (f"mine stage0: not reproduced: {file}:2: no anonymous page was reclaimed in 1 of 2 runs "
            "(pgsteal_anon is 0, or was not counted): there is nothing to compare") in out
    assert "none of these cases is reproduced" in err
    assert main(["compare", file, "--seconds", "0.02"]) == 0        # of the run that reclaimed
    assert "steal_per_scan" in capsys.readouterr().out


def test_work_that_is_not_known_says_so(tmp_path, capsys):
    file = observed(tmp_path, {"pgsteal_anon": 3000, "pgscan_anon": 7000}, name="sort", words=())
    why = "workload is not known (only stress-ng's vm stressor alone is understood)"
    assert main(["validate", file, "--seeds", "1"]) == 3
    assert f"mine stage0: not reproduced: {file}:1: {why}" in capsys.readouterr().out
    assert main(["compare", file]) == 3
    assert f"give a SCENARIO too: {why}" in capsys.readouterr().err
    assert main(["compare", file, "small", "--seconds", "0.02"]) == 0
    assert "tlb_shootdowns_per_page" in capsys.readouterr().out


def test_this_machine_is_validated_and_compared(tmp_path, capsys):
    out = str(tmp_path / "o.jsonl")
    for _ in range(2):
        assert main(["observe", "-o", out, "--case", "here", "--", "true"]) == 0
    capsys.readouterr()
    assert main(["validate", out, "--seeds", "1"]) == 3
    assert "here stage0: not reproduced: " in capsys.readouterr().out
    assert main(["compare", out, "small", "--seconds", "0.02"]) == 0
    assert "Measured: here, observed: " in capsys.readouterr().out


def test_runs_of_another_machine_are_another_case(tmp_path):
    file = observed(tmp_path, {})
    line = json.loads(Path(file).read_text())
    line["scenario"]["memcg"]["limit"] = "8M"
    append_line(file, line)
    with pytest.raises(MeasuredError, match=r"o.jsonl:2: scenario.memcg.limit: not as in .*o.jsonl:1, "):
        measured.load(file)
    append_line(file, line | {"case": "other"})
    Path(file).write_text("".join(Path(file).read_text().splitlines(keepends=True)[::2]))
    assert [case.case for case in measured.load(file)] == ["mine", "other"]


def test_a_hostile_name_is_not_printed(tmp_path, capsys):
    line = run_line(pgscan_anon=7) | {"source": "\x1b[2J\ud800", "observed": {"unknown": {"a\nb": "\x07"}}}
    (case,) = measured.load(runs_file(tmp_path / "r.jsonl", line))
    assert (case.source, case.unknown) == ("?[2J?", {"a?b": "?"})
    line["scenario"]["seconds"] = {"x": 1}
    observation = Observation.load(runs_file(tmp_path / "r.jsonl", line))
    assert list(observation.differences(Scenario.load("small").to_dict())) != []
