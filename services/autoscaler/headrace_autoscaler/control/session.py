"""What one router has been sent, and what is still to be sent to it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping

from headrace.control.v1 import control_pb2


class Session:
    """Coalesces changes: what a slow router has not been sent yet is held as a set of keys, never as a
    queue of messages, and the newest state is sent once it can take it.

    Attributes:
        answers: the last version that the router said to have applied; 0: none.
        heard_at: when it said so, or greeted; monotonic seconds.
        renewed: the last renewal of all leases that it has applied; negative: none.

    Args:
        renewal: the last that there was.
    """

    def __init__(self, router: str, now: float, renewal: int = 0) -> None:
        self.router = router
        self._changed = asyncio.Event()
        self._models: set[str] = set()
        self._placements: set[str] = set()
        self._leases: set[str] = set()
        self._full = True
        self._version = 0
        self._renewal = renewal
        self._sent: deque[tuple[int, int, int]] = deque()
        self._applied_mark = -1
        self._reported_mark = -1
        self._issued: deque[tuple[int, int]] = deque()
        self.answers = 0
        self.heard_at = now
        self.renewed = -1
        self._changed.set()

    def touch(self, models: Iterable[str] = (), placements: Iterable[str] = (), leases: Iterable[str] = ()) -> None:
        """These keys differ from what the router knows."""
        self._models.update(models)
        self._placements.update(placements)
        self._leases.update(leases)
        if self._models or self._placements or self._leases:
            self._changed.set()

    def renew(self, leases: Iterable[str], renewal: int) -> None:
        """Sends all leases again."""
        self._renewal = renewal
        self.touch(leases=leases)

    async def wait(self) -> None:
        """Until there is something to send."""
        await self._changed.wait()

    def leases_due(self, known: Iterable[str]) -> list[str]:
        """Which of the known leases the next update has to name."""
        return [key for key in known if self._full or key in self._leases]

    def take(
        self,
        mark: int,
        models: Mapping[str, control_pb2.ModelEntry],
        placements: Mapping[str, control_pb2.Placement],
        leases: Mapping[str, control_pb2.QuotaLease],
    ) -> control_pb2.StateUpdate:
        """The update that brings the router to the given state, which has the given mark.

        Args:
            leases: at least those that are due.
        """
        self._changed.clear()
        self._version += 1
        self._sent.append((self._version, mark, self._renewal))
        update = control_pb2.StateUpdate(version=self._version, full=self._full)
        wanted = (models, placements, leases) if self._full else (self._models, self._placements, self._leases)
        for key in wanted[0]:
            _put(key, models, update.models, update.removed_models)
        for key in wanted[1]:
            _put(key, placements, update.placements, update.removed_placements)
        for key in wanted[2]:
            _put(key, leases, update.leases, update.removed_leases)
        self._full = False
        self._models, self._placements, self._leases = set(), set(), set()
        return update

    def issued(self, version: int, serial: int) -> None:
        """The leases of this version are booked under this serial."""
        self._issued.append((version, serial))

    def applied(self, version: int, now: float) -> int:
        """The router obeys this version. The serial of the leases that it obeys by that; 0: none are new."""
        serial = 0
        while self._issued and self._issued[0][0] <= version:
            serial = self._issued.popleft()[1]
        self.answers, self.heard_at = version, now
        while self._sent and self._sent[0][0] <= version:
            _, self._applied_mark, self.renewed = self._sent.popleft()
        return serial

    def reported(self) -> None:
        """A complete report was made, after whatever the router had said to have applied."""
        self._reported_mark = self._applied_mark

    def heard_since(self, mark: int) -> bool:
        return self._reported_mark >= mark


def _put(key: str, state: Mapping[str, object], present: object, removed: object) -> None:
    value = state.get(key)
    if value is None:
        removed.append(key)  # type: ignore[attr-defined]
    else:
        present.append(value)  # type: ignore[attr-defined]
