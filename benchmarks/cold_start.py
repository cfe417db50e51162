"""magika from zero instances, one standby runner: how long until the first answer, and where that time goes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import headrace
from benchmarks.figures import quantile
from headrace.demo.magika_codec import MagikaCodec
from headrace.v1 import models_pb2

ROUNDS = 100
WITHIN_S = 30
PHASES = ("decide", "place", "load", "warm", "first_answer", "total")


def measure(url: str, rounds: int = ROUNDS) -> None:
    codec = MagikaCodec()
    features = codec.features(b"#!/bin/sh\necho hello world\nexit 0\n")
    assert features is not None
    times: dict[str, list[float]] = {phase: [] for phase in (*PHASES, "client")}
    with headrace.Client(url) as client:
        client.deploy(codec.model_path, name="magika", idle_timeout="100ms", wait=True)
        for _ in range(rounds):
            before = wait_until_idle(client)
            started = time.perf_counter()
            client.infer("magika", {"bytes": features})
            times["client"].append(1000 * (time.perf_counter() - started))
            for phase, value_ms in phases_ms(wait_until_told(client, before)).items():
                times[phase].append(value_ms)
        client.delete("magika")
    print(f"cold start, magika, one standby runner, {rounds} rounds, ms\n\n{table(times)}")


def table(times: Mapping[str, Sequence[float]]) -> str:
    """Rows of Markdown. `total` is from the request's arrival at the router, `client` what the caller saw."""
    rows = ["| phase | p50 | p99 | min | max |", "| --- | ---: | ---: | ---: | ---: |"]
    for phase, values in times.items():
        ordered = sorted(values)
        figures = (quantile(ordered, 0.5), quantile(ordered, 0.99), ordered[0], ordered[-1])
        rows.append(f"| {phase.replace('_', ' ')} | " + " | ".join(f"{each:.1f}" for each in figures) + " |")
    return "\n".join(rows)


def phases_ms(start: models_pb2.ColdStart) -> dict[str, float]:
    return {phase: getattr(start, phase).ToNanoseconds() / 1e6 for phase in PHASES}


def wait_until_idle(client: headrace.Client) -> int:
    """Until no instance is left and a standby runner waits. Answers how many cold starts there have been."""
    give_up = time.monotonic() + WITHIN_S
    while time.monotonic() < give_up:
        model = client.model("magika")
        if not model.instances and any(each.state == "standby" for each in client.status().standby):
            time.sleep(0.2)  # lets the new standby runner settle
            return int(model.cold_starts.count)
        time.sleep(0.05)
    raise TimeoutError(f"magika did not go to zero within {WITHIN_S} s")


def wait_until_told(client: headrace.Client, before: int) -> models_pb2.ColdStart:
    """The cold start after the first `before`, once a router has told of its first answer."""
    give_up = time.monotonic() + WITHIN_S
    while time.monotonic() < give_up:
        starts = client.model("magika").cold_starts
        if starts.count > before and starts.recent[-1].first_answer.ToNanoseconds():
            return starts.recent[-1]
        time.sleep(0.05)
    raise TimeoutError(f"the router did not tell of a cold start within {WITHIN_S} s")
