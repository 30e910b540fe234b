"""Files that are replaced whole or not at all."""

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
    error : `name` is no regular file.
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
    except OSError as err:                # reading raises its own: this is the output's
        raise OSError(err.errno, err.strerror, name) from err
