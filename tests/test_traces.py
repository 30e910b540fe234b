"""Trace readers: references in, arrays or a TraceError out, whatever the bytes."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reclaim import formats, workloads
from reclaim.errors import TraceError
from reclaim.formats import _text
from reclaim.workloads import AccessProgram, trace

DATA = Path(__file__).parent / "data"
LACKEY = "==7== banner, with comma\n\nI  04001000,3\n L 1ffe000ff8,16\n S 04002004,8\n M 04002008,4\n"


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def references(path: Path, **options: bool) -> list[tuple[int | None, int, bool]]:
    out: list[tuple[int | None, int, bool]] = []
    for b in formats.read(path, **options):
        task = [None] * len(b.page) if b.task is None else b.task.tolist()
        out += zip(task, b.page.tolist(), b.write.tolist(), strict=True)
    return out


def slow_lackey(path: Path) -> list[tuple[int, bool]]:
    """The same by the obvious loop."""
    opened = gzip.open(path, "rt") if path.suffix == ".gz" else path.open()
    out = []
    with opened as file:
        for line in file:
            if line[:2] in ("==", "--", "**") or not line.strip():
                continue
            address, size = line[3:].split(",")
            first, last = int(address, 16) >> 12, (int(address, 16) + int(size) - 1) >> 12
            out += [(page, line[1] in "SM") for page in range(first, last + 1)]
    return out


def merged(refs: list[tuple[int, bool]]) -> list[int]:
    """The trace of one task by the obvious loop."""
    number: dict[int, int] = {}
    out: list[int] = []
    for page, is_write in refs:
        entry = number.setdefault(page, len(number)) << 1 | is_write
        if not out or out[-1] != entry:
            out.append(entry)
    return out


def check(p: AccessProgram) -> None:
    for row, mm_pages in zip(p.passes, p.mm_pages, strict=True):
        part = p.trace[row["first"]:int(row["first"]) + int(row["count"])]
        assert len(part) == row["count"] >= 1
        pages = part >> 1
        unique, first = np.unique(pages, return_index=True)
        assert len(unique) == mm_pages == pages.max() + 1
        assert (np.diff(first) > 0).all()           # numbered as they first appear


def test_lackey(tmp_path: Path) -> None:
    path = write(tmp_path / "t", LACKEY)
    assert references(path) == [(None, 0x4001, False), (None, 0x1FFE000, False),
                                (None, 0x1FFE001, False), (None, 0x4002, True), (None, 0x4002, True)]
    assert references(path, instructions=False)[0] == (None, 0x1FFE000, False)
    p = trace.read(path)
    assert p.trace.tolist() == [0, 2, 4, 7] and p.mm_pages == (4,) and p.nr_processes == 1
    assert p.task_loop_to == (-1,) and p.task_restart == (False,) and p.passes["think"][0] == 1250
    assert trace.read(path, merge=False).trace.tolist() == [0, 2, 4, 7, 7]
    assert trace.read(path, page_size=1 << 30).mm_pages == (2,)


@pytest.mark.parametrize("text", [
    LACKEY.rstrip("\n"), LACKEY.replace("\n", "\r\n"), LACKEY.replace("04002004", "0000000004002004")])
def test_lackey_variants_are_equal(tmp_path: Path, text: str) -> None:
    assert references(write(tmp_path / "t", text)) == references(write(tmp_path / "u", LACKEY))


@pytest.mark.parametrize("block", [7, 64, 1 << 20])
def test_shipped_trace_equals_the_slow_reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                              block: int) -> None:
    path = DATA / "sort.lackey.gz"
    refs = slow_lackey(path)
    assert len(refs) > 50_000
    if block < 100:      # small blocks on a part of it
        path = write(tmp_path / "part", b"\n".join(gzip.open(path).read().split(b"\n")[:2000]) + b"\n")
        refs = slow_lackey(path)
    monkeypatch.setattr(_text, "BLOCK", block)
    assert [(page, w) for _, page, w in references(path)] == refs
    p = trace.read(path)
    check(p)
    assert p.trace.tolist() == merged(refs)
    assert p.passes["think"][0] == 1000 * len(refs) // len(p.trace)


@pytest.mark.parametrize("text, refs", [
    ("page,write\n1,0\n2,w\n2,1\n9,R\n", [(None, 1, False), (None, 2, True), (None, 2, True), (None, 9, False)]),
    ("addr,write\n4096,1\n0x2fff,r\n", [(None, 1, True), (None, 2, False)]),
    ("task,page,write\n7,1,0\n3,1,1\n\n7,0,0\n", [(7, 1, False), (3, 1, True), (7, 0, False)]),
    ("Write,Page,Task\r\n1,5,2\r\n", [(2, 5, True)]),
])
def test_csv(tmp_path: Path, text: str, refs: list[tuple[int | None, int, bool]]) -> None:
    assert references(write(tmp_path / "t.csv", text)) == refs
    assert references(write(tmp_path / "t.csv.gz", gzip.compress(text.encode()))) == refs


def test_csv_tasks_have_their_own_mm(tmp_path: Path) -> None:
    p = trace.read(write(tmp_path / "t", "task,page,write\n7,100,0\n3,100,1\n7,50,0\n7,50,0\n3,100,0\n"))
    check(p)
    assert p.mm_pages == (2, 1) and p.task_mm == (0, 1) and p.trace.tolist() == [0, 2, 1, 0]
    assert p.passes["first"].tolist() == [0, 2] and p.nr_processes == 2


@pytest.mark.parametrize("text, words", [
    ("I  04001000,3\nhello\n", "line 2: found 'hello', expected 'I  addr,size'"),
    (" L 04001000\n S 04001000,4\n", "line 1"),
    (" L xyz,4\n", "line 1"), (" L 04001000,\n", "line 1"), (" L 04001000,4x\n", "line 1"),
    (" L 04001000,0\n", "a size of 1 to"), (" L 04001000,99999999\n", "a size of 1 to"),
    (" L ffffffffffffffff,8\n", "an address below"), (" L 11112222333344445,8\n", "line 1"),
    ("II 04001000,3\n", "line 1"), (" X 04001000,3\n", "line 1"), (" L 4,4,4\n", "line 1"),
    ("", "no memory reference"), ("==1== only a banner\n", "no memory reference"),
    ("page,write\n", "no memory reference"), ("page\n1\n", "line 1.*the header"),
    ("page,page,write\n", "the header"), ("page,addr,write\n", "the header"),
    ("page,write\n1\n", "line 2.*the columns page,write"), ("page,write\n1,0,0\n", "line 2"),
    ("page,write\n1,2\n", "0, 1, r or w"), ("page,write\n1,\n", "0, 1, r or w"),
    ("page,write\n-1,0\n", "page to be a number"), ("page,write\n,0\n", "page to be"),
    ("page,write\n99999999999999999999,0\n", "page to be"), ("page,write\n0x10,0\n", "page to be"),
    ("addr,write\n0x,0\n", "addr to be"), ("task,page,write\n4294967296,0,0\n", "task to be"),
    ("page,write\n" + "1" * 9000, "at most 4096 bytes"), ("\0" * 100_000, "line 1: found"),
    ("z" * 50, "the header"),
])
def test_malformed(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path / "bad.trace", text)
    with pytest.raises(TraceError, match=words) as error:
        trace.read(path)
    assert str(path) in str(error.value)


def test_line_numbers_count_from_the_start_of_the_file(tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_text, "BLOCK", 64)
    text = " L 04001000,4\n" * 99 + "oops oops oops\n"
    with pytest.raises(TraceError, match="line 100: found 'oops oops oops'"):
        trace.read(write(tmp_path / "t", text))


def test_files(tmp_path: Path) -> None:
    whole = gzip.compress(LACKEY.encode() * 500)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    for name, data, words in [("cut", whole[:-9], "gzip"), ("damaged", bytes(damaged), "gzip"),
                              ("head", whole[:5], "gzip"), ("magic", b"\x1f\x8bjunk junk junk", "gzip")]:
        with pytest.raises(TraceError, match=words):
            trace.read(write(tmp_path / name, data))
    with pytest.raises(TraceError, match="No such file"):
        trace.read(tmp_path / "missing")
    with pytest.raises(TraceError, match="directory"):
        trace.read(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(TraceError, match="regular file"):
        trace.read(tmp_path / "fifo")
    for name in ("", "a\0b"):
        with pytest.raises(TraceError, match="file name"):
            workloads.compile(SimpleNamespace(kind="trace", file=name, format="auto"), seed=1)
    with pytest.raises(TraceError, match="page_size"):
        trace.read(write(tmp_path / "t", LACKEY), page_size=3000)


def test_too_many_tasks(tmp_path: Path) -> None:
    text = "task,page,write\n" + "".join(f"{i},0,0\n" for i in range(4097))
    with pytest.raises(TraceError, match="4096 tasks"):
        trace.read(write(tmp_path / "t", text))


def survives(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "t"
        path.write_bytes(data)
        try:
            p = trace.read(path)
        except TraceError as error:
            assert str(path) in str(error)
        else:
            check(p)


lines = st.sampled_from([b" L ", b" S ", b" M ", b"I  ", b"==", b"page,write", b"task,addr,write",
                         b"04001000", b"ffffffffffffffff", b",", b"\n", b"\r\n", b"8", b"1", b"r",
                         b"0x", b" ", b"-", b"\0", b"\xff"])


@given(st.one_of(st.binary(max_size=300), st.lists(lines, max_size=60).map(b"".join)))
def test_any_bytes(data: bytes) -> None:
    survives(data)


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_any_gzip(data: bytes, at: int, value: int) -> None:
    packed = bytearray(gzip.compress(LACKEY.encode() + data))
    packed[at % len(packed)] = value
    survives(bytes(packed))


@given(st.lists(st.tuples(st.sampled_from(["I ", " L", " S", " M"]), st.integers(0, 2**48),
                          st.integers(1, 9000)), min_size=1, max_size=60),
       st.sampled_from([5, 50, 5000]))
def test_lackey_equals_the_slow_reader(refs: list[tuple[str, int, int]], block: int) -> None:
    text = "".join(f"{kind} {address:08x},{size}\n" for kind, address, size in refs)
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(_text, "BLOCK", block)
        path = write(Path(directory) / "t", text)
        slow = slow_lackey(path)
        assert [(page, w) for _, page, w in references(path)] == slow
        assert trace.read(path).trace.tolist() == merged(slow)


PROGRAMS = {
    "sort": ["sort", "-n", "INPUT"],
    "true": ["true"],
    "python": [sys.executable, "-I", "-S", "-c", "pass"],
    "sqlite": ["sqlite3", ":memory:", "create table t(a); insert into t values (2), (1); "
                                      "select * from t order by a"],
}


MOST = 16 << 20      # bytes of a log that are kept: python alone would write a gigabyte


def lackey(command: list[str], log: Path) -> None:
    """Run `command` under lackey until it ends or has written `MOST` bytes of whole lines."""
    ours, theirs = os.pipe()
    with open(ours, "rb") as pipe, subprocess.Popen(
            ["valgrind", "--tool=lackey", "--trace-mem=yes", f"--log-fd={theirs}", *command],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(theirs,)) as process:
        os.close(theirs)
        text = pipe.read(MOST)
        process.kill()
    log.write_bytes(text[:text.rfind(b"\n") + 1])


@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not installed")
@pytest.mark.parametrize("name", PROGRAMS)
def test_real_program(name: str, tmp_path: Path) -> None:
    command = PROGRAMS[name]
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    numbers = write(tmp_path / "numbers", "".join(f"{i * 7919 % 1000}\n" for i in range(300)))
    log = tmp_path / "log"
    lackey([str(numbers) if c == "INPUT" else c for c in command], log)
    p = workloads.compile(SimpleNamespace(kind="trace", file=str(log), format="auto"), seed=1)
    check(p)
    assert p.mm_pages[0] > 50 and len(p.trace) > 10_000 and (p.trace & 1).any()
