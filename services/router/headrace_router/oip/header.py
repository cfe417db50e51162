"""Takes the bytes of a ModelInferRequest apart without parsing them.

From request to request of one client, everything but the id and the tensors' data is mostly the same
bytes. Split off, those bytes are a key under which the result of parsing and checking them is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_HEADER_BYTES = 4096

# Tags of length-delimited top-level fields: model_name, model_version, parameters, inputs, outputs.
_KEPT = frozenset((0x0A, 0x12, 0x22, 0x2A, 0x32))
_ID, _RAW = 0x1A, 0x3A


@dataclass(slots=True)
class SplitRequest:
    """A request in three parts.

    Attributes:
        header: the message without its id and raw_input_contents; itself a ModelInferRequest.
        request_id: UTF-8.
        spans: begin and end of each entry of raw_input_contents in the whole, one after the other.
    """

    header: bytes
    request_id: bytes
    spans: Sequence[int]


def split(body: bytes) -> SplitRequest | None:
    """The parts of `body`; None for whatever is unusual or broken, which is for the parser to judge.

    Usual is: known fields only, raw_input_contents last, a short header.
    """
    try:
        return _split(body)
    except (IndexError, UnicodeDecodeError):
        return None


def _split(body: bytes) -> SplitRequest | None:
    at, end = 0, len(body)
    id_from = id_to = 0
    request_id = b""
    while at < end and (tag := body[at]) != _RAW:
        size, start = _length(body, at + 1)
        if tag == _ID:
            # Of several ids the last counts; the others stay in the header, where they do no harm.
            id_from, id_to, request_id = at, start + size, body[start : start + size]
        elif tag not in _KEPT:
            return None
        at = start + size
    header_to = at
    if at >= end or header_to > MAX_HEADER_BYTES:
        return None
    spans: list[int] = []
    while at < end:
        if body[at] != _RAW:
            return None
        size, start = _length(body, at + 1)
        at = start + size
        spans += (start, at)
    if at != end:
        return None
    if not request_id.isascii():
        request_id.decode()
    return SplitRequest(body[:id_from] + body[id_to:header_to], request_id, spans)


def _length(body: bytes, at: int) -> tuple[int, int]:
    """A length and where what it measures begins."""
    value = body[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    shift = 7
    # Five groups hold every length that protobuf allows (under 2 GiB).
    for place in range(at + 1, at + 5):
        group = body[place]
        value |= (group & 0x7F) << shift
        if group < 0x80:
            return value, place + 1
        shift += 7
    raise IndexError(at)
