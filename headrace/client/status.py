"""From a gRPC status to the error tree; the inverse of `headrace_common.status`."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from headrace import errors
from headrace_common.status import DETAILS_KEY

_CODES: dict[grpc.StatusCode, type[errors.HeadraceError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgument,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidArgument,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: errors.FailedPrecondition,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.CANCELLED: errors.Cancelled,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unimplemented,
}

# gRPC core says UNAVAILABLE both for a server's own answer and for a connection that never came about; only its text
# tells them apart.
_NO_CONNECTION = (
    "failed to connect to all addresses",
    "errors resolving",
    "DNS resolution failed",
    "Name resolution failure",
)
# Core's own words where the deadline passes on this side are of several forms: "Deadline Exceeded", "Stream removed
# (Deadline Exceeded)". The mesh's say more, and never just that.
_DEADLINE = "deadline exceeded"


def error_from_call(error: grpc.RpcError, url: str) -> errors.HeadraceError:
    """What a failed call means.

    Args:
        error: as grpc or grpc.aio raised it.
        url: the mesh that was called, for the message.
    """
    call: Any = error
    # On one line: an engine's own words, which a failed deploy passes on, may have several.
    message = " ".join((call.details() or "").split())
    details = None
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY:
            details = value
    if call.code() is grpc.StatusCode.UNAVAILABLE and message.startswith(_NO_CONNECTION):
        return errors.Unreachable(
            f"cannot reach the mesh at {url}; start it with `headrace up` or set HEADRACE_URL to where it is"
        )
    return error_from_status(call.code(), message, details)


def error_from_status(code: grpc.StatusCode, message: str, details: bytes | None) -> errors.HeadraceError:
    """What a status means.

    Args:
        code: the status.
        message: the status's text.
        details: a serialised google.rpc.Status out of `grpc-status-details-bin`, or None.
    """
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return _exhausted(message, details)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and (not message or _DEADLINE in message.lower()):
        return errors.DeadlineExceeded("no answer within the deadline; allow more time or look at `headrace status`")
    kind = _CODES.get(code)
    if kind is None:
        return errors.Internal(message or f"the mesh answered {code.name}")
    return kind(message or f"the mesh answered {code.name} without saying why")


def _exhausted(message: str, details: bytes | None) -> errors.HeadraceError:
    retry_after_s, violation = _parse_details(details)
    if violation is not None:
        dimension = violation.description.partition(":")[0]
        return errors.QuotaExceeded(
            message, subject=violation.subject, dimension=dimension, retry_after_s=retry_after_s
        )
    if retry_after_s is not None:
        return errors.QueueFull(message, retry_after_s=retry_after_s)
    return errors.LimitExceeded(message or "larger than the mesh, or something before it, accepts")


def _parse_details(
    details: bytes | None,
) -> tuple[float | None, error_details_pb2.QuotaFailure.Violation | None]:
    retry_after_s: float | None = None
    violation: error_details_pb2.QuotaFailure.Violation | None = None
    try:
        status = status_pb2.Status.FromString(details or b"")
        for part in status.details:
            retry = error_details_pb2.RetryInfo()
            failure = error_details_pb2.QuotaFailure()
            if part.Unpack(retry):
                retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
            elif part.Unpack(failure) and failure.violations:
                violation = failure.violations[0]
    except DecodeError:
        return None, None
    return retry_after_s, violation
