"""`headrace explain` and the limits of a deploy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.client import methods
from headrace.errors import NotFound
from headrace.v1 import models_pb2 as pb

RAISE = "headrace tenant set acme --cpu 2"
BOUND = pb.ExplainModelResponse(
    name="iris",
    tenant="acme",
    current=1,
    desired=2,
    sentence="tenant 'acme' may use 1 CPU",
    obstacles=[
        pb.Obstacle(kind="nominal", owner="acme", sentence="tenant 'acme' may use 1 CPU", command=RAISE),
        pb.Obstacle(kind="machine", owner="this machine", sentence="this machine has 1 CPU"),
    ],
)


def test_what_binds_comes_first_and_what_to_type_last(mesh: Any, run: Callable[..., Any]) -> None:
    mesh.on(methods.EXPLAIN_MODEL, BOUND)
    done = run("explain", "iris")
    assert done.out.splitlines() == ["tenant 'acme' may use 1 CPU", "then: this machine has 1 CPU", f"  {RAISE}"]
    assert mesh.requests(methods.EXPLAIN_MODEL) == [pb.ExplainModelRequest(name="iris")]
    shown = json.loads(run("explain", "iris", "--json").out)
    assert (shown["current"], shown["desired"], shown["obstacles"][0]["command"]) == (1, 2, RAISE)


def test_refused_requests_are_told_with_what_lets_them_in(mesh: Any, run: Callable[..., Any]) -> None:
    said, raised = "tenant 'acme' may have 10 requests at once and 12 were needed", "headrace tenant set acme --rps 9"
    obstacle = pb.Obstacle(kind="nominal", owner="acme", sentence=said, command=raised, missing="2")
    settled = pb.Obstacle(kind="settled", owner="acme", sentence="1 request was refused, and there is enough by now")
    refused = [
        pb.RefusedRequests(tenant="acme", reason="concurrency", count=34, obstacles=[obstacle]),
        pb.RefusedRequests(tenant="acme", reason="queue_length", count=1, obstacles=[settled]),
    ]
    mesh.on(methods.EXPLAIN_MODEL, pb.ExplainModelResponse(name="iris", sentence=said, refused=refused))
    assert run("explain", "iris").out.splitlines() == [said, f"then: {settled.sentence}", f"  {raised}"]
    shown = json.loads(run("explain", "iris", "--json").out)["refused"]
    assert (shown[0]["reason"], shown[0]["count"], shown[0]["obstacles"][0]["missing"]) == ("concurrency", 34, "2")


def test_a_model_that_is_not_there(mesh: Any, run: Callable[..., Any]) -> None:
    mesh.on(methods.EXPLAIN_MODEL, NotFound("there is no model 'iris'"))
    assert (run("explain", "iris").code, "there is no model 'iris'" in run("explain", "iris").err) == (1, True)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--limit", "cpu"), "--limit: expected KEY=VALUE"),
        (("--limit", "cpu=two"), "--limit cpu: expected a count"),
        (("--limit", "rps=5", "--rps", "6"), "--limit: requests per second is given twice"),
    ],
    ids=["no value", "no count", "twice"],
)
def test_a_limit_that_cannot_be(tmp_path: Path, run: Callable[..., Any], flags: tuple[str, ...], said: str) -> None:
    done = run("deploy", str(tmp_path / "m.onnx"), "--name", "m", *flags)
    assert (done.code, said in done.err) == (2, True)
