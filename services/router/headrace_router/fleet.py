"""The runners of this router: connected to what the autoscaler placed, and let go with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from headrace.control.v1 import control_pb2
from headrace_common.clock import Clock
from headrace_common.logs import get_logger
from headrace_router.lanes import Lane
from headrace_router.runners import Runner, Target
from headrace_router.transport import Transports

_log = get_logger()


class Fleet:
    """Owns the task of every runner.

    Args:
        lane_of: the lane of a model's revision; None while it may not be called yet.
        leave_timeout_s: a runner whose placement is gone has this long to answer what it holds.
    """

    def __init__(
        self,
        router_id: str,
        clock: Clock,
        lane_of: Callable[[str, int], Lane | None],
        leave_timeout_s: float,
        transports: Transports,
    ) -> None:
        self._router_id = router_id
        self._clock = clock
        self._lane_of = lane_of
        self._leave_timeout_s = leave_timeout_s
        self._transports = transports
        self._wanted: dict[str, Target] = {}
        self._runners: dict[str, Runner] = {}
        self._tasks: dict[asyncio.Task[None], Runner] = {}

    def __iter__(self) -> Iterator[Runner]:
        return iter(self._runners.values())

    def apply(self, update: control_pb2.StateUpdate) -> None:
        """After the catalogue: a placement of a revision that cannot be called yet waits for it."""
        wanted = {} if update.full else self._wanted
        for placement in update.placements:
            wanted[placement.instance_id] = _target(placement)
        for instance_id in update.removed_placements:
            wanted.pop(instance_id, None)
        self._wanted = wanted
        for instance_id in self._runners.keys() - wanted.keys():
            self._let_go(self._runners.pop(instance_id))
        for target in wanted.values():
            known = self._runners.get(target.instance_id)
            if known is None:
                self._connect(target)
            elif target.draining:
                known.leave()

    async def stop(self) -> None:
        """Closes every stream. What is outstanding is lost."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._runners.clear()

    def _connect(self, target: Target) -> None:
        lane = None if target.draining else self._lane_of(target.model, target.revision)
        if lane is None:
            return
        runner = Runner(target, lane, self._router_id, self._clock, self._transports)
        self._runners[target.instance_id] = runner
        lane.add_runner(runner)
        task = asyncio.create_task(runner.run(), name=f"runner {target.instance_id}")
        self._tasks[task] = runner
        task.add_done_callback(self._ended)

    def _let_go(self, runner: Runner) -> None:
        runner.leave()
        for task, of in self._tasks.items():
            if of is runner:
                asyncio.get_running_loop().call_later(self._leave_timeout_s, task.cancel)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Its placement may stand still; it is not connected again, because it drained."""
        runner = self._tasks.pop(task)
        runner.lane_left()
        if not task.cancelled() and (error := task.exception()):
            _log.error("runner connection failed", instance=runner.placement.instance_id, error=repr(error))


def _target(placement: control_pb2.Placement) -> Target:
    deciding_ns = placement.decide.ToNanoseconds() + placement.place.ToNanoseconds()
    return Target(
        instance_id=placement.instance_id,
        model=placement.model,
        revision=placement.revision,
        target=placement.target,
        draining=placement.state == control_pb2.PLACEMENT_STATE_DRAINING,
        started_from_zero=placement.HasField("decide"),
        deciding_s=deciding_ns / 1e9,
        profile=tuple((rows, micros / 1e6) for rows, micros in sorted(placement.profile_us.items())),
    )
