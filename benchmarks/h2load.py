"""Closed loop by nghttp2's `h2load`: so many requests are always in flight, each answer is followed by the next request."""

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
_FINISHED = re.compile(r"finished in ([0-9.]+)(ms|s|m)\b")
_REQUESTS = re.compile(r"requests: .*?(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout")
_STATUSES = re.compile(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}
_OK = range(200, 300)


@dataclass(frozen=True, slots=True)
class Load:
    """What h2load saw.

    Attributes:
        seconds: that it measured for.
        done: answers of any kind.
        ok: answers with a 2xx status; over gRPC that says nothing about success.
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


def load(
    url: str, body: bytes, headers: Mapping[str, str], http2: bool, in_flight: int, seconds: float
) -> Load:
    """Raises FileNotFoundError without h2load, CalledProcessError where it fails."""
    if shutil.which("h2load") is None:
        raise FileNotFoundError(MISSING)
    clients, streams = connections(in_flight, http2)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        content, log = Path(folder) / "body", Path(folder) / "log"
        content.write_bytes(body)
        command = ["h2load", "-D", f"{int(seconds * 1000)}ms", "-c", str(clients), "-m", str(streams), "-t", "1"]
        command += ["-d", str(content), f"--log-file={log}", *([] if http2 else ["--h1"])]
        for name, value in headers.items():
            command += ["-H", f"{name}: {value}"]
        printed = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
        return parse(printed, log.read_text())


def parse(printed: str, log: str) -> Load:
    """What h2load printed, and its log file (columns: start in us, status, duration in us).

    Raises:
        ValueError: it did not print what it is known to print.
    """
    finished, requests, statuses = (
        pattern.search(printed) for pattern in (_FINISHED, _REQUESTS, _STATUSES)
    )
    if finished is None or requests is None or statuses is None:
        raise ValueError(f"h2load printed no summary that is understood:\n{printed}")
    return Load(
        float(finished[1]) * _SECONDS[finished[2]], int(requests[1]), int(statuses[1]), tuple(sorted(_latencies_ms(log)))
    )


def _latencies_ms(log: str) -> list[float]:
    found = []
    for line in log.splitlines():
        _, status, duration_us, *_ = line.split("\t")
        if int(status) in _OK:
            found.append(int(duration_us) / 1000)
    return found
