"""TensorRT plans as models: which GPUs and engine their manifests name, and what a deploy says of that."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from headrace_autoscaler.deploy_plan import Offer
from headrace_autoscaler.domain import Limits, ModelFile, ModelSpec, Resources
from headrace_autoscaler.providers.machine import capacity
from headrace_autoscaler.repository import candidates
from headrace_autoscaler.repository.layout import VersionPolicy
from headrace_autoscaler.repository.plans import (
    MAX_MANIFEST_BYTES,
    PlanFacts,
    built_for,
    manifest_paths,
    of_plans,
    plan_facts,
    spec_for_plans,
)
from headrace_common.config import AutoscalerConfig
from headrace_common.errors import FailedPrecondition, InvalidArgument
from headrace_common.gpu_facts import Gpu

RTX_86, RTX_89 = PlanFacts("tensorrt-rtx", "sm_86"), PlanFacts("tensorrt-rtx", "sm_89")
TRT_90 = PlanFacts("tensorrt", "sm_90")
ALL = VersionPolicy(latest=None)


def files(*paths: str, size: int = 1) -> tuple[ModelFile, ...]:
    return tuple(ModelFile(path, "0" * 64, size) for path in paths)


def manifest(engine: str = "tensorrt-rtx", target: str = "sm_86") -> bytes:
    return json.dumps({"schema": 1, "engine": engine, "target": target}).encode()


def test_a_manifest_names_the_engine_and_the_gpu() -> None:
    assert plan_facts("m.plan.json", manifest()) == RTX_86


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"\xff", manifest("onnxruntime"), manifest(target="rtx4090"), b'{"engine": 1}', b"[" * 200_000],
)
def test_what_is_no_manifest_is_refused_by_name(content: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"^m.plan.json: it is not the manifest of a plan .*; compile it again$"):
        plan_facts("m.plan.json", content)


def test_a_plan_comes_with_its_manifest() -> None:
    assert manifest_paths(files("1/m.plan", "1/m.plan.json", "w.onnx")) == {"1/m.plan": "1/m.plan.json"}
    with pytest.raises(InvalidArgument, match=r"m.plan: its manifest, m.plan.json, is missing"):
        manifest_paths(files("m.plan", "n.plan.json"))
    with pytest.raises(InvalidArgument, match=r"m.plan.json: 1048577 bytes, expected at most 1048576"):
        manifest_paths(files("m.plan", "m.plan.json", size=MAX_MANIFEST_BYTES + 1))


@pytest.mark.parametrize(
    ("plans", "engines", "targets"),
    [
        ({"m.sm_86.plan": RTX_86}, ["tensorrt-rtx"], ("sm_86",)),
        ({"m.sm_86.plan": RTX_86, "m.sm_89.plan": RTX_89}, ["tensorrt-rtx"], ("sm_86", "sm_89")),
        ({"1/model.plan": TRT_90}, ["tensorrt"], ("sm_90",)),
        ({"1/a.plan": RTX_86, "1/b.plan": RTX_89, "2/a.plan": RTX_89}, ["tensorrt-rtx"] * 2, ("sm_89",)),
        ({"1/a.plan": RTX_89, "2/a.plan": PlanFacts("tensorrt", "sm_89")}, ["tensorrt-rtx", "tensorrt"], ("sm_89",)),
    ],
    ids=["one", "for two GPUs", "Triton's", "versions with one in common", "an engine for each version"],
)
def test_a_version_has_the_engine_of_its_plans_and_a_model_the_gpus_of_all(
    plans: Mapping[str, PlanFacts], engines: list[str], targets: tuple[str, ...]
) -> None:
    found = of_plans(candidates(files(*plans), ALL), plans)
    assert [each.engine for each in found] == engines
    assert built_for(found, plans) == targets


def test_plans_of_two_engines_are_no_version() -> None:
    plans = {"m.sm_86.plan": RTX_86, "m.sm_90.plan": TRT_90}
    with pytest.raises(InvalidArgument, match="are for tensorrt and tensorrt-rtx; expected those of one"):
        of_plans(candidates(files(*plans)), plans)


def test_versions_for_unlike_gpus_cannot_serve_together() -> None:
    plans = {"1/model.plan": RTX_86, "2/model.plan": RTX_89}
    with pytest.raises(InvalidArgument, match="version 1: sm_86; version 2: sm_89"):
        built_for(candidates(files(*plans), ALL), plans)


def test_a_model_of_plans_has_a_gpu_of_its_kind() -> None:
    spec = spec_for_plans(ModelSpec("m"), ("sm_86", "sm_89"), "sm_89")
    assert (spec.gpu_architectures, spec.resources.gpu_millis) == (("sm_86", "sm_89"), 1000)

    half = ModelSpec("m", resources=Resources(gpu_millis=500), gpu_architectures=("sm_89", "sm_90"))
    spec = spec_for_plans(half, ("sm_86", "sm_89"), "sm_89")
    assert (spec.gpu_architectures, spec.resources.gpu_millis) == (("sm_89",), 500)


@pytest.mark.parametrize(
    ("asked", "gpu", "error", "says"),
    [
        (
            (),
            "",
            FailedPrecondition,
            "was built for sm_86, and this machine has no GPU: `headrace doctor`",
        ),
        (
            (),
            "sm_89",
            FailedPrecondition,
            "was built for sm_86, and this machine's GPU is sm_89: headrace compile",
        ),
        (("sm_89",), "sm_89", InvalidArgument, "gpu_architectures: expected some of sm_86, got sm_89"),
    ],
)
def test_a_machine_that_cannot_run_a_plan_says_what_it_has_and_what_to_do(
    asked: tuple[str, ...], gpu: str, error: type[InvalidArgument], says: str
) -> None:
    with pytest.raises(error) as refused:
        spec_for_plans(ModelSpec("m", gpu_architectures=asked), ("sm_86",), gpu)
    assert says in refused.value.message


def test_a_mesh_has_the_first_gpu_that_it_is_shown_and_no_other() -> None:
    found = capacity(AutoscalerConfig(), Gpu("NVIDIA A10", 86, 24 << 30))
    assert (found.gpu_millis, found.gpu_memory_bytes) == (1000, 24 << 30)
    assert capacity(AutoscalerConfig()).gpu_millis == 0


# Through the API.


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details() or ""


@pytest.fixture
async def with_gpu(state: Path, clock: Any, api: Any) -> AsyncIterator[Any]:
    """A mesh on a machine with an sm_86."""
    capacity = Limits(cpu_millicores=8000, memory_bytes=16 << 30, gpu_millis=1000, gpu_memory_bytes=24 << 30)
    offer = Offer(capacity, gpu_architecture="sm_86")
    (state / "gpu").mkdir()
    started = type(api)(state / "gpu", clock, AutoscalerConfig(), offer)
    await started.start()
    yield started
    await started.stop()


async def test_a_plan_on_a_machine_without_a_gpu_says_so_at_deploy(api: Any) -> None:
    code, told = await refused(api.deploy("m", {"m.sm_86.plan": b"p", "m.sm_86.plan.json": manifest()}))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert told.startswith("model 'm' was built for sm_86, and this machine has no GPU")
    assert api.catalogue.model("m") is None
    assert api.fleet.verified == []


async def test_plans_for_several_gpus_are_deployed_as_one_model(with_gpu: Any, onnx_model: Any) -> None:
    # The tests' fleet reads any file as ONNX.
    plan = onnx_model()
    files = {f"m.{target}.plan": plan for target in ("sm_89", "sm_86")}
    files |= {f"m.{target}.plan.json": manifest(target=target) for target in ("sm_89", "sm_86")}
    model = await with_gpu.deploy("m", files)

    [version] = model.versions
    assert version.engine == "tensorrt-rtx"
    [spec] = with_gpu.fleet.specs
    assert (spec.gpu_architectures, spec.resources.gpu_millis) == (("sm_86", "sm_89"), 1000)


@pytest.mark.parametrize(
    ("config", "spec", "says"),
    [
        ('platform: "tensorrt_plan" instance_group { kind: KIND_GPU }', {}, ""),
        ('backend: "tensorrt"', {"engine": "tensorrt_rtx"}, ""),
        ("", {"engine": "tensorrt"}, ""),
        ("", {"engine": "onnxruntime"}, "'onnxruntime' cannot load '1/model.plan', which is for 'tensorrt-rtx'"),
        ('platform: "onnxruntime_onnx"', {}, "cannot load '1/model.plan', which is for 'tensorrt-rtx'"),
    ],
)
async def test_tritons_layout_with_a_plan_is_deployed(
    with_gpu: Any, onnx_model: Any, config: str, spec: dict[str, Any], says: str
) -> None:
    files = {"1/model.plan": onnx_model(), "1/model.plan.json": manifest(), "config.pbtxt": config.encode()}
    if says:
        assert says in (await refused(with_gpu.deploy("m", files, **spec)))[1]
    else:
        model = await with_gpu.deploy("m", files, **spec)
        assert model.versions[0].engine == "tensorrt-rtx"


async def test_a_plan_for_another_gpu_or_without_a_manifest_is_refused_before_it_is_loaded(with_gpu: Any) -> None:
    files = {"m.sm_89.plan": b"p", "m.sm_89.plan.json": manifest(target="sm_89")}
    _, told = await refused(with_gpu.deploy("m", files))
    assert told == (
        "model 'm' was built for sm_89, and this machine's GPU is sm_86: headrace compile --target sm_86 builds a plan "
        "for it"
    )
    assert "its manifest, m.plan.json, is missing" in (await refused(with_gpu.deploy("m", {"m.plan": b"p"})))[1]
    assert with_gpu.fleet.verified == []
