from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace.client.inference import output_arrays
from headrace.client.tensors import DATATYPES, Tensor, decode, encode
from headrace.errors import Internal, InvalidArgument
from headrace.oip import inference_pb2

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@given(data=st.data(), datatype=st.sampled_from(sorted(DATATYPES)), shape=SHAPES)
def test_every_datatype_survives_the_trip(data: st.DataObject, datatype: str, shape: tuple[int, ...]) -> None:
    array = data.draw(hnp.arrays(DATATYPES[datatype], shape))
    tensor = encode("x", array)
    assert (tensor.datatype, tensor.shape) == (datatype, shape)
    decoded = decode("x", tensor)
    assert decoded.dtype == array.dtype
    np.testing.assert_array_equal(decoded, array)


@given(shape=SHAPES, data=st.data())
def test_bytes_survive_the_trip(shape: tuple[int, ...], data: st.DataObject) -> None:
    array = data.draw(hnp.arrays(object, shape, elements=st.binary(max_size=20)))
    decoded = decode("x", encode("x", array))
    assert decoded.shape == shape
    assert decoded.tolist() == array.tolist()


def test_bytes_have_little_endian_lengths_in_raw_form() -> None:
    assert encode("x", ["ab", b"\0"]).data == b"\x02\0\0\0ab\x01\0\0\0\0"


@pytest.mark.parametrize(
    ("value", "datatype", "shape"),
    [
        (["a", "b"], "BYTES", (2,)),
        ([["a"], [b"b\0"]], "BYTES", (2, 1)),
        (np.array(["a", "bc"]), "BYTES", (2,)),
        ([[1, 2]], "INT64", (1, 2)),
        ([1.5], "FP64", (1,)),
        ([True], "BOOL", (1,)),
        (np.zeros((2, 3), ">f4"), "FP32", (2, 3)),
        (np.zeros((4, 4), np.float16)[::2, 1:], "FP16", (2, 3)),
        (Tensor("FP8", (1,), b"x"), "FP8", (1,)),
    ],
    ids=["strings", "nested", "numpy text", "ints", "floats", "bools", "big-endian", "not contiguous", "ready-made"],
)
def test_the_value_decides_the_datatype(value: Any, datatype: str, shape: tuple[int, ...]) -> None:
    tensor = encode("x", value)
    assert (tensor.datatype, tensor.shape) == (datatype, shape)


def test_byte_order_and_strides_do_not_change_values() -> None:
    array = np.arange(12, dtype=">i4").reshape(3, 4)[:, ::2]
    np.testing.assert_array_equal(decode("x", encode("x", array)), array)


@pytest.mark.parametrize(
    "value",
    [np.zeros(2, np.complex64), [[1], [2, 3]], np.array([1, "a"], dtype=object), np.zeros(1, "M8[s]")],
    ids=["complex", "ragged", "mixed", "time"],
)
def test_what_the_protocol_lacks_is_refused_by_the_inputs_name(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="'pixels'"):
        encode("pixels", value)


@given(hnp.arrays(np.float32, (8,), elements=st.floats(width=32, allow_nan=False)))
def test_bf16_is_the_nearest_that_has_16_bits(array: Any) -> None:
    decoded = decode("x", encode("x", array, "BF16"))
    step = np.abs(array) * 2.0**-8 + np.float32(2**-133)
    finite = np.isfinite(decoded)
    assert np.all(np.abs(decoded[finite].astype(np.float64) - array[finite]) <= step[finite])


def test_bf16_keeps_nan_and_what_it_can_hold() -> None:
    decoded = decode("x", encode("x", np.array([np.nan, np.inf, 1.5, -0.0], np.float32), "BF16"))
    assert np.isnan(decoded[0])
    assert decoded[1:].tolist() == [np.inf, 1.5, -0.0]


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor("FP32", (2,), b"\0" * 7),
        Tensor("BYTES", (1,), b"\x05\0\0\0ab"),
        Tensor("BYTES", (1,), b"\x01\0\0\0abc"),
        Tensor("BYTES", (2,), b"\x01\0\0\0a"),
        Tensor("FP4", (1,), b"a"),
    ],
    ids=["short", "length past the end", "bytes left over", "element missing", "unknown datatype"],
)
def test_an_answer_that_makes_no_sense_is_the_meshs_fault(tensor: Tensor) -> None:
    with pytest.raises(Internal, match="output 'y'"):
        decode("y", tensor)


def test_typed_contents_are_read_too() -> None:
    response = inference_pb2.ModelInferResponse()
    numbers = response.outputs.add(name="n", datatype="INT8", shape=[2])
    numbers.contents.int_contents.extend([1, -1])
    texts = response.outputs.add(name="t", datatype="BYTES", shape=[1, 1])
    texts.contents.bytes_contents.append(b"a")
    outputs = output_arrays(response)
    assert outputs["n"].dtype == np.int8
    assert outputs["n"].tolist() == [1, -1]
    assert outputs["t"].tolist() == [[b"a"]]


def test_more_outputs_than_contents_is_the_meshs_fault() -> None:
    response = inference_pb2.ModelInferResponse(raw_output_contents=[b""])
    with pytest.raises(Internal, match="0 outputs with 1"):
        output_arrays(response)
