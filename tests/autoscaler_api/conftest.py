"""The autoscaler's API on a real server, over a real store and real files; only the fleet is a fake."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from headrace.v1 import (
    mesh_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    tenants_pb2_grpc,
    usage_pb2_grpc,
)
from headrace_autoscaler.api import register
from headrace_autoscaler.artifacts import ArtifactStore
from headrace_autoscaler.catalogue import StoredCatalogue
from headrace_autoscaler.core.budgets import Standings
from headrace_autoscaler.core.explaining import Explanation
from headrace_autoscaler.core.variant_choice import Load
from headrace_autoscaler.deploy import DeployService
from headrace_autoscaler.deploy_plan import Offer
from headrace_autoscaler.domain import FleetView, Limits, Loaded, ModelSpec, ModelView, Revision, Signature, TensorSpec
from headrace_autoscaler.jobs.files import JobFiles
from headrace_autoscaler.jobs.service import JobService
from headrace_autoscaler.jobs.work import FakeOptimizer, WorkFailed
from headrace_autoscaler.store import SqlStore, sqlite_url
from headrace_common.clock import FakeClock
from headrace_common.config import AutoscalerConfig
from headrace_common.errors import InvalidArgument
from tests.autoscaler_api.optimizations import Optimized, finds

_DATATYPES = {TensorProto.FLOAT: "FP32", TensorProto.INT32: "INT32", TensorProto.INT64: "INT64"}


def onnx_bytes(scale: float = 2.0, *, rows: str | int = "batch", width: str | int = 3, ir_version: int = 10) -> bytes:
    """A model that multiplies its input "x" (rows x width, FP32) and answers "y"."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "scale"], ["y"])],
        "scaled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, width])],
        [numpy_helper.from_array(np.array([scale], np.float32), "scale")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=ir_version)
    return bytes(model.SerializeToString())


@dataclass
class FakeFleet:
    """`ports.Fleet` without processes: reads signatures with onnx, loads nothing.

    Attributes:
        gate, discard_gate: verification, or giving up, waits while it is cleared.
        decided: what `view` answers from the next decision on.
        refuse: model version -> what verification raises.
        no_room, must_stop: by model, why a job gets nothing, or has to give it back.
        claimed: models whose jobs hold something.
        loads: what serves models, and what that has to serve.
    """

    artifacts: Path
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    discard_gate: asyncio.Event = field(default_factory=asyncio.Event)
    refuse: dict[str, Exception] = field(default_factory=dict)
    views: dict[str, ModelView] = field(default_factory=dict)
    explanations: dict[str, Explanation] = field(default_factory=dict)
    decided: dict[str, ModelView] = field(default_factory=dict)
    budgets: Standings = field(default_factory=dict)
    fleet: FleetView = field(default_factory=lambda: FleetView(epoch=1, started_at=0.0))
    verifying: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    verified: list[tuple[str, int, str]] = field(default_factory=list)
    discarded: list[tuple[str, int]] = field(default_factory=list)
    no_room: dict[str, str] = field(default_factory=dict)
    must_stop: dict[str, str] = field(default_factory=dict)
    claimed: set[str] = field(default_factory=set)
    loads: dict[str, Load] = field(default_factory=dict)
    changes: int = 0
    specs: list[ModelSpec] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()
        self.discard_gate.set()

    async def verify(self, spec: ModelSpec, revision: Revision) -> Loaded:
        self.verified.append((revision.model, revision.revision, revision.version))
        self.specs.append(spec)
        self.verifying.release()
        await self.gate.wait()
        if revision.version in self.refuse:
            raise self.refuse[revision.version]
        return _load(self.artifacts / revision.artifact / revision.entry_point, revision.max_batch_size)

    async def discard(self, model: str, revision: int) -> None:
        self.discarded.append((model, revision))
        await self.discard_gate.wait()

    def claim_job(self, spec: ModelSpec) -> str:
        if not self.no_room.get(spec.name):
            self.claimed.add(spec.name)
        return self.no_room.get(spec.name, "")

    def release_job(self, model: str) -> None:
        self.claimed.discard(model)

    def job_must_stop(self, model: str) -> str:
        return self.must_stop.get(model, "") if model in self.claimed else ""

    def load_of(self, model: str) -> Load | None:
        return self.loads.get(model)

    def catalogue_changed(self) -> None:
        self.changes += 1

    def decide_now(self) -> None:
        self.changes += 1
        self.views.update(self.decided)

    def view(self, model: str) -> ModelView:
        return self.views.get(model, ModelView())

    def explain(self, spec: ModelSpec) -> Explanation:
        return self.explanations[spec.name]

    def overview(self) -> FleetView:
        return self.fleet

    def standings(self) -> Standings:
        return self.budgets


def _load(path: Path, max_batch_size: int | None) -> Loaded:
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:
        raise InvalidArgument(f"Load model from {path} failed: Protobuf parsing failed") from error
    known = {tensor.name for tensor in graph.initializer}
    inputs = tuple(_tensor(value) for value in graph.input if value.name not in known)
    outputs = tuple(_tensor(value) for value in graph.output)
    batchable = all(tensor.shape[:1] == (-1,) for tensor in (*inputs, *outputs))
    return Loaded(
        Signature(inputs, outputs, batchable),
        max_batch_size=(max_batch_size or 64) if batchable else 1,
        batching="batchable: every first dimension is symbolic" if batchable else "not batchable: input 'x' is fixed",
        platform="onnxruntime_onnx",
    )


def _tensor(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
    return TensorSpec(value.name, _DATATYPES[kind.elem_type], shape)


class Api:
    """A running API and what is behind it."""

    def __init__(self, state: Path, clock: FakeClock, config: AutoscalerConfig, offer: Offer | None = None) -> None:
        self.optimizer = FakeOptimizer([WorkFailed("nobody has said what it finds")])
        self.state = state
        self.clock = clock
        self.config = config
        self.offer = offer or Offer(
            Limits(cpu_millicores=8000, memory_bytes=16 << 30, gpu_millis=0, gpu_memory_bytes=0)
        )

    async def start(self) -> None:
        self.artifacts = ArtifactStore(self.state / "artifacts", self.config.max_artifact_bytes, 3600.0, self.clock)
        self.store = SqlStore.open(sqlite_url(self.state / "headrace.db"))
        self.catalogue = await StoredCatalogue.open(self.store, self.artifacts, self.clock)
        self.fleet = FakeFleet(self.artifacts.directory)
        self.deploys = DeployService(self.catalogue, self.artifacts, self.fleet, self.clock, self.config, self.offer)
        self.deploys.start()
        files = JobFiles(self.artifacts, self.state / "jobs", self.config.max_samples_bytes)
        self.jobs = JobService(self.catalogue, self.deploys, self.fleet, files, self.optimizer, self.clock, self.config)
        self.jobs.start()
        self._sockets = Path(tempfile.mkdtemp(prefix="hr-"))
        self.server = grpc.aio.server()
        register(
            self.server,
            catalogue=self.catalogue,
            deploys=self.deploys,
            jobs=self.jobs,
            artifacts=self.artifacts,
            fleet=self.fleet,
            clock=self.clock,
            logs_dir=self.state / "logs",
            currency="EUR",
        )
        self.server.add_insecure_port(f"unix:{self._sockets}/a.sock")
        await self.server.start()
        self.channel = grpc.aio.insecure_channel(f"unix:{self._sockets}/a.sock")
        self.models = models_pb2_grpc.ModelServiceStub(self.channel)
        self.tenants = tenants_pb2_grpc.TenantServiceStub(self.channel)
        self.usage = usage_pb2_grpc.UsageServiceStub(self.channel)
        self.mesh = mesh_pb2_grpc.MeshServiceStub(self.channel)

    async def stop(self) -> None:
        await self.channel.close()
        await self.jobs.close()
        await self.deploys.close()
        await self.server.stop(0)
        await self.catalogue.close()
        shutil.rmtree(self._sockets)

    async def upload(self, files: dict[str, bytes]) -> str:
        answer = await self.models.UploadArtifact(upload_requests(files))
        return str(answer.artifact)

    async def deploy(
        self, name: str, files: dict[str, bytes] | str = "", *, wait: bool = True, **spec: object
    ) -> models_pb2.Model:
        """Uploads where files are given, and deploys."""
        artifact = await self.upload(files) if isinstance(files, dict) else files
        request = models_pb2.DeployModelRequest(
            model=models_pb2.ModelSpec(name=name, artifact=artifact, **spec), wait=wait
        )
        return (await self.models.DeployModel(request)).model

    async def describe(self, name: str) -> models_pb2.Model:
        return (await self.models.GetModel(models_pb2.GetModelRequest(name=name))).model

    def stored_artifacts(self) -> set[str]:
        return {entry.name for entry in self.artifacts.directory.iterdir() if not entry.name.startswith(".")}


async def upload_requests(
    files: dict[str, bytes], chunk_bytes: int = 1000
) -> AsyncIterator[models_pb2.UploadArtifactRequest]:
    for path, content in files.items():
        header = models_pb2.UploadArtifactRequest.FileHeader(
            path=path, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
        )
        yield models_pb2.UploadArtifactRequest(file=header)
        for start in range(0, len(content), chunk_bytes):
            yield models_pb2.UploadArtifactRequest(chunk=content[start : start + chunk_bytes])


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    directory = tmp_path / "state"
    directory.mkdir()
    return directory


@pytest.fixture
async def api(state: Path, clock: FakeClock) -> AsyncIterator[Api]:
    running = Api(state, clock, AutoscalerConfig(max_artifact_bytes=16 << 20))
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def onnx_model() -> Callable[..., bytes]:
    return onnx_bytes


@pytest.fixture
async def api_of(state: Path, clock: FakeClock) -> AsyncIterator[Callable[[AutoscalerConfig], Awaitable[Api]]]:
    """Starts an API with a configuration of the test's own."""
    started: list[Api] = []

    async def start(config: AutoscalerConfig) -> Api:
        started.append(Api(state, clock, config))
        await started[-1].start()
        return started[-1]

    yield start
    for each in started:
        await each.stop()


@pytest.fixture
async def m(api: Api) -> AsyncIterator[Optimized]:
    """The model `m` multiplies by two; what is found for it multiplies by three."""
    await api.deploy("m", {"model.onnx": onnx_bytes(2.0)}, tenant="acme", max_batch_size=16, response_cache=True)
    api.optimizer.answers = [finds(onnx_bytes(3.0))]
    yield Optimized(api)
    api.optimizer.gate.set()
