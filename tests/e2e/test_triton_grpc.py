"""tritonclient's gRPC client, unchanged, against the running mesh."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException


@pytest.fixture
def client(mesh: Any) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(mesh.target) as connected:
        yield connected


def tensor(name: str, data: Any, datatype: str) -> triton.InferInput:
    made = triton.InferInput(name, list(data.shape), datatype)
    made.set_data_from_numpy(data)
    return made


def test_server_and_model_are_alive_and_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("add")
    assert client.is_model_ready("slow"), "a model at zero is ready: the first request starts it"


def test_raw_tensors(client: triton.InferenceServerClient, rows: Any) -> None:
    result = client.infer("add", [tensor("x", rows, "FP32")], request_id="7")
    assert result.get_response().id == "7"
    np.testing.assert_array_equal(result.as_numpy("y"), rows + 1)


def test_contents_instead_of_raw(client: triton.InferenceServerClient, rows: Any) -> None:
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name="add")
    x = request.inputs.add(name="x", datatype="FP32", shape=rows.shape)
    x.contents.fp32_contents.extend(rows.ravel().tolist())
    response = client._client_stub.ModelInfer(request)
    np.testing.assert_array_equal(np.frombuffer(response.raw_output_contents[0], np.float32), (rows + 1).ravel())


def test_strings(client: triton.InferenceServerClient) -> None:
    words = np.array([["straße", ""], ["a" * 1000, "日本"]], dtype=np.object_)
    result = client.infer("strings", [tensor("in", words, "BYTES")])
    expected = [[word.encode() for word in row] for row in words.tolist()]
    assert result.as_numpy("out").tolist() == expected


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests(client: triton.InferenceServerClient, rows: Any, algorithm: str) -> None:
    result = client.infer("add", [tensor("x", rows, "FP32")], compression_algorithm=algorithm)
    np.testing.assert_array_equal(result.as_numpy("y"), rows + 1)


def test_only_the_wanted_output(client: triton.InferenceServerClient, rows: Any) -> None:
    result = client.infer("add", [tensor("x", rows, "FP32")], outputs=[triton.InferRequestedOutput("y")])
    assert [output.name for output in result.get_response().outputs] == ["y"]


def test_streaming_multiplexes(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for number in range(20):
        data = np.full((1, 4), number, np.float32)
        client.async_stream_infer("add", [tensor("x", data, "FP32")], request_id=str(number))
    seen = {}
    for _ in range(20):
        result, error = answers.get(timeout=30)
        assert error is None
        seen[result.get_response().id] = result.as_numpy("y")[0, 0]
    client.stop_stream()
    assert seen == {str(number): number + 1 for number in range(20)}


def test_a_bad_request_on_a_stream_leaves_the_stream_alive(client: triton.InferenceServerClient, rows: Any) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    client.async_stream_infer("add", [tensor("nonsense", rows, "FP32")])
    result, error = answers.get(timeout=30)
    assert "nonsense" in str(error)
    client.async_stream_infer("add", [tensor("x", rows, "FP32")])
    result, error = answers.get(timeout=30)
    assert error is None
    np.testing.assert_array_equal(result.as_numpy("y"), rows + 1)
    client.stop_stream()


def test_metadata_config_statistics_and_index(client: triton.InferenceServerClient) -> None:
    assert client.get_server_metadata().name == "headrace"
    metadata = client.get_model_metadata("add")
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [("x", "FP32", [-1, 4])]
    assert list(metadata.versions) == ["1"]
    config = client.get_model_config("add").config
    assert config.max_batch_size > 1
    assert list(config.input[0].dims) == [4], "Triton's dims leave the batch dimension out"
    before = client.get_inference_statistics("add").model_stats[0].inference_count
    client.infer("add", [tensor("x", np.zeros((1, 4), np.float32), "FP32")])
    assert client.get_inference_statistics("add").model_stats[0].inference_count == before + 1
    index = {model.name: model.state for model in client.get_model_repository_index().models}
    assert index["add"] == "READY"


def test_what_is_deployed_is_loaded_and_all_else_says_what_to_do(client: triton.InferenceServerClient) -> None:
    client.load_model("add")
    with pytest.raises(InferenceServerException, match="nobody"):
        client.load_model("nobody")
    with pytest.raises(InferenceServerException, match=r"config.*headrace deploy"):
        client.load_model("add", config="{}")
    with pytest.raises(InferenceServerException, match="headrace delete"):
        client.unload_model("add")


def test_timeout_parameter_expires_queued_work(client: triton.InferenceServerClient, rows: Any) -> None:
    client.infer("slow", [tensor("x", rows, "FP32")])
    pending = [client.async_infer("slow", [tensor("x", rows, "FP32")], lambda *_: None) for _ in range(8)]
    with pytest.raises(InferenceServerException, match="deadline"):
        client.infer("slow", [tensor("x", rows, "FP32")], timeout=1000)
    assert pending
