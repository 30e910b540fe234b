"""Writing protocol buffers, so far as a trace for Perfetto needs them (protobuf.dev, "Encoding").

A field is its number and wire type, then the value: numbers as varints or 8 bytes, all else with its length.
"""

from __future__ import annotations

import struct
from functools import lru_cache

VARINT, I64, LEN = 0, 1, 2


_SHORT = [bytes([value]) for value in range(0x80)]


def varint(value: int) -> bytes:
    """`value`, which is taken modulo 2**64, seven bits a byte."""
    if 0 <= value < 0x80:
        return _SHORT[value]
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """A field of an integer type or an enumeration."""
    return varint(field << 3 | VARINT) + varint(value)


def fixed64(field: int, value: int) -> bytes:
    """A field of type fixed64."""
    return varint(field << 3 | I64) + struct.pack("<Q", value)


def message(field: int, body: bytes) -> bytes:
    """A field of type bytes, or a message that was written already."""
    return varint(field << 3 | LEN) + varint(len(body)) + body


@lru_cache(1 << 12)
def text(field: int, value: str) -> bytes:
    """A field of type string."""
    return message(field, value.encode())
