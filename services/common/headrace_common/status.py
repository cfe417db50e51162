"""The one place that says what an error is on the wire, in gRPC and in HTTP."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from headrace_common import errors

# A status travels in trailers, its message there up to three times. Clients refuse more than 8 KiB of those
# (grpc.max_metadata_size) and then see another error in place of ours.
_MAX_MESSAGE_BYTES = 1536
GENERIC = "internal error; the service's log has the details"
DETAILS_KEY = "grpc-status-details-bin"

_CODES: dict[type[errors.HeadraceError], tuple[grpc.StatusCode, int]] = {
    errors.InvalidArgument: (grpc.StatusCode.INVALID_ARGUMENT, 400),
    errors.NotFound: (grpc.StatusCode.NOT_FOUND, 404),
    errors.AlreadyExists: (grpc.StatusCode.ALREADY_EXISTS, 409),
    errors.FailedPrecondition: (grpc.StatusCode.FAILED_PRECONDITION, 400),
    errors.Unauthenticated: (grpc.StatusCode.UNAUTHENTICATED, 401),
    errors.PermissionDenied: (grpc.StatusCode.PERMISSION_DENIED, 403),
    errors.QuotaExceeded: (grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
    errors.QueueFull: (grpc.StatusCode.RESOURCE_EXHAUSTED, 503),
    errors.DeadlineExceeded: (grpc.StatusCode.DEADLINE_EXCEEDED, 504),
    errors.Cancelled: (grpc.StatusCode.CANCELLED, 499),
    errors.Unavailable: (grpc.StatusCode.UNAVAILABLE, 503),
    errors.Unimplemented: (grpc.StatusCode.UNIMPLEMENTED, 501),
    errors.EngineFailed: (grpc.StatusCode.INTERNAL, 500),
    errors.LimitExceeded: (grpc.StatusCode.RESOURCE_EXHAUSTED, 413),
}


@dataclass(frozen=True, slots=True)
class WireStatus:
    """An error as both protocols carry it.

    Attributes:
        code: gRPC status.
        message: for the client.
        details: serialised google.rpc.Status for `grpc-status-details-bin`, or None.
        http_status: for REST.
        http_headers: such as Retry-After, whole seconds.
    """

    code: grpc.StatusCode
    message: str
    details: bytes | None
    http_status: int
    http_headers: tuple[tuple[str, str], ...] = ()


def wire_status(error: BaseException) -> WireStatus:
    """Maps any exception. What is not a `HeadraceError` becomes INTERNAL with generic text."""
    for kind in type(error).__mro__:
        if kind in _CODES and isinstance(error, errors.HeadraceError):
            code, http_status = _CODES[kind]
            message = _bounded(error.message)
            return WireStatus(code, message, _details(code, message, error), http_status, _headers(error))
    return WireStatus(grpc.StatusCode.INTERNAL, GENERIC, None, 500)


def _bounded(message: str) -> str:
    """A message that repeats what a caller sent, or what an engine said, may be of any length."""
    data = message.encode(errors="replace")
    if len(data) <= _MAX_MESSAGE_BYTES:
        return message
    return data[:_MAX_MESSAGE_BYTES].decode(errors="ignore") + "..."


def _details(code: grpc.StatusCode, message: str, error: errors.HeadraceError) -> bytes | None:
    retry_after_s = getattr(error, "retry_after_s", None)
    subject, dimension = (error.subject, error.dimension) if isinstance(error, errors.QuotaExceeded) else ("", "")
    if retry_after_s is None and not dimension:
        return None
    unchanging = _without_delay(code.value[0], message, subject, dimension)
    # Of a serialised message, the parts may follow each other in any order, and repeated ones add up.
    return unchanging if retry_after_s is None else unchanging + _delay(_advised_ms(retry_after_s))


@lru_cache(maxsize=1024)
def _without_delay(code: int, message: str, subject: str, dimension: str) -> bytes:
    """A refusal says the same to everybody but for the delay, and a flood of them must cost little."""
    status = status_pb2.Status(code=code, message=message)
    if dimension:
        failure = error_details_pb2.QuotaFailure()
        failure.violations.add(subject=subject, description=f"{dimension}: {message}")
        status.details.append(_pack(failure))
    serialized: bytes = status.SerializeToString()
    return serialized


def _advised_ms(retry_after_s: float) -> int:
    """Rounded up, and from a second on to hundredths: so few values are remembered whole."""
    grain_ms = 1 if retry_after_s < 1.0 else 10
    return math.ceil(retry_after_s * 1e3 / grain_ms) * grain_ms


@lru_cache(maxsize=4096)
def _delay(milliseconds: int) -> bytes:
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(milliseconds)
    info = error_details_pb2.RetryInfo(retry_delay=delay)
    serialized: bytes = status_pb2.Status(details=[_pack(info)]).SerializeToString()
    return serialized


def _pack(
    message: error_details_pb2.QuotaFailure | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _headers(error: errors.HeadraceError) -> tuple[tuple[str, str], ...]:
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is None:
        return ()
    return (("retry-after", str(max(1, math.ceil(retry_after_s)))),)
