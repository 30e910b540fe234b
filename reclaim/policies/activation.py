"""Slot 2: what happens to a folio that cannot be reclaimed now.

Asked once per folio that reaches the ``activate_locked`` label of shrink_folio_list.
"""

from reclaim._policy import (
    ActivationPolicy,
    FolioActivateLocked,
    InlineActivation,
    NeverActivate,
    PyActivationPolicy,
)

__all__ = ["ActivationPolicy", "FolioActivateLocked", "InlineActivation", "NeverActivate",
           "PyActivationPolicy"]
