"""Slot 3: the dispatch of ``pageout()``'s results, and when a clean folio is freed.

Asked once per result, and once per folio that could be freed.
"""

from reclaim._policy import ACTIONS, RESULTS, ExtractedFree, FolioFree, FreePolicy, InlineFree, PyFreePolicy

__all__ = ["ACTIONS", "RESULTS", "ExtractedFree", "FolioFree", "FreePolicy", "InlineFree", "PyFreePolicy"]
