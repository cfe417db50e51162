"""Who calls, until when, and as part of which trace: what transports know of a request beside its body."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from headrace_common.errors import InvalidArgument
from headrace_common.identity import TENANT_KEY, tenant_of

TRACEPARENT_KEY = "traceparent"
TIMEOUT_KEY = "headrace-timeout-ms"
_MAX_TIMEOUT_DIGITS = 12
WAY_BACK_S = 0.003
WAY_BACK_SHARE = 0.1
"""So much of a transport's deadline, and at most such a share of it, is the answer's way to the caller: what is ready
at the last moment arrives too late."""


# Not frozen: one is made for each request, and that would cost it half a microsecond.
@dataclass(slots=True)
class Caller:
    """One request's caller.

    Attributes:
        tenant: as `headrace_common.identity` says.
        time_left_s: until the transport's deadline; None: it has none.
        traceparent: W3C, as it came; "" without one.
        is_gone: asks the transport whether the caller has gone away.
    """

    tenant: str
    time_left_s: float | None = None
    traceparent: str = ""
    is_gone: Callable[[], bool] | None = None


def caller_of_context(context: Any) -> Caller:
    """The caller of a gRPC call. Raises Unauthenticated as `tenant_of` does."""
    metadata = dict(context.invocation_metadata() or ())
    return Caller(
        tenant_of(metadata.get(TENANT_KEY)),
        context.time_remaining(),
        metadata.get(TRACEPARENT_KEY, ""),
        getattr(context, "cancelled", None),
    )


def caller_of_headers(headers: Mapping[str, str]) -> Caller:
    """The caller of an HTTP request, given its headers with names in lower case.

    Raises:
        Unauthenticated: as `tenant_of` does.
        InvalidArgument: headrace-timeout-ms is not a whole number of milliseconds.
    """
    return Caller(
        tenant_of(headers.get(TENANT_KEY)),
        _timeout_s(headers.get(TIMEOUT_KEY)),
        headers.get(TRACEPARENT_KEY, ""),
    )


def deadline(now: float, time_left_s: float | None, timeout_s: float | None) -> float | None:
    """When the answer has to be ready, in monotonic seconds; None: neither transport nor request says.

    Args:
        time_left_s: until the transport's deadline, by which the answer has to be there.
        timeout_s: that the request itself names, for its execution.
    """
    if time_left_s is None:
        return None if timeout_s is None else now + timeout_s
    way_back_s = time_left_s * WAY_BACK_SHARE
    ready_s = time_left_s - (way_back_s if way_back_s < WAY_BACK_S else WAY_BACK_S)
    return now + (ready_s if timeout_s is None or ready_s < timeout_s else timeout_s)


def _timeout_s(text: str | None) -> float | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_TIMEOUT_DIGITS and int(text) > 0):
        raise InvalidArgument(f"{TIMEOUT_KEY} is a whole number of milliseconds, at least 1; got {text!r:.40}")
    return int(text) / 1000
