"""tritonclient's HTTP client, unchanged, against the running mesh."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


@pytest.fixture
def client(mesh: Any) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(mesh.target) as connected:
        yield connected


def tensor(name: str, data: Any, datatype: str, binary: bool) -> triton.InferInput:
    made = triton.InferInput(name, list(data.shape), datatype)
    made.set_data_from_numpy(data, binary_data=binary)
    return made


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("add")
    assert client.get_server_metadata()["name"] == "headrace"
    assert client.get_model_metadata("add")["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert client.get_model_config("add")["max_batch_size"] > 1
    states = {model["name"]: model["state"] for model in client.get_model_repository_index()}
    assert states["add"] == "READY"
    assert client.get_inference_statistics("add")["model_stats"][0]["name"] == "add"


@pytest.mark.parametrize("binary_in", [True, False], ids=["binary-in", "json-in"])
@pytest.mark.parametrize("binary_out", [True, False], ids=["binary-out", "json-out"])
def test_tensors(client: triton.InferenceServerClient, rows: Any, binary_in: bool, binary_out: bool) -> None:
    result = client.infer(
        "add",
        [tensor("x", rows, "FP32", binary_in)],
        outputs=[triton.InferRequestedOutput("y", binary_data=binary_out)],
        request_id="7",
    )
    assert result.get_response()["id"] == "7"
    np.testing.assert_array_equal(result.as_numpy("y"), rows + 1)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_strings(client: triton.InferenceServerClient, binary: bool) -> None:
    words = np.array([["straße", "日本"]], dtype=np.object_)
    outputs = [triton.InferRequestedOutput("out", binary_data=binary)]
    result = client.infer("strings", [tensor("in", words, "BYTES", binary)], outputs=outputs)
    got = [word.decode() if isinstance(word, bytes) else word for word in result.as_numpy("out").ravel()]
    assert got == ["straße", "日本"]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression_both_ways(client: triton.InferenceServerClient, rows: Any, algorithm: str) -> None:
    result = client.infer(
        "add",
        [tensor("x", rows, "FP32", True)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    np.testing.assert_array_equal(result.as_numpy("y"), rows + 1)


def test_an_error_is_one_sentence(client: triton.InferenceServerClient, rows: Any) -> None:
    with pytest.raises(InferenceServerException, match="nonsense"):
        client.infer("add", [tensor("nonsense", rows, "FP32", True)])
