"""BentoML: JSON in and out; adaptive batching."""

from __future__ import annotations

import bentoml  # type: ignore[import-not-found]
import numpy as np
from onnx_session import MAX_BATCH, job, open_session  # type: ignore[import-not-found]

JOB = job()
# BentoML refuses what it expects to take longer than this; so long that it should not.
MAX_LATENCY_MS = 10_000


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1024})
class Model:
    """{"data": [row]} to [row]."""

    def __init__(self) -> None:
        self._session = open_session(JOB.model_path)

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=MAX_LATENCY_MS)
    def infer(self, data: np.ndarray) -> np.ndarray:
        """A batch."""
        answer: np.ndarray = self._session.run([JOB.output], {JOB.input: data.astype(JOB.dtype)})[0]
        return answer
