"""Traces from one format into another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from reclaim import formats
from reclaim.errors import TraceError
from reclaim.files import replacing


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str], *, to: str,
            format: str | None = None, writes: str = "first",
            progress: Callable[[float, int], None] | None = None) -> tuple[int, int]:
    """Write the trace `source` as `target`; the numbers of references and of tasks.

    `target` is replaced when all is written, or else left as it was.

    Parameters
    ----------
    to : one of ``reclaim.formats.names(writable=True)``.
    format, writes : as for `reclaim.formats.read`.
    progress : called now and then with the share of `source` read and the references so far.

    Raises
    ------
    TraceError : as for `reclaim.formats.read`, or `target` is no regular file.
    OSError : `target` cannot be written.
    """
    writer = formats.by_name(to)
    if not writer.writable:
        raise TraceError(f"{to} cannot be written: must be one of "
                         f"{', '.join(formats.names(writable=True))}")
    total, share, tasks = 0, 0.0, set[int]()

    def read(value: float) -> None:
        nonlocal share
        share = value

    def blocks() -> Iterator[formats.Block]:
        nonlocal total
        for block in formats.read(source, format=format, writes=writes, progress=read):
            total += len(block.page)
            tasks.update(task for task, _ in block.tasks())
            if progress is not None:
                progress(share, total)
            yield block
    with replacing(os.fspath(target), TraceError) as file:
        writer.write(file, blocks())
    return total, len(tasks)
