"""magika from zero instances, one standby runner: how long until the first answer."""

from __future__ import annotations

import statistics
import time

import headrace
from headrace.demo.magika_codec import MagikaCodec

ROUNDS = 20
WITHIN_S = 30


def measure(url: str) -> None:
    codec = MagikaCodec()
    features = codec.features(b"#!/bin/sh\necho hello world\nexit 0\n")
    assert features is not None
    with headrace.Client(url) as client:
        client.deploy(codec.model_path, name="magika", idle_timeout="100ms", wait=True)
        times_ms = []
        for _ in range(ROUNDS):
            wait_until_idle(client)
            started = time.perf_counter()
            client.infer("magika", {"bytes": features})
            times_ms.append(1000 * (time.perf_counter() - started))
        client.delete("magika")
    times_ms.sort()
    print(
        f"cold start, magika, {ROUNDS} rounds: median {statistics.median(times_ms):.0f} ms, "
        f"min {times_ms[0]:.0f}, max {times_ms[-1]:.0f}"
    )


def wait_until_idle(client: headrace.Client) -> None:
    """Until no instance is left and a standby runner waits."""
    give_up = time.monotonic() + WITHIN_S
    while time.monotonic() < give_up:
        if not client.model("magika").instances and client.status().standby:
            time.sleep(0.2)  # lets the new standby runner settle
            return
        time.sleep(0.05)
    raise TimeoutError(f"magika did not go to zero within {WITHIN_S} s")
