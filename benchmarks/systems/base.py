"""What a system is to the benchmarks: something that can be started with a workload, asked, loaded and counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.paths import SERVERS
from benchmarks.servers.onnx_session import Job
from benchmarks.workloads import Workload

Row = NDArray[np.float32] | NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Counts:
    """A server's own count of requests since it started."""

    ok: int
    failed: int


@dataclass(frozen=True)
class Running:
    """A system that is up and has loaded its model.

    Attributes:
        url: where one POST of `body` is one request.
        http2: gRPC over HTTP/2 without TLS; otherwise HTTP/1.1.
        headers: of each request.
        body: of the workload's first row; for gRPC with its frame.
        infer: one request by a real client: [1, ...] to [1, ...].
        counts: None where the protocol itself shows failures (HTTP statuses).
        pids: the processes that make it up, by a name to print.
    """

    url: str
    http2: bool
    headers: Mapping[str, str]
    body: bytes
    infer: Callable[[Row], NDArray[np.float32]]
    counts: Callable[[], Counts] | None = None
    pids: Callable[[], Mapping[str, int]] = dict


class System(Protocol):
    """A server under test.

    Attributes:
        name: in files and on the command line.
        title: on the page.
        peer: whose environment it runs in, see `peers`; "" for headrace itself.
        protocol: what its clients speak, in words.
    """

    name: str
    peer: str
    title: str
    protocol: str

    def version(self) -> str: ...

    def running(self, workload: Workload) -> AbstractContextManager[Running]:
        """Raises DidNotStart."""
        ...


def job_environment(workload: Workload, port: int) -> dict[str, str]:
    """What a server of `benchmarks/servers` reads."""
    job = Job(
        workload.name,
        str(workload.model_path),
        workload.input,
        workload.output,
        workload.rows.dtype.name,
        list(workload.input_shape),
        port,
    )
    return {"BENCH_JOB": json.dumps(asdict(job)), "PYTHONPATH": str(SERVERS), "PYTHONUNBUFFERED": "1"}


def python_of(environment: Path) -> str:
    return str(environment / "bin" / "python")
