"""Slot 4: how mappings are removed: which folios' flushes may be deferred.

Asked once per list, before shrink_folio_list looks at its first folio.
"""

from reclaim._policy import FolioTryUnmap, ImmediateUnmap, InlineUnmap, PyUnmapPolicy, UnmapPolicy

__all__ = ["FolioTryUnmap", "ImmediateUnmap", "InlineUnmap", "PyUnmapPolicy", "UnmapPolicy"]
