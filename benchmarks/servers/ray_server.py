"""Ray Serve: raw little-endian bytes in and out."""

from __future__ import annotations

import threading

import numpy as np
import ray  # type: ignore[import-not-found]
from onnx_session import MAX_BATCH, job, open_session  # type: ignore[import-not-found]
from ray import serve
from starlette.requests import Request  # type: ignore[import-not-found]
from starlette.responses import Response  # type: ignore[import-not-found]

JOB = job()
WAIT_S = 0.001
# Ray's own default of 5 would keep batches from forming.
MAX_ONGOING = 1024


@serve.deployment(num_replicas=1, max_ongoing_requests=MAX_ONGOING)  # type: ignore[misc]
class Model:
    """One replica."""

    def __init__(self) -> None:
        self._session = open_session(JOB.model_path)

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=WAIT_S)  # type: ignore[misc]
    async def infer(self, rows: list[np.ndarray]) -> list[np.ndarray]:
        return list(self._session.run([JOB.output], {JOB.input: np.stack(rows)})[0])

    async def __call__(self, request: Request) -> Response:
        row = np.frombuffer(await request.body(), JOB.dtype).reshape(JOB.input_shape)
        answer = await self.infer(row)
        return Response(answer.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    ray.init(include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": JOB.port})
    serve.run(Model.bind(), route_prefix="/infer")
    threading.Event().wait()
