"""kserve's clients, unchanged, against the running mesh.

In a process of their own: kserve and tritonclient cannot be imported into one.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

PROGRAM = """
import asyncio, sys
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from headrace.oip import inference_pb2

target = sys.argv[1]
rows = np.arange(8, dtype=np.float32).reshape(2, 4)

def request(binary):
    tensor = InferInput("x", [2, 4], "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return InferRequest(model_name="add", infer_inputs=[tensor], request_id="7")

async def main():
    client = InferenceGRPCClient(target)
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("add")
    for binary in (True, False):
        answer = await client.infer(request(binary))
        assert answer.id == "7"
        np.testing.assert_array_equal(answer.outputs[0].as_numpy(), rows + 1)
    await client.close()

    rest = InferenceRESTClient(RESTConfig(protocol="v2"))
    base = "http://" + target
    assert await rest.is_server_live(base)
    assert await rest.is_server_ready(base)
    assert await rest.is_model_ready(base, "add")
    for binary in (True, False):
        answer = await rest.infer(base, request(binary), model_name="add")
        np.testing.assert_array_equal(answer.outputs[0].as_numpy(), rows + 1)
    await rest.close()
    print("every call answered")

asyncio.run(main())
"""


def test_both_clients(mesh: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mesh.target], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "every call answered" in done.stdout
