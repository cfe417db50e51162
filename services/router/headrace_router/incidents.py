"""Log lines about single requests and bundles, few enough to be read."""

from __future__ import annotations

import time

from headrace_common.logs import get_logger

_log = get_logger()
PERIOD_S = 1.0


class Incidents:
    """At most one line per event and second of a revision; each says how many were left out."""

    def __init__(self, model: str, revision: int) -> None:
        self._model = model
        self._revision = revision
        self._next: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def log(self, event: str, detail: str, **keys: object) -> None:
        now = time.monotonic()
        if now < self._next.get(event, 0.0):
            self._left_out[event] = self._left_out.get(event, 0) + 1
            return
        self._next[event] = now + PERIOD_S
        left_out = self._left_out.pop(event, 0)
        _log.warning(event, model=self._model, revision=self._revision, error=detail, left_out=left_out, **keys)
