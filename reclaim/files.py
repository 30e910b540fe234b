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


@contextmanager
def regular(path: str, error: type[ReclaimError], hint: str = "") -> Iterator[IO[bytes]]:
    """The regular file at `path`, to be read.

    hint : what the messages end with.

    Raises
    ------
    error : it cannot be opened or read, or is no regular file.
    """
    try:
        # A FIFO without a writer must not hang.
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
        with file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise error(f"{path}: not a regular file{hint}")
            yield file
    except OSError as err:
        raise error(f"{path}: {err.strerror or err}{hint}") from None
    except ValueError as err:             # a NUL in the path
        if isinstance(err, ReclaimError):
            raise
        raise error(f"{path!r}: {err}") from None


def read_bounded(path: str, limit: int, error: type[ReclaimError], what: str) -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    what : what the file should be, for the error.

    Raises
    ------
    error : it cannot be read, is no regular file, or is longer.
    """
    hint = f"; expected {what}"
    with regular(path, error, hint) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise error(f"{path}: longer than {limit:,} bytes{hint}")
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
