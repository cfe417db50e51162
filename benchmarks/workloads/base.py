"""The form of a workload."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.servers.onnx_session import open_session

_DATATYPES = {"float32": "FP32", "int32": "INT32"}


@dataclass(frozen=True)
class Workload:
    """One model with one input and one output, both with a free batch dimension.

    Attributes:
        name: of the model too, in every system.
        model_path: the ONNX file that every system is given.
        rows: [K, ...]: K different requests of one row each; load is made of the first.
        output_shape: without the batch dimension.
    """

    name: str
    model_path: Path
    input: str
    output: str
    rows: NDArray[np.float32] | NDArray[np.int32]
    output_shape: tuple[int, ...]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Without the batch dimension."""
        return self.rows.shape[1:]

    @property
    def datatype(self) -> str:
        """As the Open Inference Protocol names it."""
        return _DATATYPES[self.rows.dtype.name]

    def row(self, index: int) -> NDArray[np.float32] | NDArray[np.int32]:
        """[1, ...]"""
        return self.rows[index : index + 1]

    def expected(self) -> NDArray[np.float32]:
        """[K, ...]: ONNX Runtime's own answers, asked for row by row."""
        session = open_session(str(self.model_path))
        answers = [session.run([self.output], {self.input: self.row(index)})[0] for index in range(len(self.rows))]
        return np.concatenate(answers)
