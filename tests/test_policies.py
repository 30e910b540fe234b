"""The strategy slots: stages, contract, errors, Python and out-of-tree strategies."""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import reclaim
from reclaim import names, policies
from reclaim.errors import PolicyError, SimulationError, SnapshotError
from reclaim.policies.accounting import PyAccountingPolicy
from reclaim.policies.activation import PyActivationPolicy
from reclaim.policies.flush import BatchFlush, PerFolioFlush, PyFlushPolicy
from reclaim.policies.free import PyFreePolicy
from reclaim.policies.unmap import PyUnmapPolicy
from reclaim.simulation import Simulation
from reference.worlds import random_world, small_world

DOCS = Path(__file__).parent.parent / "docs" / "policies.md"
SECONDS = 0.02
WORLD = small_world(mm_pages=(96, 130, 110), nr_cpus=3, limit=230, nr_slots=320)
# Every slot is asked in it: few slots (activation), pages used again and again (references).
BUSY = random_world(3)


def run(policy, world=WORLD, seconds=SECONDS):
    sim = Simulation(world, policy)
    sim.run(seconds)
    return sim


def digest(policy, world=WORLD, seconds=SECONDS):
    return run(policy, world, seconds).digest()


def counters(sim):
    return dict(zip(names.COUNTERS, sim.view("counter").tolist(), strict=True))


class EveryN(PyFlushPolicy):
    """BatchFlush(n) once more."""

    name = "test-every-n"

    def __init__(self, n=8, **switches):
        super().__init__(**switches)
        self.n = n

    def plan_list(self, pfns, flags, flush_after):
        flush_after[self.n - 1::self.n] = True


# --- stages

def test_stages_only_move_code_until_the_last():
    found = [digest(f"stage{k}") for k in range(6)]
    assert len(set(found[:5])) == 1
    assert found[5] != found[0]


@pytest.mark.parametrize("version, last", [("v1", 2), ("v2", 5), ("v3", 5), ("v4", 5)])
def test_every_version_only_moves_code_until_its_last_patch(version, last):
    found = [digest(f"{version}:{k}") for k in range(last + 1)]
    assert set(found[:-1]) == {digest("stage0")}
    assert found[-1] != found[0]


def test_a_batch_of_one_that_keeps_its_lock_is_stage_4():
    a = run("stage4")
    b = run(BatchFlush(1, keeps_locks=True))
    assert a.digest() == b.digest()
    assert counters(a)["try_to_unmap_flush_dirty_effective"] > 100


@pytest.mark.parametrize("stage", policies.names())
def test_the_stages_table_in_the_docs_is_the_code(stage):
    policy = policies.get(stage)
    if ":" not in stage:
        assert policy.describe().keys() == policies.get(f"v2:{stage[5:]}").describe().keys()
        return
    version, k = stage.split(":")
    rows = [line.split("|")[1:] for line in DOCS.read_text().splitlines() if re.match(r"\| \d \|", line)]
    column = int(version[1])
    slots = dict(policies.DEFAULTS)
    for row in rows[:int(k)]:
        slots |= {slot: name.partition("(")[0] for slot, name in
                  re.findall(r"(accounting|activation|free|unmap|flush) `([^`]+)`", row[column])}
    assert {slot: s.name for slot, s in policy.strategies.items()} == slots


# --- batching

def test_batching_never_flushes_more_than_once_per_batch():
    """In every run: effective flushes <= calls <= batches <= folios, and n folios a batch.

    Per folio there is one call for each folio written.  At equal touches batching makes no more
    calls in any world, and sends no more flushes over all of them.  A single world can send
    more: other timing can move a task, so that a mask that held one CPU holds two.
    """
    sent = {"stage4": 0, "stage5": 0}
    compared = 0
    for seed in range(60):
        found = {}
        for stage in sent:
            sim = Simulation(random_world(seed), stage)
            sim._core.run(1 << 50, actions=150_000, touches=2500)
            found[stage] = counters(sim)
        before, after = found["stage4"], found["stage5"]
        assert before["flush_batches"] == 0
        assert before["try_to_unmap_flush_dirty_calls"] >= before["nr_vmscan_write"]
        assert (after["try_to_unmap_flush_dirty_effective"] <= after["try_to_unmap_flush_dirty_calls"]
                <= after["flush_batches"] <= after["folios_batched"] <= 31 * after["flush_batches"])
        if before["page_touches"] == after["page_touches"] and after["flush_batches"]:
            compared += 1
            assert after["try_to_unmap_flush_dirty_calls"] <= before["try_to_unmap_flush_dirty_calls"]
            for stage in sent:
                sent[stage] += found[stage]["arch_tlbbatch_flush_remote"]
    assert compared >= 20
    assert sent["stage5"] < sent["stage4"] / 2


@pytest.mark.parametrize("n", [1, 2, 5, 16, 31])
def test_batches_hold_at_most_n(n):
    hist = run(BatchFlush(n)).view("hist_flush_batch_size")
    assert hist[n] > 0
    assert hist[n + 1:].sum() == 0


# --- each slot is a path of its own

class CountsTwice(PyAccountingPolicy):
    def count_freed(self, nr):
        return 2 * nr


class NeverActivates(PyActivationPolicy):
    def activate_folio(self, pfn, flags, refcount, mapcount):
        return False


class KeepsWritten(PyFreePolicy):
    def dispatch_result(self, result, flags):
        return "keep" if result == "success" else "keep_locked"


class NeverDefers(PyUnmapPolicy):
    def plan_list(self, pfns, flags, defer):
        defer[:] = False


@pytest.mark.parametrize("stage", ["stage4", "stage5"])
@pytest.mark.parametrize("slot, defect", [
    ("accounting", CountsTwice), ("activation", NeverActivates), ("free", KeepsWritten),
    ("unmap", NeverDefers), ("flush", BatchFlush(31, remainder=False))])
def test_a_defect_in_any_slot_changes_the_result(stage, slot, defect):
    world = BUSY if slot == "activation" else WORLD
    good = Simulation(world, stage)
    bad = Simulation(world, {"base": stage, slot: defect})
    for sim in (good, bad):
        sim._core.run(1 << 50, actions=40_000)
    assert good.digest() != bad.digest()


# --- Python strategies

@pytest.mark.parametrize("n", [1, 3, 8, 31])
def test_python_equals_compiled(n):
    assert digest(EveryN(n)) == digest(BatchFlush(n))
    assert digest({"base": "stage5", "flush": EveryN(n, rechecks=("mapped",))}) == \
        digest({"base": "stage5", "flush": BatchFlush(n, rechecks=("mapped",))})


class SameAccounting(PyAccountingPolicy):
    pass


class SameActivation(PyActivationPolicy):
    pass


class SameFree(PyFreePolicy):
    pass


class SameUnmap(PyUnmapPolicy):
    pass


class SameFlush(PyFlushPolicy):
    def plan_list(self, pfns, flags, flush_after):
        flush_after[:] = True


SAME = {"accounting": SameAccounting, "activation": SameActivation, "free": SameFree,
        "unmap": SameUnmap, "flush": SameFlush}
METHODS = {"accounting": "count_freed", "activation": "activate_folio", "free": "dispatch_result",
           "unmap": "plan_list", "flush": "plan_list"}


@pytest.mark.parametrize("slot", SAME)
def test_the_python_bases_do_what_stage_0_does(slot):
    strategy = SameFlush(keeps_locks=True) if slot == "flush" else SAME[slot]
    for world in (WORLD, BUSY):
        assert digest({slot: strategy}, world) == digest("stage0", world)


class Fault(Exception):
    pass


def arena(sim):
    """All bytes but the touches that the run may still make, which every call sets."""
    tables = {name: sim.view(name) for name in sim.tables}
    left = tables.pop("memcg")
    return {name: table.tobytes() for name, table in tables.items()} | {
        name: left[name].tobytes() for name in left.dtype.names if name != "touches_left"}


@pytest.mark.parametrize("slot", SAME)
@pytest.mark.parametrize("k", [1, 2, 7])
@pytest.mark.parametrize("fuse", [True, False])
def test_an_error_leaves_the_world_as_it_was(slot, k, fuse):
    """run() raises it; mended, the run goes on to the digest of one that never failed."""
    calls = {"nr": 0, "broken": True}

    def method(self, *args):
        calls["nr"] += 1
        if calls["nr"] >= k and calls["broken"]:
            for array in args[2:]:
                if isinstance(array, np.ndarray):
                    array[:] = True          # half a verdict
            raise Fault(f"call {calls['nr']}")
        return getattr(super(failing, self), METHODS[slot])(*args)

    failing = type("Failing", (SAME[slot],), {METHODS[slot]: method})
    make = {"keeps_locks": True} if slot == "flush" else {}
    world = BUSY if slot == "activation" else WORLD
    sim = Simulation(world, {slot: failing(**make)})
    with pytest.raises(Fault, match=f"call {k}"):
        sim.run(SECONDS, fuse=fuse)
    sim.verify()
    before = sim.digest(), sim.now_ps, arena(sim)
    with pytest.raises(Fault, match=f"call {k + 1}"):
        sim.step()
    assert (sim.digest(), sim.now_ps) == before[:2]
    with pytest.raises(Fault, match=f"call {k + 2}"):
        sim.run(SECONDS, fuse=fuse)
    assert (sim.digest(), sim.now_ps) == before[:2]
    assert arena(sim) == before[2]
    calls["broken"] = False
    sim.run(SECONDS, fuse=fuse)
    sim.verify()
    assert sim.digest() == digest({slot: SAME[slot](**make)}, world)


# What a strategy does with what it is given; the error that comes out, None for none.
def _resize(pfns, flags, out):
    out.resize(64)


def _write_pfns(pfns, flags, out):
    pfns[0] = 5


def _write_flags(pfns, flags, out):
    flags[:] = 0


def _unlock(pfns, flags, out):
    pfns.flags.writeable = True


def _beyond(pfns, flags, out):
    out[32] = True


def _wrong_shape(pfns, flags, out):
    out[:] = np.zeros(40, dtype=bool)


def _refill(pfns, flags, out):
    out.dtype = np.uint8
    out[:] = 7


@pytest.mark.parametrize("act, error", [
    (_resize, ValueError), (_write_pfns, ValueError), (_write_flags, ValueError),
    (_unlock, ValueError), (_beyond, IndexError), (_wrong_shape, ValueError), (_refill, None)])
@pytest.mark.parametrize("base", [PyFlushPolicy, PyUnmapPolicy])
def test_misuse_of_the_arrays_is_an_error(act, error, base):
    policy = type("Misuse", (base,), {"plan_list": lambda self, *args: act(*args)})
    sim = Simulation(WORLD, policy())
    if error is None:
        sim.run(SECONDS)
    else:
        with pytest.raises(error):
            sim.run(SECONDS)
    sim.verify()


def test_arrays_may_be_kept_after_the_run():
    kept = []

    class Keeps(PyFlushPolicy):
        def plan_list(self, pfns, flags, flush_after):
            kept.append((pfns, flags, flush_after))

    run(Keeps())
    assert len(kept) > 10
    for pfns, flags, flush_after in kept:
        assert 1 <= len(pfns) == len(flags) == len(flush_after) <= 32
        assert (pfns.dtype, flags.dtype, flush_after.dtype) == (np.int64, np.uint32, np.bool_)
        assert not pfns.flags.writeable and not flags.flags.writeable
        pfns.sum(), flags.sum()
        flush_after[:] = True


def test_two_simulations_have_arrays_of_their_own():
    seen = []

    class Sees(PyFlushPolicy):
        def plan_list(self, pfns, flags, flush_after):
            seen.append(pfns.__array_interface__["data"][0])

    policy = Sees()
    run(policy), run(policy)
    assert len(set(seen)) == 2


@pytest.mark.parametrize("junk", ["3", None, 10**30, [1], 10**7, -10**7])
def test_junk_counts_are_refused(junk):
    class Junk(PyAccountingPolicy):
        def count_freed(self, nr):
            return junk

    sim = Simulation(WORLD, Junk)
    with pytest.raises((TypeError, ValueError, OverflowError)):
        sim.run(SECONDS)
    sim.verify()


@pytest.mark.parametrize("junk", ["nope", None, 3, [1], b"free", np.zeros(3)])
def test_junk_actions_are_refused(junk):
    class Junk(PyFreePolicy):
        def dispatch_result(self, result, flags):
            return junk

    sim = Simulation(WORLD, Junk)
    with pytest.raises((TypeError, ValueError)):
        sim.run(SECONDS)
    sim.verify()


def test_junk_truth_is_refused():
    class Junk(PyActivationPolicy):
        def activate_folio(self, pfn, flags, refcount, mapcount):
            return np.zeros(3)

    sim = Simulation(BUSY, Junk)
    with pytest.raises(ValueError, match="ambiguous"):
        sim.run(SECONDS)
    sim.verify()


def test_a_strategy_without_its_method_says_so():
    with pytest.raises(NotImplementedError, match="Lacking must define plan_list"):
        run(type("Lacking", (PyFlushPolicy,), {})())


@pytest.mark.parametrize("call", ["run", "step", "log", "snapshot", "restore"])
def test_running_from_inside_is_refused(call):
    box = {}

    class Nested(PyFlushPolicy):
        def plan_list(self, pfns, flags, flush_after):
            sim = box["sim"]
            {"run": lambda: sim.run(SECONDS), "step": sim.step, "log": lambda: sim.log(SECONDS),
             "snapshot": sim.snapshot, "restore": lambda: sim.restore(box["snapshot"])}[call]()

    sim = box["sim"] = Simulation(WORLD, Nested())
    box["snapshot"] = sim.snapshot()
    with pytest.raises(RuntimeError, match="from inside a strategy"):
        sim.run(SECONDS)
    sim.verify()
    sim.snapshot()


def test_looking_and_stopping_from_inside_is_allowed():
    box = {"seen": set()}

    class Looks(PyFlushPolicy):
        def plan_list(self, pfns, flags, flush_after):
            sim = box["sim"]
            box["seen"].add(sim.digest())
            sim.now_ps, sim.view("folio")["flags"].sum()
            sim.stop()

    sim = box["sim"] = Simulation(WORLD, Looks())
    assert sim.run(SECONDS).partial
    assert len(box["seen"]) > 3


@pytest.mark.parametrize("seed", range(6))
def test_arbitrary_verdicts_never_crash(seed):
    """Strategies that decide at random: the run goes on or says why it cannot."""
    rng = np.random.default_rng(seed)
    actions = np.array(["keep_locked", "activate_locked", "keep", "free"])

    def plan(self, pfns, flags, out):
        out[:] = rng.integers(0, 2, len(out))

    policy = {
        "accounting": type("A", (PyAccountingPolicy,),
                           {"count_freed": lambda self, nr: int(rng.integers(0, 2))}),
        "activation": type("B", (PyActivationPolicy,),
                           {"activate_folio": lambda self, *a: bool(rng.integers(0, 2))}),
        "free": type("C", (PyFreePolicy,), {"dispatch_result": lambda self, *a: rng.choice(actions)}),
        "unmap": type("D", (PyUnmapPolicy,), {"plan_list": plan}),
        "flush": type("E", (PyFlushPolicy,), {"plan_list": plan})(
            keeps_locks=bool(seed & 1), rechecks=(), remainder=bool(seed & 2))}
    for world in (WORLD, random_world(seed)):
        sim = Simulation(world, policy)
        try:
            sim._core.run(1 << 50, actions=20_000)
            sim.digest()
        except (SimulationError, SnapshotError):
            pass


def test_counts_beyond_what_was_scanned_do_not_stop_the_scan_arithmetic():
    """The share of lists is a division; run apart, since it must not end the process."""
    code = """
        import random
        from reclaim.policies.accounting import PyAccountingPolicy
        from reclaim.simulation import Simulation
        from reference.worlds import small_world

        class Odd(PyAccountingPolicy):
            calls = 0

            def count_freed(self, nr):
                Odd.calls += 1
                return random.Random(Odd.calls).choice([0, 1, 2, 3, 40])

        for seed in range(20):
            Simulation(small_world(seed=seed), Odd).run(0.05)
        print("done")
        """
    found = _python(code)
    assert (found.returncode, found.stdout) == (0, "done\n"), found.stderr


def _python(code, cwd=None, timeout=60):
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(reclaim.__file__).parent.parent)])
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=cwd, timeout=timeout,
                          capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": path})


# --- state

class Alternating(PyFlushPolicy):
    """Batches of 8 and of 16 in turn."""

    name = "test-alternating"
    state_dtype = np.dtype([("lists", "i8")])

    def plan_list(self, pfns, flags, flush_after):
        n = 16 if self.state["lists"][0] % 2 else 8
        flush_after[n - 1::n] = True
        self.state["lists"] += 1


def test_state_lives_in_the_arena():
    whole = run(Alternating())
    lists = counters(whole)["shrink_folio_list_calls"]
    assert whole.view("policy_flush")["lists"] == lists > 10
    assert whole.digest() not in (digest(BatchFlush(8)), digest(BatchFlush(16)))
    sim = Simulation(WORLD, Alternating())
    rng = np.random.default_rng(1)
    while sim.now_ps < SECONDS * 10**12:
        sim._core.run(round(SECONDS * 10**12), actions=int(rng.integers(1, 4000)))
        kept = sim.snapshot()
        sim._core.run(1 << 50, actions=500)
        sim.restore(kept)
        sim = pickle.loads(pickle.dumps(sim))
    assert sim.digest() == whole.digest()
    assert sim.view("policy_flush")["lists"] == lists


def test_state_is_of_one_simulation():
    policy = Alternating()
    a, b = Simulation(WORLD, policy), Simulation(WORLD, policy)
    a.run(SECONDS)
    assert policy.state is None
    assert b.view("policy_flush")["lists"] == 0
    with pytest.raises(SnapshotError, match="policy layout"):
        Simulation(WORLD, "stage5").restore(a.snapshot())


# --- names and instances

def test_a_users_instance_is_copied():
    class Counts(PyFlushPolicy):
        def __init__(self):
            super().__init__()
            self.calls = []

        def plan_list(self, pfns, flags, flush_after):
            self.calls.append(len(pfns))

    policy = Counts()
    a, b = Simulation(WORLD, policy), Simulation(WORLD, policy)
    a.run(SECONDS)
    b.run(SECONDS)
    assert policy.calls == []
    assert a._core.policies.flush.calls == b._core.policies.flush.calls != []
    assert a._core.policies.flush is not b._core.policies.flush


def test_what_cannot_be_copied_is_refused():
    class Holds(PyFlushPolicy):
        def __init__(self):
            super().__init__()
            self.lock = __import__("threading").Lock()

    with pytest.raises(PolicyError, match="cannot be copied for a run"):
        Simulation(WORLD, Holds())


def test_a_class_defined_again_wins(tmp_path):
    text = """
from reclaim.policies.flush import PyFlushPolicy

class Cell(PyFlushPolicy):
    name = "test-cell"

    def plan_list(self, pfns, flags, flush_after):
        flush_after[{n} - 1::{n}] = True
"""
    hashes = []
    for n in (4, 16):
        path = tmp_path / f"cell{n}.py"
        path.write_text(text.format(n=n))
        spec = importlib.util.spec_from_file_location(f"cell{n}", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        sim = run({"base": "stage5", "flush": "test-cell"})
        assert sim.digest() == digest(BatchFlush(n))
        hashes.append(sim.provenance()["policy"]["slots"]["flush"]["source"])
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize("policy, said", [
    ("stagee5", "did you mean 'stage5'"), ("v2:9", "v2:0 to v2:5"), ("", "unknown policy"),
    ({"flash": "batch"}, "did you mean 'flush'"), ({"flush": "bach"}, "did you mean 'batch'"),
    ({"flush": "batch(0)"}, "1 to 31, got 0"), ({"flush": "batch(x)"}, "whole number"),
    ({"flush": "batch(8"}, "parenthes"), ({"flush": "per-folio(3)"}, "per-folio"),
    ({"flush": 3}, "not a flush strategy"), ({"unmap": BatchFlush()}, "not a unmap strategy"),
    ({"base": "stage7"}, "did you mean"), (3, "got int"), (None, "got NoneType")])
def test_unknown_names_are_refused(policy, said):
    with pytest.raises(PolicyError, match=re.escape(said)):
        Simulation(WORLD, policy)


@pytest.mark.parametrize("n", [0, 32, 2.0, "3", None])
def test_batch_sizes_out_of_range(n):
    with pytest.raises(ValueError, match="from 1 to 31"):
        BatchFlush(n)


def test_unknown_rechecks_are_refused():
    with pytest.raises(ValueError, match="unknown re-check 'locked'"):
        BatchFlush(rechecks=("locked",))


def test_what_a_policy_can_be():
    want = digest("stage5")
    for policy in (policies.get("stage5"), {"base": "stage5"}, BatchFlush, BatchFlush(31),
                   {"base": "stage4", "flush": "batch(31)"}, {"base": "stage4", "flush": BatchFlush}):
        assert digest(policy) == want
    assert digest(PerFolioFlush) == digest("stage0")
    assert policies.get({"base": "stage5", "name": "mine"}).name == "mine"


@pytest.mark.parametrize("name", policies.names())
def test_policies_and_strategies_survive_pickle(name):
    policy = pickle.loads(pickle.dumps(policies.get(name)))
    assert policy.describe() == policies.get(name).describe()


def test_python_strategies_survive_pickle():
    made = pickle.loads(pickle.dumps(EveryN(5, rechecks=("mapped",))))
    assert (made.n, made._traits()) == (5, EveryN(5, rechecks=("mapped",))._traits())
    assert digest(made) == digest(EveryN(5, rechecks=("mapped",)))


# --- the examples of the docs

def _blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(), re.S)


def test_the_python_examples_of_the_docs_run():
    scope = {}
    for block in _blocks("python"):
        if "PyFlushPolicy" in block:
            exec(compile(block, "docs/policies.md", "exec"), scope)
    assert digest(scope["EveryEight"]) == digest(BatchFlush(8))
    assert digest(scope["Alternating"]) == digest(Alternating)


@pytest.mark.slow
def test_the_cython_example_of_the_docs_builds_out_of_the_tree(tmp_path):
    (tmp_path / "every.pyx").write_text(_blocks("cython")[0])
    setup, = (block for block in _blocks("python") if "cythonize" in block)
    (tmp_path / "setup.py").write_text(setup)
    env = {**os.environ, "PYTHONPATH": str(Path(reclaim.__file__).parent.parent), "CFLAGS": "-O1"}
    built = subprocess.run([sys.executable, "setup.py", "build_ext", "--inplace"], cwd=tmp_path,
                           env=env, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    found = _python(f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import pickle
        import every
        from reclaim.policies.flush import BatchFlush
        from reclaim.simulation import Simulation
        from test_policies import WORLD, SECONDS, digest

        for n in (1, 8, 31):
            assert digest(every.EveryCompiled(n)) == digest(BatchFlush(n)), n
        by_name = {{"base": "stage5", "flush": "every-compiled(16)"}}
        assert digest(by_name) == digest(BatchFlush(16))
        sim = pickle.loads(pickle.dumps(Simulation(WORLD, every.EveryCompiled(16))))
        sim.run(SECONDS)
        assert sim.digest() == digest(BatchFlush(16))
        print("same")
        """)
    assert (found.returncode, found.stdout) == (0, "same\n"), found.stderr
