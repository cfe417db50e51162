"""MLServer: a custom runtime, asked over gRPC or REST with the Open Inference Protocol."""

from __future__ import annotations

from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]
from onnx_session import job, open_session  # type: ignore[import-not-found]

JOB = job()


class Model(MLModel):  # type: ignore[misc]
    """Batches come from MLServer, concatenated."""

    async def load(self) -> bool:
        self._session = open_session(JOB.model_path)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        batch = NumpyCodec.decode_input(payload.inputs[0])
        answer = self._session.run([JOB.output], {JOB.input: batch.astype(JOB.dtype, copy=False)})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output(JOB.output, answer)])
