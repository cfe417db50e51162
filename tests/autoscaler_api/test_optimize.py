"""Optimisations of deployed models through the API; the optimiser is a fake, everything else is real but the fleet."""

from __future__ import annotations

import asyncio
import shutil
from typing import Any

import grpc
import numpy as np
import pytest

from headrace.v1 import models_pb2 as pb
from headrace_autoscaler.core.jobs import MOST_ATTEMPTS
from headrace_autoscaler.jobs.work import Found, Work, WorkFailed
from headrace_common.config import AutoscalerConfig
from headrace_common.errors import FailedPrecondition, InvalidArgument, LimitExceeded
from tests.autoscaler_api.optimizations import ROWS, OnnxModel, Optimized, current, finds, measured, npz, refused

Code = grpc.StatusCode


async def test_the_chosen_variant_is_deployed_and_the_original_is_a_command_away(api: Any, m: Optimized) -> None:
    before = await api.describe("m")
    job = await m.start(floor=0.95, latency={"nanos": 20_000_000}, precisions=["int8"], prune=[0.5], labels="")
    assert job.state == pb.JOB_STATE_QUEUED
    await m.begun()
    running = (await api.describe("m")).job
    assert (running.state, running.stage, running.stage_done, running.stage_total) == (2, "timing", 1, 4)
    api.optimizer.gate.set()
    listed = await m.until(pb.JOB_STATE_DONE)
    assert (listed.job.chosen, listed.job.reason, listed.job.attempts) == ("int8", "int8 is the cheapest", 1)
    assert [(each.name, each.serves, each.chosen, bool(each.artifact)) for each in listed.variants] == [
        ("original", False, False, True),
        ("int8", True, True, True),
        ("int4", False, False, False),
    ]
    after = await api.describe("m")
    assert (after.variant, after.spec) == ("int8", before.spec), "everything else is as it was deployed"
    assert current(after).artifact == listed.variants[1].artifact != current(before).artifact
    assert (await m.use("original")).variant == "original"
    assert current(await api.describe("m")).artifact == current(before).artifact
    assert (await m.use("int8")).variant == "int8"
    assert not api.fleet.claimed


async def test_what_is_asked_for_reaches_the_optimiser(api: Any, m: Optimized) -> None:
    await m.start(floor=0.5, latency={"nanos": 20_000_000}, precisions=["int8"], prune=[0.5], keep_original=True)
    await m.begun()
    [work] = api.optimizer.works
    asked = work.optimization
    assert (asked.floor, asked.latency_s, asked.precisions, asked.prune) == (0.5, 0.02, ("int8",), (0.5,))
    assert work.source.name == "model.onnx"
    assert np.load(work.samples)["x"].shape == ROWS.shape


async def test_with_keep_original_the_original_serves_on_and_the_variant_can_be_used(api: Any, m: Optimized) -> None:
    api.optimizer.gate.set()
    await m.start(keep_original=True)
    listed = await m.until(pb.JOB_STATE_DONE)
    assert [each.name for each in listed.variants if each.serves] == ["original"]
    assert (await m.use("int8")).variant == "int8"


async def test_where_nothing_fits_the_original_stays_and_the_report_is_shown(
    api: Any, m: Optimized, onnx_model: OnnxModel
) -> None:
    api.optimizer.answers = [finds(onnx_model(), "", "nothing is inside the floor")]
    api.optimizer.gate.set()
    await m.start()
    listed = await m.until(pb.JOB_STATE_DONE)
    assert (listed.job.chosen, listed.job.reason) == ("", "nothing is inside the floor")
    assert [each.name for each in listed.variants if each.serves] == ["original"]


async def test_samples_go_when_it_has_ended_and_everything_goes_with_the_model(api: Any, m: Optimized) -> None:
    await m.start()
    await m.begun()
    assert len(api.stored_artifacts()) == 2
    await api.artifacts.collect(api.catalogue.artifacts_in_use, api.clock.wall() + 1e9)
    assert len(api.stored_artifacts()) == 2, "the job needs its samples"
    api.optimizer.gate.set()
    await m.until(pb.JOB_STATE_DONE)
    kept = api.catalogue.job("m").artifacts
    assert api.stored_artifacts() == kept
    assert len(kept) == 2
    assert list((api.state / "jobs").iterdir()) == []
    await api.models.DeleteModel(pb.DeleteModelRequest(name="m"))
    for revision in api.catalogue.model("m").revisions:
        await api.catalogue.finish_retiring("m", revision.revision)
    assert api.stored_artifacts() == set()
    assert api.store.jobs() == ()


async def test_why_it_failed_is_said_without_the_meshs_paths(api: Any, m: Optimized) -> None:
    api.optimizer.answers = [WorkFailed(f"{api.state}/artifacts/{'a' * 64}/samples.npz: has 9 different samples")]
    api.optimizer.gate.set()
    await m.start()
    listed = await m.until(pb.JOB_STATE_FAILED)
    assert listed.job.reason == "samples.npz: has 9 different samples"
    assert (await api.describe("m")).variant == "original"


async def test_an_error_that_is_ours_is_told_in_the_log_only(api: Any, m: Optimized) -> None:
    api.optimizer.answers = [ZeroDivisionError("secret")]
    api.optimizer.gate.set()
    await m.start()
    assert "secret" not in (await m.until(pb.JOB_STATE_FAILED)).job.reason


async def test_files_that_cannot_be_written_are_a_sentence(api: Any, m: Optimized) -> None:
    (api.state / "jobs").write_text("a file where the folder should be")
    await m.start()
    listed = await m.until(pb.JOB_STATE_FAILED)
    assert listed.job.reason == "the mesh cannot write the job's files: File exists"
    assert not api.fleet.claimed


async def test_variants_that_not_all_found_room_leave_none_on_the_full_disk(
    api: Any, m: Optimized, onnx_model: OnnxModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two(work: Work) -> Found:
        files = [work.folder / f"{name}.onnx" for name in ("fp16", "int8")]
        for file in files:
            file.write_bytes(onnx_model() + file.name.encode())
        return Found(tuple((measured(file.stem), file) for file in files), "int8", "int8 is the cheapest")

    before, receive, kept = api.stored_artifacts(), api.artifacts.receive, []

    async def one_only(parts: Any) -> Any:
        if kept:
            raise LimitExceeded("the disk of the mesh's state directory is full")
        kept.append(await receive(parts))
        return kept[0]

    api.optimizer.answers = [two]
    await m.start()
    await m.begun()
    monkeypatch.setattr(api.artifacts, "receive", one_only)
    api.optimizer.gate.set()
    listed = await m.until(pb.JOB_STATE_FAILED)
    assert listed.job.reason == "the disk of the mesh's state directory is full"
    assert kept
    assert api.stored_artifacts() == before


async def test_a_variant_that_does_not_load_leaves_the_original(api: Any, m: Optimized) -> None:
    api.fleet.refuse["1"] = InvalidArgument("bad opset")
    api.optimizer.gate.set()
    await m.start()
    listed = await m.until(pb.JOB_STATE_FAILED)
    assert listed.job.reason == "int8 is the cheapest; variant 'int8' could not be deployed: bad opset"
    assert (await api.describe("m")).variant == "original"


@pytest.mark.parametrize(
    ("samples", "asked", "said"),
    [
        (b"no zip", {}, "expected an .npz file"),
        (npz(), {}, "samples: have none; expected the model's inputs: 'x'"),
        (npz(y=ROWS), {}, "samples: have 'y'; expected the model's inputs: 'x'"),
        (npz(x=ROWS, y=ROWS), {}, "expected the model's inputs: 'x'; name the right answers as labels"),
        (npz(x=ROWS), {"labels": "y"}, "labels 'y': there is no such array; there are 'x'"),
        (npz(x=ROWS.astype("float64")), {}, "array 'x' is float64; expected float32: convert it with .astype"),
        (npz(x=ROWS[:, :2]), {}, "array 'x' has the shape [40, 2]; expected [samples, 3]"),
        (npz(x=ROWS[:0]), {}, "array 'x' has no rows"),
        (npz(x=ROWS, y=np.zeros(7)), {"labels": "y"}, "as many rows in each array; found x 40, y 7"),
        (npz(x=np.array([None])), {}, "array 'x' is object; expected float32"),
        (npz(x=ROWS), {"labels": "x"}, "labels 'x': is an input of the model"),
        (npz(x=ROWS, y=np.array([None] * 40)), {"labels": "y"}, "labels 'y': holds Python objects"),
    ],
)
async def test_samples_that_do_not_fit_are_refused_before_anything_is_queued(
    api: Any, m: Optimized, samples: bytes, asked: dict[str, Any], said: str
) -> None:
    code, details = await refused(m.start(samples=samples, **asked))
    assert (code, said in details) == (Code.INVALID_ARGUMENT, True), details
    assert api.catalogue.jobs() == ()
    assert len(api.stored_artifacts()) == 1, "what was refused is not kept"


@pytest.mark.parametrize("name", ["../precious", "{state}/precious", "..", ".", "a"])
async def test_a_refusal_removes_nothing_but_samples(api: Any, m: Optimized, name: str) -> None:
    precious = api.state / "precious"
    precious.mkdir()
    request = pb.OptimizeModelRequest(name="m", samples=name.format(state=api.state))
    assert (await refused(api.models.OptimizeModel(request)))[0] is Code.INVALID_ARGUMENT
    assert precious.is_dir()
    assert len(api.stored_artifacts()) == 1


async def test_files_of_a_model_that_are_taken_for_samples_are_kept(
    api: Any, m: Optimized, onnx_model: OnnxModel
) -> None:
    others = await api.upload({"model.onnx": onnx_model(9.0)})
    code, details = await refused(api.models.OptimizeModel(pb.OptimizeModelRequest(name="m", samples=others)))
    assert (code, "expected an artifact with one .npz file" in details) == (Code.INVALID_ARGUMENT, True)
    await api.deploy("n", others)


async def test_labels_belong_to_the_samples(api: Any, m: Optimized) -> None:
    assert (await m.start(samples=npz(x=ROWS, digit=np.zeros(40)), labels="digit")).optimization.labels == "digit"


async def test_samples_are_bounded(onnx_model: OnnxModel, api_of: Any) -> None:
    api = await api_of(AutoscalerConfig(max_samples_bytes=1 << 20))
    await api.deploy("m", {"model.onnx": onnx_model()})
    large = npz(x=np.zeros((100_000, 3), np.float32))
    code, details = await refused(Optimized(api).start(samples=large))
    assert code is Code.RESOURCE_EXHAUSTED
    assert "over the limit of 1Mi (configuration key autoscaler.max_samples_bytes); bring fewer" in details


@pytest.mark.parametrize(
    ("request_", "code", "said"),
    [
        (pb.OptimizeModelRequest(name="nobody", samples="x"), Code.NOT_FOUND, "there is no model 'nobody'"),
        (pb.OptimizeModelRequest(name="m", samples="a" * 64), Code.INVALID_ARGUMENT, "upload the samples again"),
        (pb.OptimizeModelRequest(name="m"), Code.INVALID_ARGUMENT, "samples"),
        (
            pb.OptimizeModelRequest(name="m", samples="x", optimization=pb.Optimization(floor=1.0)),
            Code.INVALID_ARGUMENT,
            "floor",
        ),
        (
            pb.OptimizeModelRequest(name="m", samples="x", optimization=pb.Optimization(precisions=["int3"])),
            Code.INVALID_ARGUMENT,
            "precisions",
        ),
    ],
)
async def test_what_makes_no_sense_is_refused(
    api: Any, m: Optimized, request_: pb.OptimizeModelRequest, code: grpc.StatusCode, said: str
) -> None:
    found = await refused(api.models.OptimizeModel(request_))
    assert (found[0], said in found[1]) == (code, True), found


async def test_a_mesh_may_run_none(onnx_model: OnnxModel, api_of: Any) -> None:
    api = await api_of(AutoscalerConfig(optimize_jobs=0))
    await api.deploy("m", {"model.onnx": onnx_model()})
    code, details = await refused(Optimized(api).start())
    assert (code, "runs no optimisations" in details) == (Code.FAILED_PRECONDITION, True)


async def test_one_that_does_not_end_is_ended(onnx_model: OnnxModel, api_of: Any) -> None:
    api = await api_of(AutoscalerConfig(optimize_timeout_s=0.01))
    await api.deploy("m", {"model.onnx": onnx_model()})
    optimized = Optimized(api)
    await optimized.start()
    listed = await optimized.until(pb.JOB_STATE_FAILED)
    assert "took longer than 0.01 s (configuration key autoscaler.optimize_timeout_s)" in listed.job.reason
    assert (api.optimizer.cancelled, api.fleet.claimed) == (1, set())


async def test_it_waits_for_room_with_the_sentence_and_begins_when_there_is_some(api: Any, m: Optimized) -> None:
    api.fleet.no_room["m"] = "tenant 'acme' may use 1 CPU and uses 1"
    await m.start()
    await api.jobs.tick()
    assert (await api.describe("m")).job.reason == "tenant 'acme' may use 1 CPU and uses 1"
    api.fleet.no_room.clear()
    api.optimizer.gate.set()
    await m.until(pb.JOB_STATE_DONE)


async def test_it_gives_way_to_serving_and_begins_anew(api: Any, m: Optimized) -> None:
    await m.start()
    await m.begun()
    api.fleet.no_room["m"] = "there is no room"
    api.fleet.must_stop["m"] = "gave way to model 'n'"
    await api.jobs.tick()
    assert (api.optimizer.cancelled, api.fleet.claimed) == (1, set())
    waiting = (await m.listed()).job
    assert (waiting.state, waiting.attempts) == (pb.JOB_STATE_QUEUED, 0)
    api.fleet.no_room.clear()
    api.fleet.must_stop.clear()
    api.optimizer.gate.set()
    assert (await m.until(pb.JOB_STATE_DONE)).job.attempts == 1


async def test_one_that_always_gives_way_ends_with_the_reason_and_what_to_do(api: Any, m: Optimized) -> None:
    await m.start()
    for _ in range(2):
        await m.begun()
        api.fleet.must_stop["m"] = "gave way to model 'n'"
        await api.jobs.tick()
        del api.fleet.must_stop["m"]
        api.clock.advance(api.config.optimize_patience_s / 2)
        await api.jobs.tick()
    await m.begun()
    api.fleet.no_room["m"] = "waits for room: the machine has 1 CPU and uses 1"
    api.fleet.must_stop["m"] = "gave way to model 'n'"
    listed = await m.until(pb.JOB_STATE_FAILED)
    assert listed.job.reason.startswith("it gave way to serving 3 times in 86400 s and never came to its end; the last")
    assert "optimize at a quieter hour" in listed.job.reason
    assert (api.optimizer.cancelled, api.fleet.claimed, len(api.stored_artifacts())) == (3, set(), 1)
    assert (await api.describe("m")).variant == "original"


async def test_one_runs_at_a_time_in_the_order_in_which_they_came(
    api: Any, m: Optimized, onnx_model: OnnxModel
) -> None:
    await api.deploy("n", {"model.onnx": onnx_model(5.0)})
    await m.start("m")
    await m.begun()
    await m.start("n")
    await api.jobs.tick()
    assert "waits for its turn" in (await m.listed("n")).job.reason
    assert len(api.optimizer.works) == 1
    api.optimizer.gate.set()
    await m.until(pb.JOB_STATE_DONE, "n")
    assert [work.model for work in api.optimizer.works] == ["m", "n"]


async def test_a_cancelled_one_has_ended_and_leaves_what_serves(api: Any, m: Optimized) -> None:
    await m.start()
    await m.begun()
    cancel = pb.CancelOptimizationRequest(name="m")
    assert (await api.models.CancelOptimization(cancel)).job.state == pb.JOB_STATE_CANCELLED
    assert (api.optimizer.cancelled, api.fleet.claimed) == (1, set())
    assert len(api.stored_artifacts()) == 1
    assert (await api.describe("m")).variant == "original"
    assert (await refused(api.models.CancelOptimization(cancel)))[1] == "the job of model 'm' is cancelled already"


async def test_cancelled_while_the_variant_loads_it_does_not_take_over(api: Any, m: Optimized) -> None:
    loads = await m.loading()
    revision = loads.revision
    job = (await api.models.CancelOptimization(pb.CancelOptimizationRequest(name="m"))).job
    assert job.state == pb.JOB_STATE_CANCELLED
    assert api.fleet.discarded == [("m", revision)]
    api.fleet.gate.set()
    await api.jobs.tick()
    after = await api.describe("m")
    assert (after.variant, len(after.versions), after.reason) == ("original", 1, "")
    assert (await m.use("int8")).variant == "int8", "what was found can be used all the same"


async def test_a_new_one_that_is_asked_for_while_the_variant_loads_takes_its_place(api: Any, m: Optimized) -> None:
    await m.loading()
    await m.start(floor=0.5, keep_original=True)
    api.fleet.gate.set()
    listed = await m.until(pb.JOB_STATE_DONE)
    assert [each.name for each in listed.variants if each.serves] == ["original"]


async def test_settings_that_are_deployed_while_it_ends_are_kept(api: Any, m: Optimized) -> None:
    await m.start()
    await m.begun()
    async with asyncio.timeout(10):
        await api.fleet.verifying.acquire()
        api.fleet.gate.clear()
        deploying = asyncio.create_task(api.deploy("m", tenant="acme", max_batch_size=4, min_instances=1))
        await api.fleet.verifying.acquire()
        api.optimizer.gate.set()
        while not (job := api.catalogue.job("m")).found:  # noqa: ASYNC110 - the job runs on its own
            await asyncio.sleep(0.002)
    assert job.active
    api.fleet.gate.set()
    await deploying
    await m.until(pb.JOB_STATE_DONE)
    after = await api.describe("m")
    assert (after.variant, after.spec.max_batch_size, after.min_instances) == ("int8", 4, 1)


async def test_a_new_one_takes_the_place_of_the_last(api: Any, m: Optimized) -> None:
    await m.start(floor=0.9)
    await m.begun()
    await m.start(floor=0.8, samples=npz(x=ROWS + 1))
    assert api.optimizer.cancelled == 1
    api.optimizer.gate.set()
    assert (await m.until(pb.JOB_STATE_DONE)).job.optimization.floor == 0.8


async def test_deleting_the_model_ends_it(api: Any, m: Optimized) -> None:
    await m.start()
    await m.begun()
    await api.models.DeleteModel(pb.DeleteModelRequest(name="m"))
    await api.jobs.tick()
    assert (api.optimizer.cancelled, api.fleet.claimed) == (1, set())


async def test_a_model_that_takes_the_name_of_a_deleted_one_has_nothing_of_its_job(
    api: Any, m: Optimized, onnx_model: OnnxModel
) -> None:
    await m.start()
    await m.begun()
    await api.models.DeleteModel(pb.DeleteModelRequest(name="m"))
    for revision in api.catalogue.model("m").revisions:
        await api.catalogue.finish_retiring("m", revision.revision)
    await api.deploy("m", {"model.onnx": onnx_model(2.0)})
    api.optimizer.gate.set()
    for _ in range(3):
        await asyncio.sleep(0.01)
        await api.jobs.tick()
    assert api.catalogue.jobs() == ()
    assert (await api.describe("m")).variant == ""


async def test_deploying_something_else_ends_it_and_forgets_what_was_found(
    api: Any, m: Optimized, onnx_model: OnnxModel
) -> None:
    await m.start()
    await m.begun()
    await api.deploy("m", {"model.onnx": onnx_model(7.0)}, tenant="acme")
    await api.jobs.tick()
    ended = (await m.listed()).job
    assert (ended.state, ended.reason) == (pb.JOB_STATE_CANCELLED, "another version of the model was deployed")
    assert api.optimizer.cancelled == 1
    await api.jobs.tick()
    assert (await refused(m.listed()))[0] is Code.NOT_FOUND


async def test_deploying_the_same_files_with_other_settings_does_not_end_it(api: Any, m: Optimized) -> None:
    await m.start()
    await m.begun()
    await api.deploy("m", tenant="acme", min_instances=1)
    await api.jobs.tick()
    api.optimizer.gate.set()
    await m.until(pb.JOB_STATE_DONE)
    after = await api.describe("m")
    assert (after.variant, after.min_instances) == ("int8", 1)


async def test_an_autoscaler_that_restarts_begins_it_anew_so_many_times(api: Any, m: Optimized) -> None:
    await m.start()
    for attempt in range(1, MOST_ATTEMPTS + 1):
        await m.begun()
        assert (await m.listed()).job.attempts == attempt
        await api.stop()
        await api.start()
    listed = await m.until(pb.JOB_STATE_FAILED)
    assert listed.job.reason == f"the autoscaler restarted meanwhile, {MOST_ATTEMPTS} times; optimize again"


async def test_a_restart_after_the_variants_were_found_only_deploys(api: Any, m: Optimized) -> None:
    api.fleet.gate.clear()
    api.optimizer.gate.set()
    await m.start()
    async with asyncio.timeout(10):
        while len(api.fleet.verified) < 2:  # noqa: ASYNC110 - the second is the variant's
            await asyncio.sleep(0.002)
    await api.stop()
    await api.start()
    listed = await m.until(pb.JOB_STATE_DONE)
    assert [each.name for each in listed.variants if each.serves] == ["int8"]
    assert listed.job.reason == "int8 was chosen before the autoscaler restarted"
    assert len(api.optimizer.works) == 1


async def test_optimizing_again_starts_from_the_original(api: Any, m: Optimized) -> None:
    api.optimizer.gate.set()
    await m.start()
    original = (await m.until(pb.JOB_STATE_DONE)).variants[0].artifact
    await m.start(floor=0.5)
    listed = await m.until(pb.JOB_STATE_DONE)
    assert listed.variants[0].artifact == original
    assert [work.source.parent.name for work in api.optimizer.works] == [original, original]


async def test_what_was_found_before_can_be_used_until_there_is_something_new(api: Any, m: Optimized) -> None:
    api.optimizer.gate.set()
    await m.start()
    found = (await m.until(pb.JOB_STATE_DONE)).variants
    api.optimizer.gate.clear()
    await m.start(floor=0.5)
    await m.begun()
    await m.begun()
    assert (await m.listed()).variants == [*found[:1], _not_chosen(found[1]), found[2]]
    assert (await m.use("original")).variant == "original"
    await api.models.CancelOptimization(pb.CancelOptimizationRequest(name="m"))
    assert (await m.use("int8")).variant == "int8"


async def test_a_variant_of_the_last_one_that_serves_on_is_still_listed_and_is_not_taken_for_the_original(
    api: Any, m: Optimized, onnx_model: OnnxModel
) -> None:
    api.optimizer.gate.set()
    await m.start()
    original = (await m.until(pb.JOB_STATE_DONE)).variants[0].artifact
    api.optimizer.answers = [finds(onnx_model(5.0), "", "nothing is inside the floor")]
    await m.start(floor=0.9999)
    listed = await m.until(pb.JOB_STATE_DONE)
    assert [(each.name, each.serves) for each in listed.variants] == [
        ("original", False),
        ("int8", False),
        ("int4", False),
        ("int8-before", True),
    ]
    assert (await api.describe("m")).variant == "int8-before"
    await m.start(floor=0.5)
    assert (await m.until(pb.JOB_STATE_DONE)).variants[0].artifact == original
    assert (await m.use("original")).variant == "original"


async def test_one_that_somebody_uses_while_the_next_are_looked_for_stays(
    api: Any, m: Optimized, onnx_model: OnnxModel
) -> None:
    api.optimizer.gate.set()
    await m.start()
    await m.until(pb.JOB_STATE_DONE)
    await m.begun()
    await m.use("original")
    api.optimizer.gate.clear()
    api.optimizer.answers = [finds(onnx_model(5.0))]
    await m.start(floor=0.5)
    await m.begun()
    async with asyncio.timeout(10):
        while not api.fleet.verifying.locked():
            await api.fleet.verifying.acquire()
        api.fleet.gate.clear()
        using = asyncio.create_task(m.use("int8"))
        await api.fleet.verifying.acquire()
    api.optimizer.gate.set()
    async with asyncio.timeout(10):
        while not api.catalogue.job("m").found:  # noqa: ASYNC110 - the job runs on its own
            await asyncio.sleep(0.002)
    api.fleet.gate.set()
    assert (await using).variant == "int8-before"
    listed = await m.until(pb.JOB_STATE_FAILED)
    assert (
        "variant 'int8' could not be deployed: model 'm': another version was deployed meanwhile" in listed.job.reason
    )
    await api.jobs.tick()
    assert [each.name for each in (await m.listed()).variants if each.serves] == ["int8-before"]
    assert (await m.use("int8")).variant == "int8"


async def test_of_two_that_are_to_be_used_at_once_the_first_serves_and_the_other_is_refused(
    api: Any, m: Optimized
) -> None:
    api.optimizer.gate.set()
    await m.start(keep_original=True)
    await m.until(pb.JOB_STATE_DONE)
    async with asyncio.timeout(10):
        while not api.fleet.verifying.locked():
            await api.fleet.verifying.acquire()
        api.fleet.gate.clear()
        first = asyncio.create_task(m.use("int8"))
        await api.fleet.verifying.acquire()
    second = asyncio.create_task(api.jobs.use("m", "int8"))
    await asyncio.sleep(0)  # It has seen what serves, and waits for its turn.
    api.fleet.gate.set()
    assert (await first).variant == "int8"
    with pytest.raises(FailedPrecondition, match="another version was deployed meanwhile"):
        await second
    assert (await m.use("int8")).variant == "int8"


async def test_a_rollback_to_files_that_are_gone_says_so_and_leaves_what_serves(api: Any, m: Optimized) -> None:
    api.optimizer.gate.set()
    await m.start()
    original = (await m.until(pb.JOB_STATE_DONE)).variants[0].artifact
    shutil.rmtree(api.artifacts.directory / original)
    code, said = await refused(m.use("original"))
    assert (code, "upload the files again" in said) == (Code.INVALID_ARGUMENT, True)
    described = await api.describe("m")
    assert (described.variant, described.last_failure.reason == said) == ("int8", True)


def _not_chosen(variant: pb.Variant) -> pb.Variant:
    changed = pb.Variant()
    changed.CopyFrom(variant)
    changed.chosen = False
    return changed


async def test_a_tenant_changes_models_of_its_own_only(api: Any, m: Optimized) -> None:
    guest = (("x-headrace-tenant", "guest"),)
    use = api.models.UseVariant(pb.UseVariantRequest(name="m", variant="original"), metadata=guest)
    assert (await refused(use))[0] is Code.PERMISSION_DENIED
    optimize = api.models.OptimizeModel(pb.OptimizeModelRequest(name="m", samples="x"), metadata=guest)
    assert (await refused(optimize))[0] is Code.PERMISSION_DENIED


async def test_variants_that_there_are_not_are_refused_with_those_that_there_are(api: Any, m: Optimized) -> None:
    never = (Code.NOT_FOUND, "model 'm' was never optimized, as it is deployed now (`headrace deploy m --optimize`)")
    assert await refused(m.use("int8")) == never
    assert await refused(m.listed()) == never
    api.optimizer.gate.set()
    await m.start()
    await m.until(pb.JOB_STATE_DONE)
    assert await refused(m.use("int4")) == (
        Code.NOT_FOUND,
        "model 'm' has no variant 'int4' that can be used; it has original, int8",
    )
