"""`headrace plan --variants`: prices of what the optimiser measured, worked out by hand; what is no such document."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace_autoscaler.advisor.question import read_question
from headrace_autoscaler.advisor.results import read_results
from headrace_autoscaler.core.allocator.advice import Advice, advise
from headrace_autoscaler.shape_catalog import load_catalog
from headrace_common.errors import InvalidArgument
from tests.autoscaler.optimised import document, saved

ASKED = {"rate": 1000, "mean_rate": 100, "slo": "100ms", "utilisation": 0.5}
DEPLOYED = {"ways": [{"name": "ocr", "cpu": "1", "memory": "2Gi", "latency_us": {"1": 10000, "8": 40000}}]}


def asked(folder: Path, **more: Any) -> Advice:
    return advise(read_question(json.dumps(ASKED | more), "p.json", read_results(folder)), load_catalog())


def test_each_variant_inside_its_floor_is_priced_on_each_shape(tmp_path: Path) -> None:
    advice = asked(saved(tmp_path))
    priced = {(each.variant, each.option.shape): each for each in advice.variants.priced}
    shapes = {"c5.large", "c5.xlarge", "c5.2xlarge", "g4dn.xlarge", "g4dn.2xlarge", "p3.2xlarge"}
    assert set(priced) == {(variant, shape) for variant in ("original", "fp16", "int8") for shape in shapes}
    # 100 for each original and 200 for each int8, two on a node of 0.0527 an hour, 720 hours.
    original, int8 = priced["original", "c5.large"], priced["int8", "c5.large"]
    assert (original.option.instances, original.option.nodes, original.micros_per_month) == (10, 5, 5 * 52_700 * 720)
    assert (int8.option.instances, int8.option.nodes, int8.micros_per_month) == (5, 3, 3 * 52_700 * 720)
    assert (int8.saved_micros_per_month, int8.share) == (2 * 52_700 * 720, 0.5)
    assert (original.saved_micros_per_month, original.quality) == (None, None)
    assert str(int8.quality) == "agreement 0.9950 (0.9883 at least, floor 0.98)"
    assert advice.variants.cheapest == int8
    assert priced["fp16", "c5.large"].saved_micros_per_month == 0
    assert priced["int8", "p3.2xlarge"].saved_micros_per_month == (5 * 52_700 - 1_897_200) * 720, "it costs more there"


def test_what_may_not_be_used_says_why(tmp_path: Path) -> None:
    left = {each.variant: each.reason for each in asked(saved(tmp_path)).variants.unpriced}
    assert left == {
        "int4": "variant 'int4' is not good enough: agreement 0.9000 (0.8798 at least, floor 0.98)",
        "pruned-50": "variant 'pruned-50' is not good enough: it gave NaN",
        "int8-symmetric": "nothing was measured of it on tensorrt: deploy it where that runs, and name it with "
        "--variant",
    }


def test_a_variant_that_cannot_be_told_from_its_floor_is_not_priced(tmp_path: Path) -> None:
    found = document()
    found["floor"] = 0.99
    assert "int8" in {each.variant for each in asked(saved(tmp_path, found)).variants.unpriced}


def test_without_a_mesh_or_a_profile_the_original_is_how_the_model_runs(tmp_path: Path) -> None:
    advice = asked(saved(tmp_path))
    assert advice.question.model == "ocr"
    assert advice.best is not None
    assert (advice.best.way, advice.best.instances) == ("original", 10)


def test_an_instance_of_a_variant_holds_the_memory_of_the_models(tmp_path: Path) -> None:
    advice = asked(saved(tmp_path), **DEPLOYED)
    assert advice.best is not None
    assert advice.best.way == "ocr"
    held = {way.name: way.resources for way in (*advice.question.variants, *advice.question.original)}
    assert {each.memory_bytes for each in held.values()} == {2 << 30}
    assert {each.cpu_millicores for each in held.values()} == {1000}, "one for each thread that it was timed with"


def test_a_variant_is_compared_with_what_was_timed_beside_it(tmp_path: Path) -> None:
    quick = {"ways": [{"name": "ocr", "cpu": "1", "memory": "2Gi", "latency_us": {"8": 10000}}]}
    advice = asked(saved(tmp_path), **quick)
    assert advice.variants.cheapest is not None
    assert advice.variants.cheapest.share == 0.5, "of the original that the optimiser timed"
    [saving] = [each for each in advice.savings if each.name == "variant"]
    assert "as deployed the model costs less, on c5.large" in saving.why


def test_an_objective_that_a_variant_meets_and_the_original_does_not(tmp_path: Path) -> None:
    advice = asked(saved(tmp_path), slo="8ms")
    assert advice.best is None
    assert advice.variants.cheapest is not None
    assert (advice.variants.cheapest.variant, advice.variants.cheapest.saved_micros_per_month) == ("int8", None)


def test_a_question_may_bring_the_original_that_variants_were_timed_beside() -> None:
    way = {"cpu": "1", "memory": "1Gi"}
    found = DEPLOYED | {
        "original": [way | {"name": "original", "latency_us": {"1": 4000}}],
        "variants": [way | {"name": "int8", "latency_us": {"1": 2000}}],
    }
    priced = advise(read_question(json.dumps(ASKED | found), "p.json"), load_catalog()).variants
    assert priced.cheapest is not None
    assert priced.cheapest.share == 0.5


Break = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("breaks", "parts"),
    [
        pytest.param(lambda d: d.update(format=0), ["has format 0", "reads 1", "make it again"], id="old"),
        pytest.param(lambda d: d.update(format=2), ["has format 2", "reads 1"], id="new"),
        pytest.param(lambda d: d.pop("format"), ["is no result of `headrace optimize`", "--samples"], id="other"),
        pytest.param(lambda d: d.pop("machine"), ["machine", "Field required"], id="missing"),
        pytest.param(lambda d: d["variants"][1]["timings"][0].update(rows=0), ["variants.1.timings.0.rows"], id="rows"),
        pytest.param(lambda d: d["variants"][1]["timings"][0].update(latency_s=-1), ["latency_s", "-1"], id="time"),
        pytest.param(lambda d: d["variants"][1]["quality"].update(share=float("nan")), ["share"], id="NaN"),
        pytest.param(lambda d: d["variants"].pop(0), ["one is 'original'"], id="no original"),
        pytest.param(lambda d: d["variants"].append(d["variants"][1]), ["names that differ"], id="twice"),
        pytest.param(lambda d: d["variants"][0].update(timings=[]), ["original", "no timings"], id="original untimed"),
    ],
)  # fmt: skip
def test_a_document_that_is_none_is_refused_with_what_makes_one(
    tmp_path: Path, breaks: Break, parts: list[str]
) -> None:
    found = document()
    breaks(found)
    with pytest.raises(InvalidArgument) as refusal:
        asked(saved(tmp_path, found))
    for part in [f"--variants {tmp_path / 'manifest.json'}", *parts]:
        assert part in refusal.value.message


@pytest.mark.parametrize(
    ("content", "part"),
    [
        pytest.param(None, "there is no such file: `headrace optimize", id="none"),
        pytest.param("{", "cannot be read as JSON", id="broken"),
        pytest.param("[]", "is no result of `headrace optimize`", id="list"),
        pytest.param('{"format": 1, "engine": "tensorrt"}', "is no result of `headrace optimize`", id="a plan's"),
    ],
)
def test_a_folder_without_a_result_says_what_to_run(tmp_path: Path, content: str | None, part: str) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InvalidArgument, match=r"manifest\.json") as refusal:
        read_results(tmp_path)
    assert part in refusal.value.message


def advisor(*arguments: str, **question: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace_autoscaler.advisor", *arguments]
    given = json.dumps(ASKED | question)
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)


def test_the_table_and_the_pictures_show_the_variants(tmp_path: Path) -> None:
    folder = str(saved(tmp_path / "out"))
    pictures = [".svg", ".html", *([".png"] if importlib.util.find_spec("matplotlib") else [])]
    for end in pictures:
        done = advisor("--variants", folder, "--top", "2", "--plot", str(tmp_path / f"p{end}"))
        assert (done.returncode, done.stderr) == (0, "")
        rows = [line.split() for line in done.stdout.splitlines()]
        assert ["*", "int8", "c5.large", "reserved", "5", "3", "200.0", "8", "113.83", "75.89", "-50%"] in [
            row[:11] for row in rows
        ]
        assert "'int4' is not good enough: agreement 0.9000" in done.stdout
        assert {row[0] for row in rows if row} >= {"original", "fp16"}, "the cheapest of each, whatever --top says"
    for end in (".svg", ".html"):
        drawn = (tmp_path / f"p{end}").read_text()
        assert "int8: 113.83 (5 on 3 c5.large, reserved; agreement 0.9950" in drawn
        assert "original: 189.72" in drawn


def test_the_document_on_standard_output_may_be_saved_as_any_file(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text(json.dumps(document()))
    found = json.loads(advisor("--variants", str(path), "--json").stdout)
    best = next(each for each in found["variants"] if each["best"])
    assert (best["variant"], best["per_month"], best["saves_per_month"]) == ("int8", "113.832", "75.888")
    assert best["quality"]["floor"] == 0.98
    assert {each["variant"] for each in found["variants_not_priced"]} == {"int4", "pruned-50", "int8-symmetric"}


def test_measured_variants_in_a_profile_have_engines_and_floors_too() -> None:
    way = {"cpu": "1", "memory": "1Gi", "latency_us": {"1": 1000}}
    variants = [
        way | {"name": "int8", "quality": {"share": 0.995, "floor": 0.99}, "engine": "onnxruntime"},
        way | {"name": "int4", "quality": {"share": 0.95, "floor": 0.9}, "outside": "it is undecided"},
        way | {"name": "int2", "quality": {"kind": "agreement", "share": 0.95, "lower": 0.89, "floor": 0.9}},
        way | {"name": "plan", "engine": "tensorrt", "gpu_architectures": ["sm_75"], "gpu": "1", "gpu_memory": "1Gi"},
    ]
    question = read_question(json.dumps(ASKED | DEPLOYED | {"variants": variants}), "p.json")
    found = advise(question, load_catalog()).variants
    assert {each.option.shape for each in found.priced if each.variant == "plan"} == {"g4dn.xlarge", "g4dn.2xlarge"}
    assert {each.variant: each.reason.partition(": ")[2] for each in found.unpriced if not each.shapes} == {
        "int4": "it is undecided",
        "int2": "agreement 0.9500 (0.8900 at least, floor 0.9)",
    }
    assert {str(each.quality) for each in found.priced if each.variant == "int8"} == {"accuracy 0.9950 (floor 0.99)"}
