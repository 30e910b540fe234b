"""Results in files: the same comes back, nothing half-written stays, no file can do harm."""

import io
import json
import os
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reclaim
from reclaim import saved
from reclaim.cli import main
from reclaim.comparison import compare, simulate
from reclaim.errors import ReclaimError, ResultError
from reclaim.result import Result
from reclaim.scenario import Scenario
from reclaim.simulation import Simulation


@pytest.fixture(scope="module")
def result():
    return simulate("small", "stage5", seconds=0.02)


@pytest.fixture
def file(result, tmp_path):
    path = tmp_path / "r.json"
    result.save(path)
    return path


def arrays_of(path):
    return path.parent / json.loads(path.read_text())["arrays"]["file"]


def call(capsys, *argv):
    try:
        code = main(list(argv))
    except SystemExit as err:
        code = err.code
    return code, *capsys.readouterr()


# --- there and back -------------------------------------------------------------------------------

def test_round_trip(result, file):
    back = Result.load(file)
    for name in ("scenario", "policy", "seed", "counters", "seconds", "partial", "digest", "wall_s", "name"):
        assert getattr(back, name) == getattr(result, name), name
    assert json.loads(json.dumps(back.provenance)) == json.loads(json.dumps(dict(result.provenance)))
    for group in saved.GROUPS:
        assert list(getattr(back, group)) == list(getattr(result, group))
        for name, values in getattr(result, group).items():
            assert getattr(back, group)[name].dtype == values.dtype
            assert np.array_equal(getattr(back, group)[name], values)
    assert repr(back) == repr(result) and back.shares() == result.shares()


def test_numpy_reads_the_arrays(result, file):
    with np.load(arrays_of(file), allow_pickle=False) as arrays:
        assert np.array_equal(arrays["histograms.flush_batch_size"], result.histograms["flush_batch_size"])


def test_equal_results_are_equal_files(result, tmp_path):
    for name in ("a", "b"):
        result.save(tmp_path / f"{name}.json")
    a, b = (arrays_of(tmp_path / f"{name}.json") for name in "ab")
    assert a.read_bytes() == b.read_bytes() and a.name[1:] == b.name[1:]


def test_saving_again_replaces_both(result, file):
    first = arrays_of(file)
    simulate("small", "stage0", seconds=0.02).save(file)
    assert Result.load(file).policy == "stage0"
    assert sorted(os.listdir(file.parent)) == sorted(["r.json", arrays_of(file).name]) and not first.exists()


def test_through_a_link(result, tmp_path):
    (tmp_path / "to").mkdir()
    os.symlink(tmp_path / "to" / "real.json", tmp_path / "link.json")
    result.save(tmp_path / "link.json")
    assert Result.load(tmp_path / "link.json").digest == result.digest
    assert os.path.islink(tmp_path / "link.json") and len(os.listdir(tmp_path / "to")) == 2


@pytest.mark.parametrize("name", ["r.txt", "r", ".json", "nowhere/r.json", "r.json.gz"])
def test_names_refused(result, tmp_path, name):
    with pytest.raises(ResultError, match="ends in .json|no directory"):
        result.save(tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_a_world_is_refused(tmp_path):
    from reference.worlds import small_world
    result = Simulation(small_world()).run(0.001)
    with pytest.raises(ResultError, match="World"):
        result.save(tmp_path / "r.json")


@pytest.mark.parametrize("step", [1, 2])
def test_nothing_half_written_stays(result, file, monkeypatch, step):
    before = {p.name: p.read_bytes() for p in file.parent.iterdir()}
    other, calls = simulate("small", "stage0", seconds=0.02), []

    def full(file_, data):
        calls.append(data)
        if len(calls) == step:
            raise OSError(28, "No space left on device")
        real(file_, data)
    real = saved._write
    monkeypatch.setattr(saved, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        other.save(file)
    assert {p.name: p.read_bytes() for p in file.parent.iterdir()} == before


def test_a_kill_between_the_two_leaves_the_older(result, file, monkeypatch):
    monkeypatch.setattr(saved, "_write", lambda f, data: (f.write(data), f.flush())
                        if data[:1] != b"{" else os._exit(9))
    pid = os.fork()
    if not pid:
        simulate("small", "stage0", seconds=0.02).save(file)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert Result.load(file).policy == "stage5"


# --- hostile files --------------------------------------------------------------------------------

def change(path, **changes):
    data = json.loads(path.read_text())
    for key, value in changes.items():
        outer, _, inner = key.partition("__")
        if inner:
            data[outer][inner] = value
        else:
            data[key] = value
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("changes, part", [
    ({"format": "else"}, '"format"'), ({"version": 2}, "version 2"), ({"seed": -1}, '"seed" = -1'),
    ({"seed": True}, '"seed" = True'), ({"seconds": "1"}, '"seconds"'), ({"policy": 5}, '"policy" = 5'),
    ({"counters": []}, '"counters"'), ({"counters__pgfault": "x"}, "'pgfault' = 'x'"),
    ({"counters__pgfault": 10**400}, "'pgfault' = 1000"), ({"counters__pgfault": 1e99}, "at most 1e+30"),
    ({"scenario__memcg": {"limt": 1}}, "did you mean 'limit'"),
    ({"arrays__file": "../../etc/passwd"}, '"file"'),
    ({"arrays__file": ""}, '"file"'), ({"arrays__bytes": 5}, "bytes"), ({"arrays__bytes": 2**60}, '"bytes"'),
    ({"arrays__blake2b": "00"}, "BLAKE2b"), ({"arrays__file": "gone.npz"}, "No such file"),
    ({"partial": 1}, '"partial"')])
def test_wrong_entries(file, changes, part):
    change(file, **changes)
    with pytest.raises(ReclaimError) as err:
        Result.load(file)
    assert part in str(err.value) and str(file.parent) in str(err.value)


@pytest.mark.parametrize("content, part", [
    (b"", "line 1"), (b"{", "not JSON"), (b"\xff\xfe", "not UTF-8 at byte 0"), (b"[" * 100_000, "nested"),
    (b'{"a": NaN}', "NaN"), (b"[]", '"format"'), (b'{"x": ' + b"9" * 5000 + b"}", "not JSON"),
    (b" " * (saved.MAX_JSON + 1), "longer than")])
def test_no_json(tmp_path, content, part):
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(ResultError, match=part) as err:
        Result.load(path)
    assert str(path) in str(err.value) and len(str(err.value)) < 400


def test_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for name, part in (("none.json", "No such file"), ("", "directory|regular"), ("pipe.json", "regular"),
                       ("a\0b", "null")):
        with pytest.raises(ResultError, match=part):
            Result.load(f"{tmp_path}/{name}")


def packed(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return out.getvalue()


def npy(array=None, header=None, body=b"", pickled=False):
    out = io.BytesIO()
    if header is None:
        np.lib.format.write_array(out, array, allow_pickle=pickled)
    else:
        out.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + body)
    return out.getvalue()


HUGE = "{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,)}\n"


@pytest.mark.parametrize("data, part", [
    (b"PK\x03\x04 no zip", "not an .npz"), (packed({"evil.npy": b""}), "GROUP.NAME"),
    (packed({"times.x.npy": b"no array"}), "not an array"),
    (packed({"times.x.npy": npy(np.array([{}]), pickled=True)}), "of object"),
    (packed({"times.x.npy": npy(header=HUGE)}), "cut off or hostile"),
    (packed({"times.x.npy": npy(header="{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}\n")}),
     "hostile|array"),
    (packed({"times.x.npy": npy(header="__import__('os').system('true')\n")}), "not an array"),
    (packed({"times.x.npy": npy(np.arange(9.0))[:-8]}), "cut off"),
    (packed({"times.x.npy": npy(np.array(["text"]))}), "expected numbers"),
    (packed({"times.x.npy": npy(np.zeros((2, 2)))}), "one dimension"),
    (packed({"times.x.npy": npy(np.array([np.nan]))}), "negative number or none"),
    (packed({"times.\x1b[2J.npy": npy(np.zeros(2))}), "GROUP.NAME"),
    (packed({f"times.{i}.npy": b"" for i in range(300)}), "at most 256"),
    (packed({"times.x.npy": npy(np.zeros(1000))})[:-30], "not an .npz")])
def test_bad_arrays(data, part):
    with pytest.raises(ResultError, match=part) as err:
        saved._unpack("r.npz", data)
    assert str(err.value).startswith("r.npz: ") and len(str(err.value)) < 400


def test_a_zip_bomb_is_not_unpacked(monkeypatch):
    monkeypatch.setattr(saved, "MAX_NPZ", 1 << 20)
    bomb = packed({"times.x.npy": npy(np.zeros(1 << 22))})      # 32 MB in 32 kB
    tracemalloc.start()
    with pytest.raises(ResultError, match="unpacked"):
        saved._unpack("r.npz", bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_are_refused(result, tmp_path, data):
    """Whatever one byte or a cut does, either the result is read whole or there is one located error."""
    path = tmp_path / "r.json"
    result.save(path)
    victim = data.draw(st.sampled_from([path, arrays_of(path)]))
    raw = bytearray(victim.read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        raw[at] = data.draw(st.integers(0, 255))
    else:
        del raw[at:]
    victim.write_bytes(raw)
    try:
        Result.load(path)
    except ReclaimError as err:
        assert str(tmp_path) in str(err)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_arrays_never_crash(data):
    raw = bytearray(packed({"times.user.npy": npy(np.arange(20.0)), "histograms.h.npy": npy(np.arange(5))}))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        saved._unpack("r.npz", bytes(raw))
    except ResultError as err:
        assert str(err).startswith("r.npz: ")


# --- again ----------------------------------------------------------------------------------------

def test_rerun(result, file):
    again = saved.rerun(Result.load(file))
    assert again.digest == result.digest and saved.difference(result, again) == ""


def test_rerun_of_a_run_with_an_end_of_its_own(tmp_path):
    result = Simulation(Scenario.load("small"), "stage5", seed=9).run(1.0, touches=3000)
    result.save(tmp_path / "r.json")
    assert saved.rerun(Result.load(tmp_path / "r.json")).digest == result.digest


def test_rerun_command(capsys, tmp_path, monkeypatch):
    path = str(tmp_path / "r.json")
    code, out, err = call(capsys, "run", "small", "--policy", "stage5", "--seconds", "0.02",
                          "--seed", "3", "-o", path)
    assert (code, err) == (0, "") and "seed 3" in out
    code, out, err = call(capsys, "rerun", path, "--json")
    assert code == 0 and json.loads(out)["seed"] == 3 and "reproduced" in err
    for gone in tmp_path.glob("*.npz"):     # a rerun needs no arrays
        gone.unlink()
    assert call(capsys, "rerun", path)[0] == 0
    change(tmp_path / "r.json", digest="0" * 64, provenance__reclaim="0.0.9", counters__pgsteal_anon=5)
    code, out, err = call(capsys, "rerun", path)
    assert code == 1 and "the digest differs: 000" in err
    assert f"reclaim 0.0.9 then, {reclaim.__version__} now" in err
    assert "pgsteal_anon 5 then" in err and "Traceback" not in err


@pytest.mark.parametrize("changes, part", [
    ({"partial": True}, "interrupted"), ({"policy": "every-8"}, "not known here"),
    ({"provenance": {}}, "provenance"),
    ({"provenance__run": {"seconds": -1, "touches": 0}}, "where the run was to end"),
    ({"provenance__run": {"seconds": 1, "touches": 2**70}}, "where the run was to end")])
def test_what_cannot_be_repeated(capsys, file, changes, part):
    change(file, **changes)
    code, out, err = call(capsys, "rerun", str(file))
    assert (code, out) == (3, "") and part in err


def test_run_checks_the_name_before_the_work(capsys, tmp_path):
    code, out, err = call(capsys, "run", "small", "-o", str(tmp_path / "r.txt"))
    assert (code, out) == (3, "") and "ends in .json" in err
    code, out, err = call(capsys, "run", "small", "-o", str(tmp_path / "no" / "r.json"))
    assert (code, out) == (3, "") and "no directory" in err


# --- tables ---------------------------------------------------------------------------------------

def test_tables(result):
    tables = result.tables()
    assert list(tables) == ["counters", "times", "percentiles", "causes", *result.histograms]
    row = tables["counters"].array[0]
    assert row["pgsteal_anon"] == result.counters["pgsteal_anon"] and row["policy"] == "stage5"
    times = tables["times"]
    assert len(times) == 2 and np.array_equal(times["user"], result.times["user"])
    assert times.units["user"] == "ns"
    batches = tables["flush_batch_size"]
    assert (batches["folios"] * batches["flushes"]).sum() == result.counters["folios_batched"]
    assert np.asarray(times).dtype.names == times.columns
    assert "<table>" in times._repr_html_() and "user [ns]" in repr(times)


def test_tables_of_a_comparison():
    table = compare("batch-tlb-flush", seeds=2, seconds=0.01)
    rows = table.tables()["rows"]
    assert rows["metric"].tolist() == [row.metric for row in table.rows] and rows.units["low_pct"] == "%"
    assert rows["p"].dtype == np.float64 and len(table.tables()["counters"]) == 4
    assert table.tables()["counters"]["seed"].tolist() == [1, 2, 1, 2]


def test_to_pandas(result, monkeypatch):
    pandas = pytest.importorskip("pandas")
    frame = result.tables()["counters"].to_pandas()
    assert isinstance(frame, pandas.DataFrame) and frame["pgfault"][0] == result.counters["pgfault"]
    assert frame.attrs["units"]["simulated_s"] == "s"


def test_without_pandas(result, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ResultError, match="pip install pandas"):
        result.tables()["times"].to_pandas()


def test_arrow(result):
    pyarrow = pytest.importorskip("pyarrow")
    for name, table in result.tables().items():
        arrow = pyarrow.table(table)
        arrow.validate(full=True)
        assert arrow.column_names == list(table.columns) and len(arrow) == len(table), name
        for column in table.columns:
            assert arrow[column].to_pylist() == table[column].tolist(), (name, column)


def test_arrow_parts_outlive_the_rest(result):
    pyarrow = pytest.importorskip("pyarrow")
    reader = pyarrow.RecordBatchReader.from_stream(result.tables()["times"])
    column = reader.read_next_batch().column("user")
    del reader
    assert column.to_pylist() == result.times["user"].tolist()
    result.tables()["times"].__arrow_c_stream__()        # a stream that nobody takes


def test_arrow_leaks_nothing(result):
    pyarrow = pytest.importorskip("pyarrow")
    table = result.tables()["counters"]
    held = None
    for i in range(600):
        pyarrow.table(table)
        table.__arrow_c_stream__()
        if i == 100:
            tracemalloc.start()
            held = tracemalloc.get_traced_memory()[0]
    grown = tracemalloc.get_traced_memory()[0] - held
    tracemalloc.stop()
    assert grown < 100_000 and pyarrow.total_allocated_bytes() < 1 << 20


def test_arrow_text_beyond_ascii_and_no_rows():
    pyarrow = pytest.importorskip("pyarrow")
    from reclaim.tables import Table
    array = np.array([("é\u4e2d", 1), ("", 2)], dtype=[("name", "U4"), ("n", "i8")])
    assert pyarrow.table(Table("t", array)).to_pydict() == {"name": ["é\u4e2d", ""], "n": [1, 2]}
    assert len(pyarrow.table(Table("t", array[:0]))) == 0
    with pytest.raises(TypeError, match="'z'.*complex"):
        Table("t", np.zeros(2, dtype=[("z", "c16")])).__arrow_c_stream__()


def test_times_of_different_lengths_are_refused(result, file):
    data = packed({"times.user.npy": npy(np.zeros(2)), "times.idle.npy": npy(np.zeros(3))})
    arrays_of(file).write_bytes(data)
    change(file, arrays__bytes=len(data),
           arrays__blake2b=__import__("hashlib").blake2b(data, digest_size=32).hexdigest())
    with pytest.raises(ResultError, match="differ in length"):
        Result.load(file)


def test_any_provenance_can_be_shown(file, capsys, tmp_path):
    change(file, provenance={"policy": "none", "reclaim": "\x1b[2J", "run": {"seconds": 0.01, "touches": 0}})
    out = tmp_path / "r.html"
    assert main(["report", str(file), str(file), "-o", str(out)]) == 0 and out.read_text()
    code, _, err = call(capsys, "rerun", str(file))
    assert code == 1 and "\x1b" not in err


def test_histograms_leave_out_the_warm_up():
    scenario = Scenario.load("small").replace(seconds=0.05, warmup=0.03)
    result = Simulation(scenario, "stage5").run()
    whole = Simulation(scenario.replace(warmup=0.0), "stage5").run()
    assert result.digest == whole.digest
    batches = result.histograms["flush_batch_size"]
    assert 0 < batches.sum() == result.counters["flush_batches"] < whole.counters["flush_batches"]
    assert (batches * np.arange(len(batches))).sum() == result.counters["folios_batched"]
    assert result.histograms["targets_per_flush"].sum() == result.counters["nr_tlb_remote_flush"]
