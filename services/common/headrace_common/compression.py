"""Inflating what clients compressed, and the way back. Never inflates past a limit."""

from __future__ import annotations

import zlib

from headrace_common.errors import InvalidArgument, LimitExceeded, Unimplemented

ENCODINGS = ("identity", "deflate", "gzip")
"""Names as in grpc-encoding and content-encoding."""

_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS
# Bodies of tensors hardly shrink; the fastest level gets most of what there is.
_LEVEL = 1


def inflate(encoding: str, data: bytes, limit: int) -> bytes:
    """`data` as it was before `encoding`.

    "deflate" is the zlib format (RFC 1950), as both HTTP and gRPC say; raw deflate (RFC 1951), which
    some HTTP clients send under that name, is accepted too. More than one gzip member is refused: many
    tiny ones would cost time without end.

    Args:
        encoding: one of `ENCODINGS`; "" is identity.
        data: compressed bytes.
        limit: largest size of the result in bytes; inflating stops there.

    Raises:
        LimitExceeded: the result would be larger.
        InvalidArgument: `data` is corrupt or cut off.
        Unimplemented: no such encoding.
    """
    if encoding in {"", "identity"}:
        if len(data) > limit:
            raise _too_large(limit)
        return data
    if encoding == "gzip":
        return _inflate(data, limit, _GZIP, encoding)
    if encoding == "deflate":
        return _inflate(data, limit, _ZLIB if _is_zlib(data) else _RAW, encoding)
    raise Unimplemented(f"encoding {encoding!r} is not offered; expected one of {', '.join(ENCODINGS)}")


def deflate(encoding: str, data: bytes) -> bytes:
    """`data` under `encoding`.

    Raises:
        Unimplemented: no such encoding.
    """
    if encoding in {"", "identity"}:
        return data
    if encoding not in ENCODINGS:
        raise Unimplemented(f"encoding {encoding!r} is not offered; expected one of {', '.join(ENCODINGS)}")
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP if encoding == "gzip" else _ZLIB)
    return packer.compress(data) + packer.flush()


def _inflate(data: bytes, limit: int, window_bits: int, encoding: str) -> bytes:
    unpacker = zlib.decompressobj(window_bits)
    try:
        # One byte past the limit tells "exactly the limit" from "more than it".
        result = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise InvalidArgument(f"the body is not valid {encoding}: {error}") from None
    if len(result) > limit:
        raise _too_large(limit)
    if not unpacker.eof:
        raise InvalidArgument(f"the body is not valid {encoding}: it is cut off")
    if unpacker.unused_data:
        raise InvalidArgument(f"the body is not valid {encoding}: {len(unpacker.unused_data)} bytes follow its end")
    return result


def _is_zlib(data: bytes) -> bool:
    """RFC 1950: method 8 in the low bits, and the first two bytes are a multiple of 31."""
    return len(data) >= 2 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0


def _too_large(limit: int) -> LimitExceeded:
    return LimitExceeded(f"the message is larger than the {limit} bytes that are accepted")
