"""Trace formats besides lackey, compressed files, `convert`, and what a new format needs."""

from __future__ import annotations

import gzip
import lzma
import os
import re
import struct
import sys
import tempfile
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reclaim import cli, formats, workloads
from reclaim.conversion import convert
from reclaim.errors import TraceError
from reclaim.formats import _text, libcachesim
from reclaim.workloads import trace

DATA = Path(__file__).parent / "data"
FAULTS = [DATA / "faults.ftrace.gz", DATA / "faults.perf.gz"]
Ref = tuple[int | None, int, bool]


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def references(path: Path, **options: str) -> list[Ref]:
    out: list[Ref] = []
    for b in formats.read(path, **options):
        task = [None] * len(b.page) if b.task is None else b.task.tolist()
        out += zip(task, b.page.tolist(), b.write.tolist(), strict=True)
    return out


def record(obj: int, following: int = -1, time: int = 0, size: int = 1) -> bytes:
    return struct.pack("<IQIq", time, obj, size, following)


def first_writes(ids: list[int]) -> list[Ref]:
    return [(None, obj, obj not in ids[:i]) for i, obj in enumerate(ids)]


def next_accesses(ids: list[int]) -> list[int]:
    return [ids.index(obj, i + 1) + 1 if obj in ids[i + 1:] else -1 for i, obj in enumerate(ids)]


# --- libCacheSim ----------------------------------------------------------------------------------

IDS = [7, 2**64 - 1, 7, 0, 7, 0]
ORACLE = b"".join(record(*pair) for pair in zip(IDS, next_accesses(IDS), strict=True))
TXT = "".join(f"{i}\n" for i in IDS)


@pytest.mark.parametrize("data", [ORACLE, TXT.encode(), TXT.rstrip().encode(), ("# ids\n\n" + TXT).encode(),
                                  TXT.replace("\n", "\r\n").encode(),
                                  ORACLE[:-8] + struct.pack("<q", 2**63 - 1)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_libcachesim(tmp_path, data, pack):
    path = write(tmp_path / "t", pack(data))
    assert references(path) == first_writes(IDS)
    assert [w for *_, w in references(path, writes="all")] == [True] * 6
    assert [w for *_, w in references(path, writes="none")] == [False] * 6
    p = trace.read(path)
    assert p.trace.tolist() == [1, 3, 0, 5, 0, 4] and p.mm_pages == (3,)     # densely numbered


def test_first_writes_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(_text, "BLOCK", 5)
    monkeypatch.setattr(libcachesim, "CHUNK", 2)
    assert references(write(tmp_path / "t", TXT)) == first_writes(IDS)
    assert references(write(tmp_path / "o", ORACLE)) == first_writes(IDS)


# --- page faults ----------------------------------------------------------------------------------

def slow_faults(path: Path) -> list[Ref]:
    """The same by the obvious loop: fields of the line, as both tools write them."""
    out: list[Ref] = []
    for line in gzip.open(path, "rt"):
        if "page_fault_user:" in line:
            fields = line.split()
            task = fields[1] if "exceptions:" in line else fields[0].rpartition("-")[2]
            value = dict(f.split("=") for f in fields if "=" in f)
            out.append((int(task), int(value["address"], 16) >> 12,
                        value["error_code"] in ("0x6", "0x7")))
    return out


@pytest.mark.parametrize("path", FAULTS, ids=lambda path: path.name)
@pytest.mark.parametrize("block", [200, 1 << 20])
def test_real_faults(path, block, monkeypatch):
    monkeypatch.setattr(_text, "BLOCK", block)
    refs = slow_faults(path)
    assert len(refs) > 40 and {w for *_, w in refs} == {True, False} and len({t for t, *_ in refs}) > 2
    assert references(path) == refs


@pytest.mark.parametrize("path", FAULTS, ids=lambda path: path.name)
def test_each_task_replays_its_own_faults(path):
    refs, p = slow_faults(path), trace.read(path, merge=False)
    tasks = list(dict.fromkeys(t for t, *_ in refs))
    assert p.task_mm == tuple(range(len(tasks))) and p.nr_processes == len(tasks)
    for task, row, pages in zip(tasks, p.passes, p.mm_pages, strict=True):
        own = [(page, w) for t, page, w in refs if t == task]
        number = {page: i for i, page in enumerate(dict.fromkeys(page for page, _ in own))}
        part = p.trace[row["first"]:int(row["first"]) + int(row["count"])]
        assert part.tolist() == [number[page] << 1 | w for page, w in own] and pages == len(number)


EVENT = "page_fault_user: address=0x5000 ip=0x401e8a error_code=0x6"


@pytest.mark.parametrize("line, task", [
    (f"  vmwork-155     [000] d....    38.159536: {EVENT}", 155),
    (f"  my prog-2-155   [000]    38.159536: {EVENT}", 155),                    # trace-cmd, no flags
    (f"   <...>-155     (    150) [001] d..1.    38.1: {EVENT}", 155),         # record-tgid
    (f"   <...>-155     (-------) [001] d..1.    38.1: {EVENT}", 155),
    (f"  vmwork-155     [000] d....    38159536: {EVENT}", 155),                # another trace_clock
    (f"  vmwork 155 [000]  4585.616365:        exceptions:{EVENT}", 155),
    (f"  my prog   155/156   [000]  4585.616365123:   1  exceptions:{EVENT}  ", 155),
    (f"  vmwork 155  4585.616365:        exceptions:{EVENT}", 155),             # -F without cpu
])
def test_lines_of_faults(tmp_path, line, task):
    text = f"# tracer: nop\n#\n{line}\nCPU:1 [LOST 5 EVENTS]\n"
    assert references(write(tmp_path / "t", text)) == [(task, 5, True)]
    cmd = write(tmp_path / "u", "cpus=16\n" + line.replace("0x6", "0x5").replace("0x5000", "0x5fff"))
    assert references(cmd) == [(task, 5, False)]


def test_faults_outside_user_space_are_skipped(tmp_path):
    line = f"  a-1  [000] d....  1.5: {EVENT}\n"
    path = write(tmp_path / "t", line.replace("0x5000", "0xffffffffff600000") + line)
    assert references(path) == [(1, 5, True)]


# --- what is wrong with a file --------------------------------------------------------------------

LINE = f"  a-1  [000] d....  1.5: {EVENT}\n"


@pytest.mark.parametrize("data, words", [
    (ORACLE[:-5], "byte 120: found the last 19 bytes, expected whole records of 24"),
    (record(5) * 9 + record(5, 3), "byte 232: found 3, expected next_access_vtime of reference 10"),
    (record(5) + b"text" * 6, "byte 40: found"),
    ("1\n2\nthree\n", "line 3: found 'three', expected an object id"),
    ("1\n2\n-3\n", "line 3"), (f"1\n{2**64}\n", "line 2"), ("1\n" + "9" * 21, "line 2"),
    ("1\n2 3\n", "line 2"),
    (LINE + LINE.replace("0x6", ""), "line 2: found.*error_code=0x"),
    (LINE + LINE.replace("address", "x"), "line 2"),
    (LINE * 3 + LINE.replace("a-1", "a"), "line 4"), (LINE + LINE.replace("a-1", "a-9999999999"), "line 2"),
    (LINE.replace("page_fault_user", "other"), "no memory reference .ftrace."),
    ("# tracer: nop\n#\n", "no memory reference"),
    ("#\nfoo bar\n", "line 2: found 'foo bar', expected.*--format"),
    (b"\x28\xb5\x2f\xfd" + ORACLE, "found zstd data.*zstd -d"),
    (lzma.compress(ORACLE)[:-9], "gzip or xz"), (b"\xfd7zXZ\0 junk junk", "gzip or xz"),
    (b"\0" * 240, "line 1"), (b"", "no memory reference"), (ORACLE[:20], "line 1|no memory"),
])
def test_malformed(tmp_path, data, words):
    path = write(tmp_path / "bad", data)
    with pytest.raises(TraceError, match=words) as error:
        references(path)
    assert str(path) in str(error.value)


parts = st.sampled_from([b"  a-1 ", b"a 1/2 ", b"[000] ", b"d.... ", b"1.5: ", EVENT.encode(), b"\n", b" ",
                         b"exceptions:", b"12", b"cpus=1\n", b"#", b"\0", b"\xff", record(1), record(1, 2)])


@given(st.lists(parts, max_size=40).map(b"".join), st.sampled_from([None, *formats.names()]))
def test_any_bytes_as_any_format(data, name):
    with tempfile.TemporaryDirectory() as directory:
        path = write(Path(directory) / "t", data)
        try:
            assert references(path, format=name)
        except TraceError as error:
            assert str(path) in str(error)


def test_format_can_be_named(tmp_path):
    path = write(tmp_path / "t", "1\n")
    with pytest.raises(TraceError, match="line 1: found '1', expected the header"):
        references(path, format="csv")
    with pytest.raises(TraceError, match="did you mean 'lackey'"):
        references(path, format="lackye")
    with pytest.raises(TraceError, match="the header"):
        workloads.compile(SimpleNamespace(kind="trace", file=str(path), format="csv"), seed=1)
    for name in ("txt", "auto"):
        workload = SimpleNamespace(file=str(path), format=name)
        assert trace.compile(workload, seed=1).trace.tolist() == [1]
    with pytest.raises(TraceError, match="writes must be one of"):
        references(path, writes="some")


def test_a_new_format_is_one_module(tmp_path, monkeypatch):
    write(tmp_path / "pagelist.py", """
from reclaim.formats import Block, Format
import numpy as np
class Pages(Format):
    name, looks, make = "pages", "PAGES", "a tool"
    def claims(self, head, line):
        return line == b"PAGES"
    def read(self, file, path, options):
        ids = np.array(file.read().split()[1:], dtype=np.uint64)
        yield Block(page=ids, write=np.ones(len(ids), bool))
FORMATS = (Pages(),)
""")
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path)])
    formats._formats.cache_clear()
    try:
        assert "pages" in formats.names() and "pages" not in formats.names(writable=True)
        path = write(tmp_path / "t", gzip.compress(b"PAGES\n3 4"))
        assert references(path) == [(None, 3, True), (None, 4, True)]
    finally:
        formats._formats.cache_clear()
        sys.modules.pop("reclaim.formats.pagelist", None)


# --- size -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["csv", "oracleGeneral", "ftrace"])
def test_memory_does_not_grow_with_the_file(tmp_path, name):
    if name == "oracleGeneral":
        records = np.zeros(600_000, libcachesim.RECORD)
        records["id"], records["next"] = np.arange(len(records)) % 1000, -1
        data = records.tobytes()
    else:
        data = (LINE * 150_000 if name == "ftrace" else "page,write\n" + "123456,1\n" * 1_500_000).encode()
    path = write(tmp_path / "big", data)
    size = len(data)
    del data
    tracemalloc.start()
    blocks = formats.read(path)
    count = len(next(blocks).page)
    first = tracemalloc.get_traced_memory()[1]
    for _ in range(9):
        count += len(next(blocks).page)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 12_000_000 and peak < 1.2 * first + (1 << 20) and count > 100_000


# --- convert --------------------------------------------------------------------------------------

refs_of_one = st.lists(st.tuples(st.integers(0, 9) | st.integers(0, 2**64 - 1), st.booleans()),
                       min_size=1, max_size=40)


@given(refs_of_one, st.sampled_from([1, 3, 1000]))
def test_round_trip(refs, chunk):
    ids = [page for page, _ in refs]
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(libcachesim, "CHUNK", chunk)
        patch.setattr(_text, "BLOCK", 10 * chunk)
        at = Path(directory)
        source = write(at / "a", "page,write\n" + "".join(f"{p},{w:d}\n" for p, w in refs))
        assert convert(source, at / "o", to="oracleGeneral") == (len(refs), 1)
        records = np.fromfile(at / "o", libcachesim.RECORD)
        assert records["id"].tolist() == ids and records["next"].tolist() == next_accesses(ids)
        assert records["time"].tolist() == list(range(len(ids))) and (records["size"] == 4096).all()
        convert(at / "o", at / "t", to="txt")
        assert (at / "t").read_text() == "".join(f"{i}\n" for i in ids)
        convert(at / "t", at / "o2", to="oracleGeneral")
        assert (at / "o2").read_bytes() == (at / "o").read_bytes()
        convert(source, at / "c", to="csv")
        assert references(at / "c") == [(0, page, w) for page, w in refs]
        convert(at / "t", at / "c", to="csv")
        assert references(at / "c") == [(0, page, w) for _, page, w in first_writes(ids)]
        assert sorted(p.name for p in at.iterdir()) == ["a", "c", "o", "o2", "t"]


@pytest.mark.parametrize("path", [*FAULTS, DATA / "sort.lackey.gz"], ids=lambda path: path.name)
def test_real_traces_convert(path, tmp_path):
    refs = references(path)
    total, tasks = convert(path, tmp_path / "c", to="csv")
    assert (total, tasks) == (len(refs), len({t for t, *_ in refs}))
    assert references(tmp_path / "c") == [(t or 0, page, w) for t, page, w in refs]
    assert trace.read(tmp_path / "c").trace.tolist() == trace.read(path).trace.tolist()


def test_objects_of_several_tasks_are_distinct(tmp_path):
    source = write(tmp_path / "c", "task,page,write\n9,50,1\n3,50,0\n9,50,0\n9,8,0\n3,50,0\n")
    convert(source, tmp_path / "t", to="txt")
    assert [int(i) for i in (tmp_path / "t").read_text().split()] == [0, 1 << 32, 0, 1, 1 << 32]


def run(capsys, *argv):
    try:
        code = cli.main([str(a) for a in argv])
    except SystemExit as err:
        code = err.code
    out, err = capsys.readouterr()
    return code, out, err


def test_command(tmp_path, capsys):
    source = write(tmp_path / "a.txt.gz", gzip.compress(TXT.encode()))
    target = tmp_path / "out.oracleGeneral.bin"
    said = f"{target}: oracleGeneral, 6 references of 1 task\n"
    assert run(capsys, "convert", source, target) == (0, said, "")
    assert run(capsys, "convert", source, tmp_path / "x", "--to", "csv", "--writes", "none")[0] == 0
    assert {w for *_, w in references(tmp_path / "x")} == {False}
    link = tmp_path / "link.csv"
    link.symlink_to("x")
    assert run(capsys, "convert", source, link)[0] == 0 and link.is_symlink()
    assert {w for *_, w in references(tmp_path / "x")} == {True, False}
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~mask
    assert run(capsys, "convert", target, target, "--to", "csv")[0] == 0      # onto itself


@pytest.mark.parametrize("argv, part", [
    (["convert", "a"], "OUTPUT"), (["convert", "a", "b"], "does not tell the format"),
    (["convert", "a", "b.csv.gz"], "never compressed"),
    (["convert", "a", "b", "--to", "csw"], "did you mean 'csv'"),
    (["convert", "a", "b", "--to", "lackey"], "choose from csv"),
    (["convert", "a", "b.csv", "--format", "x"], "'x'"),
    (["convert", "a", "b.csv", "--writes", "x"], "--writes"),
    (["run", "--trace", "a", "--format", "lackye"], "did you mean 'lackey'"),
    (["run", "small", "--format", "csv"], "--trace")])
def test_usage(capsys, argv, part):
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "") and part in err and "usage: reclaim" in err


def test_bad_input_leaves_the_output_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_text, "BLOCK", 64)
    target = write(tmp_path / "out.csv", "as it was")
    bad = write(tmp_path / "bad", TXT * 50 + "x\n")
    for argv, part in [((bad, target), "line 301: found 'x'"), ((tmp_path / "none", target), "No such file"),
                       ((bad, target, "--format", "csv"), "the header"),
                       ((bad, tmp_path, "--to", "csv"), "directory"),
                       ((bad, "/dev/null", "--to", "csv"), "device")]:
        code, out, err = run(capsys, "convert", *argv)
        assert (code, out) == (3, "") and part in err
    assert run(capsys, "convert", bad, tmp_path / "no" / "out.csv")[0] == 1
    assert target.read_text() == "as it was"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad", "out.csv"]


def test_interrupt_leaves_the_output_alone(tmp_path, capsys, monkeypatch):
    def interrupted(*args, **kwargs):
        yield from real(*args, **kwargs)
        raise KeyboardInterrupt
    real = formats.read
    monkeypatch.setattr(formats, "read", interrupted)
    source, target = write(tmp_path / "a", TXT), tmp_path / "out.csv"
    code, out, err = run(capsys, "convert", source, target)
    assert (code, out) == (130, "") and "is as it was" in err
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_progress_on_a_terminal(tmp_path, capsys, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(cli, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(cli.sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(_text, "BLOCK", 64)
    code, _, err = run(capsys, "convert", write(tmp_path / "a", TXT * 1000), tmp_path / "out.csv")
    assert code == 0 and re.search(r"\r\x1b\[K +\d+%  [\d,]+ references, [\d,]+ references/s, \d+ s to go", err)
    assert err.endswith("\r\x1b[K")
