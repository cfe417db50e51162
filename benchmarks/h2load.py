"""Closed loop by nghttp2's `h2load`: so many requests are always in flight; each answer is followed by the next."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import quantile

MISSING = "h2load is missing; on Debian: apt-get install nghttp2-client"
# More streams on fewer connections is what gRPC clients do; eight connections are eight client processes.
_CONNECTIONS = 8
_LEAST_SECONDS = 1.0
_ENDS_WITHIN_S = 30.0
_SENDS_WITHIN_S = 900.0
_FINISHED = re.compile(r"finished in ([0-9.]+)(ms|s|m)\b")
_REQUESTS = re.compile(r"requests: .*?(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}
_OK = range(200, 300)


@dataclass(frozen=True, slots=True)
class Load:
    """What h2load saw.

    Attributes:
        seconds: from the first request to the last answer.
        done: answers of any kind.
        ok: whole answers with a 2xx status; over gRPC that says nothing about success.
        latencies_ms: of the 2xx answers, ascending.
    """

    seconds: float
    done: int
    ok: int
    latencies_ms: tuple[float, ...]

    def latency_ms(self, share: float) -> float:
        """A quantile; 0 where nothing was answered."""
        return quantile(self.latencies_ms, share) if self.latencies_ms else 0.0


def connections(in_flight: int, http2: bool) -> tuple[int, int]:
    """(connections, requests in flight on each). HTTP/1.1 has one request in flight per connection."""
    if not http2:
        return in_flight, 1
    count = min(_CONNECTIONS, in_flight)
    if in_flight % count:
        raise ValueError(f"{in_flight} in flight cannot be shared evenly by {count} connections")
    return count, in_flight // count


def load(url: str, body: bytes, headers: Mapping[str, str], http2: bool, in_flight: int, seconds: float) -> Load:
    """Raises FileNotFoundError without h2load, subprocess.SubprocessError where it fails or does not end."""
    # A run that is over before all connections are up may never end.
    seconds = max(seconds, _LEAST_SECONDS)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        log = Path(folder) / "log"
        options = ["-D", f"{int(seconds * 1000)}ms", f"--log-file={log}"]
        printed = _run(url, body, headers, http2, in_flight, options, seconds + _ENDS_WITHIN_S)
        return parse(printed, log.read_text())


def send(url: str, body: bytes, headers: Mapping[str, str], in_flight: int, requests: int) -> None:
    """So many requests over HTTP/2, without a look at their latencies. Raises as `load` does."""
    _run(url, body, headers, True, in_flight, ["-n", str(requests)], _SENDS_WITHIN_S)


def _run(
    url: str, body: bytes, headers: Mapping[str, str], http2: bool, in_flight: int, options: list[str], timeout_s: float
) -> str:
    if shutil.which("h2load") is None:
        raise FileNotFoundError(MISSING)
    clients, streams = connections(in_flight, http2)
    fields = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    with tempfile.NamedTemporaryFile(prefix="headrace-bench-") as content:
        content.write(body)
        content.flush()
        command = ["h2load", "-c", str(clients), "-m", str(streams), "-t", "1", "-d", content.name, *options]
        command += fields if http2 else ["--h1", *fields]
        return subprocess.run([*command, url], capture_output=True, text=True, check=True, timeout=timeout_s).stdout


def parse(printed: str, log: str) -> Load:
    """What h2load printed, and its log file (columns: start in us, status, duration in us).

    Raises:
        ValueError: it did not print what it is known to print.
    """
    finished, requests = (pattern.search(printed) for pattern in (_FINISHED, _REQUESTS))
    if finished is None or requests is None:
        raise ValueError(f"h2load printed no summary that is understood:\n{printed}")
    answers = _answers(log)
    seconds = _measured_s(answers, float(finished[1]) * _SECONDS[finished[2]])
    latencies = sorted(duration_us / 1000 for _, status, duration_us in answers if status in _OK)
    return Load(seconds, int(requests[1]), len(latencies), tuple(latencies))


def _answers(log: str) -> list[tuple[int, int, int]]:
    """(start in us, status, duration in us)"""
    return [(int(start), int(status), int(took)) for start, status, took, *_ in map(str.split, log.splitlines())]


def _measured_s(answers: list[tuple[int, int, int]], ran_s: float) -> float:
    """From the first request to the last answer: a batch of 64 that is cut off by the end was not half served.

    A server that stops answering is not spared: at least the run less its longest latency counts.
    """
    if not answers:
        return ran_s
    began = min(start for start, _, _ in answers)
    ended = max(start + took for start, _, took in answers)
    longest = max(took for _, _, took in answers)
    return max((ended - began) / 1e6, ran_s - longest / 1e6)
