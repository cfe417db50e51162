"""Which runner gets the next bundle, and what becomes of a bundle that came to nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from headrace_router.core.band import Watch
from headrace_router.core.waiting import Waiting


class RunnerSlots(Protocol):
    """What dispatch looks at of one runner.

    Attributes:
        free_slots: bundles that it may still be sent.
        outstanding_bundles: bundles that it holds.
        accepting: connected, and not draining.
        solo: it holds a suspect bundle and gets nothing beside it.
        recent_s: mean time of its last bundles.
        watch: says how many bundles it may hold.
    """

    @property
    def free_slots(self) -> int: ...

    @property
    def outstanding_bundles(self) -> int: ...

    @property
    def accepting(self) -> bool: ...

    @property
    def solo(self) -> bool: ...

    @property
    def recent_s(self) -> float: ...

    @property
    def watch(self) -> Watch: ...


R = TypeVar("R", bound=RunnerSlots)


@dataclass(frozen=True, slots=True)
class Retry:
    """What becomes of the requests of a bundle. Each list of `bundles` is sent as one, as it is."""

    bundles: list[list[Waiting]]
    failed: list[Waiting]


def pick(runners: Collection[R], *, suspect_waits: bool, passed: Collection[R] = ()) -> tuple[R | None, bool]:
    """The runner for the next bundle (None: nobody is free), and whether that is to be the suspect one.

    A suspect bundle goes to a runner that holds nothing; until there is one, a runner is emptied for it.

    Args:
        passed: have been asked already; all that waits was left for others.
    """
    if not suspect_waits:
        return choose(runners, None, passed), False
    reserved = choose_for_suspect(runner for runner in runners if runner not in passed)
    if reserved is not None and not reserved.outstanding_bundles and reserved.free_slots:
        return reserved, True
    return choose(runners, reserved, passed), False


def choose(runners: Iterable[R], reserved: R | None = None, passed: Collection[R] = ()) -> R | None:
    """The runner with a free slot that has least in hand, then the quickest. None: nobody is free.

    `reserved` is being emptied for a suspect bundle and gets nothing else.
    """
    best: R | None = None
    for runner in runners:
        if runner.free_slots < 1 or not runner.accepting or runner.solo or runner is reserved or runner in passed:
            continue
        if runner.outstanding_bundles >= runner.watch.allowance:
            continue
        if best is None or _load(runner) < _load(best):
            best = runner
    return best


def choose_for_suspect(runners: Iterable[R]) -> R | None:
    """The runner that shall execute a suspect bundle alone: ready for it once it holds nothing.

    A request that may kill its runner must not take innocent bundles with it, nor be blamed for
    the deed of another.
    """
    best: R | None = None
    for runner in runners:
        usable = runner.accepting and not runner.solo and (runner.free_slots or runner.outstanding_bundles)
        if usable and (best is None or _load(runner) < _load(best)):
            best = runner
    return best


def after_loss(items: Sequence[Waiting], max_attempts: int) -> Retry:
    """The runner went away with the bundle: halves, and before the last attempt each request alone.

    Counts the attempt. A request that was lost `max_attempts` times has failed.
    """
    retry, failed = _count_attempt(items, max_attempts)
    return Retry(_alone_if_suspect(retry, max_attempts) or halves(retry), failed)


def after_error(items: Sequence[Waiting]) -> Retry:
    """The engine refused the bundle or failed on it: halves, until the culprit is alone and fails.

    Ends after log2(requests) rounds, so it does not count as an attempt.
    """
    return Retry([], list(items)) if len(items) == 1 else Retry(halves(items), [])


def after_return(items: Sequence[Waiting], max_attempts: int) -> Retry:
    """The runner sent the bundle back unexecuted: the same again, as often as a loss, the last time each alone."""
    retry, failed = _count_attempt(items, max_attempts)
    return Retry(_alone_if_suspect(retry, max_attempts) or ([retry] if retry else []), failed)


def _count_attempt(items: Sequence[Waiting], max_attempts: int) -> tuple[list[Waiting], list[Waiting]]:
    """Those that may be sent again, and those that have failed."""
    for item in items:
        item.attempts += 1
    retry = [item for item in items if item.attempts < max_attempts]
    return retry, [item for item in items if item.attempts >= max_attempts]


def _alone_if_suspect(items: Sequence[Waiting], max_attempts: int) -> list[list[Waiting]]:
    return [[item] for item in items] if any(is_suspect(item, max_attempts) for item in items) else []


def is_suspect(item: Waiting, max_attempts: int) -> bool:
    """Its next sending is its last, after losses: it goes alone."""
    return item.attempts > 0 and item.attempts == max_attempts - 1


def halves(items: Sequence[Waiting]) -> list[list[Waiting]]:
    middle = (len(items) + 1) // 2
    return [half for half in (list(items[:middle]), list(items[middle:])) if half]


def _load(runner: RunnerSlots) -> tuple[int, float]:
    return (runner.outstanding_bundles, runner.recent_s)
