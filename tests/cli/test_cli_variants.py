"""`headrace deploy --optimize` and `headrace variants`: what is sent, what is printed, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.client import methods
from headrace.errors import InvalidArgument
from headrace.v1 import models_pb2 as pb

Run = Callable[..., Any]

MODEL = pb.Model(name="iris", tenant="acme", state=pb.MODEL_STATE_READY, versions=[{"version": "2"}])
DONE = pb.OptimizeJob(
    model="iris", state=pb.JOB_STATE_DONE, reason="int8 is the cheapest", attempts=1, chosen="int8",
    optimization={"floor": 0.99}, automatic=True,
)  # fmt: skip
RUNNING = pb.OptimizeJob(
    model="iris", state=pb.JOB_STATE_RUNNING, stage="timing", stage_done=3, stage_total=18, optimization={"floor": 0.99}
)
QUEUED = pb.OptimizeJob(model="iris", state=pb.JOB_STATE_QUEUED, reason="tenant 'acme' may use 1 CPU and uses 1")
FAILED = pb.OptimizeJob(model="iris", state=pb.JOB_STATE_FAILED, reason="too few samples")
VARIANTS = [
    pb.Variant(
        name="original", verdict="fits", size_bytes=1 << 20, quality="agreement", share=1.0, lower=0.99, upper=1.0,
        samples=400, cpu_per_row={"nanos": 2_000_000}, timings=[{"rows": 1, "latency": {"nanos": 3_000_000}}],
        artifact="a", engines=["onnxruntime"],
    ),
    pb.Variant(
        name="int8", verdict="fits", size_bytes=1 << 18, quality="agreement", share=0.995, lower=0.991, upper=0.998,
        samples=400, cpu_per_row={"nanos": 500_000}, timings=[{"rows": 1, "latency": {"nanos": 1_000_000}}],
        artifact="b", engines=["onnxruntime"], chosen=True, serves=True,
    ),
    pb.Variant(name="int4", verdict="disqualified", reason="no MatMul has weights"),
]  # fmt: skip
LISTED = pb.ListVariantsResponse(job=DONE, variants=VARIANTS)


@pytest.fixture
def files(mesh: Any, tmp_path: Path) -> tuple[str, str]:
    """A model and samples; the mesh takes both."""
    mesh.on(methods.UPLOAD, [pb.UploadArtifactResponse(artifact=each) for each in ("model", "samples")], "stream_unary")
    mesh.on(methods.DEPLOY, pb.DeployModelResponse(model=MODEL))
    mesh.on(methods.GET_MODEL, pb.GetModelResponse(model=MODEL))
    mesh.on(methods.OPTIMIZE_MODEL, pb.OptimizeModelResponse(job=QUEUED))
    (tmp_path / "m.fake.json").write_text("{}")
    np.savez(tmp_path / "samples.npz", x=np.zeros((3, 2)))
    return str(tmp_path / "m.fake.json"), str(tmp_path / "samples.npz")


def test_a_deploy_uploads_both_and_the_original_serves_at_once(mesh: Any, run: Run, files: tuple[str, str]) -> None:
    source, samples = files
    done = run(
        "deploy", source, "--name", "iris", "--tenant", "acme", "--optimize", "--samples", samples, "--labels", "digit",
        "--floor", "0.95", "--latency", "20ms", "--precisions", "fp16,int8", "--prune", "0.3,0.5", "--keep-original",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "deployed iris version 2 for tenant acme: ready",
        "optimizing iris: see `headrace variants iris`",
    ]
    [deploy] = mesh.requests(methods.DEPLOY)
    assert (deploy.model.artifact, deploy.wait) == ("model", True)
    assert [parts[0].file.path for parts in mesh.requests(methods.UPLOAD)] == ["model.fake.json", "samples.npz"]
    assert mesh.requests(methods.OPTIMIZE_MODEL) == [
        pb.OptimizeModelRequest(
            name="iris",
            samples="samples",
            optimization={
                "labels": "digit",
                "floor": 0.95,
                "latency": {"nanos": 20_000_000},
                "precisions": ["fp16", "int8"],
                "prune": [0.3, 0.5],
                "keep_original": True,
            },
        )
    ]


def test_a_deployed_model_is_optimized_by_its_name_and_not_deployed_again(
    mesh: Any, run: Run, files: tuple[str, str]
) -> None:
    mesh.on(methods.UPLOAD, pb.UploadArtifactResponse(artifact="samples"), "stream_unary")
    done = run("deploy", "iris", "--optimize", "--samples", files[1])
    assert (done.code, done.out) == (0, "optimizing iris: see `headrace variants iris`\n")
    assert mesh.requests(methods.DEPLOY) == []
    assert mesh.requests(methods.OPTIMIZE_MODEL) == [
        pb.OptimizeModelRequest(name="iris", samples="samples", optimization={})
    ]
    assert "x-headrace-tenant" not in mesh.seen[methods.OPTIMIZE_MODEL.path][0].metadata


def test_with_wait_it_follows_the_job_and_prints_what_it_found(
    mesh: Any, run: Run, files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.cli.variants._POLL_S", 0.0)
    further = pb.OptimizeJob(state=pb.JOB_STATE_RUNNING, stage="timing", stage_done=4, stage_total=18)
    jobs = [pb.OptimizeJob(state=pb.JOB_STATE_QUEUED), QUEUED, QUEUED, RUNNING, further]
    mesh.on(methods.LIST_VARIANTS, [*(pb.ListVariantsResponse(job=each) for each in jobs), LISTED])
    done = run("deploy", files[0], "--name", "iris", "--optimize", "--samples", files[1], "--wait")
    assert done.code == 0
    assert done.err.splitlines() == [
        "optimization queued",
        "optimization queued: tenant 'acme' may use 1 CPU and uses 1",
        "optimization running: timing",
    ], "a line for what changed, and none for how far it is"
    assert done.out.splitlines()[1:] == [
        "        VARIANT   SIZE   AGREEMENT  95% INTERVAL   CPU/ROW  P50   VERDICT  ENGINES",
        "-       original  1Mi    1.0000     0.9900-1.0000  2 ms     3 ms  fits     onnxruntime",
        "serves  int8      256Ki  0.9950     0.9910-0.9980  0.5 ms   1 ms  chosen   onnxruntime",
        "",
        "optimization done: int8 is the cheapest",
        "the mesh goes on choosing, by what variants measure where they serve",
        "int4: no MatMul has weights",
    ]


@pytest.mark.parametrize(
    ("automatic", "switched", "lines"),
    [
        (True, "", ["the mesh goes on choosing, by what variants measure where they serve"]),
        (
            True,
            "original serves: it is faster",
            ["original serves: it is faster", "the mesh goes on choosing"],
        ),
        (False, "", ["chosen by hand; `headrace variants iris --use auto` has the mesh choose"]),
    ],
    ids=["the mesh", "the mesh again", "somebody"],
)
def test_who_chooses_what_serves_is_said(mesh: Any, run: Run, automatic: bool, switched: str, lines: list[str]) -> None:
    job = pb.OptimizeJob()
    job.CopyFrom(DONE)
    job.automatic, job.switched = automatic, switched
    mesh.on(methods.LIST_VARIANTS, pb.ListVariantsResponse(job=job, variants=VARIANTS))
    shown = run("variants", "iris").out.splitlines()
    said = shown[shown.index("optimization done: int8 is the cheapest") + 1 : -1]
    assert len(said) == len(lines)
    assert all(line.startswith(start) for line, start in zip(said, lines, strict=True))


@pytest.mark.parametrize(
    ("job", "code", "line"),
    [
        (DONE, 0, "optimization done: int8 is the cheapest"),
        (pb.OptimizeJob(state=pb.JOB_STATE_DONE, reason="nothing fits"), 1, "optimization done: nothing fits"),
        (FAILED, 1, "optimization failed: too few samples"),
        (pb.OptimizeJob(state=pb.JOB_STATE_CANCELLED, reason="it was cancelled"), 1, "optimization cancelled: it was"),
    ],
)
def test_waiting_ends_well_only_where_a_variant_was_chosen(
    mesh: Any, run: Run, job: pb.OptimizeJob, code: int, line: str
) -> None:
    mesh.on(methods.LIST_VARIANTS, pb.ListVariantsResponse(job=job))
    done = run("variants", "iris", "--wait")
    assert (done.code, done.out.startswith(line)) == (code, True), done.out


@pytest.mark.parametrize(
    ("job", "line"),
    [
        (QUEUED, "optimization queued: tenant 'acme' may use 1 CPU and uses 1"),
        (RUNNING, "optimization running: timing, 3 of 18"),
        (FAILED, "optimization failed: too few samples"),
    ],
)
def test_how_far_it_is_is_listed_and_described(mesh: Any, run: Run, job: pb.OptimizeJob, line: str) -> None:
    mesh.on(methods.LIST_VARIANTS, pb.ListVariantsResponse(job=job))
    assert run("variants", "iris").out == f"{line}\n"
    described = pb.Model(name="iris", job=job, variant="original")
    mesh.on(methods.GET_MODEL, pb.GetModelResponse(model=described))
    out = run("describe", "iris").out
    assert line.removeprefix("optimization ") in out
    assert "variant:" in out
    shown = json.loads(run("describe", "iris", "--json").out)
    assert (shown["variant"], shown["job"]["reason"]) == ("original", job.reason)


def test_variants_are_listed_as_json(mesh: Any, run: Run) -> None:
    mesh.on(methods.LIST_VARIANTS, LISTED)
    shown = json.loads(run("variants", "iris", "--json").out)
    assert shown["job"]["chosen"] == "int8"
    assert [(each["name"], each["serves"], each["usable"], each["share"]) for each in shown["variants"]] == [
        ("original", False, True, 1.0),
        ("int8", True, True, 0.995),
        ("int4", False, False, None),
    ]
    assert shown["variants"][1]["cpu_per_row_ms"] == 0.5


def test_using_one_and_cancelling_are_flags(mesh: Any, run: Run) -> None:
    mesh.on(methods.USE_VARIANT, pb.UseVariantResponse(model=MODEL))
    mesh.on(methods.CANCEL_OPTIMIZATION, pb.CancelOptimizationResponse(job=FAILED))
    mesh.on(methods.LIST_VARIANTS, LISTED)
    assert run("variants", "iris", "--use", "original").code == 0
    assert mesh.requests(methods.USE_VARIANT) == [pb.UseVariantRequest(name="iris", variant="original")]
    assert run("variants", "iris", "--cancel").code == 0
    assert mesh.requests(methods.CANCEL_OPTIMIZATION) == [pb.CancelOptimizationRequest(name="iris")]


def test_samples_that_the_mesh_refuses_are_its_word(mesh: Any, run: Run, files: tuple[str, str]) -> None:
    mesh.on(methods.OPTIMIZE_MODEL, InvalidArgument("samples: array 'x' is float64; expected float32"))
    done = run("deploy", files[0], "--name", "iris", "--optimize", "--samples", files[1])
    assert (done.code, done.err) == (1, "headrace: samples: array 'x' is float64; expected float32\n")


def test_a_deploy_is_shown_as_json(mesh: Any, run: Run, files: tuple[str, str]) -> None:
    assert json.loads(run("deploy", files[0], "--name", "iris", "--json").out)["name"] == "iris"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--name", "iris", "--optimize"), "--optimize: expected --samples FILE.npz as well"),
        (("--name", "iris", "--floor", "0.9"), "--floor: expected --optimize as well"),
        (("--name", "iris", "--keep-original", "--samples", "S"), "--samples, --keep-original: expected --optimize"),
        (("--optimize", "--samples", "no/such.npz"), "no/such.npz: expected an .npz file of samples"),
        (("--optimize", "--samples", "S", "--floor", "1"), "--floor: expected a share above 0 and below 1"),
        (("--optimize", "--samples", "S", "--prune", "x"), "--prune: expected a share above 0 and below 1"),
        (("--optimize", "--samples", "S", "--latency", "fast"), "--latency"),
        (("--optimize", "--samples", "S", "--precisions", "int3"), "--precisions: expected some of fp32, fp16"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(
    mesh: Any, run: Run, files: tuple[str, str], arguments: tuple[str, ...], said: str
) -> None:
    done = run("deploy", files[0], *(files[1] if each == "S" else each for each in arguments))
    assert (done.code, said in done.err, len(done.err.splitlines())) == (2, True, 1), done.err
    assert not mesh.seen


def test_one_thing_at_a_time(mesh: Any, run: Run) -> None:
    done = run("variants", "iris", "--use", "int8", "--cancel")
    assert (done.code, done.err) == (2, "headrace: --use and --cancel: expected one of them\n")
    assert not mesh.seen


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["iris", "--max-batch", "4", "--cpu=2"], "--max-batch, --cpu: a model that is deployed is optimized as it is"),
        (["iris", "--tenant", "acme"], "--tenant: a model that is deployed"),
        (["models/iris.onnx"], "models/iris.onnx: expected the name of a deployed model, or --name NAME"),
    ],
)
def test_flags_that_would_change_nothing_are_refused(
    mesh: Any, run: Run, files: tuple[str, str], arguments: list[str], said: str
) -> None:
    done = run("deploy", *arguments, "--optimize", "--samples", files[1])
    assert (done.code, said in done.err) == (2, True), done.err
