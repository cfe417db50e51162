"""Samples that lie about their size are refused before they are unpacked anywhere."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headrace_autoscaler.domain import Signature, TensorSpec
from headrace_autoscaler.jobs.samples import check_samples
from headrace_common.errors import HeadraceError
from headrace_runner.core.signature import EngineTensor
from headrace_runner.optimizer.samples import read_samples

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 3)),), (), batchable=True)
MOST = 64 << 20
ROWS = np.zeros((40, 3), np.float32)


def npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content.getvalue()


def a_header_without_an_end() -> bytes:
    """Of format 2, whose headers may have 4 GiB."""
    return packed({"x.npy": b"\x93NUMPY\x02\x00" + struct.pack("<I", 48 << 20) + b" " * (48 << 20)})


def a_directory_without_an_end() -> bytes:
    return packed({f"{n:040}": b"" for n in range(20_000)}, zipfile.ZIP_STORED)


def an_array_of_zeros() -> bytes:
    return packed({"x.npy": npy(np.zeros((6 << 20, 3), np.float32))})


def an_older_method() -> bytes:
    return packed({"x.npy": npy(ROWS)}, zipfile.ZIP_BZIP2)


def a_damaged_stream() -> bytes:
    content = packed({"x.npy": npy(ROWS)})
    start = content.index(b"x.npy") + len("x.npy")
    return content[:start] + b"\xff" * 8 + content[start + 8 :]


def headed(shape: str, dtype: str = "'<f4'") -> bytes:
    """An array that is nothing but its header."""
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


HEADERS = [
    pytest.param(headed("(1099511627776, 3)"), id="an array larger than the file"),
    pytest.param(headed(f"({'9' * 3000}, 3)"), id="a size larger than any"),
    pytest.param(headed("(-1, 3)"), id="a size below zero"),
    pytest.param(headed("(True, 3)") + bytes(12), id="a size that is no number"),
    pytest.param(headed("(1, 3)", "[" * 5000), id="lists in lists"),
]


@pytest.mark.parametrize("content", HEADERS)
def test_a_header_that_cannot_be_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "samples.npz"
    path.write_bytes(packed({"x.npy": content}))
    with pytest.raises(HeadraceError, match=r"expected an \.npz file"):
        check_samples(path, SIGNATURE, "", MOST)


@pytest.mark.parametrize("content", HEADERS)
def test_the_optimizer_refuses_it_too(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "samples.npz"
    path.write_bytes(packed({"x.npy": content}))
    with pytest.raises(HeadraceError, match="array 'x' cannot be read"):
        read_samples(path, [EngineTensor("x", "FP32", ("n", 3))], None)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (a_header_without_an_end, "expected an .npz file"),
        (a_directory_without_an_end, "expected an .npz file"),
        (an_array_of_zeros, "samples: 72Mi when unpacked, over the limit of 64Mi"),
        (an_older_method, "expected an .npz file"),
        (a_damaged_stream, "expected an .npz file"),
        (lambda: packed({"x.npy": b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"-" * 9000}), "an .npz file"),
    ],
    ids=["header", "directory", "array", "method", "damaged", "nested header"],
)
def test_what_would_grow_is_refused_and_takes_no_memory(tmp_path: Path, make: Callable[[], bytes], said: str) -> None:
    path = tmp_path / "samples.npz"
    path.write_bytes(make())
    tracemalloc.start()
    try:
        with pytest.raises(HeadraceError, match=said):
            check_samples(path, SIGNATURE, "", MOST)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_numpy_writes_fits(tmp_path: Path, method: int) -> None:
    path = tmp_path / "samples.npz"
    rows = np.random.default_rng(1).random((300_000, 3), np.float32)
    path.write_bytes(packed({"x.npy": npy(rows), "digit.npy": npy(np.zeros(300_000))}, method))
    check_samples(path, SIGNATURE, "digit", MOST)


def test_an_input_of_a_single_value_has_no_samples(tmp_path: Path) -> None:
    """silero-vad's sampling rate is one."""
    path = tmp_path / "samples.npz"
    path.write_bytes(packed({"x.npy": npy(ROWS), "sr.npy": npy(np.zeros(40, np.int64))}))
    signature = Signature((*SIGNATURE.inputs, TensorSpec("sr", "INT64", ())), (), batchable=False)
    with pytest.raises(HeadraceError, match="input 'sr' is a single value and has no row per sample"):
        check_samples(path, signature, "", MOST)
