"""A catalogue and a data plane for the edges: real interfaces, numpy instead of runners."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from headrace.oip import inference_pb2 as pb
from headrace_common.clock import FakeClock
from headrace_common.config import RouterConfig
from headrace_common.errors import NotFound, PermissionDenied, Unavailable
from headrace_common.identity import may_call
from headrace_router.core.waiting import Answer
from headrace_router.domain import InferenceRequest, InferenceResult, RevisionEntry, TensorData, TensorSpec
from headrace_router.oip.datatypes import DATATYPES
from headrace_router.oip.hot import HotInference
from headrace_router.oip.rest import RestApp
from headrace_router.oip.servicer import InferenceServicer

# How long an example takes is the machine's affair.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

MAX_BATCH = 8
MAX_BYTES = 1 << 20


class FakeCatalogue:
    """Holds entries; the last with a name that is current answers requests without a version."""

    def __init__(self, *entries: RevisionEntry) -> None:
        self.entries = list(entries)
        self.ready = True

    def resolve(self, caller: str, model: str, version: str) -> RevisionEntry:
        found = [
            entry
            for entry in self.entries
            if entry.model == model and (entry.version == version if version else entry.current)
        ]
        if not found:
            raise NotFound(f"there is no model {model!r} version {version or 'any'}")
        if not may_call(caller, found[-1].owner, ()):
            raise PermissionDenied(f"model {model!r} is not shared with tenant {caller!r}")
        if found[-1].loading:
            raise Unavailable(f"model {model!r}: its first load is under way")
        return found[-1]

    def versions(self, caller: str, model: str) -> tuple[RevisionEntry, ...]:
        self.resolve(caller, model, "")
        return tuple(entry for entry in self.entries if entry.model == model)

    def visible(self, caller: str) -> tuple[RevisionEntry, ...]:
        mine = (entry for entry in self.entries if entry.current and may_call(caller, entry.owner, ()))
        return tuple(sorted(mine, key=lambda entry: entry.model))

    def is_ready(self, entry: RevisionEntry) -> bool:
        return not (entry.loading or entry.blocked_reason)


@dataclass
class FakeStatistics:
    requests: int = 0
    failures: int = 0
    rows: int = 0
    bundles: int = 0
    request_ns: int = 0
    failure_ns: int = 0
    queue_ns: int = 0
    compute_ns: int = 0
    last_inference_unix_ms: int = 0
    cache_hits: int = 0
    cache_hit_ns: int = 0
    coalesced: int = 0
    coalesced_ns: int = 0
    cache_misses: int = 0
    cache_miss_ns: int = 0
    batches: dict[int, tuple[int, int]] = field(default_factory=dict)


class FakePlane:
    """Runs each request by itself: "add" adds and subtracts, everything else echoes its inputs.

    Attributes:
        requests: all that came.
        error: raised instead of an answer.
        hold: per first element of the first input, an event that the answer waits for.
        held, withdrawn: a request waits for its event; one was cancelled while it did.
        answer: replaces the data of every output.
    """

    def __init__(self) -> None:
        self.requests: list[InferenceRequest] = []
        self.error: BaseException | None = None
        self.hold: dict[float, asyncio.Event] = {}
        self.held = asyncio.Event()
        self.withdrawn = asyncio.Event()
        self.counted = FakeStatistics()
        self.answer: bytes | None = None
        self._tasks: set[asyncio.Future[InferenceResult]] = set()

    async def infer(self, request: InferenceRequest) -> InferenceResult:
        self.requests.append(request)
        await self._wait(request)
        if self.error is not None:
            raise self.error
        made = _compute(request)
        if self.answer is not None:
            made = [TensorData(out.name, out.datatype, out.shape, self.answer) for out in made]
        wanted = request.outputs or tuple(out.name for out in made)
        by_name = {out.name: out for out in made}
        return InferenceResult([by_name[name] for name in wanted])

    def submit(self, request: InferenceRequest, answer: Answer) -> None:
        """By `infer`, without a sweep: who has gone is still answered."""
        task = asyncio.ensure_future(self.infer(request))

        def done(_: object) -> None:
            self._tasks.discard(task)
            error = task.exception()
            if error is None:
                answer.set_result(task.result())
            else:
                answer.set_exception(error)

        self._tasks.add(task)
        task.add_done_callback(done)

    async def _wait(self, request: InferenceRequest) -> None:
        if not self.hold:
            return
        gate = self.hold.get(float(np.frombuffer(request.inputs[0].data, "<f4")[0]))
        if gate is not None:
            self.held.set()
            try:
                await gate.wait()
            except asyncio.CancelledError:
                self.withdrawn.set()
                raise

    def statistics(self, entry: RevisionEntry) -> FakeStatistics:
        return self.counted


def _compute(request: InferenceRequest) -> list[TensorData]:
    if request.revision.model in {"add", "private"}:
        first, second = (np.frombuffer(tensor.data, "<f4") for tensor in request.inputs[:2])
        shape = request.inputs[0].shape
        return [
            TensorData("sum", "FP32", shape, memoryview((first + second).tobytes())),
            TensorData("difference", "FP32", shape, (first - second).tobytes()),
        ]
    pairs = zip(request.revision.outputs, request.inputs, strict=False)
    return [TensorData(spec.name, spec.datatype, tensor.shape, tensor.data) for spec, tensor in pairs]


def entry(model: str, inputs: list[TensorSpec], outputs: list[TensorSpec], **more: Any) -> RevisionEntry:
    settings: dict[str, Any] = {
        "owner": "default",
        "revision": 7,
        "version": "1",
        "batchable": True,
        "max_batch_size": MAX_BATCH,
        **more,
    }
    return RevisionEntry(model=model, inputs=tuple(inputs), outputs=tuple(outputs), **settings)


def add_entry(model: str = "add", **more: Any) -> RevisionEntry:
    inputs = [TensorSpec("a", "FP32", (-1, 3)), TensorSpec("b", "FP32", (-1, 3))]
    inputs.append(TensorSpec("bias", "FP32", (-1, 1), optional=True))
    outputs = [TensorSpec("sum", "FP32", (-1, 3)), TensorSpec("difference", "FP32", (-1, 3))]
    return entry(model, inputs, outputs, **more)


def echo_entry(datatype: str) -> RevisionEntry:
    return entry(f"echo-{datatype}", [TensorSpec("x", datatype, (-1, 2))], [TensorSpec("y", datatype, (-1, 2))])


def fixed_entry() -> RevisionEntry:
    inputs, outputs = [TensorSpec("x", "INT64", (2, -1))], [TensorSpec("y", "INT64", (2, -1))]
    return entry("fixed", inputs, outputs, batchable=False, max_batch_size=1)


def add_request(rows: int = 1, **more: Any) -> pb.ModelInferRequest:
    """A right request in raw form: a counts up from 0, b is 10 everywhere."""
    message = pb.ModelInferRequest(model_name="add", **more)
    for name in ("a", "b"):
        message.inputs.add(name=name, datatype="FP32", shape=[rows, 3])
    message.raw_input_contents.append(np.arange(rows * 3, dtype="<f4").tobytes())
    message.raw_input_contents.append(np.full(rows * 3, 10, "<f4").tobytes())
    return message


@pytest.fixture
def catalogue() -> FakeCatalogue:
    echoes = [echo_entry(datatype) for datatype in DATATYPES]
    return FakeCatalogue(add_entry(), fixed_entry(), add_entry("private", owner="acme"), *echoes)


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def hot(catalogue: FakeCatalogue, plane: FakePlane, clock: FakeClock) -> HotInference:
    return HotInference(catalogue, plane, clock)


@pytest.fixture
def make_rest(catalogue: FakeCatalogue, plane: FakePlane, clock: FakeClock) -> Callable[[], RestApp]:
    limits = RouterConfig(max_request_bytes=MAX_BYTES, sweep_period_s=0.01)
    return lambda: RestApp(catalogue, plane, clock, limits)


@pytest.fixture
def rest(make_rest: Callable[[], RestApp]) -> RestApp:
    return make_rest()


@pytest.fixture
def servicer(catalogue: FakeCatalogue, plane: FakePlane, clock: FakeClock) -> InferenceServicer:
    return InferenceServicer(catalogue, plane, clock, max_in_flight=4)


@pytest.fixture
def make_add_request() -> Callable[..., pb.ModelInferRequest]:
    return add_request


@pytest.fixture
def make_add_entry() -> Callable[..., RevisionEntry]:
    return add_entry
