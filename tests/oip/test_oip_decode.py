"""What is wrong with a gRPC request is said by name; what is right arrives unchanged."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.oip import inference_pb2 as pb
from headrace_common.errors import HeadraceError, InvalidArgument
from headrace_router.domain import Batching, RevisionEntry, TensorSpec
from headrace_router.oip.caller import Caller
from headrace_router.oip.datatypes import DATATYPES
from headrace_router.oip.decode import decode_infer, parse_infer
from headrace_router.oip.elements import pack_contents
from headrace_router.oip.signature import Signature

MakeRequest = Callable[..., pb.ModelInferRequest]
ME = Caller("default")


def decode(message: pb.ModelInferRequest, entry: RevisionEntry, caller: Caller = ME) -> Any:
    return decode_infer(message, Signature(entry), caller, now=100.0)


def rename(message: pb.ModelInferRequest) -> None:
    message.inputs[0].name = "z"


def drop(message: pb.ModelInferRequest) -> None:
    del message.inputs[1], message.raw_input_contents[1]


def repeat(message: pb.ModelInferRequest) -> None:
    message.inputs[1].name = "a"


def wrong_datatype(message: pb.ModelInferRequest) -> None:
    message.inputs[1].datatype = "FP64"


def no_datatype(message: pb.ModelInferRequest) -> None:
    message.inputs[1].datatype = ""


def wrong_rank(message: pb.ModelInferRequest) -> None:
    message.inputs[0].shape[:] = [3]


def endless_rank(message: pb.ModelInferRequest) -> None:
    message.inputs[0].shape[:] = [1] * 1000


def wrong_dimension(message: pb.ModelInferRequest) -> None:
    message.inputs[0].shape[:] = [1, 4]


def negative_dimension(message: pb.ModelInferRequest) -> None:
    message.inputs[0].shape[:] = [-1, 3]


def no_rows(message: pb.ModelInferRequest) -> None:
    message.inputs[0].shape[:] = [0, 3]


def many_rows(message: pb.ModelInferRequest) -> None:
    message.inputs[0].shape[:] = [9, 3]


def unlike_rows(message: pb.ModelInferRequest) -> None:
    message.inputs[1].shape[:] = [2, 3]


def raw_count(message: pb.ModelInferRequest) -> None:
    message.raw_input_contents.append(b"")


def raw_bytes(message: pb.ModelInferRequest) -> None:
    message.raw_input_contents[1] = b"12345678"


def raw_and_contents(message: pb.ModelInferRequest) -> None:
    message.inputs[0].contents.fp32_contents.append(1)


def contents_count(message: pb.ModelInferRequest) -> None:
    del message.raw_input_contents[:]
    message.inputs[0].contents.fp32_contents.extend([1, 2])


def contents_kind(message: pb.ModelInferRequest) -> None:
    del message.raw_input_contents[:]
    message.inputs[0].contents.int_contents.extend([1, 2, 3])


def nothing_at_all(message: pb.ModelInferRequest) -> None:
    del message.raw_input_contents[:]


def unknown_output(message: pb.ModelInferRequest) -> None:
    message.outputs.add(name="product")


def classification(message: pb.ModelInferRequest) -> None:
    message.outputs.add(name="sum").parameters["classification"].int64_param = 3


def shared_memory_in(message: pb.ModelInferRequest) -> None:
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"


def shared_memory_out(message: pb.ModelInferRequest) -> None:
    message.outputs.add(name="sum").parameters["shared_memory_byte_size"].int64_param = 3


def sequence(message: pb.ModelInferRequest) -> None:
    message.parameters["sequence_id"].int64_param = 9


def sequence_start(message: pb.ModelInferRequest) -> None:
    message.parameters["sequence_start"].bool_param = True


def negative_timeout(message: pb.ModelInferRequest) -> None:
    message.parameters["timeout"].int64_param = -1


def text_priority(message: pb.ModelInferRequest) -> None:
    message.parameters["priority"].string_param = "high"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(rename, ["input 'z'", "no such input", "'a', 'b', 'bias'"], id="an input the model does not have"),
        pytest.param(drop, ["input 'b'", "missing", "'a', 'b'"], id="an input is missing"),
        pytest.param(repeat, ["input 'a'", "more than once"], id="an input is given twice"),
        pytest.param(wrong_datatype, ["input 'b'", "expected datatype FP32", "'FP64'"], id="wrong datatype"),
        pytest.param(no_datatype, ["input 'b'", "expected datatype FP32", "''"], id="no datatype"),
        pytest.param(wrong_rank, ["input 'a'", "[-1, 3]", "2 dimensions", "[3]"], id="wrong rank"),
        pytest.param(endless_rank, ["input 'a'", "got 1000", "..."], id="a thousand dimensions"),
        pytest.param(wrong_dimension, ["input 'a'", "[-1, 3]", "[1, 4]"], id="wrong dimension"),
        pytest.param(negative_dimension, ["input 'a'", "negative", "[-1, 3]"], id="negative dimension"),
        pytest.param(no_rows, ["input 'a'", "1 to 8", "got 0"], id="no rows"),
        pytest.param(many_rows, ["input 'a'", "1 to 8", "got 9"], id="a batch over the maximum"),
        pytest.param(unlike_rows, ["input 'b'", "2 rows", "'a' has 1"], id="inputs of unlike rows"),
        pytest.param(raw_count, ["3 entries for 2 inputs"], id="more raw entries than inputs"),
        pytest.param(raw_bytes, ["input 'b'", "takes 12 bytes", "got 8"], id="wrong byte count"),
        pytest.param(raw_and_contents, ["input 'a'", "contents", "either"], id="raw and contents at once"),
        pytest.param(contents_count, ["input 'a'", "3 elements", "got 2 in fp32_contents"], id="too few contents"),
        pytest.param(contents_kind, ["input 'a'", "fp32_contents", "got int_contents"], id="the wrong contents field"),
        pytest.param(nothing_at_all, ["input 'a'", "3 elements", "got 0"], id="no data"),
        pytest.param(unknown_output, ["output 'product'", "'sum', 'difference'"], id="an output it does not have"),
        pytest.param(classification, ["output 'sum'", "'classification' is not offered"], id="classification"),
        pytest.param(shared_memory_in, ["input 'a'", "shared memory is not offered"], id="shared memory input"),
        pytest.param(shared_memory_out, ["output 'sum'", "shared memory is not offered"], id="shared memory output"),
        pytest.param(sequence, ["sequence_id", "not stateful"], id="a sequence"),
        pytest.param(sequence_start, ["sequence_start", "not stateful"], id="the start of a sequence"),
        pytest.param(negative_timeout, ["'timeout'", "microseconds", "-1"], id="negative timeout"),
        pytest.param(text_priority, ["'priority'", "'high'"], id="priority as text"),
    ],
)
def test_what_is_wrong_is_said(
    spoil: Callable[[pb.ModelInferRequest], None],
    said: list[str],
    make_add_request: MakeRequest,
    make_add_entry: Callable[..., RevisionEntry],
) -> None:
    message = make_add_request()
    spoil(message)
    with pytest.raises(InvalidArgument) as caught:
        decode(message, make_add_entry())
    for part in said:
        assert part in caught.value.message
    assert len(caught.value.message) < 500


def test_messages_stay_short_however_long_names_are(
    make_add_request: MakeRequest, make_add_entry: Callable[..., RevisionEntry]
) -> None:
    message = make_add_request()
    message.inputs[0].name = "n" * 100_000
    with pytest.raises(InvalidArgument) as caught:
        decode(message, make_add_entry())
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        pytest.param([3, 1], "[2, -1]", id="a fixed dimension differs"),
        pytest.param([2, 1 << 60], "more than", id="the element count overflows"),
        pytest.param([2], "2 dimensions", id="a dimension is missing"),
    ],
)
def test_model_without_batches_wants_its_shape(shape: list[int], said: str, catalogue: Any) -> None:
    message = pb.ModelInferRequest(model_name="fixed")
    message.inputs.add(name="x", datatype="INT64", shape=shape)
    message.raw_input_contents.append(b"")
    with pytest.raises(InvalidArgument, match="input 'x'") as caught:
        decode(message, catalogue.resolve("default", "fixed", ""))
    assert said in caught.value.message


def test_model_without_batches_counts_one_row_and_may_be_empty(catalogue: Any) -> None:
    message = pb.ModelInferRequest(model_name="fixed")
    message.inputs.add(name="x", datatype="INT64", shape=[2, 0])
    request = decode(message, catalogue.resolve("default", "fixed", ""))
    assert (request.rows, request.inputs[0].shape, request.inputs[0].data) == (1, (2, 0), b"")


def test_inputs_come_in_the_order_of_the_signature(
    make_add_request: MakeRequest, make_add_entry: Callable[..., RevisionEntry]
) -> None:
    message = pb.ModelInferRequest(model_name="add")
    for index, name in enumerate(("bias", "b", "a")):
        message.inputs.add(name=name, datatype="FP32", shape=[2, 1 if name == "bias" else 3])
        message.raw_input_contents.append(bytes([index]) * (8 if name == "bias" else 24))
    message.outputs.add(name="difference")
    message.outputs.add(name="difference")
    request = decode(message, make_add_entry())
    assert [(tensor.name, bytes(tensor.data[:1])) for tensor in request.inputs] == [
        ("a", b"\2"),
        ("b", b"\1"),
        ("bias", b"\0"),
    ]
    assert (request.rows, request.outputs, request.size_bytes) == (2, ("difference",), 56)


@pytest.mark.parametrize(
    ("time_left_s", "timeout_us", "deadline"),
    [
        pytest.param(None, None, None, id="nobody said when"),
        pytest.param(2.0, None, 101.997, id="the transport did, and the answer has a way to go"),
        pytest.param(0.01, None, 100.009, id="a tenth of little time is for the way"),
        pytest.param(None, 500_000, 100.5, id="the parameter did"),
        pytest.param(2.0, 500_000, 100.5, id="the parameter is earlier"),
        pytest.param(0.25, 500_000, 100.247, id="the transport is earlier"),
        pytest.param(0.25, 249_000, 100.247, id="the transport is earlier by the way"),
        pytest.param(None, 0, None, id="a timeout of 0 is none"),
    ],
)
def test_the_earlier_deadline_holds(
    time_left_s: float | None,
    timeout_us: int | None,
    deadline: float | None,
    make_add_request: MakeRequest,
    make_add_entry: Callable[..., RevisionEntry],
) -> None:
    message = make_add_request()
    if timeout_us is not None:
        message.parameters["timeout"].uint64_param = timeout_us
    assert decode(message, make_add_entry(), Caller("default", time_left_s)).deadline == deadline


@pytest.mark.parametrize(
    ("asked", "levels", "priority"),
    [
        pytest.param(2, 3, 2, id="a level of the model"),
        pytest.param(4, 3, 0, id="beyond its levels: its default"),
        pytest.param(1, 0, 0, id="it has no levels"),
    ],
)
def test_priority_is_one_of_the_models(
    asked: int,
    levels: int,
    priority: int,
    make_add_request: MakeRequest,
    make_add_entry: Callable[..., RevisionEntry],
) -> None:
    message = make_add_request()
    message.parameters["priority"].uint64_param = asked
    message.parameters["anything_else"].string_param = "is for the model"
    message.parameters["sequence_id"].int64_param = 0
    entry = make_add_entry(batching=Batching(priority_levels=levels))
    assert decode(message, entry).priority == priority


CONTENTS: dict[str, tuple[str, list[Any], bytes]] = {
    "BOOL": ("bool_contents", [True, False], b"\1\0"),
    "UINT8": ("uint_contents", [0, 255], b"\0\xff"),
    "UINT16": ("uint_contents", [1, 65535], struct.pack("<2H", 1, 65535)),
    "UINT32": ("uint_contents", [1, 2**32 - 1], struct.pack("<2I", 1, 2**32 - 1)),
    "UINT64": ("uint64_contents", [1, 2**64 - 1], struct.pack("<2Q", 1, 2**64 - 1)),
    "INT8": ("int_contents", [-128, 127], struct.pack("<2b", -128, 127)),
    "INT16": ("int_contents", [-32768, 32767], struct.pack("<2h", -32768, 32767)),
    "INT32": ("int_contents", [-(2**31), 5], struct.pack("<2i", -(2**31), 5)),
    "INT64": ("int64_contents", [-(2**63), 5], struct.pack("<2q", -(2**63), 5)),
    "FP32": ("fp32_contents", [0.5, float("-inf")], struct.pack("<2f", 0.5, float("-inf"))),
    "FP64": ("fp64_contents", [0.1, 1e300], struct.pack("<2d", 0.1, 1e300)),
    "BYTES": ("bytes_contents", [b"", b"\xff\0"], b"\0\0\0\0\2\0\0\0\xff\0"),
}


def echo(datatype: str) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=f"echo-{datatype}")
    message.inputs.add(name="x", datatype=datatype, shape=[1, 2])
    return message


@pytest.mark.parametrize("datatype", CONTENTS)
def test_contents_of_every_datatype_become_raw_bytes(datatype: str, catalogue: Any) -> None:
    message = echo(datatype)
    field, values, raw = CONTENTS[datatype]
    getattr(message.inputs[0].contents, field).extend(values)
    assert decode(message, catalogue.resolve("default", message.model_name, "")).inputs[0].data == raw


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - set(CONTENTS)))
def test_half_floats_are_raw_only(datatype: str, catalogue: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"{datatype} can only be sent in raw_input_contents"):
        decode(echo(datatype), catalogue.resolve("default", f"echo-{datatype}", ""))


@pytest.mark.parametrize(
    ("datatype", "value"), [("INT8", 128), ("INT8", -129), ("INT16", 40_000), ("UINT8", 256), ("UINT16", 1 << 20)]
)
def test_small_integers_must_fit(datatype: str, value: int, catalogue: Any) -> None:
    message = echo(datatype)
    getattr(message.inputs[0].contents, CONTENTS[datatype][0]).extend([1, value])
    with pytest.raises(InvalidArgument, match=f"input 'x'.*{datatype} holds.*element 1 is {value}"):
        decode(message, catalogue.resolve("default", message.model_name, ""))


@pytest.mark.parametrize(
    ("datatype", "raw", "said"),
    [
        pytest.param("BYTES", b"\0\0\0\0", "at least 8 bytes", id="too short for its elements"),
        pytest.param("BYTES", b"\0\0\0\0\0\0\0\x40", "element 1 says that it has 1073741824 bytes", id="a 1 GB length"),
        pytest.param("BYTES", b"\4\0\0\0abcd\0\0\0", "element 1 is cut off", id="a length is cut off"),
        pytest.param("BYTES", b"\4\0\0\0abcd", "expected 2 BYTES elements; got 1", id="too few elements"),
        pytest.param("BYTES", bytes(12), "expected 2 BYTES elements; got more", id="too many elements"),
        pytest.param("BOOL", b"\1\2", "element 1 is 2", id="a bool that is neither"),
        pytest.param("BF16", b"\0\0", "takes 4 bytes; got 2", id="half floats cut off"),
    ],
)
def test_raw_form_is_looked_into(datatype: str, raw: bytes, said: str, catalogue: Any) -> None:
    message = echo(datatype)
    message.raw_input_contents.append(raw)
    with pytest.raises(InvalidArgument, match="input 'x'") as caught:
        decode(message, catalogue.resolve("default", message.model_name, ""))
    assert said in caught.value.message


@given(st.data())
def test_contents_and_raw_say_the_same(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["<i4", "<i8", "<u4", "<u8", "<f4", "<f8"]))
    raw = data.draw(st.binary(min_size=0, max_size=64)) * np.dtype(dtype).itemsize
    values = np.frombuffer(raw, dtype)
    if values.dtype.kind == "f":
        values = np.nan_to_num(values)  # A signalling NaN may turn quiet on its way through a float.
    names = {"<i4": "INT32", "<i8": "INT64", "<u4": "UINT32", "<u8": "UINT64", "<f4": "FP32", "<f8": "FP64"}
    assert pack_contents(DATATYPES[names[dtype]], values.tolist(), "x") == values.tobytes()


@pytest.mark.parametrize(
    "body", [b"\x0a\xff", b"\x0a\x05ab", b"\x3a\xff\xff\xff\xff\x03", b"\x0a\x01\xff", b"\xff" * 20]
)
def test_broken_messages_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidArgument, match="not a ModelInferRequest"):
        parse_infer(body)


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_our_errors(body: bytes) -> None:
    entry = RevisionEntry("m", "default", 1, "1", (TensorSpec("x", "FP32", (-1,)),), (), True, 4)
    try:
        decode(parse_infer(body), entry)
    except HeadraceError:
        return
