"""What becomes of the requests of a bundle that came back unanswered, or went with its runner."""

from __future__ import annotations

from collections.abc import Callable

from headrace.runner.v1 import runner_pb2
from headrace_common import errors
from headrace_router.books import expired, failure
from headrace_router.core import dispatch
from headrace_router.core.batching import Bundle
from headrace_router.core.queue import Queue
from headrace_router.core.waiting import Waiting
from headrace_router.incidents import Incidents

CLOCK_SLACK_S = 0.005
_Code = runner_pb2.BundleErrorCode


class Returns:
    """Of one lane: what may be sent again goes back to its queue, and the rest is answered."""

    def __init__(
        self,
        queue: Queue,
        model: str,
        max_attempts: int,
        incidents: Incidents,
        fail: Callable[[Waiting, errors.HeadraceError, str], None],
    ) -> None:
        """
        Args:
            fail: answers a request with an error and an outcome.
        """
        self._queue = queue
        self._model = model
        self._max_attempts = max_attempts
        self._incidents = incidents
        self._fail = fail

    def lost(self, bundle: Bundle) -> None:
        """The runner went with it."""
        retry = dispatch.after_loss(_wanted(bundle), self._max_attempts)
        self._retry(retry, _Code.BUNDLE_ERROR_CODE_ENGINE_FAILED, "its runner was lost each time that it was sent")

    def failed(self, bundle: Bundle, code: int, detail: str, instance: str, now: float) -> None:
        """A poison request must not fail its batch-mates: the bundle is taken apart until it is alone."""
        is_dropped = code == _Code.BUNDLE_ERROR_CODE_DROPPED
        cause_is_gone = is_dropped and self._expire(bundle, now)
        items = _wanted(bundle)
        if not items:
            return
        if not is_dropped:
            self._incidents.log("bundle failed", detail, instance=instance, code=code)
        self._retry(self._next_try(items, code, cause_is_gone), code, detail)

    def _next_try(self, items: list[Waiting], code: int, cause_is_gone: bool) -> dispatch.Retry:
        if cause_is_gone:
            return dispatch.Retry([items], [])
        if code in (_Code.BUNDLE_ERROR_CODE_DROPPED, _Code.BUNDLE_ERROR_CODE_WRONG_MODEL) or (
            code == _Code.BUNDLE_ERROR_CODE_OUT_OF_MEMORY and len(items) == 1
        ):
            return dispatch.after_return(items, self._max_attempts)
        return dispatch.after_error(items)

    def _expire(self, bundle: Bundle, now: float) -> bool:
        """The runner found a deadline passed; its clock may be a little ahead of ours. Whether any has."""
        horizon = now + CLOCK_SLACK_S
        for item in _wanted(bundle):
            if item.deadline <= horizon:
                self._fail(item, expired(item), "deadline")
        return bundle.deadline <= horizon

    def _retry(self, retry: dispatch.Retry, code: int, detail: str) -> None:
        for items in retry.bundles:
            for item in items:
                account = item.account
                account.in_flight -= 1
                account.queued += 1
                account.queued_bytes += item.size_bytes
            self._queue.put_back(items)
        for item in retry.failed:
            error, outcome = failure(code, detail, self._model)
            self._incidents.log("request failed", detail, tenant=item.tenant, attempts=item.attempts)
            self._fail(item, error, outcome)


def _wanted(bundle: Bundle) -> list[Waiting]:
    return [item for item in bundle.items if not item.answer.done()]
