"""Reading and replacing files: bounded, and nothing half-written stays behind."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from reclaim.errors import ReclaimError


@contextmanager
def replacing(name: str, error: type[ReclaimError] = ReclaimError) -> Iterator[IO[bytes]]:
    """An empty file that becomes `name` at the end, and goes if there is an error before it.

    Raises
    ------
    error : `name` is a directory or a device.
    OSError : it cannot be written.
    """
    path = os.path.realpath(name)         # a link stays, what it points to is replaced
    with suppress(OSError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise error(f"{name}: found a directory or a device, expected a name for the output; "
                        "give another one")
    beside = os.path.join(os.path.dirname(path), f".reclaim-{secrets.token_hex(8)}.tmp")
    try:
        try:
            with open(beside, "x+b") as file:
                yield file
            os.replace(beside, path)
        finally:
            with suppress(OSError):
                os.unlink(beside)
    except OSError as failure:            # reading raises a ReclaimError: this is the output's
        raise OSError(failure.errno, failure.strerror, name) from failure


def read_bounded(path: str, limit: int, error: type[ReclaimError], what: str) -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    what : what the file should be, for the error.

    Raises
    ------
    error : it cannot be read, is no regular file, or is longer.
    """
    def at_once(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK)   # a FIFO without a writer must not hang
    try:
        with open(path, "rb", opener=at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise error(f"{path}: not a regular file; expected {what}")
            data = file.read(limit + 1)
    except OSError as err:
        raise error(f"{path}: {err.strerror or err}; expected {what}") from None
    except ValueError as err:             # a NUL in the path
        if isinstance(err, ReclaimError):
            raise
        raise error(f"{path!r}: {err}") from None
    if len(data) > limit:
        raise error(f"{path}: longer than {limit:,} bytes; expected {what}")
    return data


def check_directory(name: str, error: type[ReclaimError]) -> str:
    """`name`, if the directory that it would be in is there.

    Raises
    ------
    error : it is not.
    """
    folder = os.path.dirname(name) or "."
    if not os.path.isdir(folder):
        raise error(f"{name}: there is no directory {folder}; make it, or give another name")
    return name
