"""One inference by REST, as any HTTP client does it: JSON in, JSON out, one connection."""

from __future__ import annotations

import http.client
import json
from types import TracebackType
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt


class RestClient:
    """Keeps one HTTP/1.1 connection to the mesh."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=30)

    def __enter__(self) -> RestClient:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def infer(self, model: str, name: str, data: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """The model's first output. Raises RuntimeError with the mesh's own sentence."""
        tensor = {"name": name, "datatype": "INT32", "shape": list(data.shape), "data": data.ravel().tolist()}
        body = json.dumps({"inputs": [tensor]})
        self._connection.request("POST", f"/v2/models/{model}/infer", body, {"content-type": "application/json"})
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        if response.status != http.HTTPStatus.OK:
            raise RuntimeError(f"REST answered {response.status}: {answer['error']}")
        output = answer["outputs"][0]
        return np.array(output["data"], np.float32).reshape(output["shape"])
