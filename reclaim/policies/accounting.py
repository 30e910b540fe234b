"""Slot 1: where the count of reclaimed folios lives, and who adds to it.

Asked once per folio freed.  Patch 1 of v1 to v3 moves the count from a returned local variable
into ``struct reclaim_stat``; v4 drops that and passes a pointer (KERNEL.md 3.1, D7).
"""

from reclaim._policy import AccountingPolicy, PyAccountingPolicy, ReclaimStat, Returned

__all__ = ["AccountingPolicy", "PyAccountingPolicy", "ReclaimStat", "Returned"]
