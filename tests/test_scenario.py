"""Scenarios and profiles: what is accepted, what is refused and how, and the lowered world."""

import dataclasses
import os
import pickle
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reclaim.workloads
from reclaim import keys, names, world
from reclaim.errors import NotModelledError, ScenarioError
from reclaim.machine import Costs, Machine, Profile, Scheduler, Tlb, profile_names
from reclaim.memory import MIN_LIMIT, VERSIONS, Kernel, KernelRules, Memcg, Swap
from reclaim.scenario import SECTIONS, Scenario, Workload
from reclaim.workloads import AccessProgram
from reclaim.world import PASS_DTYPE

ROOT = Path(__file__).parent.parent
DOC = ROOT / "docs" / "scenario.md"


def refused(data, *parts, kind=ScenarioError):
    """`data` is refused with one exception whose text holds all of `parts`."""
    with pytest.raises(kind) as err:
        Scenario.from_dict(data, where="x.toml")
    for part in parts:
        assert part in str(err.value)
    return err.value


# --- reading ------------------------------------------------------------------------------------

def test_packaged_scenarios_load():
    assert set(Scenario.names()) >= {"batch-tlb-flush", "small"}
    for name in Scenario.names():
        assert Scenario.load(name).name == name


def test_series_scenario_is_the_series():
    s = Scenario.load("batch-tlb-flush")
    assert (s.machine.cpus, s.seconds, s.memcg.limit, s.swap.size, s.memory.total) == \
        (16, 60.0, 512 << 20, 8191 << 20, 31834 << 20)
    assert (s.kernel.version, s.kernel.mask_lazy, s.swap.kind) == ("7.0", True, "zram")
    assert (s.workload.kind, s.workload.workers, s.workload.bytes) == ("stress_ng.vm", 16, 2 << 30)
    before, after = s.published["before"], s.published["after"]
    assert before["tlb_shootdowns"] / before["pgsteal_anon"] == pytest.approx(1.911, abs=5e-4)
    assert after["tlb_shootdowns"] / after["pgsteal_anon"] == pytest.approx(0.517, abs=5e-4)


def test_an_empty_scenario_is_the_defaults():
    assert Scenario.from_dict({}) == Scenario()
    assert Scenario().memcg.limit == 512 << 20


@pytest.mark.parametrize("name", ["batch-tlb-flush", "small"])
def test_round_trips(name, tmp_path):
    s = Scenario.load(name)
    assert Scenario.from_dict(s.to_dict()) == s
    assert Scenario.from_dict(tomllib.loads(s.to_toml())) == s
    path = tmp_path / "copy.toml"
    path.write_text(s.to_toml())
    assert Scenario.load(path) == s
    assert pickle.loads(pickle.dumps(s)) == s
    assert hash(pickle.loads(pickle.dumps(s))) == hash(s)


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
       .filter(str.isprintable), st.integers(1, 512), st.integers(0, 2**64 - 1),
       st.integers(16, 2**18), st.floats(1e-6, 9000), st.floats(0, 1e9))
def test_any_scenario_survives_toml(name, cpus, seed, pages, seconds, cost):
    s = Scenario(name=name, seconds=seconds, seed=seed, machine={"cpus": cpus},
                 memcg={"limit": pages * 4096}, costs={"ipi_send_ns": cost})
    assert Scenario.from_dict(tomllib.loads(s.to_toml())) == s


def test_replace_dotted_and_nested():
    s = Scenario.load("small")
    t = s.replace({"memcg.limit": "4M"}, machine={"cpus": 4}, costs={"scan_ns": 1}, seconds="1ms")
    assert (t.memcg.limit, t.machine.cpus, t.costs, t.seconds) == (4 << 20, 4, {"scan_ns": 1.0}, 1e-3)
    assert (t.workload, t.swap, t.name) == (s.workload, s.swap, s.name)
    assert t.replace({"costs.rmap_ns": 2}).costs == {"scan_ns": 1.0, "rmap_ns": 2.0}
    assert s == Scenario.load("small")
    for bad in ({"memcg.limt": 1}, {"memcgs.limit": 1}, {"seconds.x": 1}, {"nonsense": 1},
                {"memcg": 3}, {"memcg.limit": "2G"}):
        with pytest.raises(ScenarioError):
            s.replace(bad)


def test_sections_check_themselves():
    assert Memcg(limit="8M").limit == 8 << 20
    assert Scenario(memcg=Memcg(limit="8M")) == Scenario(memcg={"limit": 8 << 20})
    with pytest.raises(ScenarioError, match=r"memcg.limit = \"1K\": must be a size, 64K to 1T"):
        Memcg(limit="1K")
    with pytest.raises(dataclasses.FrozenInstanceError):
        Memcg().limit = 5
    with pytest.raises(TypeError):
        Scenario().costs["scan_ns"] = 1.0
    assert Machine(cpus=np.int64(4)).cpus == 4


def test_relative_trace_is_beside_its_scenario(tmp_path):
    path = tmp_path / "t.toml"
    path.write_text('[workload]\nkind = "trace"\nfile = "a.txt"\n')
    s = Scenario.load(path)
    assert (s.workload.file, s.name) == (str(tmp_path / "a.txt"), "t")


# --- refusing -----------------------------------------------------------------------------------

@pytest.mark.parametrize("data, parts", [
    ({"memcg": {"limt": "8M"}}, ["x.toml: memcg.limt: unknown key", "did you mean 'limit'"]),
    ({"secnods": 1}, ["x.toml: secnods: unknown key", "did you mean 'seconds'"]),
    ({"qqq": 1}, ["x.toml: qqq: unknown key", "known here"]),
    ({"costs": {"ipi_sned_ns": 1}}, ["costs.ipi_sned_ns", "did you mean 'ipi_send_ns'"]),
    ({"costs": {"ipi_send_ns": -1}}, ["costs.ipi_send_ns = -1", "0 to 1e+09"]),
    ({"costs": {"ipi_send_ns": float("nan")}}, ["costs.ipi_send_ns = NaN"]),
    ({"costs": {"ipi_send_ns": float("inf")}}, ["costs.ipi_send_ns = Infinity"]),
    ({"costs": {"ipi_send_ns": 10**400}}, ["costs.ipi_send_ns"]),
    ({"costs": 3}, ["costs: must be a table"]),
    ({"machine": {"cpus": 513}}, ["x.toml: machine.cpus = 513", "1 to 512"]),
    ({"machine": {"cpus": 0}}, ["machine.cpus = 0"]),
    ({"machine": {"cpus": True}}, ["machine.cpus = true"]),
    ({"machine": {"cpus": 2.0}}, ["machine.cpus = 2.0"]),
    ({"machine": {"profile": "vm61"}}, ["machine.profile", "did you mean 'vm16'"]),
    ({"machine": 3}, ["x.toml: machine = 3: must be a table"]),
    ({"machine": []}, ["machine = []"]),
    ({"seconds": 0}, ["seconds = 0"]), ({"seconds": 9001}, ["seconds = 9001", "9000s"]),
    ({"seconds": float("nan")}, ["seconds = NaN"]), ({"seconds": "soon"}, ["seconds"]),
    ({"seed": -1}, ["seed = -1", "0 to 2**64 - 1"]), ({"seed": 2**64}, ["seed"]),
    ({"seed": "1"}, ['seed = "1"']), ({"touches": -1}, ["touches = -1"]),
    ({"warmup": 60.0}, ["warmup = 60.0: must be less than seconds, 60"]),
    ({"name": ""}, ["name"]), ({"name": "a\nb"}, ["name"]), ({"name": "\ud800"}, ["name"]),
    ({"kernel": {"version": "5.4"}}, ['kernel.version = "5.4"', '"6.12", "6.18", "7.0"']),
    ({"kernel": {"version": 7.0}}, ["kernel.version = 7.0"]),
    ({"kernel": {"mm_cpumask": "lzay"}}, ["did you mean 'lazy'"]),
    ({"kernel": {"cgroup": "v3"}}, ["kernel.cgroup"]), ({"kernel": {"thp": 0}}, ["kernel.thp = 0"]),
    ({"memcg": {"limit": "32G"}}, ['memcg.limit = "32G"', "31834M", "kswapd is not modelled"]),
    ({"memcg": {"limit": "12Q"}}, ['memcg.limit = "12Q"', "is not a size"]),
    ({"memcg": {"limit": "1K"}}, ["64K to"]), ({"memcg": {"limit": -5}}, ["memcg.limit = -5"]),
    ({"memcg": {"swappiness": 201}}, ["0 to 200"]),
    ({"memcg": {"kernel": "atuo"}}, ['memcg.kernel = "atuo"', '"auto" or a size']),
    ({"memcg": {"kernel": "512M"}}, ["memcg.kernel", "less than memcg.limit, 512M"]),
    ({"swap": {"kind": "zarm"}}, ["did you mean 'zram'"]), ({"swap": {"size": 0}}, ["swap.size = 0"]),
    ({"swap": {"latency": "11s"}}, ["swap.latency"]), ({"swap": {"depth": 0}}, ["swap.depth"]),
    ({"swap": {"bandwidth": "2G/h"}}, ["swap.bandwidth"]),
    ({"swap": {"rotational": "no"}}, ['swap.rotational = "no"', "true or false"]),
    ({"workload": {"kind": "writter"}}, ["did you mean 'writer'"]),
    ({"workload": {"kind": ["writer"]}}, ["workload.kind"]),
    ({"workload": {"workers": 4097}}, ["1 to 4096"]),
    ({"workload": {"bytes": "8K", "workers": 3}}, ["workload.bytes", "each of 3 workers"]),
    ({"workload": {"kind": "trace"}}, ["workload.file", "path of a trace"]),
    ({"workload": {"kind": "writer", "file": "t"}}, ["workload.file", "read only when"]),
    ({"workload": {"kind": "writer", "format": "csv"}}, ["workload.format", "read only when"]),
    ({"workload": {"kind": "trace", "file": "t", "format": "lackye"}},
     ["workload.format", "must be one of auto, ", "did you mean 'lackey'"]),
    ({"workload": {"pattern": "random"}}, ["workload.pattern"]),
    ({"workload": {"mode": "thread"}}, ["workload.mode", "stress-ng's vm workers are processes"]),
    ({"workload": {"kind": "trace", "file": "t", "mode": "thread"}}, ["workload.mode", "an mm of its own"]),
    ({"workload": {"method": "flipp"}}, ['x.toml: workload.method = "flipp"', "did you mean 'flip'"]),
    ({"workload": {"madvise": "radom"}}, ["workload.madvise", "did you mean 'random'"]),
    ({"published": {"befor": {}}}, ["published.befor", "did you mean 'before'"]),
    ({"published": {"before": {"x": "y"}}}, ["published.before.x"]),
    ({"published": {"before": 3}}, ["published.before = 3"]), ({"published": 3}, ["published"]),
    ([], ["must be a table"]), ("small", ["must be a table"]), (None, ["must be a table"]),
])
def test_bad_scenarios(data, parts):
    refused(data, *parts)


@pytest.mark.parametrize("section, name, value", [
    ("kernel", "thp", True)])
def test_not_modelled_yet(section, name, value):
    err = refused({section: {name: value}}, f"x.toml: {section}.{name} = ", "not modelled yet",
                  kind=NotModelledError)
    assert len(err.faults) == 1


def test_only_asynchronous_devices_rotate():
    refused({"swap": {"kind": "nvme", "rotational": True}}, "x.toml: swap.rotational = true", "ssd")
    for kind, rotates in (("ssd", True), ("zram", False), ("none", False)):
        w = Scenario.from_dict({"swap": {"kind": kind, "rotational": True}}).lower()
        assert (w.rotational, w.swap_sync) == (rotates, not rotates)


@pytest.mark.parametrize("version, has", [("6.12", True), ("6.18", True), ("7.0", False)])
def test_slot_caches_are_of_the_version_and_of_devices_that_rotate(version, has):
    def lowered(rotational, said):
        return Scenario.from_dict({"kernel": {"version": version, "slot_cache": said},
                                   "swap": {"kind": "ssd", "rotational": rotational}}).lower().slot_cache
    assert lowered(True, "auto") is has
    assert lowered(False, "auto") is False
    for rotational in (False, True):
        assert lowered(rotational, "yes") is True
        assert lowered(rotational, "no") is False


@pytest.mark.parametrize("kind", ["ssd", "nvme"])
def test_asynchronous_devices(kind):
    world = Scenario.from_dict({"swap": {"kind": kind, "depth": 7, "latency": "20us",
                                         "bandwidth": "1G"}}).lower()
    assert (world.swap_sync, world.io_depth, world.io_latency) == (False, 7, 20_000_000)
    assert world.io_page == -(-4096 * 10**12 // 2**30)


def test_all_faults_at_once():
    err = refused({"seconds": -1, "machine": {"cpus": 0, "cpu": 1}, "kernel": {"thp": True},
                   "memcg": {"limit": "40G"}, "costs": {"x": 1}})
    assert len(err.faults) == 6 and str(err).startswith("6 faults:\n  x.toml: ")
    assert not isinstance(err, NotModelledError)
    again = pickle.loads(pickle.dumps(err))
    assert (type(again), again.faults, str(again)) == (type(err), err.faults, str(err))


def test_bad_files(tmp_path):
    def loading(path, *parts):
        with pytest.raises(ScenarioError) as err:
            Scenario.load(path)
        for part in (str(path), *parts):
            assert part in str(err.value)
    bad = tmp_path / "bad.toml"
    loading(bad, "No such file")
    bad.write_text("seconds = \n")
    loading(bad, "not TOML", "line 1")
    bad.write_bytes(b"name = '\xff'")
    loading(bad, "UTF-8")
    bad.write_text("x = " + "[" * 100_000)
    loading(bad, "not TOML")
    bad.write_text("seed = " + "9" * 10_000)
    loading(bad)
    bad.write_text("#" * (1 << 20 | 1))
    loading(bad, "longer than")
    bad.write_text("[memcg]\nlimt = 1\n")
    loading(bad, "memcg.limt")
    loading(tmp_path, "")
    fifo = tmp_path / "fifo.toml"
    os.mkfifo(fifo)
    loading(fifo, "not a regular file")
    with pytest.raises(ScenarioError, match="unknown scenario \"smal\": .*did you mean 'small'"):
        Scenario.load("smal")
    for odd in ("", "a\0b.toml", "x" * 5000 + ".toml"):
        with pytest.raises(ScenarioError):
            Scenario.load(odd)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(
    st.sampled_from([*keys.kinds(Scenario), *SECTIONS, "costs", "published", "other"]),
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats()
                 | st.sampled_from(["", "x", "8M", "\n"]),
                 lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
                     st.sampled_from(["limit", "cpus", "kind", "bytes", "before", "x"]), inner,
                     max_size=3), max_leaves=5)))
def test_nonsense_gives_a_scenario_or_one_error(data):
    try:
        s = Scenario.from_dict(data)
    except ScenarioError as err:
        assert err.faults
    else:
        assert Scenario.from_dict(s.to_dict()) == s


# --- docs ---------------------------------------------------------------------------------------

def documented():
    """{(section, key): row} of the tables in docs/scenario.md."""
    rows, section = {}, ""
    for line in DOC.read_text().splitlines():
        if heading := re.match(r"## (?:`\[(\w+)\]`|(.*))", line):
            section = heading[1] or ""
        if section != "costs" and (row := re.match(r"\| `(\w+)` \|", line)):
            rows[section, row[1]] = line
    return rows


def test_docs_hold_every_key_with_its_range_and_default():
    rows = documented()
    wanted = {("", name): kind for name, kind in keys.kinds(Scenario).items()}
    wanted |= {(s, name): kind for s, cls in SECTIONS.items() for name, kind in keys.kinds(cls).items()}
    assert set(rows) == set(wanted)
    default = Scenario().to_dict()
    for (section, name), kind in wanted.items():
        row = rows[section, name]
        assert kind.allowed.replace('"', "`") in row.replace('"', "`"), row
        value = default[section][name] if section else default[name]
        assert f"`{keys.toml_value(value)}`" in row, row


def test_docs_hold_every_cost():
    text = DOC.read_text()
    assert [name for name in names.COSTS if f"`{name}_ns`" not in text] == []


# --- profiles -----------------------------------------------------------------------------------

@pytest.mark.parametrize("name", profile_names())
def test_profiles_give_every_cost_with_a_source(name):
    profile = Profile.load(name)
    assert len(profile.costs.ns) == len(names.COSTS) and min(profile.costs.ns) >= 0
    assert profile.costs.to_ps()[names.COSTS.index("ipi_send")] == profile.costs["ipi_send"] * 1000
    lines = (ROOT / "reclaim" / "profiles" / f"{name}.toml").read_text().splitlines()
    bare = [line for line in lines if re.match(r"\w+ = [0-9]", line) and not re.search(r" # .{6}", line)]
    assert bare == []


def test_vm16():
    p = Profile.load("vm16")
    assert p.tlb == Tlb(l1_entries=64, l1_ways=4, l2_entries=1536, l2_ways=12)
    assert p.scheduler == Scheduler(hz=1000, slice_ms=3.0, migrations_per_s=0.0, cpus_per_socket=16)
    # A lone target's shootdown: 1.7 to 2.5 us where IPIs are virtualised by exits.
    one = sum(p.costs[c] for c in ("flush_fixed", "ipi_send", "ipi_delivery", "irq_entry", "tlb_check"))
    assert 1700 <= one <= 2500


def test_bad_profiles():
    with pytest.raises(ScenarioError, match="unknown profile 'vm61'; did you mean 'vm16'"):
        Profile.load("vm61")
    with pytest.raises(ScenarioError) as err:
        Profile.from_dict({"tlb": {"l1_entries": -1}, "cost": {}}, name="x", where="x.toml")
    assert {"x.toml: cost: unknown key; did you mean 'costs'?", "x.toml: scheduler.hz: missing",
            "x.toml: costs.scan_ns: missing"} <= set(err.value.faults)
    with pytest.raises(ScenarioError, match="power of two"):
        Tlb(l1_entries=60, l1_ways=4)
    with pytest.raises(ScenarioError, match="power of two"):
        Tlb(l1_entries=62, l1_ways=4)


def test_migration_threshold():
    assert Scheduler(migrations_per_s=500).migrate_threshold == 2**62
    assert Scheduler(migrations_per_s=5000).migrate_threshold == 2**64 - 1
    assert Scheduler(slice_ms=0).slice_ticks == 1


def test_costs_replace():
    costs = Costs(tuple(range(len(names.COSTS))))
    assert costs.replace({"walk_warm_ns": 99.5})["walk_warm"] == 99.5
    assert costs.replace({})== costs


# --- lowering -----------------------------------------------------------------------------------

@pytest.fixture
def program(monkeypatch):
    """Stands in for a compiled workload; holds what the compiler was asked."""
    asked = {}

    def compile(workload, *, seed):
        asked.update(workload=workload, seed=seed)
        n = workload.workers
        return AccessProgram(
            passes=np.zeros(n, PASS_DTYPE), task_mm=tuple(range(n)), task_first_pass=tuple(range(n)),
            task_nr_passes=(1,) * n, task_loop_to=(0,) * n, task_restart=(False,) * n,
            mm_pages=(8,) * n, mm_recency=(True,) * n, nr_processes=2 * n,
            trace=np.zeros(0, "<u4"))
    monkeypatch.setattr(reclaim.workloads, "KINDS",
                        {kind: compile for kind in ("writer", "stress_ng.vm", "trace")}, raising=False)
    return asked


def test_lower(program):
    s = Scenario.load("batch-tlb-flush").replace({"costs.scan_ns": 1.5, "machine.cpus": 3,
                                                  "workload.pin": True})
    w = s.lower()
    assert (w.nr_cpus, w.cpus_per_socket, w.pcid) == (3, 16, True)
    assert (w.l1_sets, w.l1_ways, w.l2_sets, w.l2_ways) == (16, 4, 128, 12)
    assert (w.limit, w.nr_slots, w.kernel_pages) == (131072, 8191 * 256, 32 * 32)
    assert w.nr_folios == 131072 + 64 * 16 + 256
    assert (w.swappiness, w.cgroup, w.mask_lazy, w.trim, w.swapin_cached, w.pgrefill_global) == \
        (60, 2, True, True, True, True)
    assert (w.tick, w.slice_ticks, w.migrate_threshold) == (10**9, 3, 0)
    assert w.costs[names.COSTS.index("scan")] == 1500 and len(w.costs) == len(names.COSTS)
    assert all(isinstance(cost, int) for cost in w.costs)
    assert w.task_cpu == tuple(i % 3 for i in range(16)) and w.task_pinned == (True,) * 16
    assert (w.seed, program["seed"], program["workload"]) == (1, 1, s.workload)
    assert s.lower(seed=7).seed == program["seed"] == 7
    with pytest.raises(ScenarioError):
        s.lower(seed=-1)


@pytest.mark.parametrize("version, lazy, later", [("6.12", False, False), ("6.18", True, False),
                                                  ("7.0", True, True)])
def test_kernel_versions(program, version, lazy, later):
    w = Scenario(kernel={"version": version}).lower()
    assert (w.mask_lazy, w.trim, w.swapin_cached, w.pgrefill_global) == (lazy, later, later, later)
    assert (w.lru, w.mglru_batch, w.mglru_stop, w.mglru_rework) == (0, later, later, later)
    assert Scenario(kernel=Kernel(version=version, mm_cpumask="eager")).lower().mask_lazy is False
    assert Scenario(kernel=Kernel(version=version, mm_cpumask="lazy")).lower().mask_lazy is True


def test_lower_memory(program):
    s = Scenario(swap=Swap(kind="none"), memcg={"limit": "8M", "kernel": "5000"},
                 workload=Workload(kind="writer", workers=2, bytes="16M"), kernel={"cgroup": "v1"})
    w = s.lower()
    assert (w.nr_slots, w.kernel_pages, w.limit, w.cgroup) == (0, 2, 2048, 1)
    with pytest.raises(ScenarioError, match="kernel memory of 128 processes"):
        s.replace({"memcg.kernel": "auto", "workload.workers": 64}).lower()


def test_scenario_of_a_trace(program):
    s = Scenario.for_trace("some/sort.txt")
    assert (s.name, s.workload.kind, s.workload.file) == ("sort.txt", "trace", "some/sort.txt")
    assert (s.memcg.limit, s.memcg.kernel, s.machine) == (MIN_LIMIT, 0, Scenario.load("small").machine)
    assert Scenario.from_dict(s.to_dict()) == s


def test_half_of_a_real_trace(tmp_path):
    trace = tmp_path / "t.csv"
    trace.write_text("page,write\n" + "".join(f"{i % 600},{i % 2}\n" for i in range(3000)))
    s = Scenario.for_trace(trace)
    assert s.memcg.limit == 300 * 4096
    w = s.lower()
    assert (w.limit, w.kernel_pages, w.mm_pages, w.nr_cpus) == (300, 0, (600,), 2)


@pytest.mark.parametrize("name", ["batch-tlb-flush", "small"])
def test_packaged_scenarios_lower_to_worlds_the_core_takes(name):
    world.check(Scenario.load(name).lower())


@pytest.mark.parametrize("name", profile_names())
def test_profiles_lower_to_worlds_the_core_takes(name):
    world.check(Scenario.load("small").replace({"machine.profile": name, "machine.cpus": 512}).lower())


def test_the_table_of_kernels_is_what_runs():
    text = (Path(__file__).parent.parent / "docs" / "kernels.md").read_text()
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")]
            for line in text.splitlines() if line.startswith("| ")]
    versions = rows[0][2:]
    assert versions == list(VERSIONS)
    told = {row[0]: dict(zip(versions, row[2:], strict=True)) for row in rows[1:]}
    assert told == {name: {v: "yes" if getattr(rules, name) else "no" for v, rules in VERSIONS.items()}
                    for name in KernelRules.__dataclass_fields__}


@pytest.mark.parametrize("name", ["trim", "swapin_cached", "pgrefill_global", "slot_cache"])
def test_a_switch_overrides_the_version(name):
    for version in ("6.12", "7.0"):
        for said, want in (("yes", True), ("no", False)):
            scenario = Scenario.from_dict({"kernel": {"version": version, name: said}})
            assert getattr(scenario.kernel.rules, name) is want
            assert getattr(scenario.lower(), name) is want
