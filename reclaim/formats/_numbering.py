"""Numbers for values that are too many or too sparse to index by."""

from __future__ import annotations

import numpy as np


class Numbering:
    """Numbers values from 0 as they first appear; 12 bytes of memory a distinct value."""

    def __init__(self) -> None:
        self._known = np.zeros(0, np.uint64)      # sorted
        self._number = np.zeros(0, np.uint32)     # of _known[i]

    def __len__(self) -> int:
        return len(self._known)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """The numbers (uint32) of `values` (uint64), new ones included."""
        if not len(values):
            return np.zeros(0, np.uint32)
        change = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))
        unique, first, inverse = np.unique(values[change], return_index=True, return_inverse=True)
        at = np.searchsorted(self._known, unique)
        old = at < len(self._known)
        old[old] = self._known[at[old]] == unique[old]
        if not old.all():
            fresh = np.flatnonzero(~old)
            rank = np.empty(len(fresh), dtype=np.uint32)
            rank[np.argsort(first[fresh])] = np.arange(len(fresh))
            number = rank + np.uint32(len(self._known))
            self._known = np.insert(self._known, at[fresh], unique[fresh])
            self._number = np.insert(self._number, at[fresh], number)
            at = np.searchsorted(self._known, unique)
        runs = np.diff(np.append(change, len(values)))
        return np.repeat(self._number[at][inverse.reshape(-1)], runs)
