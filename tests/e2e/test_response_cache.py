"""A model with a response cache in a real mesh: in memory, and in a Redis that dies."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton


def ask(client: triton.InferenceServerClient, model: str, rows: Any, tenant: str = "default") -> Any:
    x = triton.InferInput("x", list(rows.shape), "FP32")
    x.set_data_from_numpy(rows)
    return client.infer(model, [x], headers={"x-headrace-tenant": tenant}).as_numpy("y")


def counted(client: triton.InferenceServerClient, model: str) -> tuple[int, int, int]:
    """Executions, successes, and hits of the cache."""
    [stats] = client.get_inference_statistics(model).model_stats
    return stats.execution_count, stats.inference_stats.success.count, stats.inference_stats.cache_hit.count


def scraped(mesh: Any) -> str:
    [url] = re.findall(r"http://[0-9.]+:[0-9]+/metrics", "".join(mesh.log))
    text: str = urllib.request.urlopen(url, timeout=10).read().decode()
    return text


def test_repeated_requests_are_answered_from_memory(mesh: Any, models: Path, rows: Any) -> None:
    flags = ("--response-cache", "--cache-ttl", "10m", "--wait")
    mesh.cli("deploy", str(models / "add.onnx"), "--name", "cached", *flags)
    assert "kept for 600s, each tenant its own" in mesh.cli("describe", "cached").stdout
    with triton.InferenceServerClient(mesh.target) as client:
        for tenant in ("default", "guest"):
            for _ in range(3):
                np.testing.assert_array_equal(ask(client, "cached", rows, tenant), rows + 1)
        assert counted(client, "cached") == (2, 6, 4)
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 4], "data": rows.ravel().tolist()}]}
    status, answer, _ = mesh.post("/v2/models/cached/infer", {**body, "id": "mine"})
    assert (status, answer["id"], answer["outputs"][0]["data"]) == (200, "mine", (rows + 1).ravel().tolist())
    with triton.InferenceServerClient(mesh.target) as client:
        assert counted(client, "cached") == (2, 7, 5), "REST and gRPC are answered from one cache"
    metrics = scraped(mesh)
    assert re.search(r'headrace_cache_hits_total\{[^}]*model="cached"[^}]*tenant="default"[^}]*\} 3', metrics)
    assert re.search(r'headrace_cache_misses_total\{[^}]*model="cached"[^}]*tenant="guest"[^}]*\} 1', metrics)
    assert re.search(r"headrace_cache_size_bytes\{[^}]*\} [1-9]", metrics)


def test_answers_are_kept_in_redis_and_redis_may_die(
    fresh_mesh: Callable[..., Any], models: Path, rows: Any, redis_server: Any, eventually: Callable[..., Any]
) -> None:
    config = {"router": {"cache_url": redis_server.url, "cache_timeout_s": 5.0}}
    mesh = fresh_mesh(config=config)
    mesh.cli("deploy", str(models / "add.onnx"), "--name", "cached", "--response-cache", "--wait")
    with triton.InferenceServerClient(mesh.target) as client:
        np.testing.assert_array_equal(ask(client, "cached", rows), rows + 1)
        with redis_server.client() as redis:
            eventually(lambda: redis.keys("headrace:answer:*"), "the answer is in Redis")
        np.testing.assert_array_equal(ask(client, "cached", rows), rows + 1)
        assert counted(client, "cached") == (1, 2, 1)
        redis_server.kill()
        np.testing.assert_array_equal(ask(client, "cached", rows), rows + 1)
        assert counted(client, "cached") == (2, 3, 1)
