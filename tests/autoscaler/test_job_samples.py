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
