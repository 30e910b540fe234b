"""Slot 3: the dispatch of ``pageout()``'s results, and when a clean folio is freed.

Asked once per result.
"""

from reclaim._policy import ACTIONS, RESULTS, ExtractedFree, FreePolicy, InlineFree, PyFreePolicy

__all__ = ["ACTIONS", "RESULTS", "ExtractedFree", "FreePolicy", "InlineFree", "PyFreePolicy"]
