"""``-o KIND:FILE``: each kind as the tools named in docs/timeline.md read it, whole or not there."""

from __future__ import annotations

import _thread
import gzip
import json
import os
import re
import shutil
import subprocess
import tarfile
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import reclaim
from reclaim import formats, names
from reclaim._trace import EVENT_DTYPE, Tracer
from reclaim.cli import main
from reclaim.errors import ResultError
from reclaim.exports import About, Event, Exports, kinds, parse
from reclaim.exports._kernel import PROFILES, SYSTEMS, comm_of
from reclaim.exports._session import sample_of
from reclaim.exports.ftrace import FtraceSink
from reclaim.memory import VERSIONS
from reclaim.procfs import parse_counts, parse_interrupts
from reclaim.scenario import Scenario
from reclaim.simulation import Simulation

DATA = Path(__file__).parent / "data"
FILES = ("perfetto", "ftrace", "perf-script", "vmstat", "interrupts", "csv")
PS = 10**12


def scenario(name="small", **changes):
    return Scenario.load(name).replace(changes)


def disk(seconds=0.1):
    return scenario(**{"swap.kind": "ssd", "kernel.mm_cpumask": "lazy", "machine.cpus": 4,
                       "workload.workers": 6, "seconds": seconds})


def run(scenario, wanted, tmp_path, policy="stage0", **window):
    """A run with these kinds written to files of their names."""
    with Exports([parse(f"{kind}:{tmp_path / kind}") for kind in wanted], **window) as exports:
        return reclaim.simulate(scenario, policy, exports=exports)


def call(capsys, *argv):
    try:
        code = main(list(argv))
    except SystemExit as err:
        code = err.code
    return code, *capsys.readouterr()


# --- what -o says -----------------------------------------------------------------------------------

def test_kinds(capsys):
    assert set(kinds()) == {*FILES, "json"}
    code, out, _ = call(capsys, "run", "small", "-o", "help")
    assert code == 0 and all(line.split()[0] in kinds() for line in out.splitlines())


@pytest.mark.parametrize("told, words", [
    ("perfeto:x", "did you mean 'perfetto'?"), ("ftrace:", "a file's name must follow"),
    ("ftrace:/no/such/x", "no directory /no/such"), ("x.txt", "ends in .json"), ("C:x.json", "-o ./C:x.json"),
])
def test_refused(told, words, capsys):
    code, out, err = call(capsys, "run", "small", "--seconds", "1ms", "-o", told)
    assert code == 3 and words in err and not out


def test_refused_together(tmp_path, capsys):
    with pytest.raises(ResultError, match="given twice"):
        Exports([parse(f"csv:{tmp_path / 'a'}"), parse(f"vmstat:{tmp_path / 'a'}")])
    with pytest.raises(ResultError, match="must be 1e-09 s or more, got -1"):
        Exports([], trace_for=-1)
    with pytest.raises(ResultError, match="the run ends at"):
        run(scenario(seconds=0.01), ["ftrace"], tmp_path, trace_from=0.02)
    code, _, err = call(capsys, "run", "small", "--every", "1ms")
    assert code == 2 and "--every needs -o" in err
    assert not list(tmp_path.iterdir())
    exports = Exports([parse(f"csv:{tmp_path / 'a'}")])
    reclaim.simulate("small", seconds=0.001, exports=exports)
    with pytest.raises(ResultError, match="another's"):
        reclaim.simulate("small", seconds=0.001, exports=exports)


def test_a_name_with_a_colon(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "run", "small", "--seconds", "1ms", "-o", "./a:b.json")[0] == 0
    assert (tmp_path / "a:b.json").exists()


def test_command_line(tmp_path, capsys):
    argv = [word for kind in FILES for word in ("-o", f"{kind}:{tmp_path / kind}")]
    code, out, err = call(capsys, "run", "small", "--seconds", "30ms", "-o", str(tmp_path / "r.json"), *argv,
                          "--trace-for", "2ms", "--json")
    assert (code, err) == (0, "") and json.loads(out)["counters"]["pgsteal_anon"] > 0
    assert {p.name for p in tmp_path.iterdir() if p.suffix != ".npz"} == {*FILES, "r.json"}


def test_compare_writes_both_sides(tmp_path, capsys):
    code, _, err = call(capsys, "compare", "small", "--seconds", "10ms", "--seeds", "2",
                        "-o", f"ftrace:{tmp_path / 't.txt'}", "-o", f"{tmp_path / 'r.json'}")
    assert (code, err) == (0, "")
    for side, policy in (("before", "stage0"), ("after", "stage5")):
        assert (tmp_path / f"t-{side}.txt").read_text().startswith("# tracer: nop")
        result = reclaim.Result.load(tmp_path / f"r-{side}.json")
        assert (result.policy, result.seed) == (policy, Scenario.load("small").seed)
    one, two = (tmp_path / f"t-{side}.txt" for side in ("before", "after"))
    assert one.read_text() != two.read_text()


def test_an_empty_trace_is_told(tmp_path, capsys):
    code, _, err = call(capsys, "run", "small", "--seconds", "2ms", "-o", f"ftrace:{tmp_path / 't'}",
                        "--trace-from", "0.0001", "--trace-for", "1ns")
    assert code == 0 and "the trace is empty" in err and "--trace-from" in err


# --- the trace and the counters ---------------------------------------------------------------------

WORLDS = {
    "small": (scenario(seconds=0.05), "stage0"), "batches": (scenario(seconds=0.05), "stage5"),
    "disk": (disk(), "stage0"),
    "generations": (scenario(**{"kernel.lru": "mglru", "seconds": 0.05}), "stage5"),
    "threads": (scenario(**{"workload.mode": "thread", "machine.cpus": 4, "workload.workers": 4,
                            "seconds": 0.03}), "stage0"),
    "guest": (scenario(**{"machine.host_cpus": 1, "seconds": 0.05}), "stage5"),
}


@pytest.fixture(scope="module", params=WORLDS)
def traced(request):
    """All of a run: its simulation and its events."""
    world, policy = WORLDS[request.param]
    sim = Simulation(world, policy)
    tracer, rows, why = Tracer(sim._core), [], "budget"
    while why == "budget":
        some, why = tracer.run(round(world.seconds * PS))
        rows.append(some)
    return request.param, sim, np.concatenate(rows)


def test_the_digest_is_the_same(traced):
    name, sim, _ = traced
    world, policy = WORLDS[name]
    assert sim.digest() == Simulation(world, policy).run().digest


def test_events_are_what_the_counters_count(traced):
    _, sim, rows = traced
    counter = dict(zip(names.COUNTERS, sim.view("counter").tolist(), strict=True))
    of = {name: rows[rows["event"] == i] for i, name in enumerate(names.EVENTS)}
    n = {name: len(found) for name, found in of.items()}
    flushes, functions = of["tlb_flush"]["v"], of["csd_function_entry"]
    tasks = len(sim.world.task_mm)

    def about(told, counted, open_now):     # what is under way at the end is counted first or told first
        return 0 <= abs(told - counted) <= open_now
    assert about(n["fault_end"], counter["pgfault"], 0)
    assert n["mm_vmscan_memcg_reclaim_begin"] == counter["direct_reclaims"]
    isolated = of["mm_vmscan_lru_isolate"]["v"]
    assert isolated[isolated[:, 3] == 0, 2].sum() == counter["pgscan_anon"] or sim.world.lru
    assert n["shrink_folio_list_begin"] == counter["shrink_folio_list_calls"]
    assert about(of["mm_vmscan_lru_shrink_inactive"]["v"][:, 1].sum(), counter["pgsteal_anon"], 64 * tasks)
    assert about(n["mm_vmscan_write_folio"], counter["nr_vmscan_write"], tasks)
    assert (flushes[:, 1] == 4).sum() == counter["nr_tlb_remote_flush"]
    local = flushes[(flushes[:, 1] == 2) | (flushes[:, 1] == 3), 0]
    assert (local == -1).sum() == counter["nr_tlb_local_flush_all"]
    assert local[local > 0].sum() == counter["nr_tlb_local_flush_one"]
    assert (functions["v"][:, 0] >= 0).sum() == counter["nr_tlb_remote_flush_received"]
    targets = counter["arch_tlbbatch_flush_targets"] + counter["flush_mm_targets"]
    assert n["csd_queue_cpu"] == targets
    assert n["sched_migrate_task"] == counter["migrations"]
    assert (of["sched_switch"]["v"][:, 1] >= 0).sum() <= counter["context_switches"]    # or it picks the same
    assert n["local_timer_entry"] >= counter["ticks"]
    taken = n["call_function_entry"] + n["call_function_single_entry"]
    assert taken <= counter["function_call_ipis"] <= taken + n["sched_waking"]


def test_interrupts_of_each_cpu(traced):
    _, sim, rows = traced
    counts = sample_of(sim, 0).interrupts
    counter = dict(zip(names.COUNTERS, sim.view("counter").tolist(), strict=True))
    assert sum(counts["CAL"]) == counter["function_call_ipis"]
    assert sum(counts["TLB"]) == counter["nr_tlb_remote_flush_received"]

    def told(*which):
        at = np.isin(rows["event"], [names.EVENTS.index(name) for name in which])
        return np.bincount(rows["cpu"][at & ((rows["v"][:, 0] >= 0) | ("csd" not in which[0]))],
                           minlength=sim.world.nr_cpus)
    assert (told("csd_function_entry") == counts["TLB"]).all()
    assert (told("local_timer_entry") == counts["LOC"]).all()
    if not counter["function_call_ipis"] > sum(told("call_function_entry", "call_function_single_entry")):
        assert (told("call_function_entry", "call_function_single_entry") == counts["CAL"]).all()


def test_time_rises_on_each_cpu(traced):
    _, sim, rows = traced
    for cpu in range(sim.world.nr_cpus):
        at = rows["at"][rows["cpu"] == cpu]
        assert (np.diff(at) >= 0).all()


def test_memory_is_bounded(tmp_path, monkeypatch):
    """A trace of any length is written in batches."""
    tracer = Tracer(Simulation(scenario())._core)
    rows, why = tracer.run(PS, events=1000)
    assert why == "budget" and 1000 < len(rows) <= 1000 + tracer.most
    monkeypatch.setattr("reclaim.exports._session.BATCH", 1000)
    batches = []
    monkeypatch.setattr(FtraceSink, "events", lambda self, events: batches.append(len(events)))
    wanted = [parse(f"{kind}:{tmp_path / kind}") for kind in ("ftrace", "perfetto")]
    with Exports(wanted, trace_for=0.05) as exports:
        reclaim.simulate(scenario(seconds=0.05), exports=exports)
        sink = exports._sinks[1]
        assert len(exports._held) == 0 and len(sink._flows) <= 2 and not any(sink._open.values())
    assert sum(batches) == exports.nr_events > 30_000 and max(batches) <= 2 * (1000 + tracer.most)


def test_files_do_not_depend_on_pieces(tmp_path, monkeypatch):
    """Samples, batches and `fuse` cut a run anywhere; what is written is the same."""
    def files(**more):
        run(disk(0.03), FILES, tmp_path, trace_from=0.01, trace_for=0.01)
        return {kind: (tmp_path / kind).read_bytes() for kind in FILES}
    whole = files()
    monkeypatch.setattr("reclaim.exports._session.BATCH", 100)
    monkeypatch.setattr("reclaim.simulation._CHUNK", 997)
    assert files() == whole


# --- ftrace and perf script -------------------------------------------------------------------------

LINE = re.compile(r" *(?P<comm>\S+)-(?P<pid>\d+) +\[(?P<cpu>\d{3})\] "
                  r"(?P<flags>[dbX.][NnpBb.][Hhsz.][0-9a-f.][.\d]) "
                  r" *(?P<time>\d+\.\d{6}): (?P<event>\w+): (?P<text>.*)")
PERF = re.compile(r" *(?P<comm>.+?) +(?P<pid>\d+) \[(?P<cpu>\d{3})\] +(?P<time>\d+\.\d{6}): +"
                  r"(?P<event>\w+:\w+): (?P<text>.*)")
_VALUES = ((r"\b0x[0-9a-f]+\b", "0xH"), (r"\b[0-9a-f]{16}\b", "P"),
           (r"\b[0-9a-f]{8}(,[0-9a-f]{8})+\b", "MASK"),
           (r"(?<![\w.])-?\d+\b", "N"))


def shape(text):
    """The text with its values replaced by what they are."""
    for pattern, kind in _VALUES:
        text = re.sub(pattern, kind, text)
    return text


def shapes(lines, pattern):
    """Event -> shapes of its texts."""
    found: dict[str, set[str]] = {}
    for line in lines:
        match = pattern.fullmatch(line)
        assert match is not None, line
        found.setdefault(match["event"], set()).add(shape(match["text"]))
    return found


def real(name):
    with gzip.open(DATA / name, "rt") as file:
        return file.read().splitlines()


def ours(tmp_path, kind, version, policy="stage0"):
    world = disk(0.04).replace({"kernel.version": version, "workload.workers": 4})
    run(world, [kind], tmp_path, policy, trace_for=0.03)
    return (tmp_path / kind).read_text().splitlines()


@pytest.mark.parametrize("version, file, least", [
    ("6.12", "faults.ftrace.gz", 13), ("6.18", "vmscan-6.18.ftrace.gz", 4)])
def test_ftrace_lines_are_the_kernels(tmp_path, version, file, least):
    theirs, mine = real(file), ours(tmp_path, "ftrace", version)
    heads = [[line for line in lines if line.startswith("#")] for lines in (theirs, mine)]
    for one, two in zip(*heads, strict=False):
        assert re.sub(r"\d+", "N", one) == re.sub(r"\d+", "N", two.rstrip())
    bodies = [[line for line in lines if not line.startswith("#")] for lines in (theirs, mine)]
    want, got = (shapes(lines, LINE) for lines in bodies)
    both = set(want) & set(got)
    assert len(both) >= least, sorted(both)
    for event in both:
        assert got[event] <= want[event] or event == "tlb_flush", (event, got[event], want[event])
        assert want[event] & got[event], (event, got[event], want[event])
    widths = [{line.index("[") for line in lines} for lines in bodies]
    assert widths[1] <= widths[0] and len(widths[1]) == 1
    # Flags: where the kernel has interrupts off, and the depth that it counts.
    flags = [{}, {}]
    for which, lines in zip(flags, bodies, strict=True):
        for line in lines:
            match = LINE.fullmatch(line)
            told = match["flags"].translate({ord("N"): ".", ord("n"): ".", ord("H"): "h"})
            which.setdefault(match["event"], set()).add(told)
    several = {"tlb_flush", "csd_function_entry", "csd_function_exit"}      # in an interrupt or not
    for event in both - several:
        assert flags[1][event] <= flags[0][event], (event, flags)
    for event in both & several:
        assert flags[1][event] & flags[0][event], (event, flags)


def test_tlb_flush_reasons(tmp_path):
    """The kernel's words, of all that was measured: the excerpts do not hold each of them."""
    known = {"6.12": real("faults.ftrace.gz"), "6.18": real("faults.perf.gz")}
    for version, lines in known.items():
        told = {m[1] for line in lines if (m := re.search(r"reason:(.*) \(\d\)$", line))}
        assert told <= {*PROFILES[version].reasons, "remote wrong CPU"} and len(told) >= 2
    assert set(PROFILES) == set(VERSIONS)


def test_perf_script_lines_are_perfs(tmp_path):
    theirs, mine = real("faults.perf.gz"), ours(tmp_path, "perf-script", "6.18")
    want, got = shapes(theirs, PERF), shapes(mine, PERF)
    both = set(want) & set(got)
    assert len(both) >= 11, sorted(both)
    for event in both:
        assert want[event] & got[event], (event, got[event], want[event])
    columns = [{match.start("text") for match in map(PERF.fullmatch, lines)} for lines in (theirs, mine)]
    assert columns[0] == columns[1] and len(columns[0]) == 1
    assert {name.split(":")[1] for name in got} == {n.split(":")[1] for n in got} & set(SYSTEMS)


@pytest.mark.parametrize("kind", ["ftrace", "perf-script"])
def test_our_own_reader(tmp_path, kind):
    lines = ours(tmp_path, kind, "6.12")
    faults = [line for line in lines if "page_fault_user:" in line]
    blocks = list(formats.read(tmp_path / kind))
    assert sum(len(block.page) for block in blocks) == len(faults) > 1000
    tasks = set().union(*(set(block.task.tolist()) for block in blocks))
    assert tasks == {1000, 1001, 1002, 1003}
    writes = np.concatenate([block.write for block in blocks])
    assert writes.sum() == sum("error_code=0x6" in line or "error_code=0x7" in line for line in faults)


def test_the_heading_counts_the_lines(tmp_path):
    lines = ours(tmp_path, "ftrace", "6.12")
    written = int(re.match(r"# entries-in-buffer/entries-written: (\d+)/\1 +#P:4", lines[2])[1])
    assert written == sum(not line.startswith("#") for line in lines)
    at = [float(LINE.fullmatch(line)["time"]) for line in lines if not line.startswith("#")]
    assert at == sorted(at)


def events_of(v, name, about):
    """The text of one event, in a file of its own."""
    from io import BytesIO
    file = BytesIO()
    FtraceSink(about, file).events([Event(3 * PS + 123456, name, 3, 0, 0, v)])
    return file.getvalue().decode().splitlines()[-1]


def test_scheduler_events():
    """Those of which no measured trace is here; formats of include/trace/events/sched.h."""
    about = About(title="", comm="writer", kernel="6.12", nr_cpus=130, task_mm=(0, 0, 1), start=0, stop=1,
                  every=0, end=1)
    assert events_of([0, -1, 2], "sched_switch", about) == (
        "          writer-1000    [003] d....     3.000000: sched_switch: prev_comm=writer prev_pid=1000 "
        "prev_prio=120 prev_state=D ==> next_comm=swapper/3 next_pid=0 next_prio=120")
    assert events_of([2, 1], "sched_waking", about).endswith(
        "sched_waking: comm=writer pid=1002 prio=120 target_cpu=001")
    assert events_of([2, 1, 0], "sched_migrate_task", about).endswith(
        "sched_migrate_task: comm=writer pid=1002 prio=120 orig_cpu=1 dest_cpu=0")
    assert "cpumask=00000000,00000002,00000000,00000000,80000000,00000001 " in events_of(
        [0, 63, 129], "ipi_send_cpumask", about)
    assert comm_of("stress_ng.vm") == "stress-ng-vm" and comm_of("***") == "task"


def postprocess():
    """The kernel's script, from a source tree or the archive of Debian's linux-source."""
    inner = "Documentation/trace/postprocess/trace-vmscan-postprocess.pl"
    trees = [Path(os.environ["LINUX_SOURCE"])] if "LINUX_SOURCE" in os.environ else []
    for tree in [*trees, *sorted(Path("/usr/src").glob("linux-source-*/"))]:
        if (tree / inner).is_file():
            return (tree / inner).read_bytes()
    for archive in sorted(Path("/usr/src").glob("linux-source-*.tar.xz")):
        with tarfile.open(archive, "r|xz") as tar:      # Documentation is near its beginning
            for member in tar:
                if member.name.endswith(inner):
                    return tar.extractfile(member).read()
                if member.name.split("/")[1:2] == ["arch"]:
                    break
    return None


@pytest.mark.slow
def test_the_kernels_own_script(tmp_path):
    """It knows the tracepoints of global reclaim only, so those of a memcg are renamed for it."""
    if shutil.which("perl") is None:
        pytest.skip("perl is not installed")
    script = postprocess()
    if script is None:
        pytest.skip("trace-vmscan-postprocess.pl is not here: install Debian's linux-source, or set "
                    "LINUX_SOURCE to a kernel tree")
    (tmp_path / "script.pl").write_bytes(script)

    def totals(text):
        text = text.replace("memcg_reclaim", "direct_reclaim")
        done = subprocess.run(["perl", str(tmp_path / "script.pl")], input=text, capture_output=True, text=True,
                              timeout=60, check=True)
        assert "Failed to parse" not in done.stdout, done.stdout[:500]
        rows = (line.partition(":") for line in done.stdout.splitlines())
        return {name.strip(): value.strip() for name, _, value in rows if value}
    lines = ours(tmp_path, "ftrace", "6.12")
    found = totals("\n".join(lines) + "\n")

    def added(event, field):
        return sum(int(re.search(rf"{field}=(\d+)", line)[1]) for line in lines if f": {event}:" in line)
    assert int(found["Direct reclaims"]) == sum("reclaim_begin" in line for line in lines) > 10
    assert int(found["Direct reclaim pages scanned"]) == added("mm_vmscan_lru_isolate", "nr_scanned")
    assert int(found["Direct reclaim anon pages reclaimed"]) == added("mm_vmscan_lru_shrink_inactive",
                                                                      "nr_reclaimed")
    theirs = "\n".join(real("vmscan-6.18.ftrace.gz")) + "\n"
    assert set(totals(theirs)) == set(found)


# --- Perfetto ---------------------------------------------------------------------------------------

def packets(path):
    pb2 = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2",
                              reason="the package perfetto (extra test) is not installed")
    trace = pb2.Trace()
    trace.ParseFromString(path.read_bytes())
    return pb2, trace.packet


def check_perfetto(path):
    """Slices nest, flows have both ends, time rises, every track is described; names of slices, tracks."""
    pb2, found = packets(path)
    types, tracks, names_of, flows, last = pb2.TrackEvent, {}, Counter(), {}, 0
    stacks: dict[int, list[str]] = {}
    ended: Counter[int] = Counter()
    assert found[0].sequence_flags == pb2.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
    for packet in found:
        assert packet.trusted_packet_sequence_id == 1
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            assert track.uuid not in tracks and (not track.parent_uuid or track.parent_uuid in tracks)
            tracks[track.uuid] = track
            continue
        event = packet.track_event
        assert packet.timestamp >= last and event.track_uuid in tracks
        last = packet.timestamp
        stack = stacks.setdefault(event.track_uuid, [])
        if event.type == types.TYPE_SLICE_BEGIN:
            assert event.name
            stack.append(event.name)
        elif event.type == types.TYPE_SLICE_END:
            assert stack
            stack.pop()
        else:
            assert event.type in (types.TYPE_INSTANT, types.TYPE_COUNTER)
            assert (event.type == types.TYPE_COUNTER) == tracks[event.track_uuid].HasField("counter")
        names_of[event.name] += 1
        for flow in event.flow_ids:
            assert flow not in flows
            flows[flow] = packet.timestamp
        for flow in event.terminating_flow_ids:
            assert flows[flow] <= packet.timestamp
            ended[flow] += 1
    assert not any(stacks.values())
    assert set(ended) == set(flows) and set(ended.values()) <= {1}
    return names_of, tracks, stacks


@pytest.mark.parametrize("name", WORLDS)
def test_perfetto(tmp_path, name):
    world, policy = WORLDS[name]
    run(world, ["perfetto"], tmp_path, policy, trace_from=world.seconds * 0.6, trace_for=world.seconds * 0.3)
    found, tracks, _ = check_perfetto(tmp_path / "perfetto")
    assert found["handle_mm_fault"] > 10 and found["shrink_folio_list"] > 5
    assert found["try_to_free_mem_cgroup_pages"] > 0
    threads = [track for track in tracks.values() if track.HasField("thread")]
    assert len(threads) == world.workload.workers
    assert len({track.thread.tid for track in threads}) == len(threads)
    mms = {track.thread.pid for track in threads}
    assert len(mms) == (1 if name == "threads" else len(threads))
    assert sum(track.name.startswith("CPU ") for track in tracks.values()) == world.machine.cpus
    if name == "disk":
        assert found["swap device interrupt"] > 0
    if name in ("small", "threads"):
        assert found["flush_tlb_func"] > 0 and found["smp_call_function_many_cond: wait"] > 0


def test_perfetto_counts_what_the_run_counted(tmp_path):
    world, policy = WORLDS["small"]
    result = run(world, ["perfetto"], tmp_path, policy, trace_from=0, trace_for=1)
    found, tracks, _ = check_perfetto(tmp_path / "perfetto")
    assert found["csd_queue_cpu"] == result.counters["nr_tlb_remote_flush_received"] + found["not yet served"]
    assert found["shrink_folio_list"] == result.counters["shrink_folio_list_calls"]
    pb2, all_packets = packets(tmp_path / "perfetto")
    values = {}
    for packet in all_packets:
        if packet.track_event.type == pb2.TrackEvent.TYPE_COUNTER:
            event = packet.track_event
            values.setdefault(tracks[event.track_uuid].name, []).append(event.counter_value)
    for name in ("pgscan_anon", "pgsteal_anon", "pswpin"):
        assert values[name] == sorted(values[name]) and values[name][-1] == result.counters[name]
        assert len(values[name]) > 100


# --- counters ---------------------------------------------------------------------------------------

def test_vmstat_and_interrupts(tmp_path):
    result = run(scenario(seconds=0.05), ["vmstat", "interrupts"], tmp_path)
    counts = parse_counts((tmp_path / "vmstat").read_text(), "vmstat")
    for name in ("pgscan_anon", "pgsteal_anon", "pswpin", "pgfault", "nr_tlb_remote_flush",
                 "workingset_refault_anon"):
        assert counts[name] == result.counters[name]
    assert counts["nr_inactive_anon"] + counts["nr_active_anon"] > 0 and counts["nr_anon_pages"] > 0
    rows = parse_interrupts((tmp_path / "interrupts").read_text(), "interrupts")
    assert sum(rows["tlb_shootdowns"].values()) == result.counters["tlb_shootdowns"]
    assert sum(rows["function_call_ipis"].values()) == result.counters["function_call_ipis"]


@pytest.mark.skipif(not os.path.exists("/proc/interrupts"), reason="no /proc")
def test_interrupts_look_like_the_real_ones(tmp_path):
    run(scenario(seconds=0.005), ["interrupts"], tmp_path)
    mine = (tmp_path / "interrupts").read_text().splitlines()
    lines = Path("/proc/interrupts").read_text().splitlines()
    theirs = {line.split(":")[0].strip(): line for line in lines[1:]}
    if not all(name in theirs for name in ("LOC", "CAL", "TLB")):
        pytest.skip("not x86, or one CPU")
    width = len(theirs["LOC"].split(":")[0])
    assert mine[0].startswith(" " * 8 + " " * width) and mine[0].split() == ["CPU0", "CPU1"]
    for line in mine[1:]:
        name = line.split(":")[0]
        assert line.rpartition("   ")[2] == theirs[name.strip()].rpartition("   ")[2]


@pytest.mark.skipif(not os.path.exists("/proc/vmstat"), reason="no /proc")
def test_vmstat_names_and_order(tmp_path):
    """Of those that the running kernel has; nr_tlb_* need CONFIG_DEBUG_TLBFLUSH."""
    run(scenario(seconds=0.005), ["vmstat"], tmp_path)
    mine = list(parse_counts((tmp_path / "vmstat").read_text(), "vmstat"))
    theirs = list(parse_counts(Path("/proc/vmstat").read_text(), "vmstat"))
    shared = [name for name in mine if name in theirs]
    assert sorted(shared, key=theirs.index) == shared and len(shared) > 15


def test_streams_of_snapshots(tmp_path):
    """As mmtests and LKP keep them: the time, then the file."""
    result = run(scenario(seconds=0.05), ["vmstat", "interrupts", "csv"], tmp_path, every=0.02)
    blocks = re.split(r"^time: (.*)\n", (tmp_path / "vmstat").read_text(), flags=re.M)[1:]
    assert blocks[0::2] == ["0", "0.02", "0.04", "0.05"]
    steals = [parse_counts(text, "vmstat")["pgsteal_anon"] for text in blocks[1::2]]
    assert steals == sorted(steals) and steals[0] == 0 and steals[-1] == result.counters["pgsteal_anon"]
    blocks = re.split(r"^time: (.*)\n", (tmp_path / "interrupts").read_text(), flags=re.M)[1:]
    assert [sum(parse_interrupts(text, "i")["tlb_shootdowns"].values()) for text in blocks[1::2]][-1] \
        == result.counters["tlb_shootdowns"]
    rows = np.genfromtxt(tmp_path / "csv", delimiter=",", names=True)
    assert rows["time_s"].tolist() == [0, 0.02, 0.04, 0.05] and rows["pgsteal_anon"].tolist() == steals


def test_csv_rows(tmp_path):
    result = run(scenario(seconds=0.05), ["csv"], tmp_path)
    rows = np.genfromtxt(tmp_path / "csv", delimiter=",", names=True)
    assert len(rows) == 101 and rows["time_s"][-1] == 0.05
    assert set(names.COUNTERS) < set(rows.dtype.names)
    for name in names.COUNTERS:
        assert rows[name][-1] == result.counters[name]
        assert (np.diff(rows[name]) >= 0).all()


def test_samples_are_of_their_time(tmp_path):
    run(scenario(seconds=0.04), ["csv"], tmp_path, every=0.03)
    half = reclaim.simulate("small", seconds=0.03)
    rows = np.genfromtxt(tmp_path / "csv", delimiter=",", names=True)
    assert rows["pgscan_anon"][1] == half.counters["pgscan_anon"]


# --- whole or not there -----------------------------------------------------------------------------

def check_whole(path, kind):
    if kind == "perfetto":
        check_perfetto(path)
    elif kind == "ftrace":
        lines = path.read_text().splitlines()
        assert f": {sum(line[0] != '#' for line in lines)}/" in lines[2]
        assert all(LINE.fullmatch(line) for line in lines if line[0] != "#")
    else:
        assert path.read_bytes().endswith(b"\n")


def test_ctrl_c_keeps_what_there_is(tmp_path, capsys):
    """Wherever it comes, the files are whole."""
    wanted = ["perfetto", "ftrace", "csv", "vmstat"]
    argv = [word for kind in wanted for word in ("-o", f"{kind}:{tmp_path / kind}")]
    for delay in (0.15, 0.4, 0.7):
        timer = threading.Timer(delay, _thread.interrupt_main)
        timer.start()
        try:
            code, out, err = call(capsys, "run", "small", "--seconds", "60", *argv, "--trace-from", "0",
                                  "--trace-for", "60")
        finally:
            timer.join()
        if "before there was anything" in err:      # it had not begun
            continue
        assert code == 130 and "PARTIAL" in out
        for kind in wanted:
            check_whole(tmp_path / kind, kind)
    assert {p.name for p in tmp_path.iterdir()} == set(wanted)


def test_an_error_leaves_the_files_as_they_were(tmp_path):
    for kind in FILES:
        (tmp_path / kind).write_text("older")

    def fails(share, seconds):
        raise RuntimeError("of the caller")
    wanted = [parse(f"{kind}:{tmp_path / kind}") for kind in FILES]
    with pytest.raises(RuntimeError), Exports(wanted, trace_from=0) as exports:
        reclaim.simulate("small", seconds=0.05, exports=exports, progress=fails)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == dict.fromkeys(FILES, "older")


def test_a_full_disk_does_not_lose_the_result(tmp_path, capsys, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("reclaim.files.os.replace", full)
    code, out, err = call(capsys, "run", "small", "--seconds", "5ms", "-o", f"csv:{tmp_path / 'c'}")
    assert code == 1 and "No space left" in err and "pgsteal_anon" in out
    assert not list(tmp_path.iterdir())


def test_world_without_a_scenario(tmp_path):
    world = scenario(seconds=0.02).lower()
    with Exports([parse(f"ftrace:{tmp_path / 't'}"), parse(f"csv:{tmp_path / 'c'}")]) as exports:
        Simulation(world).run(0.02, exports=exports)
    lines = (tmp_path / "t").read_text().splitlines()
    assert LINE.fullmatch(lines[-1])["comm"] == "task"


def test_dtype():
    assert EVENT_DTYPE.itemsize == 48
