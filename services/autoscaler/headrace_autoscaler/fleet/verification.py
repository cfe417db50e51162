"""First loads, outside any traffic: what a deploy waits for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from headrace_autoscaler.core.plans import Key
from headrace_autoscaler.domain import Loaded, ModelSpec, Revision
from headrace_autoscaler.fleet.link import LoadAnswer, LoadRefused
from headrace_autoscaler.fleet.runners import Runner
from headrace_common.errors import HeadraceError, InvalidArgument, Unavailable


def _future() -> asyncio.Future[Loaded]:
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True)
class Verification:
    spec: ModelSpec
    revision: Revision
    placed: asyncio.Event = field(default_factory=asyncio.Event)
    outcome: asyncio.Future[Loaded] = field(default_factory=_future)

    @property
    def key(self) -> Key:
        return (self.revision.model, self.revision.revision)

    def succeed(self, _runner: Runner, answer: LoadAnswer) -> None:
        if not self.outcome.done():
            self.outcome.set_result(answer.loaded)

    def fail(self, _runner: Runner, error: Exception) -> None:
        if self.outcome.done():
            return
        if isinstance(error, LoadRefused):
            self.outcome.set_exception(InvalidArgument(str(error)))
        else:
            name = self.revision.model
            self.outcome.set_exception(Unavailable(f"the first load of model '{name}' did not end: {error}"))

    def refuse(self, error: HeadraceError) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)


class Verifications:
    """Those under way, and the revisions whose verified runner is kept until the deploy has decided."""

    def __init__(self) -> None:
        self._running: dict[Key, Verification] = {}
        self._kept: set[Key] = set()

    async def run(self, verification: Verification, timeout_s: float) -> Loaded:
        """Waits for a runner for at most the timeout; the load has its own.

        Raises:
            InvalidArgument: the engine refused the model.
            Unavailable: there was no runner, or it died.
        """
        self._running[verification.key] = verification
        try:
            await self._wait_for_runner(verification, timeout_s)
            loaded = await verification.outcome
        finally:
            if self._running.get(verification.key) is verification:
                del self._running[verification.key]
            # An outcome that nobody waits for any more must not be reported as forgotten.
            if not verification.outcome.done():
                verification.outcome.cancel()
        self._kept.add(verification.key)
        return loaded

    def waiting(self) -> list[Verification]:
        return [each for each in self._running.values() if not each.placed.is_set() and not each.outcome.done()]

    def get(self, key: Key) -> Verification | None:
        return self._running.get(key)

    def protected(self) -> frozenset[Key]:
        return frozenset(self._running) | frozenset(self._kept)

    def release(self, keys: frozenset[Key] | set[Key]) -> None:
        """The deploy has decided on these: the usual rules hold for their runners now."""
        self._kept -= keys

    async def _wait_for_runner(self, verification: Verification, timeout_s: float) -> None:
        placed = asyncio.ensure_future(verification.placed.wait())
        try:
            done, _ = await asyncio.wait(
                (placed, verification.outcome), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            placed.cancel()
        if not done:
            raise Unavailable(
                f"no runner was free to load model '{verification.revision.model}' within {timeout_s:g} s: deploy again"
            )
