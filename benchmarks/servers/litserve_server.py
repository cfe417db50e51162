"""LitServe: JSON in and out."""

from __future__ import annotations

import litserve  # type: ignore[import-not-found]
import numpy as np
from onnx_session import MAX_BATCH, job, open_session  # type: ignore[import-not-found]

JOB = job()
WAIT_S = 0.001


class Model(litserve.LitAPI):  # type: ignore[misc]
    """{"data": [row]} to {"data": [row]}."""

    def setup(self, device: str) -> None:
        self._session = open_session(JOB.model_path)

    def decode_request(self, request) -> np.ndarray:  # type: ignore[no-untyped-def] # LitServe reads annotations
        return np.array(request["data"], JOB.dtype)[0]

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, batch: np.ndarray) -> np.ndarray:
        answer: np.ndarray = self._session.run([JOB.output], {JOB.input: batch})[0]
        return answer

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, list[list[float]]]:
        return {"data": [output.tolist()]}


if __name__ == "__main__":
    api = Model(max_batch_size=MAX_BATCH, batch_timeout=WAIT_S)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=JOB.port, generate_client_file=False, num_api_servers=1, log_level="warning")
