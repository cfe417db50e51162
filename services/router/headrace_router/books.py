"""Answers requests, and books what they took."""

from __future__ import annotations

from headrace.runner.v1 import runner_pb2
from headrace_common import errors
from headrace_common.clock import Clock
from headrace_router.core.accounts import RevisionStatistics
from headrace_router.core.batching import Bundle
from headrace_router.core.waiting import Stage, Waiting
from headrace_router.domain import InferenceResult, TensorData
from headrace_router.measures import ColdStart, Measures
from headrace_router.runners import Runner


class Books:
    """Of one revision. Who takes a request out of queue and runner does so before."""

    def __init__(self, clock: Clock, measures: Measures) -> None:
        self.statistics = RevisionStatistics()
        self._clock = clock
        self._measures = measures

    def answer(
        self, bundle: Bundle, sent_at: float, outputs: list[list[TensorData]], compute_s: float, slo_s: float | None
    ) -> int:
        """Gives each request its outputs. How many still wanted them."""
        now = self._clock.monotonic()
        per_row_s = compute_s / bundle.rows
        answered, request_s, queue_s = 0, 0.0, 0.0
        for item, tensors in zip(bundle.items, outputs, strict=True):
            answer, account = item.answer, item.account
            if answer.done():
                continue
            waited_s, took_s = sent_at - item.arrived, now - item.arrived
            item.stage = Stage.DONE
            account.in_flight -= 1
            account.tenant_limit.in_hand -= 1
            account.model_limit.in_hand -= 1
            totals = account.totals
            totals.completed += 1
            totals.service_s += per_row_s * item.rows
            totals.queue_s += waited_s
            totals.input_bytes += item.size_bytes
            if slo_s is None or took_s <= slo_s:
                totals.within_slo += 1
            for tensor in tensors:
                totals.output_bytes += len(tensor.data)
            answer.set_result(InferenceResult(tensors, waited_s, compute_s))
            answered += 1
            request_s += took_s
            queue_s += waited_s
        self._book(bundle, answered, request_s, queue_s, compute_s)
        return answered

    def _book(self, bundle: Bundle, answered: int, request_s: float, queue_s: float, compute_s: float) -> None:
        bundle.items[0].account.totals.bundles += 1
        self.statistics.add_bundle(answered, bundle.rows, request_s, queue_s, compute_s)
        self.statistics.last_inference_unix_ms = int(self._clock.wall() * 1e3)
        if answered:
            self._measures.bundle(bundle.rows, answered, queue_s / answered, compute_s)

    def fail(self, item: Waiting, error: errors.HeadraceError, outcome: str) -> None:
        """Gives a request an error; the caller may have gone already."""
        item.stage = Stage.DONE
        account = item.account
        account.tenant_limit.in_hand -= 1
        account.model_limit.in_hand -= 1
        account.totals.failed += 1
        account.count(outcome)
        self.statistics.failures += 1
        self.statistics.failure_ns += int((self._clock.monotonic() - item.arrived) * 1e9)
        if not item.answer.done():
            item.answer.set_exception(error)


def cold_start(runner: Runner, now: float) -> ColdStart:
    """Completed by the runner's first answer: from the request that it was started for, if one did it."""
    placement = runner.placement
    ready_at = now if runner.ready_at is None else runner.ready_at
    by_parts_s = placement.deciding_s + runner.load_s + runner.warm_s + now - ready_at
    return ColdStart(
        placement.instance_id,
        placement.model,
        placement.revision,
        load_s=runner.load_s,
        warm_s=runner.warm_s,
        first_answer_s=now - ready_at,
        total_s=by_parts_s if runner.began_at is None else now - runner.began_at,
    )


def expired(item: Waiting) -> errors.DeadlineExceeded:
    model = item.request.revision.model
    return errors.DeadlineExceeded(f"model {model!r}: the request's deadline passed, or could not be met any more")


def failure(code: int, detail: str, model: str) -> tuple[errors.HeadraceError, str]:
    if code == runner_pb2.BUNDLE_ERROR_CODE_INVALID_INPUT:
        return errors.InvalidArgument(f"model {model!r}: its engine refused the input; check values and shapes"), (
            "invalid_input"
        )
    if code == runner_pb2.BUNDLE_ERROR_CODE_OUT_OF_MEMORY:
        text = f"model {model!r}: its engine has not the memory for this request now; retry later or send less at once"
        return errors.QueueFull(text, retry_after_s=1.0), "out_of_memory"
    return errors.EngineFailed(detail), "engine_failed"
