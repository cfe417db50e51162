"""Metadata, timeouts and messages as gRPC over HTTP/2 writes them into headers. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

from headrace_common.errors import InvalidArgument

Headers = list[tuple[bytes, bytes]]

_RESERVED = frozenset({b"content-type", b"te", b"host", b"connection", b"transfer-encoding", b"content-length"})
_SECONDS = {
    b"H": 3600.0,
    b"M": 60.0,
    b"S": 1.0,
    b"m": 1e-3,
    b"u": 1e-6,
    b"n": 1e-9,
}
_TIMEOUT_DIGITS = 8
# What RFC 3986 calls safe plus the rest of printable ASCII but "%": the set of the gRPC specification.
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


class Metadatum(NamedTuple):
    key: str
    value: str | bytes


def decode_metadata(headers: Iterable[tuple[bytes, bytes]]) -> tuple[Metadatum, ...]:
    """A call's metadata; keys with the suffix "-bin" have bytes as values.

    Raises:
        InvalidArgument: a binary value is not base64.
    """
    decoded: list[Metadatum] = []
    for name, value in headers:
        if name in _RESERVED or name.startswith((b":", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding")):
            continue
        key = name.decode("ascii")
        if key.endswith("-bin"):
            decoded.extend(Metadatum(key, _decode_binary(key, part)) for part in value.split(b","))
        else:
            decoded.append(Metadatum(key, value.decode("latin-1")))
    return tuple(decoded)


def encode_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> Headers:
    """Metadata as headers."""
    return [(key.lower().encode("ascii"), encode_value(key, value)) for key, value in metadata]


def encode_value(key: str, value: str | bytes) -> bytes:
    """Binary values as base64 without padding, as the specification recommends."""
    raw = value.encode("utf-8") if isinstance(value, str) else value
    return base64.b64encode(raw).rstrip(b"=") if key.lower().endswith("-bin") else raw


def parse_timeout(value: bytes) -> float:
    """Seconds of a grpc-timeout: at most 8 digits and a unit.

    Raises:
        InvalidArgument: it is something else.
    """
    digits, unit = value[:-1], value[-1:]
    if unit not in _SECONDS or not digits.isdigit() or len(digits) > _TIMEOUT_DIGITS:
        raise InvalidArgument(
            f"grpc-timeout is {value.decode('latin-1')!r}; expected 1 to 8 digits and one of H, M, S, m, u, n"
        )
    return int(digits) * _SECONDS[unit]


@lru_cache(maxsize=1024)
def encode_message(message: str) -> bytes:
    """A status message, percent-encoded. A flood of refusals says the same again and again."""
    return quote(message, safe=_PRINTABLE).encode("ascii")


def _decode_binary(key: str, value: bytes) -> bytes:
    stripped = value.strip().rstrip(b"=")
    try:
        return base64.b64decode(stripped + b"=" * (-len(stripped) % 4), validate=True)
    except binascii.Error:
        raise InvalidArgument(f"metadata {key!r} is not base64, which the suffix -bin asks for") from None
