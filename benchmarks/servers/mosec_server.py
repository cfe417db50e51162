"""mosec: raw little-endian bytes in and out."""

from __future__ import annotations

import numpy as np
from mosec import Server, Worker  # type: ignore[import-not-found]
from onnx_session import MAX_BATCH, job, open_session  # type: ignore[import-not-found]

JOB = job()
WAIT_MS = 1  # the least that mosec takes


class Model(Worker):  # type: ignore[misc]
    """One batch at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._session = open_session(JOB.model_path)

    def deserialize(self, data: bytes) -> np.ndarray:
        return np.frombuffer(data, JOB.dtype).reshape(JOB.input_shape)

    def serialize(self, data: np.ndarray) -> bytes:
        return data.tobytes()

    def forward(self, data: list[np.ndarray]) -> list[np.ndarray]:
        return list(self._session.run([JOB.output], {JOB.input: np.stack(data)})[0])


if __name__ == "__main__":
    server = Server()
    server.append_worker(Model, num=1, max_batch_size=MAX_BATCH, max_wait_time=WAIT_MS)
    server.run()
