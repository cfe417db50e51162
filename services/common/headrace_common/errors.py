"""The error tree. Knows nothing of gRPC or HTTP; `headrace_common.status` maps it to both.

A message is written for the person who gets it: what was wrong, where, what was expected, what to
do. Anything that is not a `HeadraceError` reaches a client as INTERNAL with generic text.
"""

from __future__ import annotations


class HeadraceError(Exception):
    """Base of every error that a client may see as it is."""

    @property
    def message(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__


class InvalidArgument(HeadraceError):
    """The request is wrong whatever the state of the mesh: names the part, what was expected, what came."""


class NotFound(HeadraceError):
    """No such model, version, tenant."""


class AlreadyExists(HeadraceError):
    """The name is taken."""


class FailedPrecondition(HeadraceError):
    """Right in itself, and not possible in this state."""


class Unauthenticated(HeadraceError):
    """The caller did not say who it is in a way that we accept."""


class PermissionDenied(HeadraceError):
    """The caller is known and may not do this."""


class QuotaExceeded(HeadraceError):
    """Over a quota, a rate or a budget.

    Attributes:
        subject: whose limit it is: "tenant:acme", "tenant:acme/model:ocr".
        dimension: which limit: "concurrency", "requests_per_second", "budget_per_hour", ...
        retry_after_s: when a retry can succeed; None where time alone does not help.
    """

    def __init__(self, message: str, *, subject: str, dimension: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.subject = subject
        self.dimension = dimension
        self.retry_after_s = retry_after_s


class QueueFull(HeadraceError):
    """Load was shed: the queue is full or cannot be served in time. Nobody's quota is at fault."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(HeadraceError):
    """The deadline that the caller set has passed."""


class Cancelled(HeadraceError):
    """The caller went away."""


class Unavailable(HeadraceError):
    """Nothing can serve this now: no instance can be started, or the mesh is stopping. Says why."""


class Unimplemented(HeadraceError):
    """Known to the protocol and not offered here."""


class EngineFailed(HeadraceError):
    """The engine failed on this input. The client sees generic text; `detail` is for the log."""

    def __init__(self, detail: str) -> None:
        super().__init__("the model's engine failed on this request; the service's log has the details")
        self.detail = detail


class LimitExceeded(HeadraceError):
    """A message or a body is larger than the mesh accepts."""
