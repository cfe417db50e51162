"""A runner process and the router's end of it: bundles in, results out, as a router of the same machine does it."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads import Workload
from headrace.runner.v1 import runner_pb2 as pb
from headrace.runner.v1 import runner_pb2_grpc
from headrace_common.config import MeshConfig, ProcessContext
from headrace_common.frames import LENGTH_BYTES, frames_path
from headrace_common.shared_memory import SHARED_FROM_BYTES, Placer, Region, Segment, read_result

_INSTANCE = "bench"
_WITHIN_S = 30
_HALF_BYTES = 64 << 20


@contextmanager
def running(workload: Workload) -> Iterator[OneRunner]:
    """A runner that has loaded the workload's model, with one CPU."""
    with tempfile.TemporaryDirectory(prefix="hr-") as folder:
        place = Path(folder)
        context = ProcessContext(process="runner-1", state_dir=place, runtime_dir=place, mesh=MeshConfig())
        context.save(place / "context.json")
        command = [sys.executable, "-m", "headrace_runner", "--context", str(place / "context.json")]
        with (place / "runner.log").open("wb") as log:
            process = subprocess.Popen(command, stderr=log)
        try:
            with grpc.insecure_channel(f"unix:{context.socket}") as channel:
                stub = runner_pb2_grpc.RunnerServiceStub(channel)
                stub.Load(_load_request(workload), wait_for_ready=True, timeout=_WITHIN_S)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(frames_path(f"unix:{context.socket}")))
                connection.settimeout(_WITHIN_S)
                yield OneRunner(connection)
        finally:
            process.kill()
            process.wait()


class OneRunner:
    """A stream to it, with a segment of shared memory. One bundle at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._segment = Segment.make(Path("/dev/shm"), _HALF_BYTES)
        attach = pb.Attach(
            router_id="bench",
            instance_id=_INSTANCE,
            model=_INSTANCE,
            revision=1,
            shared_memory=str(self._segment.path),
        )
        self._send(pb.ExecuteRequest(attach=attach))
        if not self._receive().grant.shared_memory:
            raise RuntimeError("the runner has not mapped the segment in /dev/shm; runner.log says why")
        self._placer = Placer(self._segment, self._segment.bundles())

    def asking(self, workload: Workload, rows: NDArray[Any]) -> Callable[[], NDArray[Any]]:
        """A call that sends rows as one request, and answers the output."""
        content = memoryview(rows.reshape(-1).view(np.uint8).data)

        def ask() -> NDArray[Any]:
            tensor = pb.Tensor(name=workload.input, datatype=workload.datatype, shape=rows.shape)
            region: Region | None = None
            if len(content) < SHARED_FROM_BYTES:
                tensor.data = bytes(content)
            else:
                region = self._placer.place((content,), len(content))
                if region is None:
                    raise MemoryError(f"{len(content)} bytes have no room in the segment")
                tensor.region.offset, tensor.region.size_bytes = region.offset, region.size_bytes
            self._send(pb.ExecuteRequest(bundle=pb.Bundle(bundle_id=1, rows=[len(rows)], inputs=[tensor])))
            result = self._receive().result
            if region is not None:
                self._placer.give_back(region)
            if result.HasField("error"):
                raise RuntimeError(result.error.detail)
            return self._array(result.outputs[0])

        return ask

    def _array(self, tensor: pb.Tensor) -> NDArray[Any]:
        data: bytes | memoryview = tensor.data
        if tensor.HasField("region"):
            data = read_result(self._segment, Region(tensor.region.offset, tensor.region.size_bytes))
        return np.frombuffer(data, np.float32).reshape(tensor.shape)

    def _send(self, request: pb.ExecuteRequest) -> None:
        content = request.SerializeToString()
        self._connection.sendall(len(content).to_bytes(LENGTH_BYTES, "little") + content)

    def _receive(self) -> pb.ExecuteResponse:
        size = int.from_bytes(self._exactly(LENGTH_BYTES), "little")
        return pb.ExecuteResponse.FromString(self._exactly(size))

    def _exactly(self, size: int) -> bytes:
        content = self._connection.recv(size, socket.MSG_WAITALL)
        if len(content) < size:
            raise ConnectionError("the runner has ended the connection")
        return content


def _load_request(workload: Workload) -> pb.LoadRequest:
    content = workload.model_path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return pb.LoadRequest(
        instance_id=_INSTANCE,
        tenant=_INSTANCE,
        model=_INSTANCE,
        revision=1,
        version="1",
        epoch=1,
        directory=str(workload.model_path.parent),
        files=[pb.ModelFile(path=workload.model_path.name, sha256=digest, size_bytes=len(content))],
        entry_point=workload.model_path.name,
        engine="onnxruntime",
    )
