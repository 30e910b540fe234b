"""Every file that is read, damaged: either it is read, or there is one error that names it.

Traces are damaged in test_traces.py and test_formats.py, saved results in test_saved.py.
"""

from __future__ import annotations

import json
import os
import tracemalloc
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reclaim import measured
from reclaim.counterexample import replay
from reclaim.errors import ReclaimError
from reclaim.exploration import explore
from reclaim.machine import Profile
from reclaim.scenario import Scenario
from reclaim.tinyworld import TinyWorld

SMALL = {"name": "small", "workload": {"kind": "writer", "workers": 2, "bytes": "16M"}, "memcg": {"limit": "8M"}}
RUN = {"case": "a", "policy": "stage0", "source": "somewhere", "scenario": SMALL,
       "repeats": [{"whole": {"seconds": 1.5, "counters": {"pgscan_anon": 10, "pgsteal_anon": 5}}}]}


def _found() -> str:
    world = TinyWorld(folios=1, writes=1, defects=("no-flush-before-writeout",))
    return json.dumps(explore(tiny=world).violations[0].to_dict())


def _packaged(*names: str) -> bytes:
    return resources.files("reclaim").joinpath(*names).read_bytes()


# What reads it, and one that is whole.
READERS = {
    "scenario": (Scenario.load, _packaged("scenarios", "small.toml")),
    "profile": (Profile.load, _packaged("profiles", "vm16.toml")),
    "measured": (measured.load, f"{json.dumps(RUN)}\n{json.dumps(RUN | {'policy': 'stage5'})}\n".encode()),
    "counterexample": (replay, _found().encode()),
}
LIKELY = st.sampled_from([b"{", b"}", b"[", b"]", b'"', b",", b"\n", b"=", b"-1", b"1e999", b"NaN", b"null",
                          b"true", b'"x"', b"9" * 30, b"\0", b"\xff", b"\x1b[2J", "\u202e".encode()])


def read(kind: str, path: Path) -> str:
    """The error, or nothing."""
    try:
        READERS[kind][0](str(path))
    except ReclaimError as err:
        return str(err)
    return ""


def named(kind: str, path: Path) -> Path:
    return path / f"it.{'toml' if kind in ('scenario', 'profile') else 'jsonl'}"


@pytest.mark.parametrize("kind", READERS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged(kind, tmp_path, data):
    raw = bytearray(READERS[kind][1])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        gone = data.draw(st.sampled_from([0, 1, 1, 5, len(raw)]))
        raw[at:at + gone] = data.draw(st.one_of(LIKELY, st.binary(max_size=4)))
    path = named(kind, tmp_path)
    path.write_bytes(raw)
    error = read(kind, path)
    assert not error or path.name in error and "\x1b" not in error and len(error) < 20_000


@pytest.mark.parametrize("kind", READERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=400), st.text(max_size=200).map(str.encode)))
def test_any_bytes(kind, tmp_path, data):
    path = named(kind, tmp_path)
    path.write_bytes(data)
    error = read(kind, path)
    # an empty scenario is that of the defaults
    assert path.name in error or kind == "scenario" and not error


VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just([]),
                   st.just({}), st.sampled_from([-1, 0, 8, 2**31, 2**63, 2**64, "stage5", "none", ["x"], [-1]]))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_in_a_counterexample(tmp_path, data):
    """What is well-formed JSON goes to the core: nothing may crash it."""
    whole = json.loads(READERS["counterexample"][1])
    whole["moves"] = data.draw(st.one_of(st.just(whole["moves"]), VALUES, st.lists(st.integers(), max_size=5)))
    for key in data.draw(st.lists(st.sampled_from(sorted(whole["world"])), max_size=2)):
        whole["world"][key] = data.draw(VALUES)
    path = tmp_path / "it.json"
    path.write_text(json.dumps(whole))
    error = read("counterexample", path)
    assert not error or "it.json" in error


@pytest.mark.parametrize("kind", READERS)
def test_files_that_are_none(kind, tmp_path):
    path = named(kind, tmp_path)
    assert path.name in read(kind, path)
    os.mkfifo(path)
    assert "regular file" in read(kind, path)
    path.unlink()
    path.mkdir()
    assert path.name in read(kind, path)


@pytest.mark.parametrize("kind", READERS)
def test_truncated(kind, tmp_path):
    path, whole = named(kind, tmp_path), READERS[kind][1]
    for part in range(1, 20):
        path.write_bytes(whole[:part * len(whole) // 20])
        error = read(kind, path)
        assert not error or path.name in error


@pytest.mark.parametrize("kind", READERS)
def test_huge(kind, tmp_path):
    """A file of 4 GB without an end of line, most of it a hole, in bounded memory."""
    path = named(kind, tmp_path)
    with open(path, "wb") as file:
        file.truncate(4 << 30)
    tracemalloc.start()
    error = read(kind, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.name in error and peak < 256 << 20
