"""Opens trace files, decompressed as they are read."""

from __future__ import annotations

import gzip
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, cast

from reclaim.errors import TraceError

_OPENERS: dict[bytes, Callable[[IO[bytes]], IO[bytes]]] = {
    b"\x1f\x8b": lambda raw: cast(IO[bytes], gzip.GzipFile(fileobj=raw)),
    b"\xfd7zXZ\0": lambda raw: cast(IO[bytes], lzma.LZMAFile(raw)),
}
_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class Source:
    """An open trace.

    file : its bytes, decompressed.
    raw : the file itself, of `size` bytes.
    """

    file: IO[bytes]
    raw: IO[bytes]
    size: int

    def share(self) -> float:
        """The share of the file that has been read, 0 to 1."""
        return min(1.0, self.raw.tell() / max(1, self.size))


@contextmanager
def open_trace(path: str | os.PathLike[str]) -> Iterator[Source]:
    """The trace `path`, decompressed if it is gzip's or xz's (told by its first bytes).

    Raises
    ------
    TraceError : it cannot be opened, is no regular file, is zstd's, or reading it failed.
    """
    name = os.fspath(path)
    if not name or "\0" in name:
        raise TraceError("the trace's file name is empty or holds a NUL; name a trace file "
                         "(workload.file, or --trace FILE)")
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):
            raise TraceError(f"{name}: found a directory or a device, expected a regular file; "
                             "name the trace file itself")
        with open(name, "rb") as raw:
            magic = raw.read(6)
            raw.seek(0)
            size = os.fstat(raw.fileno()).st_size
            if magic.startswith(_ZSTD):
                raise TraceError(f"{name}: found zstd data, expected plain, gzip or xz; decompress "
                                 "it first: zstd -d FILE -o TRACE")
            for start, opener in _OPENERS.items():
                if magic.startswith(start):
                    with opener(raw) as file:
                        yield Source(file, raw, size)
                    return
            yield Source(raw, raw, size)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise TraceError(f"{name}: found damaged or truncated gzip or xz data ({error}), expected "
                         "a whole file; make it again") from error
    except OSError as error:
        raise TraceError(f"{name}: cannot be read: {error.strerror or error}; check its name and "
                         "permissions") from error
