"""Tensors between bytes and numpy."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace_runner.engines.base import InputRefused
from headrace_runner.tensors import DTYPES, decode, encode

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@pytest.mark.parametrize("datatype", sorted(set(DTYPES) - {"BYTES"}))
@given(data=st.data())
def test_numbers_come_back_as_they_went(datatype: str, data: st.DataObject) -> None:
    array = data.draw(hnp.arrays(DTYPES[datatype], SHAPES))
    raw, row_ends = encode(array, datatype, with_row_ends=True)
    again = decode("x", datatype, array.shape, raw)
    assert row_ends == ()
    assert again.dtype == array.dtype
    assert again.shape == array.shape
    assert again.tobytes() == array.tobytes()


@given(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3), st.data())
def test_strings_come_back_as_they_went(shape: tuple[int, ...], data: st.DataObject) -> None:
    count = int(np.prod(shape))
    array = np.empty(count, dtype=object)
    array[:] = data.draw(st.lists(st.binary(max_size=5), min_size=count, max_size=count))
    array = array.reshape(shape)
    raw, row_ends = encode(array, "BYTES", with_row_ends=True)
    assert decode("x", "BYTES", shape, raw).tolist() == array.tolist()
    assert len(row_ends) == shape[0]
    for index, end in enumerate(row_ends):
        start = row_ends[index - 1] if index else 0
        row = decode("x", "BYTES", (1, *shape[1:]), raw[start:end])
        assert row.tolist() == array[index : index + 1].tolist()


def test_a_number_is_not_copied() -> None:
    raw = np.arange(6, dtype=np.float32).tobytes()
    array = decode("x", "FP32", (2, 3), raw)
    assert array.base is not None
    assert not array.flags.writeable


def counted(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "reason"),
    [
        pytest.param("FP32", (2, 2), b"\0" * 15, r"'x'.*takes 16 bytes; 15 bytes came", id="a byte short"),
        pytest.param("FP32", (2, 2), b"\0" * 17, r"takes 16 bytes; 17 bytes came", id="a byte over"),
        pytest.param("FP8", (1,), b"\0", "no datatype 'FP8'", id="no such datatype"),
        pytest.param("BYTES", (2,), counted(b"a", b"b", b"c"), "5 bytes are left", id="an element too many"),
        pytest.param("BYTES", (2,), counted(b"hello"), "inside the length of element 1", id="an element missing"),
        pytest.param("BYTES", (1,), struct.pack("<I", 9) + b"a", "ends 8 bytes after", id="a length that lies"),
        pytest.param("BYTES", (1 << 40,), b"", "cannot hold", id="a shape that would not fit in memory"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(datatype: str, shape: tuple[int, ...], data: bytes, reason: str) -> None:
    with pytest.raises(InputRefused, match=reason):
        decode("x", datatype, shape, data)
