"""`headrace plan`: what it asks the mesh, what it makes of it, what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.client import methods
from headrace.v1 import models_pb2
from tests.autoscaler.optimised import saved

Run = Callable[..., Any]
MODEL = models_pb2.Model(
    name="ocr",
    versions=[
        {
            "version": "1",
            "state": models_pb2.VERSION_STATE_SERVING,
            "engine": "onnxruntime",
            "profile_us": {1: 10_000, 8: 40_000},
        }
    ],
    traffic={"requests": 1000, "cache_hits": 250, "mean_rate": 2.5, "busiest_rate": 300.0},
    spec={
        "name": "ocr",
        "resources": {"cpu": "1", "memory": "1Gi"},
        "slo": {"nanos": 100_000_000},
        "idle_timeout": {"seconds": 60},
        "response_cache": True,
    },
)
SERVED = models_pb2.Model()
SERVED.CopyFrom(MODEL)
SERVED.traffic.MergeFrom(models_pb2.Traffic(mean_batch=1.2, mean_execution={"nanos": 4_000_000}))
RANGED = models_pb2.Model()
RANGED.CopyFrom(SERVED)
RANGED.spec.max_cpu = "2"
RANGED.instances.add(revision=0, shape={"cpu_millicores": 2000}, profile_us={1: 2_500, 8: 15_000})
QUICK = models_pb2.Model(
    name="ocr-int8",
    versions=[{"version": "1", "state": models_pb2.VERSION_STATE_SERVING, "profile_us": {1: 2_000}}],
    spec={"name": "ocr-int8", "resources": {"cpu": "1", "memory": "1Gi"}},
)


OPTIMISED = models_pb2.Model()
OPTIMISED.CopyFrom(MODEL)
OPTIMISED.job.state = models_pb2.JOB_STATE_DONE
LISTED = models_pb2.ListVariantsResponse(
    job={"optimization": {"floor": 0.98}},
    variants=[
        {"name": "original", "timings": [{"rows": 1, "latency": {"nanos": 10_000_000}}], "engines": ["onnxruntime"]},
        {
            "name": "int8", "timings": [{"rows": 1, "latency": {"nanos": 4_000_000}}], "engines": ["onnxruntime"],
            "quality": "agreement", "share": 0.995, "lower": 0.985, "samples": 1000, "verdict": "fits",
        },
        {
            "name": "int4", "timings": [{"rows": 1, "latency": {"nanos": 1_000_000}}], "engines": ["onnxruntime"],
            "quality": "agreement", "share": 0.9, "lower": 0.88, "samples": 1000, "verdict": "below floor",
        },
        {"name": "int8-symmetric", "engines": ["tensorrt"], "verdict": "too slow"},
        {"name": "fp16", "engines": ["onnxruntime"], "verdict": "disqualified", "reason": "it gave NaN"},
    ],
)  # fmt: skip


@pytest.fixture
def models(mesh: Any) -> None:
    mesh.on(methods.LIST_VARIANTS, lambda _: LISTED)
    known = {
        "optimised": OPTIMISED,
        "ocr": MODEL,
        "ocr-int8": QUICK,
        "served": SERVED,
        "ranged": RANGED,
        "new": models_pb2.Model(name="new"),
    }
    mesh.on(methods.GET_MODEL, lambda request: models_pb2.GetModelResponse(model=known[request.name]))


@pytest.mark.usefixtures("models")
def test_a_model_of_the_mesh_is_planned_with_what_was_measured_of_it(run: Run) -> None:
    done = run("plan", "ocr", "--variant", "ocr-int8", "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert (found["rate"], found["mean_rate"], found["slo_s"]) == (300.0, 2.5, 0.1)
    # Three quarters of 300 are left by the cache; 140 for each instance, of which two fit on a c5.large.
    best = found["options"][0]
    assert (best["shape"], best["instances"], best["nodes"]) == ("c5.large", 2, 1)
    shares = {each["name"]: each["share_of_work"] for each in found["savings"]}
    assert shares == {"batching": 0.5, "response cache": 0.25, "variant": 0.6}


@pytest.mark.usefixtures("models")
def test_what_many_requests_took_goes_before_what_the_load_timed(run: Run) -> None:
    found = json.loads(run("plan", "served", "--json").out)
    assert found["options"][0]["rate_each"] == 175.0, "1 row in 4 ms, 70 % busy; the load said 10 ms"


@pytest.mark.usefixtures("models")
def test_a_model_with_a_range_is_planned_with_every_shape_that_was_measured(run: Run) -> None:
    best = json.loads(run("plan", "ranged", "--json").out)["options"][0]
    assert best["way"] == "ocr with 2 CPUs"
    assert best["rate_each"] > 175.0, "what requests took was of several shapes, and says nothing of one"


@pytest.mark.usefixtures("models")
def test_flags_go_before_what_the_mesh_says(run: Run) -> None:
    found = json.loads(run("plan", "ocr", "--rate", "10", "--slo", "1s", "--hit-rate", "0", "--spot", "--json").out)
    assert (found["rate"], found["slo_s"]) == (10.0, 1.0)
    assert found["options"][0]["class"] == "spot"


@pytest.mark.usefixtures("models")
def test_a_model_without_an_idle_timeout_is_kept_warm_for_the_advisors_minute(run: Run, mesh: Any) -> None:
    def break_even(model: models_pb2.Model) -> float:
        mesh.on(methods.GET_MODEL, models_pb2.GetModelResponse(model=model))
        return float(json.loads(run("plan", "ocr", "--json").out)["payment"]["break_even_rate"])

    unset, minute, second = models_pb2.Model(), models_pb2.Model(), models_pb2.Model()
    for model, seconds in ((unset, None), (minute, 60), (second, 1)):
        model.CopyFrom(MODEL)
        model.spec.ClearField("idle_timeout")
        if seconds is not None:
            model.spec.idle_timeout.FromSeconds(seconds)
    assert break_even(unset) == break_even(minute) < break_even(second)


@pytest.mark.usefixtures("models")
def test_what_came_on_average_is_no_more_than_what_is_to_be_served(run: Run) -> None:
    found = json.loads(run("plan", "ocr", "--rate", "2", "--json").out)
    assert (found["rate"], found["mean_rate"]) == (2.0, 2.0), "2.5 were measured"


def test_a_file_of_measurements_needs_no_mesh(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"ways": [{"name": "x", "latency_us": {"1": 1000}}]}))
    done = run("plan", "--profile", str(path), "--rate", "50", "--plot", str(tmp_path / "p.svg"))
    assert done.code == 0
    assert "c5.large" in done.out
    assert (tmp_path / "p.svg").exists()
    path.write_text(json.dumps({"ways": [{"latency_us": {"1": 1000}}], "rate": 100, "mean_rate": 20}))
    assert json.loads(run("plan", "--profile", str(path), "--rate", "10", "--json").out)["mean_rate"] == 10.0


@pytest.mark.usefixtures("models")
def test_variants_that_the_mesh_has_measured_are_priced(run: Run) -> None:
    found = json.loads(run("plan", "optimised", "--json").out)
    best = next(each for each in found["variants"] if each["best"])
    assert (best["variant"], best["rate_each"], best["saves_share"]) == ("int8", 175.0, 0.6)
    left = {each["variant"]: each["reason"] for each in found["variants_not_priced"]}
    assert "agreement 0.9000 (0.8800 at least, floor 0.98)" in left["int4"]
    assert "nothing was measured of it on tensorrt" in left["int8-symmetric"]
    assert "it gave NaN" in left["fp16"]


def test_what_the_optimiser_measured_needs_no_mesh_either(run: Run, tmp_path: Path) -> None:
    done = run("plan", "--variants", str(saved(tmp_path)), "--rate", "1000", "--json")
    assert (done.code, done.err) == (0, "")
    best = next(each for each in json.loads(done.out)["variants"] if each["best"])
    assert (best["variant"], best["quality"]["kind"]) == ("int8", "agreement")


@pytest.mark.usefixtures("models")
def test_what_the_optimiser_measured_is_priced_at_the_traffic_of_a_deployed_model(run: Run, tmp_path: Path) -> None:
    done = run("plan", "ocr", "--variants", str(saved(tmp_path)))
    assert done.code == 0
    assert "ocr: 300 requests per second" in done.out
    assert "'int8' as measured, on c5.large; agreement 0.9950" in done.out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        pytest.param((), "expected the NAME of a model, --profile FILE, or --variants DIR", id="neither"),
        pytest.param(("ocr", "--profile", "p.json"), "one of the two", id="both"),
        pytest.param(("--profile", "/nowhere.json"), "--profile /nowhere.json: cannot be read", id="no file"),
        pytest.param(("--profile", "p.json", "--variant", "x"), "--variant names a model of the mesh", id="of a file"),
        pytest.param(("ocr", "--slo", "soon"), "--slo: expected a duration", id="slo"),
    ],
)
def test_wrong_usage(run: Run, arguments: tuple[str, ...], part: str) -> None:
    done = run("plan", *arguments)
    assert (done.code, part in done.err) == (2, True), done.err


@pytest.mark.usefixtures("models")
def test_a_model_without_a_version_says_where_to_look(run: Run) -> None:
    done = run("plan", "new")
    assert done.code == 1
    assert "`headrace describe new` shows why" in done.err
