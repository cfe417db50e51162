"""torch: programs of torch.export, made by `headrace.models.export`."""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch._higher_order_ops import while_loop

from headrace.models import export
from tests.conformance.engines.kits import CRASH, DATATYPES, HANG, HOG, Kit, Tensors

_DTYPES = {
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "UINT16": torch.uint16,
    "UINT32": torch.uint32,
    "UINT64": torch.uint64,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "FP16": torch.float16,
    "FP32": torch.float32,
    "FP64": torch.float64,
    "BF16": torch.bfloat16,
}
_LONGEST = 2**62
_FLOATS_OF_8_GIB = 2 << 30


class Copy(torch.nn.Module):
    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return a.clone()


class Copies(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a.clone(), b.clone()


class Doubled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x


class Dense(torch.nn.Module):
    def __init__(self, w: NDArray[np.float32], b: NDArray[np.float32]) -> None:
        super().__init__()
        self.w, self.b = torch.nn.Parameter(torch.from_numpy(w)), torch.nn.Parameter(torch.from_numpy(b))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ self.w + self.b)


class Sized(torch.nn.Module):
    """As many zeros as n says."""

    def forward(self, n: torch.Tensor) -> torch.Tensor:
        size = n.amax().item()
        torch._check(size >= 0)
        return torch.zeros(size)


class Holding(torch.nn.Module):
    """The largest of x [N, 1] times each of as many floats as take `size` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(size // 4, dtype=torch.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.table).amax(1, keepdim=True)


class Crashing(torch.nn.Module):
    """The least int64 divided by -1 does not fit its type: the processor traps (SIGFPE)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        divisor = ((x.amax() - CRASH) * 10).to(torch.int64) - 1
        quotient = torch.div(torch.full((), -(2**63), dtype=torch.int64), divisor, rounding_mode="trunc")
        return x + quotient.to(torch.float32) * 0


class Hanging(torch.nn.Module):
    """A loop of 2**62 turns."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turns = (x.amax() == HANG).to(torch.int64) * _LONGEST
        (count,) = while_loop(lambda i: i < turns, lambda i: (i + 1,), (torch.zeros((), dtype=torch.int64),))
        return x + count.to(torch.float32) * 0


class Hogging(torch.nn.Module):
    """8 GiB of zeros."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = ((x.amax() == HOG).to(torch.int64) * _FLOATS_OF_8_GIB).item()
        torch._check(size >= 0)
        torch._check(size <= _FLOATS_OF_8_GIB)
        return x + torch.ones(size).sum() * 0


def exported(module: torch.nn.Module, example: Any, **options: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        export(module, example, path=path, **options)
        return path.read_bytes()


def identity(inputs: Tensors, outputs: Tensors) -> bytes:
    """A first dimension that has a name is the batch."""
    examples = tuple(
        torch.zeros([size if isinstance(size, int) else 2 for size in dims], dtype=_DTYPES[datatype])
        for _, datatype, dims in inputs
    )
    dynamic = {
        argument: {axis: size for axis, size in enumerate(dims) if axis and isinstance(size, str)}
        for argument, (_, _, dims) in zip("ab", inputs, strict=False)
    }
    names = {"inputs": [name for name, _, _ in inputs], "outputs": [name for name, _, _ in outputs]}
    return exported(Copy() if len(inputs) == 1 else Copies(), examples, dynamic=dynamic, **names)


def small(module: torch.nn.Module) -> bytes:
    return exported(module, torch.zeros(2, 2), inputs=["x"], outputs=["y"])


TORCH = Kit(
    "torch",
    "model.pt2",
    identity,
    b"garbage",
    "torch cannot load model.pt2: ",
    datatypes=DATATYPES - {"BYTES"},
    doubled=lambda datatype: exported(Doubled(), torch.zeros(2, dtype=_DTYPES[datatype]), inputs=["x"], outputs=["y"]),
    doubles=DATATYPES - {"BOOL", "BYTES", "UINT16", "UINT32", "UINT64"},
    dense=lambda w, b: exported(Dense(w, b), torch.zeros(2, len(w)), inputs=["x"], outputs=["y"]),
    sized=lambda: exported(Sized(), torch.tensor([2]), inputs=["n"], outputs=["y"], batch=False),
    weights=lambda size: exported(Holding(size), torch.zeros(2, 1), inputs=["x"], outputs=["y"]),
    troubles={CRASH: lambda: small(Crashing()), HANG: lambda: small(Hanging()), HOG: lambda: small(Hogging())},
    crash_status=-signal.SIGFPE,
)
