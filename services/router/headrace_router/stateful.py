"""The lane of a stateful model: the steps of a sequence go one after the other, each with what the last one left.

The router carries the state: it is in the bundle as more inputs, and comes back as more outputs. So any runner
executes any step, steps of many sequences share a bundle, and a runner that is lost, drained or scaled away takes
no state with it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from headrace_common import errors
from headrace_common.clock import Clock
from headrace_router.core.accounts import Account
from headrace_router.core.batching import BatchLimits, group_of
from headrace_router.core.holding import Holding
from headrace_router.core.sequences import SequenceBook, SequenceTable
from headrace_router.core.waiting import Answer, Stage, Waiting
from headrace_router.domain import (
    InferenceRequest,
    RevisionEntry,
    SequenceRules,
    SequenceStep,
    SignalSpec,
    TensorData,
    TensorSpec,
)
from headrace_router.lanes import Lane, LaneUser
from headrace_router.measures import Measures
from headrace_router.runners import Runner, Sent
from headrace_router.sweep import is_over

BEHIND_RETRY_S = 0.1
_OUTCOMES: dict[type[errors.HeadraceError], str] = {errors.QuotaExceeded: "sequences", errors.QueueFull: "queue_full"}
_INTEGERS = {"INT32": "<i", "UINT32": "<I", "INT64": "<q", "UINT64": "<Q"}


class StatefulLane(Lane):
    """See the module, and `Lane`.

    Attributes:
        behind: steps that wait for the one before them.
        table: the sequences.
    """

    def __init__(
        self,
        entry: RevisionEntry,
        rules: SequenceRules,
        limits: BatchLimits,
        clock: Clock,
        user: LaneUser,
        measures: Measures,
        book: SequenceBook,
        most_behind_bytes: int,
    ) -> None:
        """
        Args:
            book: of the router.
            most_behind_bytes: more do not wait for the step before them.
        """
        self.rules = rules
        self.behind = Holding()
        self.table = SequenceTable(entry.model, rules, book)
        self._most_behind_bytes = most_behind_bytes
        self._outputs = tuple(state.output for state in rules.states)
        self._sizes = {state.output: len(state.initial) for state in rules.states}
        self._state_bytes = rules.state_bytes
        super().__init__(entry, limits, clock, user, measures)

    def set_entry(self, entry: RevisionEntry) -> None:
        """See `Lane`. The sequences of a revision that retires end: another one's state means something else."""
        super().set_entry(entry)
        hidden = tuple(TensorSpec(state.output, state.datatype, state.shape) for state in self.rules.states)
        self._result_entry = replace(entry, outputs=(*entry.outputs, *hidden))
        if entry.retiring:
            self.table.retire(f"version {entry.version!r} (revision {entry.revision}), on which it was, was replaced")

    def enter(self, request: InferenceRequest, answer: Answer, account: Account, now: float, *, hold: bool) -> Waiting:
        """See `Lane`. A step that its sequence does not allow is answered with the reason at once."""
        group = () if self._one_group else group_of(request, self._padding)
        item = Waiting(request, answer, account, group, self.queue.level_of(request.priority), now)
        item.size_bytes += self._state_bytes
        if self.timeout_s and request.deadline is None:
            item.deadline = now + self.timeout_s
        self.in_hand += 1
        account.queued += 1
        account.queued_bytes += item.size_bytes
        step = request.sequence
        try:
            if step is None:
                raise errors.InvalidArgument(
                    f"model {self.entry.model!r} is stateful, and the request has no sequence_id"
                )
            if self.table.is_busy(item, step):
                self._check_room(item)
            if self.table.arrive(item, step, now):
                self._take_turn(item, step, now)
            else:
                self.behind.add((item,))
        except errors.HeadraceError as error:
            self._unqueue(item)
            self._fail(item, error, _OUTCOMES.get(type(error), "invalid_input"))
        return item

    def _check_room(self, item: Waiting) -> None:
        behind = self.behind
        if behind.count >= self.most_queued or behind.size_bytes + item.size_bytes > self._most_behind_bytes:
            text = f"too many requests of model {self.entry.model!r} wait for the one before them; retry later"
            raise errors.QueueFull(text, retry_after_s=BEHIND_RETRY_S)

    def _take_turn(self, item: Waiting, step: SequenceStep, now: float) -> None:
        """Gives a step what the one before it left, and queues it."""
        state = self.table.state_for(item, step)
        request = item.request
        given = [
            TensorData(spec.input, spec.datatype, spec.shape, data)
            for spec, data in zip(self.rules.states, state, strict=True)
        ]
        request.inputs = [*request.inputs, *given, *(_signal(spec, step) for spec in self.rules.signals)]
        if request.outputs:
            request.outputs = (*request.outputs, *self._outputs)
        item.enqueued = now
        account = item.account
        if account.tenant_limit.holds or account.model_limit.holds:
            self.held.add((item,))
            return
        self.queue.push(item)
        self.schedule()
        if self.without_since is not None and self.asked_at is None:
            self._ask(now)

    def _answer(self, runner: Runner, sent: Sent, outputs: list[list[TensorData]], compute_s: float) -> None:
        items = sent.bundle.items
        now = self._now()
        for index, item in enumerate(items):
            outputs[index] = self._take_state(item, outputs[index], now)
        super()._answer(runner, sent, outputs, compute_s)
        for item in items:
            self._turn_over(item)

    def _take_state(self, item: Waiting, tensors: list[TensorData], now: float) -> list[TensorData]:
        """Keeps what the step leaves, if its client is answered with the rest, which is returned."""
        step = item.request.sequence
        # Who was told that the deadline has passed, or has gone, takes it that the step did not happen.
        if step is None or item.answer.done() or is_over(self, item, now, 0.0):
            return tensors
        # From here on it counts for what its client sent.
        item.size_bytes -= self._state_bytes
        # Copies: the result's buffer, or the shared memory that it is in, is not kept for them.
        by_name = {tensor.name: bytes(tensor.data) for tensor in tensors if tensor.name in self._outputs}
        sizes = {name: len(data) for name, data in by_name.items()}
        if sizes == self._sizes:
            self.table.happened(item, step, tuple(by_name[name] for name in self._outputs))
        else:
            detail = f"states came with so many bytes: {sizes}; expected {self._sizes}"
            self.fail(item, errors.EngineFailed(detail), "engine_failed")
        return [tensor for tensor in tensors if tensor.name not in self._outputs]

    def fail(self, item: Waiting, error: errors.HeadraceError, outcome: str) -> None:
        """See `Lane`."""
        step = item.request.sequence
        if item.stage is Stage.HELD and step is not None and self.table.is_behind(item, step):
            self._unqueue(item)
            self.behind.left(item)
            self._fail(item, error, outcome)
        else:
            super().fail(item, error, outcome)

    def _fail(self, item: Waiting, error: errors.HeadraceError, outcome: str) -> None:
        super()._fail(item, error, outcome)
        self._turn_over(item)

    def _turn_over(self, item: Waiting) -> None:
        """A step is answered: it is the turn of the next one of its sequence."""
        step = item.request.sequence
        if step is None or item.stage is not Stage.DONE:
            return
        now = self._now()
        stranded, following = self.table.over(item, step, now)
        for each in (*stranded, following) if following is not None else stranded:
            self.behind.left(each)
        for each in stranded:
            self._unqueue(each)
            super()._fail(each, self.table.stranded(each, step), "invalid_input")
        if following is not None and following.request.sequence is not None:
            self._take_turn(following, following.request.sequence, now)

    def waiting(self) -> Iterator[Waiting]:
        """See `Lane`."""
        yield from self.queue
        yield from self.held
        yield from self.behind

    def tidy(self, now: float) -> None:
        """See `Lane`."""
        super().tidy(now)
        self.behind.tidy()
        self.table.expire(now)

    def end(self) -> None:
        """See `Lane`."""
        self.table.retire("its model, or this version of it, was removed")


def _signal(spec: SignalSpec, step: SequenceStep) -> TensorData:
    if spec.kind == "id":
        data = _id_bytes(spec.datatype, step.id)
    else:
        data = spec.on if spec.kind == "ready" or (step.start if spec.kind == "start" else step.end) else spec.off
    return TensorData(spec.input, spec.datatype, spec.shape, data)


def _id_bytes(datatype: str, sequence_id: int | str) -> bytes:
    """In raw form; that it fits was seen when the request was read."""
    if datatype == "BYTES":
        text = str(sequence_id).encode()
        return struct.pack("<I", len(text)) + text
    return struct.pack(_INTEGERS[datatype], sequence_id)
