"""``json``: the result as `reclaim plot`, `report` and `rerun` read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from reclaim.exports import About, Kind, Sink

if TYPE_CHECKING:
    from reclaim.result import Result


class _Saved(Sink):
    result: Result | None = None

    def finish(self, result: Result, at: int) -> None:
        self.result = result


class JsonKind(Kind):
    """Result.save: two files."""

    name = "json"
    what = "the result; its arrays go beside it"

    def check(self, path: str) -> None:
        from reclaim.saved import check_name
        check_name(path)

    def open(self, path: str, about: About) -> AbstractContextManager[Sink]:
        return self._open(path, about)

    @contextmanager
    def _open(self, path: str, about: About) -> Iterator[Sink]:
        sink = _Saved(about)
        yield sink
        if sink.result is not None:
            sink.result.save(path)


KINDS = (JsonKind(),)
