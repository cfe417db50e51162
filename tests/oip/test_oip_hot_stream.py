"""The hot path of ModelStreamInfer answers, and refuses, as the servicer does; on the ASGI host, on a scripted line."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.oip import inference_pb2 as pb
from headrace.oip import inference_pb2_grpc as pb_grpc
from headrace_common.asgi_grpc import Call, GrpcAsgiApp
from headrace_common.asgi_grpc.framing import Deframer, frame
from headrace_common.clock import FakeClock
from headrace_common.errors import EngineFailed, NotFound, QuotaExceeded
from headrace_common.status import GENERIC
from headrace_router.core.waiting import Answer
from headrace_router.domain import InferenceRequest, InferenceResult, RevisionEntry, TensorData, TensorSpec
from headrace_router.oip.hot import HotInference
from headrace_router.oip.hot_stream import HotStream, HotStreams
from headrace_router.oip.servicer import InferenceServicer
from headrace_router.oip.stream import METHOD

MakeRequest = Callable[..., pb.ModelInferRequest]
MAX_IN_FLIGHT = 4
MAX_BYTES = 1 << 20
UNARY = "/inference.GRPCInferenceService/ModelInfer"


class Line:
    """One stream between a client that is a test and the host.

    Attributes:
        sent: events that the host sent.
        unread: cleared: the client does not read, so that what the host sends waits.
    """

    def __init__(self, *headers: tuple[bytes, bytes], path: str = METHOD) -> None:
        self.scope = {
            "type": "http",
            "path": path,
            "headers": [(b"content-type", b"application/grpc"), *headers],
            "server": ("127.0.0.1", 8080),
            "client": ("127.0.0.1", 1),
        }
        self.sent: list[Any] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self._arrived = asyncio.Event()
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def say(self, *chunks: bytes, end: bool = True) -> Line:
        chunks = chunks or (b"",)
        for index, chunk in enumerate(chunks, 1):
            more = not end or index < len(chunks)
            self._events.put_nowait({"type": "http.request", "body": chunk, "more_body": more})
        return self

    def leave(self) -> None:
        self._events.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> dict[str, Any]:
        return await self._events.get()

    async def send(self, event: Any) -> None:
        await self.reads.wait()
        self.sent.append(event)
        self._arrived.set()

    async def answered(self, count: int) -> list[pb.ModelStreamInferResponse]:
        while len(self.answers) < count:
            self._arrived.clear()
            await self._arrived.wait()
        return self.answers

    @property
    def bodies(self) -> list[bytes]:
        return [event["body"] for event in self.sent if event["type"] == "http.response.body" and event["body"]]

    @property
    def answers(self) -> list[pb.ModelStreamInferResponse]:
        encoding = dict(self.sent[0]["headers"]).get(b"grpc-encoding", b"").decode() if self.sent else ""
        deframer = Deframer(encoding, MAX_BYTES)
        framed = deframer.feed(b"".join(self.bodies))
        return [pb.ModelStreamInferResponse.FromString(deframer.message(one)) for one in framed]

    @property
    def status(self) -> int:
        return int(dict(self.sent[-1]["headers"])[b"grpc-status"])


def servicer_app(catalogue: Any, plane: Any, clock: Any, max_in_flight: int = MAX_IN_FLIGHT) -> GrpcAsgiApp:
    app = GrpcAsgiApp(MAX_BYTES, sweep_period_s=0.01)
    servicer = InferenceServicer(catalogue, plane, clock, max_in_flight)
    pb_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, app)  # type: ignore[no-untyped-call]
    return app


def hot_app(catalogue: Any, plane: Any, clock: Any, max_in_flight: int = MAX_IN_FLIGHT) -> GrpcAsgiApp:
    app = servicer_app(catalogue, plane, clock)
    hot = HotInference(catalogue, plane, clock)

    async def infer(body: bytes, call: Call) -> bytes:
        return await hot.infer_bytes(body, "default", call.time_left_s, "", call.is_gone)

    app.register_stream_bytes(METHOD, HotStreams(hot, plane, max_in_flight).open)
    app.register_unary_bytes(UNARY, infer)
    return app


@pytest.fixture(params=[servicer_app, hot_app], ids=["servicer", "hot"])
def app(request: pytest.FixtureRequest, catalogue: Any, plane: Any, clock: Any) -> GrpcAsgiApp:
    made: GrpcAsgiApp = request.param(catalogue, plane, clock)
    return made


async def serve(app: GrpcAsgiApp, line: Line) -> Line:
    async with asyncio.timeout(5), app:
        await app(line.scope, line.receive, line.send)
    return line


def numbered(make: MakeRequest, number: int, **more: Any) -> bytes:
    message = make(id=f"é{number}", **more)
    message.raw_input_contents[0] = np.full(3, number, "<f4").tobytes()
    return frame(message.SerializeToString())


def ids(line: Line) -> list[str]:
    return [answer.infer_response.id for answer in line.answers]


async def test_answers_come_as_requests_complete(app: GrpcAsgiApp, plane: Any, make_add_request: MakeRequest) -> None:
    plane.hold = {1.0: asyncio.Event()}
    line = Line().say(*[numbered(make_add_request, number) for number in (1, 2, 3)])
    served = asyncio.ensure_future(serve(app, line))
    await line.answered(2)
    assert sorted(ids(line)) == ["é2", "é3"]
    plane.hold[1.0].set()
    await served
    late = line.answers[-1].infer_response
    assert (late.id, late.model_name, late.model_version, line.status) == ("é1", "add", "1", 0)
    assert np.frombuffer(late.raw_output_contents[0], "<f4").tolist() == [11, 11, 11]


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_messages_come_in_chunks_of_any_size(size: int, app: GrpcAsgiApp, make_add_request: MakeRequest) -> None:
    body = b"".join(numbered(make_add_request, number) for number in range(9))
    line = await serve(app, Line().say(*[body[at : at + size] for at in range(0, len(body), size)]))
    assert sorted(ids(line)) == [f"é{number}" for number in range(9)]


async def test_a_request_that_fails_is_answered_and_the_stream_goes_on(
    app: GrpcAsgiApp, plane: Any, make_add_request: MakeRequest
) -> None:
    unknown, torn = make_add_request(id="unknown"), make_add_request(id="torn")
    unknown.model_name = "nope"
    torn.raw_input_contents.pop()
    messages = [frame(message.SerializeToString()) for message in (unknown, torn)]
    line = await serve(app, Line().say(*messages, numbered(make_add_request, 1)))
    said = {answer.infer_response.id: answer.error_message for answer in line.answers}
    assert ("no model 'nope'" in said["unknown"], "one for each input" in said["torn"]) == (True, True)
    assert (said["é1"], line.status) == ("", 0)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (QuotaExceeded("slow down", subject="tenant:a", dimension="rate", retry_after_s=1), "slow down"),
        (EngineFailed("secret"), "the model's engine failed"),
        (ValueError("secret"), GENERIC),
    ],
    ids=["refused", "failed", "a defect of ours"],
)
async def test_errors_of_the_plane_are_told(
    error: Exception, said: str, app: GrpcAsgiApp, plane: Any, make_add_request: MakeRequest
) -> None:
    plane.error = error
    (answer,) = (await serve(app, Line().say(numbered(make_add_request, 1)))).answers
    assert (answer.infer_response.id, answer.error_message.startswith(said)) == ("é1", True)


async def test_final_answers_are_marked_where_that_is_asked_for(
    app: GrpcAsgiApp, make_add_request: MakeRequest
) -> None:
    marked, unmarked = make_add_request(id="marked"), make_add_request(id="unmarked")
    marked.parameters["triton_enable_empty_final_response"].bool_param = True
    unmarked.parameters["triton_enable_empty_final_response"].bool_param = False
    wrong = make_add_request(id="wrong")
    wrong.model_name = "nope"
    wrong.parameters["triton_enable_empty_final_response"].bool_param = True
    messages = [frame(message.SerializeToString()) for message in (marked, unmarked, wrong)]
    for answer in (await serve(app, Line().say(*messages, *messages))).answers:
        final = "triton_final_response" in answer.infer_response.parameters
        assert final == (answer.infer_response.id != "unmarked")


async def test_no_more_is_taken_than_may_be_in_hand(
    app: GrpcAsgiApp, plane: Any, make_add_request: MakeRequest
) -> None:
    gates = plane.hold = {float(number): asyncio.Event() for number in range(9)}
    line = Line().say(b"".join(numbered(make_add_request, number) for number in range(9)))
    line.reads.clear()
    served = asyncio.ensure_future(serve(app, line))
    await plane.held.wait()
    for gate in gates.values():
        gate.set()
    for _ in range(200):  # A stream without a bound would have taken all by then.
        await asyncio.sleep(0)
    assert len(plane.requests) <= MAX_IN_FLIGHT + 1  # The answer that is being sent has left its place.
    line.reads.set()
    assert sorted(ids(await served)) == [f"é{number}" for number in range(9)]


async def test_answers_are_compressed_as_the_requests_if_the_client_takes_that(
    app: GrpcAsgiApp, make_add_request: MakeRequest
) -> None:
    packed = [frame(make_add_request(id=str(n)).SerializeToString(), "gzip") for n in range(3)]
    takes = (b"grpc-encoding", b"gzip"), (b"grpc-accept-encoding", b"gzip")
    line = await serve(app, Line(*takes).say(*packed))
    assert (sorted(ids(line)), line.bodies[0][0]) == (["0", "1", "2"], 1)


@pytest.mark.parametrize(
    ("headers", "chunk", "code"),
    [
        pytest.param([(b"x-headrace-tenant", b"no such name!")], b"", grpc.StatusCode.UNAUTHENTICATED, id="no tenant"),
        pytest.param([], frame(b"\xff"), grpc.StatusCode.INVALID_ARGUMENT, id="not a message"),
        pytest.param([], b"\0\0\0", grpc.StatusCode.INVALID_ARGUMENT, id="cut off"),
        pytest.param([], b"\0\x40\0\0\0", grpc.StatusCode.RESOURCE_EXHAUSTED, id="too large"),
        pytest.param([(b"grpc-timeout", b"20m")], b"", grpc.StatusCode.DEADLINE_EXCEEDED, id="late"),
    ],
)
async def test_what_ends_a_stream_withdraws_its_requests(
    headers: list[Any],
    chunk: bytes,
    code: grpc.StatusCode,
    app: GrpcAsgiApp,
    plane: Any,
    make_add_request: MakeRequest,
) -> None:
    plane.hold = {1.0: asyncio.Event()}
    line = Line(*headers).say(numbered(make_add_request, 1), end=False)
    served = asyncio.ensure_future(serve(app, line))
    if code is not grpc.StatusCode.UNAUTHENTICATED:
        await plane.held.wait()
        line.say(chunk, end=bool(chunk))
    await served
    assert (line.status, line.bodies) == (code.value[0], [])
    assert all(plane.withdrawn.is_set() or request.is_gone() for request in plane.requests)


@pytest.mark.parametrize("end", [True, False], ids=["half-closed", "open"])
async def test_client_that_leaves_withdraws_its_requests(
    end: bool, app: GrpcAsgiApp, plane: Any, make_add_request: MakeRequest
) -> None:
    plane.hold = {1.0: asyncio.Event()}
    line = Line().say(numbered(make_add_request, 1), end=end)
    served = asyncio.ensure_future(serve(app, line))
    await plane.held.wait()
    line.leave()
    await served
    assert line.sent == []
    assert plane.withdrawn.is_set() or plane.requests[0].is_gone()


async def test_transport_tells_who_calls_and_until_when(
    app: GrpcAsgiApp, plane: Any, clock: Any, make_add_request: MakeRequest
) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    headers = (b"x-headrace-tenant", b"acme"), (b"traceparent", trace.encode()), (b"grpc-timeout", b"30S")
    await serve(app, Line(*headers).say(numbered(make_add_request, 1)))
    request = plane.requests[0]
    assert (request.tenant, request.traceparent) == ("acme", trace)
    assert 20 < request.deadline - clock.monotonic() <= 30


# --- a plane that answers all that came, in one go, when it is told to or at once ---


class Batch:
    """Answers in one go what was submitted in one round of the event loop, as a bundle's answers come."""

    def __init__(self) -> None:
        self.requests: list[InferenceRequest] = []
        self._waiting: list[tuple[InferenceRequest, Answer]] = []

    async def infer(self, request: InferenceRequest) -> InferenceResult:
        answer: asyncio.Future[InferenceResult] = asyncio.get_running_loop().create_future()
        self.submit(request, answer)
        return await answer

    def submit(self, request: InferenceRequest, answer: Answer) -> None:
        self.requests.append(request)
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.append((request, answer))

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for request, answer in waiting:
            first = request.inputs[0]
            answer.set_result(InferenceResult([TensorData("y", "FP32", first.shape, first.data)]))


ENTRY = RevisionEntry(
    "m",
    "default",
    3,
    "2",
    (TensorSpec("x", "FP32", (-1, 2)), TensorSpec("s", "BYTES", (-1, 1), optional=True)),
    (TensorSpec("y", "FP32", (-1, 2)),),
    True,
    4,
)


class One:
    """A catalogue with one entry."""

    ready = True

    def resolve(self, _caller: str, model: str, version: str) -> RevisionEntry:
        if model != ENTRY.model or version not in ("", ENTRY.version):
            raise NotFound(f"no {model!r}")
        return ENTRY


def right(number: int) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="m", id=str(number), raw_input_contents=[bytes(8)])
    message.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    return message


async def test_answers_that_are_ready_together_leave_as_one_event() -> None:
    app = hot_app(One(), Batch(), FakeClock())
    body = b"".join(frame(right(number).SerializeToString()) for number in range(2 * MAX_IN_FLIGHT))
    line = await serve(app, Line().say(body))
    assert (ids(line), len(line.bodies)) == ([str(number) for number in range(2 * MAX_IN_FLIGHT)], 2)


async def test_large_answers_leave_as_several_events() -> None:
    entry = RevisionEntry("m", "default", 3, "2", (TensorSpec("x", "FP32", (-1, -1)),), ENTRY.outputs, True, 4)

    class Wide(One):
        def resolve(self, *_asked: str) -> RevisionEntry:
            return entry

    message = right(0)
    message.inputs[0].shape[:] = [1, 150_000]
    message.raw_input_contents[0] = bytes(600_000)
    line = await serve(hot_app(Wide(), Batch(), FakeClock()), Line().say(frame(message.SerializeToString()) * 3))
    assert [len(body) // 600_000 for body in line.bodies] == [2, 1]


class Regions(Batch):
    """Answers with views of memory that somebody waits to get back; all that came, when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.came = asyncio.Event()
        self._regions: list[weakref.ref[Any]] = []
        self._answers: list[Answer] = []

    def submit(self, request: InferenceRequest, answer: Answer) -> None:
        self.requests.append(request)
        self._answers.append(answer)
        self.came.set()

    def answer(self) -> None:
        for number, answer in enumerate(self._answers):
            region = np.full(2, number, "<f4").view(np.uint8)
            self._regions.append(weakref.ref(region))
            answer.set_result(InferenceResult([TensorData("y", "FP32", (1, 2), region.data)]))
        self._answers.clear()

    async def taken(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.requests) < count:
                self.came.clear()
                await self.came.wait()

    @property
    def held(self) -> int:
        """Regions that are referred to."""
        return sum(region() is not None for region in self._regions)


@pytest.fixture
def uncollected() -> Iterator[None]:
    """What refers to itself stays."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("leaves", ["before", "after"])
async def test_who_leaves_keeps_no_memory_of_answers(leaves: str) -> None:
    plane = Regions()
    line = Line().say(*[frame(right(number).SerializeToString()) for number in range(3)], end=False)
    line.reads.clear()
    served = asyncio.ensure_future(serve(hot_app(One(), plane, FakeClock()), line))
    await plane.taken(3)
    if leaves == "after":
        plane.answer()
    line.leave()
    await served
    plane.answer()
    assert not plane.held


@pytest.mark.usefixtures("uncollected")
async def test_a_stream_that_has_ended_is_gone() -> None:
    streams: weakref.WeakSet[HotStream] = weakref.WeakSet()
    plane, clock = Batch(), FakeClock()
    hot = HotStreams(HotInference(One(), plane, clock), plane, MAX_IN_FLIGHT)

    def opened(call: Call, wake: Callable[[], None]) -> HotStream:
        stream = hot.open(call, wake)
        streams.add(stream)
        return stream

    app = GrpcAsgiApp(MAX_BYTES, sweep_period_s=0.01)
    app.register_stream_bytes(METHOD, opened)
    line = await serve(app, Line().say(*[frame(right(number).SerializeToString()) for number in range(3)]))
    plane.requests.clear()
    assert (ids(line), len(streams)) == (["0", "1", "2"], 0)


@pytest.mark.usefixtures("uncollected")
async def test_who_does_not_read_keeps_no_memory_of_answers() -> None:
    plane = Regions()
    line = Line().say(*[frame(right(number).SerializeToString()) for number in range(MAX_IN_FLIGHT)])
    line.reads.clear()
    served = asyncio.ensure_future(serve(hot_app(One(), plane, FakeClock()), line))
    await plane.taken(MAX_IN_FLIGHT)
    plane.answer()
    assert not plane.held
    line.reads.set()
    await served
    said = [np.frombuffer(one.infer_response.raw_output_contents[0], "<f4").tolist() for one in line.answers]
    assert (said, sorted(ids(line))) == ([[n, n] for n in range(MAX_IN_FLIGHT)], ["0", "1", "2", "3"])


messages = st.builds(
    pb.ModelInferRequest,
    model_name=st.sampled_from(["m", "m", "m", "other"]),
    id=st.text(max_size=3),
    inputs=st.lists(
        st.builds(
            pb.ModelInferRequest.InferInputTensor,
            name=st.sampled_from(["x", "x", "x", "s"]),
            datatype=st.sampled_from(["FP32", "FP32", "BYTES"]),
            shape=st.sampled_from([[1, 2], [2, 2], [9, 2]]),
        ),
        max_size=2,
    ),
    raw_input_contents=st.lists(st.sampled_from([bytes(8), bytes(16), b""]), max_size=2),
).map(lambda message: message.SerializeToString())


async def _said(app: GrpcAsgiApp, body: bytes, size: int) -> tuple[int, list[bytes]]:
    line = await serve(app, Line().say(*[body[at : at + size] for at in range(0, len(body), size)]))
    # What was answered before a stream broke depends on timing; so does the order.
    answers = [] if line.status else sorted(one.SerializeToString(deterministic=True) for one in line.answers)
    return line.status, answers


@given(st.lists(messages | st.binary(max_size=5), max_size=6), st.integers(1, 400))
@settings(max_examples=150, deadline=None)
async def test_both_paths_agree_on_any_stream(parts: list[bytes], size: int) -> None:
    body = b"".join(map(frame, parts))
    said = [await _said(make(One(), Batch(), FakeClock()), body, size) for make in (servicer_app, hot_app)]
    assert said[0] == said[1]


async def test_a_request_on_a_stream_costs_less_than_a_call_of_its_own() -> None:
    """Counted in calls of Python functions, which is what the router's time goes to."""
    app = hot_app(One(), Batch(), FakeClock(), max_in_flight=100)
    framed = [frame(right(number).SerializeToString()) for number in range(100)]
    await serve(app, Line(path=UNARY).say(framed[0]))
    unary = await _calls(app, [Line(path=UNARY).say(one) for one in framed])
    together = await _calls(app, [Line().say(b"".join(framed))])
    apart = await _calls(app, [Line().say(*framed)])
    servicer = await _calls(servicer_app(One(), Batch(), FakeClock(), 100), [Line().say(b"".join(framed))])
    assert together < unary / 2
    assert together < servicer / 3
    assert apart < unary


async def _calls(app: GrpcAsgiApp, lines: list[Line]) -> int:
    count = 0

    def saw(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    async with asyncio.timeout(5), app:
        sys.setprofile(saw)
        try:
            await asyncio.gather(*[app(line.scope, line.receive, line.send) for line in lines])
        finally:
            sys.setprofile(None)
    assert all(line.status == 0 for line in lines)
    return count
