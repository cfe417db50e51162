"""A request between its admission and its answer."""

from __future__ import annotations

from collections.abc import Hashable
from enum import IntEnum
from math import inf
from typing import Any, Protocol

from headrace_router.core.accounts import Account
from headrace_router.domain import InferenceRequest, InferenceResult


class Answer(Protocol):
    """Where the answer goes. An `asyncio.Future` is one.

    Setting it must not fail, and must do little: all answers of a bundle are set in one go.
    """

    def done(self) -> bool: ...

    def set_result(self, result: InferenceResult, /) -> None: ...

    def set_exception(self, exception: Any, /) -> None: ...


class Stage(IntEnum):
    """Where a request is. HELD: it may wait for a new budget of its tenant, or for the step before it."""

    HELD = 0
    QUEUED = 1
    SENT = 2
    DONE = 3


class Waiting:
    """One request in hand. Mutable and without comfort: there is one per request.

    Attributes:
        group: requests of equal groups may share a bundle.
        level: priority, 1 is the most urgent.
        deadline: monotonic seconds; infinity without one.
        arrived: when it was admitted.
        enqueued: when it came to its present level.
        attempts: sendings that were lost.
        backlog: the part of the queue that holds it; None outside of the ordered queue.
    """

    __slots__ = (
        "account",
        "answer",
        "arrived",
        "attempts",
        "backlog",
        "deadline",
        "enqueued",
        "group",
        "level",
        "request",
        "rows",
        "seq",
        "size_bytes",
        "stage",
        "tenant",
    )

    def __init__(
        self, request: InferenceRequest, answer: Answer, account: Account, group: Hashable, level: int, now: float
    ) -> None:
        deadline = request.deadline
        self.request = request
        self.answer = answer
        self.account = account
        self.group = group
        self.level = level
        self.tenant = request.tenant
        self.rows = request.rows
        self.size_bytes = request.size_bytes
        self.deadline = inf if deadline is None else deadline
        self.arrived = now
        self.enqueued = now
        self.attempts = 0
        self.stage = Stage.HELD
        self.seq = 0
        self.backlog: Any = None
