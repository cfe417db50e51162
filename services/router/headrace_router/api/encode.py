"""Answers and errors of the API as JSON. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import grpc
import orjson
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from headrace_common.status import DETAILS_KEY, WireStatus
from headrace_router.oip.http import Reply

# As google.rpc.Code says for each; 499 is what proxies log for a client that left.
_HTTP_OF = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}


def encode_message(message: Message) -> bytes:
    """By its proto names, with every field that cannot be absent; 64-bit integers are strings, enums names."""
    return orjson.dumps(as_document(message))


def as_document(message: Message) -> dict[str, Any]:
    document: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return document


def error_of_call(error: grpc.aio.AioRpcError) -> Reply:
    """What the autoscaler answered."""
    trailers: Iterable[tuple[str, Any]] = error.trailing_metadata() or ()
    details = next((value for key, value in trailers if key == DETAILS_KEY), None)
    return error_reply(error.code(), error.details() or "", details, _HTTP_OF[error.code()])


def error_of_wire(wire: WireStatus) -> Reply:
    """What this process says itself."""
    return error_reply(wire.code, wire.message, wire.details, wire.http_status)


def error_reply(
    code: grpc.StatusCode,
    message: str,
    details: bytes | None = None,
    http_status: int = 500,
    headers: tuple[tuple[str, str], ...] = (),
) -> Reply:
    """The one form of errors: gRPC's code as a number, the message, details as google.protobuf.Any.

    Args:
        details: a serialised google.rpc.Status. Its RetryInfo becomes Retry-After too.
    """
    packed = _details(details)
    for one in packed:
        retry = error_details_pb2.RetryInfo()
        if one.Unpack(retry):
            seconds = math.ceil(retry.retry_delay.ToNanoseconds() / 1e9)
            headers = (*headers, ("retry-after", str(max(1, seconds))))
    document = {"code": code.value[0], "message": message, "details": [_detail(one) for one in packed]}
    return Reply(http_status, orjson.dumps(document), headers)


def _details(serialised: bytes | None) -> list[Any]:
    try:
        return list(status_pb2.Status.FromString(serialised or b"").details)
    except DecodeError:
        return []


def _detail(packed: Any) -> dict[str, Any]:
    try:
        return as_document(packed)
    except (TypeError, json_format.Error, DecodeError):  # Of a type that this process does not know.
        return {"@type": packed.type_url}
