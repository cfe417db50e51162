"""The interfaces between the router's parts, owned by whoever calls them."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from headrace_router.core.waiting import Answer
from headrace_router.domain import InferenceRequest, InferenceResult, RevisionEntry


class Catalogue(Protocol):
    """Models as the autoscaler last described them."""

    @property
    def ready(self) -> bool:
        """A full state has been received since the start."""
        ...

    def resolve(self, caller: str, model: str, version: str) -> RevisionEntry:
        """The revision that answers a request now. Version "" is the current one.

        Raises:
            NotFound: no such model or version, or not one that the caller may know of.
            PermissionDenied: the model is known to the caller and not shared with it.
            Unavailable: the model's first load is under way, or the catalogue has not arrived.
        """
        ...

    def versions(self, caller: str, model: str) -> tuple[RevisionEntry, ...]:
        """Callable revisions of a model, oldest version first. Raises as `resolve` does."""
        ...

    def visible(self, caller: str) -> tuple[RevisionEntry, ...]:
        """Current revisions of all models that the caller may call, by name."""
        ...

    def is_ready(self, entry: RevisionEntry) -> bool:
        """An inference would be accepted: serving, at zero instances too; not blocked or loading."""
        ...


class DataPlane(Protocol):
    """Admission, queue, bundles, runners."""

    def infer(self, request: InferenceRequest) -> Awaitable[InferenceResult]:
        """Admits, queues, executes.

        Cancelling the call withdraws the request.

        Raises:
            QuotaExceeded, QueueFull: refused before queueing.
            DeadlineExceeded: the caller's deadline passed first.
            Unavailable: no instance can be started, with the reason; or the router is stopping.
            Cancelled: the caller has gone.
            InvalidArgument: the engine refused the input.
            EngineFailed: the engine failed on it.
        """
        ...

    def submit(self, request: InferenceRequest, answer: Answer) -> object:
        """As `infer`, for who has better than a future: the result or error is set on `answer`, once.

        The request is withdrawn some time after its `is_gone` began to say so.

        Raises:
            HeadraceError: refused before queueing; `answer` is not set.
        """
        ...

    def statistics(self, entry: RevisionEntry) -> Statistics: ...


class Statistics(Protocol):
    """Since this router started; durations in nanoseconds. One per revision."""

    requests: int
    failures: int
    rows: int
    bundles: int
    request_ns: int
    failure_ns: int
    queue_ns: int
    compute_ns: int
    last_inference_unix_ms: int
    cache_hits: int
    """Answered from the response cache; in no count above."""
    cache_hit_ns: int
    coalesced: int
    """Answered with what an equal request got; in no count above."""
    coalesced_ns: int
    cache_misses: int
    cache_miss_ns: int
    """Spent looking in vain."""
    batches: dict[int, tuple[int, int]]
    """Batch size -> (bundles, compute nanoseconds)."""
