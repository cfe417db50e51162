"""Reads traces: CSV with a TIMESTAMP column, and model, tenant and GeneratedTokens where there are any.

The format of the Azure Public Dataset's LLM inference traces: `2023-11-16 18:17:03.9799600`. Seconds as a number are
read as well.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace_autoscaler.sim.workload import Seconds
from headrace_common.errors import InvalidArgument

_TOKENS = "generatedtokens"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]*)?")
_COUNT = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Requests in order of arrival.

    Attributes:
        arrival_s: [requests], from the first.
        tokens: [requests], generated tokens; None: the trace has no such column.
        models: [requests], names; None: no such column.
        tenants: [requests], names; None: no such column.
        unsorted: rows that came before a row with an earlier timestamp; they were sorted.
        began: when the first came, seconds since the epoch; None: the timestamps have no date.
    """

    arrival_s: Seconds
    tokens: Seconds | None
    models: list[str] | None
    tenants: list[str] | None
    unsorted: int
    began: float | None = None


def read_trace(path: Path) -> Trace:
    """Reads a trace; rows need not be sorted.

    Raises:
        InvalidArgument: names file, line, what was expected and what came.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _read(str(path), file)
    except OSError as error:
        raise InvalidArgument(f"trace {path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidArgument(f"trace {path}: is no CSV text: {error}") from None


def _read(path: str, lines: Iterable[str]) -> Trace:
    reader = csv.reader(lines)
    header = [name.strip().lower() for name in next(reader, [])]
    if "timestamp" not in header:
        raise InvalidArgument(
            f"trace {path}, line 1: expected a header with a TIMESTAMP column; got {', '.join(header) or 'nothing'}"
        )
    for name in ("timestamp", *_CHECKS):
        if header.count(name) > 1:
            raise InvalidArgument(f"trace {path}, line 1: expected one {name} column; got {header.count(name)}")
    timestamp = header.index("timestamp")
    places = {name: header.index(name) for name in _CHECKS if name in header}
    columns: dict[str, list[str]] = {name: [] for name in places}
    moments: list[int] = []
    dated: bool | None = None
    for row in reader:
        if not row:
            continue
        where = f"trace {path}, line {reader.line_num}"
        if len(row) != len(header):
            raise InvalidArgument(f"{where}: expected {len(header)} fields as in the header; got {len(row)}")
        text = row[timestamp].strip()
        seconds = _NUMBER.fullmatch(text)
        moments.append(round(float(text) * 1e6) if seconds else _micros(text, where))
        if dated is (seconds is not None):
            raise InvalidArgument(
                f"{where}: TIMESTAMP: expected {'a date and a time' if dated else 'seconds'} as in the rows before; "
                f"got {text!r}"
            )
        dated = seconds is None
        for name, place in places.items():
            columns[name].append(_CHECKS[name](row[place].strip(), where))
    if not moments:
        raise InvalidArgument(f"trace {path}: has a header and no requests")
    return _in_order(np.array(moments, dtype=np.int64), columns, bool(dated))


def _in_order(moments: NDArray[np.int64], columns: dict[str, list[str]], dated: bool) -> Trace:
    order = np.argsort(moments, kind="stable")
    tokens = columns.get(_TOKENS)
    return Trace(
        arrival_s=(moments[order] - moments[order[0]]) / 1e6,
        tokens=None if tokens is None else np.array(tokens, dtype=np.float64)[order],
        models=_picked(columns.get("model"), order),
        tenants=_picked(columns.get("tenant"), order),
        unsorted=int(np.count_nonzero(np.diff(moments) < 0)),
        began=float(moments[order[0]]) / 1e6 if dated else None,
    )


def _picked(names: list[str] | None, order: NDArray[np.int64]) -> list[str] | None:
    return None if names is None else [names[index] for index in order]


def parse_moment(text: str, where: str) -> float:
    """A date and a time, UTC where no zone is said, to seconds since the epoch."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidArgument(f"{where}: expected a date and a time like 2026-11-02T00:00Z; got {text!r}") from None
    return _since_epoch(moment) / timedelta(seconds=1)


def _micros(text: str, where: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidArgument(
            f"{where}: TIMESTAMP: expected a time like 2023-11-16 18:17:03.9799600, or seconds; got {text!r}"
        ) from None
    return _since_epoch(moment) // timedelta(microseconds=1)


def _since_epoch(moment: datetime) -> timedelta:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH


def _count(text: str, where: str) -> str:
    if not _COUNT.fullmatch(text):
        raise InvalidArgument(f"{where}: GeneratedTokens: expected a count of tokens; got {text!r}")
    return text


def _named(text: str, where: str) -> str:
    if not text:
        raise InvalidArgument(f"{where}: expected a name under model and tenant; got nothing")
    return text


_CHECKS: dict[str, Callable[[str, str], str]] = {_TOKENS: _count, "model": _named, "tenant": _named}
