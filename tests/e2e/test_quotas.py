"""Cohorts on a real mesh: borrowing what is idle, giving it back under load, and what `explain` says of it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

PLENTY = {"autoscaler": {"cpu_overcommit": 64.0}}


def plus_one(asked: float, got: float) -> bool:
    return got == asked + 1


def explain(mesh: Any, name: str) -> Any:
    return json.loads(mesh.cli("explain", name, "--json").stdout)


def ready(mesh: Any, name: str) -> int:
    return sum(each["state"] == "ready" for each in mesh.describe(name)["instances"])


def test_a_lender_gets_its_own_back_without_a_failed_request_and_explain_says_what_to_type(
    fresh_mesh: Any, models: Path, load: Any, eventually: Any
) -> None:
    mesh = fresh_mesh("--standby", "1", config=PLENTY)
    for tenant in ("ann", "bob"):
        mesh.cli("tenant", "set", tenant, "--cpu", "1", "--memory", "4Gi", "--concurrency", "500", "--cohort", "team")
    deploy = ("deploy", str(models / "add.onnx"), "--share-with", "*", "--wait")
    mesh.cli(*deploy, "--name", "borrower", "--tenant", "ann", "--min-instances", "2")
    eventually(lambda: ready(mesh, "borrower") == 2, "it runs on what bob leaves idle")
    assert explain(mesh, "borrower")["sentence"].startswith("nothing binds: model 'borrower' has the 2 instances")
    mesh.cli(*deploy, "--name", "owner", "--tenant", "bob", "--idle-timeout", "1h")
    with load(mesh, "borrower", plus_one) as clients:
        clients.more(200)
        with load(mesh, "owner", plus_one, threads=1) as asking:
            eventually(lambda: ready(mesh, "owner") == 1, "bob has its own")
            asking.more(20)
        eventually(lambda: ready(mesh, "borrower") == 1, "ann has given it back")
        clients.more(200)
    assert (clients.errors, clients.wrong, asking.errors, asking.wrong) == ([], [], [], [])

    found = eventually(lambda: (told := explain(mesh, "borrower"))["obstacles"] and told, "something binds")
    [obstacle] = found["obstacles"]
    assert (found["current"], found["desired"], obstacle["kind"], obstacle["owner"]) == (1, 2, "cohort", "team")
    assert found["sentence"].startswith("cohort 'team' has 2 CPUs in all and uses 2; model 'borrower' of tenant 'ann'")
    assert mesh.get("/v1/models/borrower/explain")[1]["sentence"] == found["sentence"]
    assert mesh.cli("explain", "borrower").stdout.splitlines() == [found["sentence"], f"  {obstacle['command']}"]
    mesh.cli(*shlex.split(obstacle["command"])[1:])
    eventually(lambda: ready(mesh, "borrower") == 2, "what was to be typed is enough")
    nominal = json.loads(mesh.cli("tenant", "describe", "ann", "--json").stdout)["spec"]["nominal"]
    assert nominal == {"cpu": "2", "memory": "4Gi", "concurrency": "500"}, "and changes nothing else"


def test_two_routers_lend_what_a_tenant_leaves_idle_and_explain_what_they_refuse(
    fresh_mesh: Any, models: Path, load: Any, eventually: Any
) -> None:
    """Twenty clients of ann, who has eight at once; bob has as many, and asks for none of them."""
    mesh = fresh_mesh("--standby", "1", config={**PLENTY, "router": {"processes": 2}})
    for tenant in ("ann", "bob"):
        mesh.cli("tenant", "set", tenant, "--concurrency", "8", "--cohort", "team")
    deploy = ("deploy", str(models / "slow.fake.json"), "--share-with", "*", "--wait", "--min-instances", "1")
    mesh.cli(*deploy, "--name", "hers", "--tenant", "ann")
    mesh.cli(*deploy, "--name", "his", "--tenant", "bob")

    def told() -> Any:
        return [each for each in explain(mesh, "hers")["refused"] if each["reason"] == "concurrency"]

    def echoed(asked: float, got: float) -> bool:
        return got == asked

    with load(mesh, "hers", echoed, threads=20, tenant="ann") as clients:
        found = eventually(lambda: (each := told()) and each[0]["obstacles"][0]["kind"] == "cohort" and each[0],
                           "all that bob lends is borrowed, and some are refused")  # fmt: skip
        [obstacle] = found["obstacles"]
        assert (found["tenant"], obstacle["owner"], obstacle["limit"]) == ("ann", "team", "16")
        assert "16 requests at once in all" in obstacle["sentence"]
        with load(mesh, "his", echoed, threads=2, tenant="bob") as asking:
            asking.more(30)
        assert asking.errors == [], "his floors are his"
    assert all("over its limit of concurrency" in each for each in clients.errors)
    assert clients.wrong == []


def test_every_limit_can_be_set_by_the_names_of_the_manual(mesh: Any, models: Path) -> None:
    mesh.cli(
        *shlex.split(
            "tenant set everything --cpu 2 --memory 4Gi --gpu 0.5 --gpu-memory 8Gi --concurrency 64 --rps 500 "
            "--budget 1.50/h --budget 300/month --cohort C --borrow cpu=1 --lend cpu=1 --weight 2"
        )
    )
    spec = json.loads(mesh.cli("tenant", "describe", "everything", "--json").stdout)["spec"]
    assert spec["nominal"] == {
        "cpu": "2", "memory": "4Gi", "gpu": "0.5", "gpu_memory": "8Gi", "concurrency": "64",
        "requests_per_second": 500.0,
    }  # fmt: skip
    assert (spec["budget"], spec["cohort"], spec["weight"]) == ({"per_hour": "1.5", "per_month": "300"}, "C", 2.0)
    assert (spec["borrowing_limit"], spec["lending_limit"]) == ({"cpu": "1"}, {"cpu": "1"})
    mesh.cli("deploy", str(models / "add.onnx"), "--name", "limited", "--tenant", "everything", "--wait",
             "--limit", "cpu=1", "--limit", "memory=2Gi", "--limit", "rps=50", "--budget", "1/h")  # fmt: skip
    limits = mesh.describe("limited")["spec"]
    assert limits["limits"] == {"cpu": "1", "memory": "2Gi", "requests_per_second": 50.0}
    assert limits["budget"] == {"per_hour": "1"}


def test_a_models_own_limit_and_its_maximum_are_explained(mesh: Any, models: Path, eventually: Any) -> None:
    mesh.cli(
        "deploy", str(models / "add.onnx"), "--name", "narrow", "--min-instances", "2", "--limit", "cpu=1500m", "--wait"
    )
    found = eventually(lambda: (told := explain(mesh, "narrow"))["obstacles"] and told, "something binds")
    assert (found["obstacles"][0]["kind"], found["obstacles"][0]["missing"]) == ("model limit", "0.5")
    assert "--limit cpu=2" in found["obstacles"][0]["command"]
    assert mesh.cli("explain", "nowhere", check=False).returncode == 1
