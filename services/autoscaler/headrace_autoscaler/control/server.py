"""ControlService.Sync: one stream per router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from headrace.control.v1 import control_pb2, control_pb2_grpc
from headrace_autoscaler.control.board import Board
from headrace_autoscaler.control.messages import excess_of, report_of
from headrace_autoscaler.control.session import Session
from headrace_autoscaler.core.promises import Promised
from headrace_autoscaler.fleet.reports import Report
from headrace_autoscaler.fleet.tasks import TaskSet
from headrace_common.errors import FailedPrecondition, InvalidArgument, Unavailable
from headrace_common.logs import get_logger

_MOVE_PERIOD_S = 0.5
_MOVES_PER_REFRESH = 4


class Routers(Protocol):
    """Who hears of routers and of what they report."""

    def router_connected(self, router: str) -> None: ...

    def router_gone(self, router: str) -> None: ...

    def report(self, report: Report) -> None: ...


class ControlServicer(control_pb2_grpc.ControlServiceServicer):
    """Sends every router the state of the board and hands its reports on.

    Args:
        replaced: called when a router has obeyed a higher epoch than ours: this process is not the
            autoscaler any more and has to end without touching anything.
        forget: called with what was promised that no router obeys any more.
    """

    def __init__(
        self,
        epoch: int,
        board: Board,
        routers: Routers,
        replaced: Callable[[], None],
        forget: Callable[[Promised], Awaitable[None]],
    ) -> None:
        self._epoch = epoch
        self._board = board
        self._routers = routers
        self._replaced = replaced
        self._forget = forget
        self._tasks = TaskSet()
        self._forgetting: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._log = get_logger(epoch=epoch)

    def start(self) -> None:
        """Begins to renew and to move leases."""
        self._tasks.start(self._refresh(), "lease refresh")

    async def close(self) -> None:
        """Ends all streams."""
        self._stopping.set()
        await self._tasks.close()

    async def Sync(
        self, requests: AsyncIterator[control_pb2.SyncRequest], _context: Any
    ) -> AsyncIterator[control_pb2.SyncResponse]:
        session = await self._greet(requests)
        listening = asyncio.create_task(self._listen(session, requests), name=f"listen to {session.router}")
        try:
            while await self._something_to_send(session, listening):
                yield control_pb2.SyncResponse(epoch=self._epoch, update=self._board.update_for(session))
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            self._leave(session)

    async def _greet(self, requests: AsyncIterator[control_pb2.SyncRequest]) -> Session:
        first = await anext(aiter(requests), None)
        if first is None or first.WhichOneof("message") != "hello" or not first.hello.router_id:
            raise InvalidArgument("Sync: the first message has to be a Hello with a router_id")
        if first.hello.highest_epoch > self._epoch:
            self._log.error("replaced", router=first.hello.router_id, highest_epoch=first.hello.highest_epoch)
            self._replaced()
            raise FailedPrecondition(f"this autoscaler (epoch {self._epoch}) has been replaced")
        if self._stopping.is_set():
            raise Unavailable("the autoscaler is stopping")
        self._log.info("router connected", router=first.hello.router_id, version=first.hello.software_version)
        if not self._board.has_part(first.hello.router_id):
            self._log.warning(
                "router without a part in any limit; raise router.processes", router=first.hello.router_id
            )
        session = self._board.open(first.hello.router_id)
        self._routers.router_connected(session.router)
        return session

    async def _listen(self, session: Session, requests: AsyncIterator[control_pb2.SyncRequest]) -> None:
        async for request in requests:
            # Before the lease that it is beyond is taken as obeyed.
            self._board.holds(session, excess_of(request))
            match request.WhichOneof("message"):
                case "demand":
                    report = report_of(session.router, request.demand)
                    self._board.reported(report)
                    self._routers.report(report)
                    if not request.demand.urgent:
                        session.reported()
                case "applied_version":
                    self._board.applied(session, request.applied_version)
                case _:
                    raise InvalidArgument("Sync: after Hello, only demand and applied_version can follow")

    async def _something_to_send(self, session: Session, listening: asyncio.Task[None]) -> bool:
        """False: the stream ends, because the router closed its side or has another one, or we stop."""
        changed = asyncio.ensure_future(session.wait())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((changed, listening, stopping), return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                listening.result()
                return False
            return not stopping.done() and self._board.serves(session)
        finally:
            changed.cancel()
            stopping.cancel()

    def _leave(self, session: Session) -> None:
        if self._board.close(session):
            self._log.info("router gone", router=session.router)
            self._routers.router_gone(session.router)

    async def _refresh(self) -> None:
        while True:
            for _ in range(_MOVES_PER_REFRESH):
                await asyncio.sleep(_MOVE_PERIOD_S)
                self._board.move_leases()
            self._forget_outdated()
            self._board.refresh_leases()

    def _forget_outdated(self) -> None:
        # Not awaited: no database that is slow may keep routers from their leases.
        outdated = self._board.outdated()
        if outdated and (self._forgetting is None or self._forgetting.done()):
            self._forgetting = self._tasks.start(self._try_to_forget(outdated), "forget promises")

    async def _try_to_forget(self, outdated: Promised) -> None:
        try:
            await self._forget(outdated)
        except Unavailable as error:
            self._log.warning("outdated promises are kept for now", reason=str(error))
