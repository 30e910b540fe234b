"""The series, patch by patch: ``vN:k`` is version N after its patch k (KERNEL.md 3).

``stage0`` to ``stage5`` are ``v2:0`` to ``v2:5``.  What no archive shows is a named switch with
the default stated here:

* where the remainder of a batch is issued relative to the sum of pgactivate (D15): before it.
* v1's re-checks: write-back, PG_lru and mapped are seen, pinned is missing (D2); locks are kept
  from the re-check to the write-out in all versions (D12).
* v3 and v4 turn the PG_lru test into an assertion (D4): not a re-check.
"""

from __future__ import annotations

import functools
from typing import Any

from reclaim.errors import PolicyError, did_you_mean
from reclaim.policies import DEFAULTS, Policy
from reclaim.policies.flush import BatchFlush

_V1_CHECKS = ("writeback", "lru", "mapped")
_V2_CHECKS = ("writeback", "lru", "mapped", "pinned")
_V3_CHECKS = ("writeback", "mapped", "pinned")

# For each version its patches, each with the slots that it fills.
PATCHES: dict[str, tuple[dict[str, Any], ...]] = {
    "v1": (
        {"accounting": "reclaim_stat", "activation": "bounce", "free": "extracted",
         "unmap": "extracted"},
        {"flush": functools.partial(BatchFlush, 31, rechecks=_V1_CHECKS)},
    ),
    "v2": (
        {"accounting": "reclaim_stat"}, {"activation": "bounce"}, {"free": "extracted"},
        {"unmap": "extracted"},
        {"flush": functools.partial(BatchFlush, 31, rechecks=_V2_CHECKS)},
    ),
    "v3": (
        {"accounting": "reclaim_stat"}, {"activation": "bounce"}, {"free": "extracted"},
        {"unmap": "extracted"},
        {"flush": functools.partial(BatchFlush, 31, rechecks=_V3_CHECKS)},
    ),
    # v4 drops v3's first patch and passes the count's pointer on: the count stays a local of the
    # caller.  It splits v3's patch 3: folio_free first, then pageout_one.
    "v4": (
        {"activation": "bounce"}, {"free": "folio_free"}, {"free": "extracted"},
        {"unmap": "extracted"},
        {"flush": functools.partial(BatchFlush, 31, rechecks=_V3_CHECKS)},
    ),
}


def names() -> list[str]:
    """``stage0`` .. ``stage5`` and every ``vN:k``."""
    return [f"stage{k}" for k in range(6)] + [
        f"{version}:{k}" for version, patches in PATCHES.items() for k in range(len(patches) + 1)]


def get(name: str) -> Policy:
    """The policy of a stage.

    Raises
    ------
    reclaim.errors.PolicyError : no such stage.
    """
    known = names()
    if name not in known:
        raise PolicyError(f"unknown policy {name!r}: choose from stage0 to stage5, v1:0 to v1:2, "
                          f"v2:0 to v2:5, v3:0 to v3:5, v4:0 to v4:5{did_you_mean(name, known)}")
    version, k = ("v2", name[5:]) if name.startswith("stage") else name.split(":")
    slots = dict(DEFAULTS)
    for patch in PATCHES[version][:int(k)]:
        slots.update(patch)
    return Policy(name, **{s: v() if isinstance(v, functools.partial) else v
                           for s, v in slots.items()})


def describe(name: str) -> str:
    """One line: what the stage has."""
    policy = get(name)
    return ", ".join(f"{slot} {s.name}" for slot, s in policy.strategies.items())
