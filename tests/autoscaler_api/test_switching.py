"""The mesh changes the variant that serves, by what the variants measure where they run."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import pytest

from headrace.v1 import models_pb2 as pb
from headrace_autoscaler.core.variant_choice import CONFIRM_S, Load
from headrace_autoscaler.domain import Resources, ShapeProfile
from headrace_common.errors import InvalidArgument
from tests.autoscaler_api.optimizations import OnnxModel, Optimized, current, finds, refused

Code = grpc.StatusCode


def load(single_ms: float, rate: float) -> Load:
    profile = ((1, int(single_ms * 1e3)),)
    return Load(Resources(), profile, None, rate, (0, None), 85_000, lambda most: most)


@pytest.fixture
async def m(api: Any, onnx_model: OnnxModel) -> Optimized:
    """Its variant int8 serves, as a job has chosen."""
    await api.deploy("m", {"model.onnx": onnx_model(2.0)})
    api.optimizer.answers = [finds(onnx_model(3.0))]
    api.optimizer.gate.set()
    optimized = Optimized(api)
    await optimized.start()
    listed = await optimized.until(pb.JOB_STATE_DONE)
    assert (listed.job.automatic, listed.job.switched) == (True, "")
    return optimized


async def reviews(api: Any) -> None:
    """Long enough for what is better to be taken."""
    for _ in range(3):
        api.clock.advance(CONFIRM_S)
        await api.jobs.tick()


async def until_switched(api: Any, m: Optimized) -> pb.ListVariantsResponse:
    async with asyncio.timeout(10):
        while not (listed := await m.listed()).job.switched:
            await api.jobs.tick()
    return listed


async def test_what_was_faster_where_it_ran_serves_again(api: Any, m: Optimized) -> None:
    await m.use("original")
    await m.use("auto")
    api.fleet.loads["m"] = load(2.0, rate=50)
    await reviews(api)
    assert (await api.describe("m")).variant == "original", "one instance is enough"
    await m.use("int8")
    await m.use("auto")
    api.fleet.loads["m"] = load(6.0, rate=400)
    await reviews(api)
    listed = await until_switched(api, m)
    await reviews(api)
    assert (await api.describe("m")).variant == "original"
    assert listed.job.automatic
    assert listed.job.switched == "original serves: 400 rows per second take 1 instance of it, and 3 of int8"
    assert listed.job.reason == "int8 is the cheapest"


async def test_what_somebody_has_chosen_stays(api: Any, m: Optimized) -> None:
    api.fleet.loads["m"] = load(2.0, rate=50)
    await reviews(api)
    await m.use("original")
    assert not (await m.listed()).job.automatic
    api.fleet.loads["m"] = load(90.0, rate=400)
    await reviews(api)
    assert (await api.describe("m")).variant == "original"


async def test_the_original_that_was_deployed_again_stays(api: Any, m: Optimized, onnx_model: OnnxModel) -> None:
    await api.deploy("m", {"model.onnx": onnx_model(2.0)})
    api.fleet.loads["m"] = load(90.0, rate=400)
    await reviews(api)
    listed = await m.listed()
    assert ([each.name for each in listed.variants if each.serves], listed.job.automatic) == (["original"], False)


async def test_a_variant_that_does_not_load_leaves_what_serves_and_says_so(api: Any, m: Optimized) -> None:
    await m.use("original")
    await m.use("auto")
    serves = current(await api.describe("m")).artifact
    api.fleet.refuse["1"] = InvalidArgument("no kernel for MatMulInteger")
    api.fleet.loads["m"] = load(6.0, rate=400)
    await api.catalogue.put_job(_with_faster_int8(api.catalogue.job("m")))
    await reviews(api)
    listed = await until_switched(api, m)
    assert listed.job.switched == (
        "int8 would serve (400 rows per second take 1 instance of it, and 3 of original), but could not be deployed: "
        "no kernel for MatMulInteger"
    )
    assert current(await api.describe("m")).artifact == serves
    assert listed.job.automatic


def _with_faster_int8(job: Any) -> Any:
    faster = [
        replace(each, profiles=(ShapeProfile(Resources(), ((1, 2000),)),)) if each.name == "int8" else each
        for each in job.variants
    ]
    return replace(job, variants=tuple(faster))


async def test_a_change_that_is_under_way_is_given_up_for_what_somebody_chooses(api: Any, m: Optimized) -> None:
    await m.use("original")
    await m.use("auto")
    await api.catalogue.put_job(_with_faster_int8(api.catalogue.job("m")))
    api.fleet.loads["m"] = load(6.0, rate=400)
    api.fleet.gate.clear()
    while not api.fleet.verifying.locked():
        await api.fleet.verifying.acquire()
    await reviews(api)
    async with asyncio.timeout(10):
        await api.fleet.verifying.acquire()
    using = asyncio.ensure_future(m.use("original"))
    async with asyncio.timeout(10):
        while not api.fleet.discarded:
            await m.listed()
    api.fleet.gate.set()
    await using
    listed = await m.listed()
    assert ([each.name for each in listed.variants if each.serves], listed.job.automatic) == (["original"], False)


async def test_one_that_is_given_up_before_its_first_step_keeps_no_later_one_away(api: Any, m: Optimized) -> None:
    await m.use("original")
    await m.use("auto")
    await api.catalogue.put_job(_with_faster_int8(api.catalogue.job("m")))
    api.fleet.loads["m"] = load(6.0, rate=400)
    for _ in range(2):
        await api.jobs.tick()
        api.clock.advance(CONFIRM_S)
    await api.jobs.tick()
    await api.jobs._switching.stop("m")
    assert (await api.describe("m")).variant == "original"
    for _ in range(4):
        await reviews(api)
    assert (await until_switched(api, m)).job.switched.startswith("int8 serves: ")


async def test_the_mesh_chooses_only_once_there_is_something_to_choose_from(api: Any, onnx_model: OnnxModel) -> None:
    await api.deploy("m", {"model.onnx": onnx_model(2.0)})
    optimized = Optimized(api)
    await optimized.start()
    code, said = await refused(optimized.use("auto"))
    assert code is Code.FAILED_PRECONDITION
    assert said.startswith(
        "model 'm': the mesh chooses among variants once its optimization is done and one of them serves; its last "
    )
