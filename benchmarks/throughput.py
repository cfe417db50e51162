"""`mlp` (64 -> 256 -> 10, fp32), one row per request, closed loop by h2load.

h2load does not look at grpc-status, so the answers are checked first, and what was served is counted
by the mesh.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import headrace
from headrace.oip import inference_pb2 as oip

SECONDS = 8
WARM_UP_SECONDS = 2
PATH = "/inference.GRPCInferenceService/ModelInfer"


def mlp() -> onnx.ModelProto:
    random = np.random.default_rng(0)
    sizes = {"w1": (64, 256), "b1": (256,), "w2": (256, 10), "b2": (10,)}
    weights = [
        numpy_helper.from_array((random.standard_normal(size) / 16).astype(np.float32), name)
        for name, size in sizes.items()
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])
    graph = helper.make_graph(nodes, "mlp", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def measure(url: str) -> None:
    if shutil.which("h2load") is None:
        print("throughput: skipped: h2load is missing (Debian: nghttp2-client)")
        return
    with tempfile.TemporaryDirectory() as name, headrace.Client(url) as client:
        folder = Path(name)
        onnx.save(mlp(), folder / "mlp.onnx")
        client.deploy(folder / "mlp.onnx", name="mlp", min_instances=1, max_instances=1, wait=True)
        row = np.ones((1, 64), np.float32)
        check_answer(client, row)
        body = folder / "body"
        body.write_bytes(framed(row))
        for clients, streams in ((1, 1), (8, 8), (8, 64)):
            load(url, body, clients, streams, WARM_UP_SECONDS)
            before = served(client)
            rate, latency = load(url, body, clients, streams, SECONDS)
            answered = served(client) - before
            print(
                f"mlp, {clients * streams} in flight: {rate:.0f} req/s, mean latency {latency}, "
                f"{answered} answered by the mesh"
            )


def check_answer(client: headrace.Client, row: np.ndarray) -> None:
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in mlp().graph.initializer}
    hidden = np.maximum(row @ weights["w1"] + weights["b1"], 0)
    expected = hidden @ weights["w2"] + weights["b2"]
    np.testing.assert_allclose(client.infer("mlp", {"x": row})["y"], expected, rtol=1e-4, atol=1e-5)


def framed(row: np.ndarray) -> bytes:
    request = oip.ModelInferRequest(model_name="mlp", raw_input_contents=[row.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=row.shape)
    message = request.SerializeToString()
    return b"\0" + struct.pack(">I", len(message)) + message


def served(client: headrace.Client) -> int:
    return sum(router.requests for router in client.status().routers)


def load(url: str, body: Path, clients: int, streams: int, seconds: int) -> tuple[float, str]:
    """(requests per second, mean latency as h2load prints it)."""
    command = ["h2load", "-D", str(seconds), "-c", str(clients), "-m", str(streams), "-t", "1", "-d", str(body)]
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    printed = subprocess.run([*command, *headers, url + PATH], capture_output=True, text=True, check=True).stdout
    rate = re.search(r"([0-9.]+) req/s", printed)
    latency = re.search(r"time for request:\s+\S+\s+\S+\s+(\S+)", printed)
    assert rate
    assert latency
    return float(rate[1]), latency[1]
