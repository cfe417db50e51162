"""Money runs out while people watch: warned, refused or kept waiting, drained, and back with a raised budget."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from headrace.oip import inference_pb2 as oip
from headrace.oip import inference_pb2_grpc

# A cent per second and CPU: an hour's budget of a few cents is spent while a test looks on.
DEAR = {"autoscaler": {"price_per_cpu_hour": "36", "decision_period_s": 0.1, "cpu_overcommit": 64.0}}
ROW = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0, 1, 2, 3]}]}


def test_a_spent_budget_warns_then_refuses_and_drains(fresh_mesh: Any, models: Path, eventually: Any) -> None:
    mesh = fresh_mesh("--standby", "1", config=DEAR)
    mesh.cli("tenant", "set", "acme", "--budget", "0.10/h", "--budget", "50/month")
    mesh.cli("deploy", str(models / "add.onnx"), "--name", "add", "--tenant", "acme", "--share-with", "*",
             "--min-instances", "1", "--wait")  # fmt: skip
    assert ask(mesh, "acme")[0] == 200
    assert "0.10 USD per hour" in mesh.cli("tenant", "describe", "acme").stdout

    eventually(lambda: hourly(mesh)["status"] in ("warned", "spent"), "80 % are spent")
    assert json.loads(mesh.cli("status", "--json").stdout)["budgets"]

    code, answer, headers = eventually(lambda: refused(mesh, "acme"), "acme is refused")
    assert "tenant 'acme' has spent its 0.10 USD per hour" in answer["error"]
    assert 0 <= int(headers["retry-after"]) <= 3600
    failure, retry = grpc_refusal(mesh, "acme")
    assert failure.violations[0].subject == "tenant:acme"
    assert "budget" in failure.violations[0].description
    assert 0 <= retry.retry_delay.seconds <= 3600

    # Its instances are nobody's to use then: another caller hears whose budget it is.
    code, answer, _ = ask(mesh, "guest")
    assert (code, "tenant:acme" in answer["error"]) == (429, True)
    eventually(lambda: not mesh.describe("add")["instances"], "its instances have drained")
    assert "has spent its 0.10 USD per hour" in mesh.describe("add")["reason"]

    refusal = mesh.cli(
        "deploy", str(models / "fixed.onnx"), "--name", "more", "--tenant", "acme", "--wait", check=False
    )
    assert refusal.returncode != 0
    assert "0.10 USD per hour" in refusal.stderr

    mesh.cli("tenant", "set", "acme", "--budget", "100/h")
    eventually(lambda: ask(mesh, "acme")[0] == 200, "a raised budget serves again")


def test_requests_wait_for_money_where_the_tenant_says_so(fresh_mesh: Any, models: Path, eventually: Any) -> None:
    mesh = fresh_mesh("--standby", "1", config=DEAR)
    mesh.cli("tenant", "set", "acme", "--budget", "0.05/h", "--at-budget", "queue")
    mesh.cli("deploy", str(models / "add.onnx"), "--name", "add", "--tenant", "acme", "--min-instances", "1", "--wait")
    eventually(lambda: hourly(mesh)["status"] == "spent", "the budget is spent")
    eventually(lambda: not mesh.describe("add")["instances"], "its instances have drained")
    with pytest.raises(grpc.RpcError) as error:
        infer(mesh, "acme", timeout_s=0.5)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]

    answers: list[Any] = []
    patient = threading.Thread(target=lambda: answers.append(infer(mesh, "acme", timeout_s=60)))
    patient.start()
    eventually(lambda: mesh.status()["models"][0]["queued"] == 1, "a request waits")
    mesh.cli("tenant", "set", "acme", "--budget", "100/h", "--at-budget", "queue")
    patient.join(60)
    assert [np.frombuffer(each.raw_output_contents[0], np.float32).tolist() for each in answers] == [[1, 2, 3, 4]]


def hourly(mesh: Any) -> dict[str, Any]:
    budgets = json.loads(mesh.cli("tenant", "describe", "acme", "--json").stdout)["budgets"]
    return next(each for each in budgets if each["period"] == "hour")


def ask(mesh: Any, tenant: str) -> tuple[int, Any, dict[str, str]]:
    answer: tuple[int, Any, dict[str, str]] = mesh.post("/v2/models/add/infer", ROW, {"x-headrace-tenant": tenant})
    return answer


def refused(mesh: Any, tenant: str) -> tuple[int, Any, dict[str, str]] | None:
    code, answer, headers = ask(mesh, tenant)
    assert code in (200, 429), answer
    return (code, answer, headers) if code == 429 else None


def infer(mesh: Any, tenant: str, timeout_s: float) -> oip.ModelInferResponse:
    request = oip.ModelInferRequest(model_name="add")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    request.raw_input_contents.append(np.arange(4, dtype=np.float32).tobytes())
    with grpc.insecure_channel(mesh.target) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        return stub.ModelInfer(request, timeout=timeout_s, metadata=(("x-headrace-tenant", tenant),))


def grpc_refusal(mesh: Any, tenant: str) -> tuple[error_details_pb2.QuotaFailure, error_details_pb2.RetryInfo]:
    with pytest.raises(grpc.RpcError) as error:
        infer(mesh, tenant, timeout_s=30)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
    details = dict(error.value.trailing_metadata())  # type: ignore[attr-defined]
    status = status_pb2.Status.FromString(details["grpc-status-details-bin"])
    failure, retry = error_details_pb2.QuotaFailure(), error_details_pb2.RetryInfo()
    for detail in status.details:
        detail.Unpack(failure) or detail.Unpack(retry)
    return failure, retry
