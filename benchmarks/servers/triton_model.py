"""The model of Triton's Python backend: concatenates a batch, runs it once, cuts the answer up."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as backend  # type: ignore[import-not-found] # Triton provides it
from onnx_session import job, open_session  # type: ignore[import-not-found] # by path


class TritonPythonModel:
    """See Triton's Python backend."""

    def initialize(self, args: Any) -> None:
        self._job = job()
        self._session = open_session(self._job.model_path)

    def execute(self, requests: list[Any]) -> list[Any]:
        into, out = self._job.input, self._job.output
        parts = [backend.get_input_tensor_by_name(request, into).as_numpy() for request in requests]
        batch = parts[0] if len(parts) == 1 else np.concatenate(parts)
        answer = self._session.run([out], {into: batch})[0]
        responses, start = [], 0
        for part in parts:
            end = start + len(part)
            responses.append(backend.InferenceResponse([backend.Tensor(out, answer[start:end])]))
            start = end
        return responses
