"""Every start, stop, arrival and answer of a run as JSON lines, so that anyone can recompute its score.

A run begins with a line `run`, which has its conditions, and goes on until the next. Of events at one moment, what ends
comes before what begins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import IO, Any

import orjson

from headrace_autoscaler.sim.gate import NO_NODE
from headrace_autoscaler.sim.outcome import NEVER, Outcome

Event = dict[str, Any]
_ANSWER, _GONE, _STOP, _ARRIVAL, _START, _READY, _BEGIN, _REFUSED = range(8)


def write_events(outcome: Outcome, file: IO[bytes]) -> None:
    """Appends a run; one JSON object a line, in order of time."""
    workload = outcome.case.workload
    head = {
        "event": "run",
        "policy": outcome.policy,
        "workload": workload.name,
        "horizon_s": workload.horizon_s,
        **asdict(outcome.case.conditions),
    }
    file.write(orjson.dumps(head) + b"\n")
    found = [*_instances(outcome), *_requests(outcome)]
    found.sort(key=lambda each: each[:3])
    for _, _, _, event in found:
        file.write(orjson.dumps(event) + b"\n")


def _instances(outcome: Outcome) -> Iterator[tuple[float, int, int, Event]]:
    workload = outcome.case.workload
    for life in outcome.lifetimes:
        subject: Event = {
            "model": workload.models[life.model],
            "tenant": workload.tenants[life.model],
            "instance": life.number,
        }
        if life.node != NO_NODE:
            subject["node"] = life.node
        # One that is cancelled at the moment of its start must not end before it begins.
        early = life.gone > life.started
        yield _event(life.started, _START, life.number, "start", subject | {"reason": life.reason})
        if life.ready < life.stopped:
            yield _event(life.ready, _READY, life.number, "ready", subject)
        if life.stopped < NEVER:
            kind = _STOP if early else _START
            yield _event(life.stopped, kind, life.number, "stop", subject | {"reason": life.stop_reason})
            yield _event(life.gone, _GONE if early and life.gone > life.stopped else kind, life.number, "gone", subject)


def _requests(outcome: Outcome) -> Iterator[tuple[float, int, int, Event]]:
    workload = outcome.case.workload
    rows = zip(
        workload.arrival_s.tolist(),
        outcome.begin_s.tolist(),
        outcome.answer_s.tolist(),
        workload.model.tolist(),
        outcome.instance.tolist(),
        strict=True,
    )
    for request, (arrival, begin, answer, model, instance) in enumerate(rows):
        subject: Event = {"request": request, "model": workload.models[model]}
        yield _event(arrival, _ARRIVAL, request, "arrival", subject)
        if not math.isnan(begin):
            yield _event(begin, _BEGIN, request, "begin", subject | {"instance": instance})
            yield _event(answer, _ANSWER, request, "answer", subject | {"instance": instance})
        else:
            at = outcome.refused_at.get(request, arrival)
            yield _event(at, _REFUSED, request, "refused", subject | {"reason": outcome.refused[request]})


def _event(at: float, kind: int, number: int, name: str, subject: Event) -> tuple[float, int, int, Event]:
    return at, kind, number, {"at": at, "event": name} | subject
