"""Finds clients that stop sending, or leave, while their request is in hand.

A timer and a task for each request would cost more than parsing it. So there is one timer while any request
is in hand, and a request shorter than its period is never looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from headrace_common.errors import Cancelled, DeadlineExceeded, HeadraceError
from headrace_router.oip.http import STALLED_S, Event, Receive


class Visit:
    """One request on its ASGI connection; `async with` it from its first byte until its answer is there.

    Leaving it raises DeadlineExceeded in place of the cancellation of a request whose body stopped coming, and
    Cancelled where the client went away.

    Args:
        leave: called when it is over.
    """

    def __init__(self, receive: Receive, leave: Callable[[Visit], None]) -> None:
        self._receive = receive
        self._leave = leave
        self._task = asyncio.current_task()
        self._error: HeadraceError | None = None
        self._read = False
        self._heard = True
        self._heard_at = 0.0
        self._probe: asyncio.Future[Event] | None = None

    async def receive(self) -> Event:
        """The next event of the request's body; the last one begins the wait for the answer."""
        event = await self._receive()
        self._heard = True
        self._read = not event.get("more_body", False)
        return event

    def look(self, now: float, stalled_s: float) -> None:
        """Called once per period."""
        if self._heard:
            self._heard, self._heard_at = False, now
        elif not self._read:
            if now - self._heard_at >= stalled_s:
                self._end(DeadlineExceeded(f"nothing of the request's body came for {stalled_s:g} s"))
        elif self._probe is None:
            # Some hosts wait with this for the disconnect; others answer at once and must be asked again.
            self._probe = asyncio.ensure_future(self._receive())
            self._probe.add_done_callback(self._probed)

    def _probed(self, probe: asyncio.Future[Event]) -> None:
        self._probe = None
        if probe.cancelled():
            return
        # Whatever the host raises, the connection is of no more use.
        if probe.exception() is not None or probe.result()["type"] == "http.disconnect":
            self._end(Cancelled("the client went away"))

    def _end(self, error: HeadraceError) -> None:
        if self._error is None and self._task is not None:
            self._error = error
            self._task.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._leave(self)
        task, self._task = self._task, None
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        # Where somebody else cancels too, it is for them.
        if self._error is not None and task is not None and not task.uncancel() and kind is asyncio.CancelledError:
            raise self._error from None


class ClientWatch:
    """Watches the requests of one application.

    Args:
        look_every_s: how long a lost client may go unnoticed, roughly.
        stalled_s: a body of which nothing comes for so long is given up.
    """

    def __init__(self, look_every_s: float, stalled_s: float = STALLED_S) -> None:
        self._look_every_s = look_every_s
        self._stalled_s = stalled_s
        self._visits: set[Visit] = set()
        self._timer: asyncio.TimerHandle | None = None

    def visit(self, receive: Receive) -> Visit:
        """Begins to watch a request of the current task."""
        visit = Visit(receive, self._visits.discard)
        self._visits.add(visit)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._look_every_s, self._look)
        return visit

    def _look(self) -> None:
        self._timer = None
        if not self._visits:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        for visit in tuple(self._visits):
            visit.look(now, self._stalled_s)
        self._timer = loop.call_later(self._look_every_s, self._look)
