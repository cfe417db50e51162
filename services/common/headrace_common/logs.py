"""Structured logs: one JSON object a line on standard error.

Keys that every line has: ts (UTC, RFC 3339), level, process, event. Keys used one way everywhere:
model, tenant, instance, revision, runner, epoch, reason, error, duration_ms.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_FIRST = ("ts", "level", "process", "event")


class _StandardError:
    """Standard error, line by line, unbuffered. A full disk or a reader that has gone costs the line and nothing else:
    a call must not fail because nobody can be told of it."""

    def write(self, line: str) -> None:
        with suppress(OSError, ValueError):
            os.write(sys.stderr.fileno(), line.encode(errors="replace"))

    def flush(self) -> None:
        """There is no buffer."""


def configure_logging(process: str, level: str = "info") -> None:
    """Once, at a process's start."""

    def add_process(_logger: object, _method: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_process,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            _in_order,
            structlog.processors.JSONRenderer(serializer=_dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, _StandardError())),
        cache_logger_on_first_use=True,
    )
    # Libraries that log by the standard library (grpc, alembic) say only what is serious.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)


def get_logger(**bound: object) -> FilteringBoundLogger:
    logger: FilteringBoundLogger = structlog.get_logger(**bound)
    return logger


def _in_order(_logger: object, _method: str, event: EventDict) -> EventDict:
    """What every line has comes first, so that lines can be read from the left."""
    return {**{key: event[key] for key in _FIRST if key in event}, **event}


def _dumps(value: object, **_options: object) -> str:
    return orjson.dumps(value, default=str).decode()
