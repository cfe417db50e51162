"""The hot path answers, and refuses, exactly as the plain path does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.oip import inference_pb2 as pb
from headrace_common.errors import HeadraceError, InvalidArgument, NotFound, PermissionDenied
from headrace_router.domain import InferenceResult, RevisionEntry, TensorData, TensorSpec
from headrace_router.oip.caller import Caller
from headrace_router.oip.decode import decode_infer, parse_infer
from headrace_router.oip.encode import encode_infer
from headrace_router.oip.header import MAX_HEADER_BYTES, split
from headrace_router.oip.hot import HotInference
from headrace_router.oip.signature import Signature
from headrace_router.oip.wire import ResponseTemplate, varint

MakeRequest = Callable[..., pb.ModelInferRequest]

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


class _One:
    """A catalogue with one entry, for properties."""

    ready = True

    def resolve(self, _caller: str, model: str, version: str) -> RevisionEntry:
        if model != ENTRY.model or version not in ("", ENTRY.version):
            raise NotFound(f"no {model!r}")
        return ENTRY


async def test_answer_is_that_of_the_plain_path(hot: HotInference, make_add_request: MakeRequest) -> None:
    message = make_add_request(2, id="r-1")
    for _ in range(2):  # The second time by what is remembered of the first.
        answer = pb.ModelInferResponse.FromString(await hot.infer_bytes(message.SerializeToString(), "default"))
        assert (answer.model_name, answer.model_version, answer.id) == ("add", "1", "r-1")
        assert [(out.name, out.datatype, list(out.shape)) for out in answer.outputs] == [
            ("sum", "FP32", [2, 3]),
            ("difference", "FP32", [2, 3]),
        ]
        assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == [10, 11, 12, 13, 14, 15]
        assert np.frombuffer(answer.raw_output_contents[1], "<f4").tolist() == [-10, -9, -8, -7, -6, -5]


async def test_what_is_remembered_is_only_the_header(
    hot: HotInference, plane: Any, clock: Any, make_add_request: MakeRequest
) -> None:
    for number in range(3):
        message = make_add_request(1, id=f"id-é{number}")
        message.parameters["timeout"].int64_param = 1_000_000
        message.raw_input_contents[0] = np.full(3, number, "<f4").tobytes()
        answer = await hot.infer_bytes(message.SerializeToString(), "default", time_left_s=5.0)
        assert pb.ModelInferResponse.FromString(answer).id == f"id-é{number}"
        assert bytes(plane.requests[-1].inputs[0].data) == message.raw_input_contents[0]
        assert (plane.requests[-1].deadline, plane.requests[-1].size_bytes) == (clock.monotonic() + 1.0, 24)
        clock.advance(1)


async def test_another_tenant_does_not_profit_from_what_is_remembered(
    hot: HotInference, make_add_request: MakeRequest
) -> None:
    body = make_add_request().SerializeToString().replace(b"\x03add", b"\x07private")
    await hot.infer_bytes(body, "acme")
    with pytest.raises(PermissionDenied):
        await hot.infer_bytes(body, "globex")


async def test_a_new_revision_is_checked_anew(
    hot: HotInference,
    catalogue: Any,
    plane: Any,
    make_add_request: MakeRequest,
    make_add_entry: Callable[..., RevisionEntry],
) -> None:
    body = make_add_request(4).SerializeToString()
    await hot.infer_bytes(body, "default")
    catalogue.entries[0] = make_add_entry(revision=8, version="2", max_batch_size=4)
    answer = pb.ModelInferResponse.FromString(await hot.infer_bytes(body, "default"))
    assert (answer.model_version, plane.requests[-1].revision.revision) == ("2", 8)
    catalogue.entries[0] = make_add_entry(revision=8, version="2", max_batch_size=2)
    with pytest.raises(InvalidArgument, match="1 to 2 rows; got 4"):
        await hot.infer_bytes(body, "default")


async def test_the_trace_and_the_way_to_ask_for_the_caller_are_carried(
    hot: HotInference, plane: Any, make_add_request: MakeRequest
) -> None:
    body = make_add_request().SerializeToString()
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    await hot.infer_bytes(body, "default", traceparent=trace, is_gone=lambda: True)
    assert plane.requests[-1].traceparent == trace
    assert plane.requests[-1].is_gone()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda message: message.raw_input_contents.pop(), id="a raw entry is missing"),
        pytest.param(lambda message: message.raw_input_contents.append(b""), id="a raw entry too many"),
        pytest.param(lambda message: message.raw_input_contents.insert(0, b"123"), id="raw entries of wrong sizes"),
        pytest.param(lambda message: message.inputs[0].contents.fp32_contents.append(1), id="contents beside raw"),
        pytest.param(lambda message: message.ClearField("model_name"), id="no model"),
        pytest.param(lambda message: message.outputs.add(name="nope"), id="unknown output"),
    ],
)
async def test_refusals_are_those_of_the_plain_path(
    spoil: Callable[[Any], object], hot: HotInference, catalogue: Any, make_add_request: MakeRequest
) -> None:
    await hot.infer_bytes(make_add_request().SerializeToString(), "default")
    message = make_add_request()
    spoil(message)

    def decode_plainly() -> None:
        entry = catalogue.resolve("default", message.model_name, "")
        decode_infer(message, Signature(entry), Caller("default"), 0.0)

    with pytest.raises(HeadraceError) as plain:
        decode_plainly()
    for _ in range(2):
        with pytest.raises(type(plain.value)) as quick:
            await hot.infer_bytes(message.SerializeToString(), "default")
        assert quick.value.message == plain.value.message


async def test_memory_of_headers_is_bounded(
    catalogue: Any, plane: Any, clock: Any, make_add_request: MakeRequest
) -> None:
    hot = HotInference(catalogue, plane, clock, capacity=2)
    for number in (1, 2, 3, 1, 2, 3):
        message = make_add_request(number)
        await hot.infer_bytes(message.SerializeToString(), "default")
        assert plane.requests[-1].rows == number


def test_long_headers_are_left_to_the_parser(make_add_request: MakeRequest) -> None:
    message = make_add_request(id="i")
    assert split(message.SerializeToString()) is not None
    message.parameters["text"].string_param = "x" * MAX_HEADER_BYTES
    assert split(message.SerializeToString()) is None


names = st.text(max_size=5)
tensors = st.builds(
    lambda name, shape, kind: pb.ModelInferRequest.InferInputTensor(name=name, datatype=kind, shape=shape),
    st.sampled_from(["x", "x", "s", "q"]),
    st.sampled_from([[1, 2], [2, 2], [1, 1], [2, 1], [9, 2], [2]]),
    st.sampled_from(["FP32", "BYTES", "INT8"]),
)
requests = st.builds(
    pb.ModelInferRequest,
    model_name=st.sampled_from(["m", "m", "m", "other"]),
    model_version=st.sampled_from(["", "2"]),
    id=names,
    inputs=st.lists(tensors, max_size=3),
    raw_input_contents=st.lists(
        st.sampled_from([bytes(8), bytes(16), b"\2\0\0\0ab", bytes(4), b"", b"\xff" * 8]), max_size=3
    ),
)


class _Echo:
    async def infer(self, request: Any) -> InferenceResult:
        self.request = request
        first = request.inputs[0]
        return InferenceResult([TensorData("y", "FP32", first.shape, first.data)])


class _Stopped:
    def monotonic(self) -> float:
        return 5.0

    def wall(self) -> float:
        return 5.0


async def _both(body: bytes) -> None:
    plane = _Echo()
    hot = HotInference(_One(), plane, _Stopped())  # type: ignore[arg-type]
    expected: Any
    try:
        message = parse_infer(body)
        _One().resolve("default", message.model_name, message.model_version)
        request = decode_infer(message, Signature(ENTRY), Caller("default"), 5.0)
        answer = encode_infer(ENTRY, message.id, await _Echo().infer(request))
        expected = answer
    except HeadraceError as error:
        expected = type(error)
    for _ in range(2):
        try:
            got: Any = pb.ModelInferResponse.FromString(await hot.infer_bytes(body, "default"))
            plane.request.inputs = [
                TensorData(one.name, one.datatype, one.shape, bytes(one.data)) for one in plane.request.inputs
            ]
            assert plane.request == request
        except HeadraceError as error:
            got = type(error)
        assert got == expected


@given(requests)
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=200)
async def test_both_paths_agree_on_any_message(message: pb.ModelInferRequest) -> None:
    await _both(message.SerializeToString())


RIGHT = pb.ModelInferRequest(
    model_name="m",
    id="é1",
    inputs=[pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 2])],
    raw_input_contents=[bytes(8)],
).SerializeToString()


@given(st.integers(0, len(RIGHT) - 1), st.binary(max_size=3), st.integers(0, 3))
@settings(max_examples=300)
async def test_both_paths_agree_on_damaged_messages(at: int, insert: bytes, drop: int) -> None:
    await _both(RIGHT[:at] + insert + RIGHT[at + drop :])


@pytest.mark.parametrize(
    "insert",
    [
        pytest.param(b"\x1a\x01a\x1a\x02bc", id="two ids"),
        pytest.param(b"\x1a\x01\xff", id="an id that is not UTF-8"),
        pytest.param(b"\x0a\x01m\x0a\x01m", id="the model twice"),
        pytest.param(b"\xa2\x06\x01z", id="an unknown field"),
        pytest.param(b"\x1a\x81\x80\x80\x80\x00a", id="a length in five groups"),
    ],
)
async def test_both_paths_agree_on_the_unusual(insert: bytes) -> None:
    await _both(insert + RIGHT)
    at = RIGHT.index(b"\x3a")
    await _both(RIGHT[:at] + insert + RIGHT[at:])
    await _both(RIGHT + insert)


@given(st.binary(max_size=80))
@settings(max_examples=200)
async def test_both_paths_agree_on_random_bytes(body: bytes) -> None:
    await _both(body)


def view(data: bytes) -> memoryview:
    return memoryview(data)


outputs = st.builds(
    TensorData,
    name=names,
    datatype=st.sampled_from(["FP32", "BYTES", ""]),
    shape=st.lists(st.integers(0, 1 << 40), max_size=4).map(tuple),
    data=st.binary(max_size=300) | st.binary(max_size=20).map(view),
)


@given(st.text(max_size=200), st.lists(outputs, max_size=4))
def test_handmade_answer_is_what_protobuf_would_write(request_id: str, made: list[TensorData]) -> None:
    template = ResponseTemplate(ENTRY)
    plain = encode_infer(ENTRY, request_id, InferenceResult(made))
    for _ in range(2):
        assert template.encode(request_id.encode(), made) == plain.SerializeToString()


@given(st.integers(0, (1 << 63) - 1))
def test_varints_are_protobufs(value: int) -> None:
    tensor = pb.ModelInferResponse.InferOutputTensor(shape=[value])
    assert tensor.SerializeToString() == b"\x1a" + varint(len(varint(value))) + varint(value)
