"""Generated pages of the docs: their last line is a hash of the others, so that an edit shows."""

from __future__ import annotations

import hashlib
import re

_SEAL = re.compile(r"(.*)\n<!-- ([0-9a-f]{32}) -->\n", re.DOTALL)


def sealed(text: str) -> str:
    """`text` with its hash."""
    return f"{text}\n<!-- {_hash(text)} -->\n"


def is_sealed(page: str) -> bool:
    """Whether `page` is as it was generated."""
    found = _SEAL.fullmatch(page)
    return found is not None and _hash(found[1]) == found[2]


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
