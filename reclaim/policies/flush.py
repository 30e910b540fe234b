"""Slot 5: when the pending flushes of dirty folios are issued, and what is re-checked.

Asked once per list, before shrink_folio_list looks at its first folio.
"""

from reclaim._policy import RECHECKS, BatchFlush, FlushPolicy, PerFolioFlush, PyFlushPolicy

__all__ = ["RECHECKS", "BatchFlush", "FlushPolicy", "PerFolioFlush", "PyFlushPolicy"]
