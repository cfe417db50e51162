"""What the suite needs of an engine: models of its own form that do what every engine's must."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace_runner.engines.base import LoadedModel, ModelSource
from headrace_runner.engines.registry import import_engines
from headrace_runner.tensors import DTYPES

ENGINES = import_engines(allow_fake=True)
DATATYPES = frozenset(DTYPES)

Tensors = list[tuple[str, str, list[Any]]]
"""Name, datatype and dimensions; a dimension of any size is a name."""

CRASH, HANG, HOG = 66.0, 99.0, 77.0
"""Among the values of x [N, 2], which a kit's troubles give back as it is otherwise: end the process by a signal, never
return, and ask for 8 GiB."""


@dataclass(frozen=True)
class Kit:
    """How to make models for one engine.

    Attributes:
        file: the entry point's name.
        identity: a model whose output i is a copy of input i.
        corrupt: what is no model, with the beginning of the reason.
        datatypes: those that inputs and outputs may have.
        doubled: y = x + x for x [N] of a datatype; None: this engine computes nothing.
        doubles: datatypes for which it must be able to.
        dense: y = relu(x @ w + b), for x FP32 [N, K] and w [K, M].
        sized: y, as many zeros as n INT64 [1] says.
        weights: a model that holds so many bytes.
        troubles: by CRASH, HANG and HOG.
        crash_status: of a process that CRASH has ended.
        write: puts a model into a folder, whole.
        beside: files that the entry point needs beside it.
    """

    engine: str
    file: str
    identity: Callable[[Tensors, Tensors], bytes]
    corrupt: bytes
    reason: str
    datatypes: frozenset[str] = DATATYPES
    doubled: Callable[[str], bytes] | None = None
    doubles: frozenset[str] = frozenset()
    dense: Callable[[NDArray[np.float32], NDArray[np.float32]], bytes] | None = None
    sized: Callable[[], bytes] | None = None
    weights: Callable[[int], bytes] | None = None
    troubles: Mapping[float, Callable[[], bytes]] = field(default_factory=dict)
    crash_status: int = 0
    write: Callable[[Path, bytes], None] = Path.write_bytes
    beside: frozenset[str] = frozenset()

    def load(self, folder: Path, content: bytes, **options: str) -> LoadedModel:
        path = folder / self.file
        self.write(path, content)
        source = ModelSource(path, self.file, options)
        engine = ENGINES[self.engine]
        assert engine.external_files(source) == self.beside
        return engine.load(source)


def made_up(datatype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Values that differ from one another, as far as the datatype has as many."""
    count = int(np.prod(shape))
    if datatype == "BYTES":
        texts = np.empty(count, dtype=object)
        texts[:] = [f"text {index} \u00e9".encode() for index in range(count)]
        return texts.reshape(shape)
    if datatype == "BF16":
        return bf16(np.arange(count, dtype=np.float32)).reshape(shape)
    return (np.arange(count) % 2 if datatype == "BOOL" else np.arange(count)).astype(DTYPES[datatype]).reshape(shape)


def bf16(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of floats that bfloat16 holds exactly."""
    return (array.view(np.uint32) >> 16).astype(np.uint16)
