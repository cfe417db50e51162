"""Equal requests in flight: one leads and is executed, the others follow and get its answer.

What befalls the leader alone does not befall its followers: the next one leads. What would befall
everyone is told to everyone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, TypeVar

from headrace_common import errors

MOST_FAILURES = 2
"""So many leaders may fail in the engine before all that is left is told so."""


class Waits(Protocol):
    """A follower, as far as a flight must know it."""

    @property
    def waits(self) -> bool:
        """Neither answered nor gone."""
        ...


F = TypeVar("F", bound=Waits)


class Scope(Enum):
    """Whom a leader's failure concerns."""

    LEADER = "it alone: its deadline, its caller, its quota"
    ENGINE = "perhaps everyone: the engine failed, which a second attempt shows"
    EVERYONE = "everyone: the same input, the same model"


def scope_of(error: BaseException) -> Scope:
    """What is not one of ours was, as far as anybody knows, the engine."""
    if isinstance(error, (errors.InvalidArgument, errors.NotFound, errors.Unavailable)):
        return Scope.EVERYONE
    if isinstance(error, (errors.DeadlineExceeded, errors.Cancelled, errors.QuotaExceeded)):
        return Scope.LEADER
    return Scope.ENGINE if isinstance(error, Exception) else Scope.LEADER


@dataclass(frozen=True, slots=True)
class Handover(Generic[F]):
    """Who leads now, or whom to tell the error. With neither, nobody is left."""

    leader: F | None = None
    told: tuple[F, ...] = ()


class Flight(Generic[F]):
    """One execution and who waits for it, in order of arrival."""

    __slots__ = ("_failures", "_followers")

    def __init__(self) -> None:
        self._failures = 0
        # A dict: in order, and left from anywhere at one price.
        self._followers: dict[int, F] = {}

    def __iter__(self) -> Iterator[F]:
        """Those that still wait."""
        return (follower for follower in list(self._followers.values()) if follower.waits)

    def __len__(self) -> int:
        return len(self._followers)

    def join(self, follower: F) -> None:
        self._followers[id(follower)] = follower

    def leave(self, follower: F) -> None:
        """It may have been taken out before."""
        self._followers.pop(id(follower), None)

    def landed(self) -> tuple[F, ...]:
        """The leader was answered: everyone who gets the same. Nobody follows any more."""
        answered = tuple(self)
        self._followers.clear()
        return answered

    def failed(self, scope: Scope) -> Handover[F]:
        """The leader was not answered. Whoever is named does not follow any more."""
        self._failures += scope is Scope.ENGINE
        if scope is Scope.EVERYONE or self._failures >= MOST_FAILURES:
            return Handover(told=self.landed())
        leader = next(iter(self), None)
        if leader is not None:
            self.leave(leader)
        return Handover(leader)
