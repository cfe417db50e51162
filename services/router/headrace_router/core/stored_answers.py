"""Answers as bytes, for a cache outside of this process, and back.

    "HR" | version, 1 byte | check, 8 bytes | tensors, 2 bytes |
    per tensor: length of name, 2 | name | length of datatype, 1 | datatype | dimensions, 1 |
                each dimension, 8 | length of data, 8 | data

All integers are little-endian. The check is a BLAKE2b of what follows it, keyed with the cache key: what was
damaged, cut off, written by somebody else or stored under another key is not an answer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from hmac import compare_digest

from headrace_router.domain import Buffer, TensorData

VERSION = 1
_MAGIC = b"HR" + bytes([VERSION])
_CHECK_BYTES = 8
_HEAD_BYTES = len(_MAGIC) + _CHECK_BYTES


def encode_answer(key: bytes, outputs: Sequence[TensorData]) -> bytes:
    """The value to store under `key`."""
    pieces: list[Buffer] = [struct.pack("<H", len(outputs))]
    for tensor in outputs:
        pieces.append(_tensor_head(tensor))
        pieces.append(tensor.data)
    body = b"".join(pieces)
    return _MAGIC + _check(key, body) + body


def decode_answer(key: bytes, value: bytes) -> list[TensorData] | None:
    """What `encode_answer` was given; None: the value is not one that it made for this key."""
    body = value[_HEAD_BYTES:]
    if not value.startswith(_MAGIC) or not compare_digest(value[len(_MAGIC) : _HEAD_BYTES], _check(key, body)):
        return None
    try:
        return list(_tensors(body))
    except (struct.error, UnicodeDecodeError, ValueError):
        return None


def _check(key: bytes, body: bytes) -> bytes:
    return blake2b(body, digest_size=_CHECK_BYTES, key=key).digest()


def _tensor_head(tensor: TensorData) -> bytes:
    name, datatype, shape = tensor.name.encode(), tensor.datatype.encode(), tensor.shape
    return struct.pack(
        f"<H{len(name)}sB{len(datatype)}sB{len(shape)}qQ",
        len(name),
        name,
        len(datatype),
        datatype,
        len(shape),
        *shape,
        len(tensor.data),
    )


def _tensors(body: bytes) -> Iterable[TensorData]:
    """Raises struct.error or ValueError where the body does not hold what it says."""
    (count,) = struct.unpack_from("<H", body)
    at = 2
    for _ in range(count):
        name, at = _text(body, at, "<H")
        datatype, at = _text(body, at, "<B")
        (dimensions,) = struct.unpack_from("<B", body, at)
        *shape, size = struct.unpack_from(f"<{dimensions}qQ", body, at + 1)
        at += 1 + 8 * (dimensions + 1)
        yield TensorData(name, datatype, tuple(shape), _cut(body, at, size))
        at += size
    if at != len(body):
        raise ValueError("bytes are left over")


def _text(body: bytes, at: int, length: str) -> tuple[str, int]:
    (size,) = struct.unpack_from(length, body, at)
    start = at + struct.calcsize(length)
    return _cut(body, start, size).decode(), start + size


def _cut(body: bytes, start: int, size: int) -> bytes:
    piece = body[start : start + size]
    if len(piece) != size:
        raise ValueError("the value ends too early")
    return piece
