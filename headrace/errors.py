"""Errors that the clients raise: the mesh's own tree, and two that only a client can meet.

Every error is a `HeadraceError` whose `message` says what was wrong and what to do.
`QuotaExceeded` and `QueueFull` carry `retry_after_s`.
"""

from __future__ import annotations

from headrace_common.errors import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    HeadraceError,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    QueueFull,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)

__all__ = [
    "AlreadyExists",
    "Cancelled",
    "DeadlineExceeded",
    "FailedPrecondition",
    "HeadraceError",
    "Internal",
    "InvalidArgument",
    "LimitExceeded",
    "NotFound",
    "PermissionDenied",
    "QueueFull",
    "QuotaExceeded",
    "StreamItemFailed",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unreachable",
]


class Internal(HeadraceError):
    """The mesh failed, or its answer makes no sense; the mesh's logs have the details."""


class Unreachable(Unavailable):
    """No connection to the mesh could be made, so the request was never sent."""


class StreamItemFailed(HeadraceError):
    """One input of a stream was refused; the stream ends here.

    Attributes:
        index: position of that input in what was streamed, from 0.
    """

    def __init__(self, message: str, *, index: int) -> None:
        super().__init__(message)
        self.index = index


# A traceback names an error as callers import it.
for _name in __all__:
    globals()[_name].__module__ = __name__
