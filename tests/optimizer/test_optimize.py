"""Whole runs on a small model, through the program."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from headrace_runner.optimizer import building, picture
from headrace_runner.optimizer.core.recipes import Recipe

Optimize = Callable[..., Any]
SavesSamples = Callable[..., str]


def test_variants_are_made_measured_and_kept(
    trained: Any, samples: SavesSamples, optimize: Optimize, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran = optimize(trained.path, "--samples", samples(x=trained.x), "--floor=0.9", "--prune=0.5", "--out", out)
    assert ran.code == 0, ran.err
    names = [each["name"] for each in ran.found["variants"]]
    assert names == ["original", "fp32", "fp16", "int8-static", "int8-percentile", "int8-edges", "int8-symmetric",
                     "int8-dynamic", "int4", "pruned-50"]  # fmt: skip
    assert [each["verdict"] for each in ran.found["variants"]].count("disqualified") == 0
    assert ran.variant("original")["quality"]["share"] == 1.0
    assert ran.variant("int8-static")["size_bytes"] < 0.6 * ran.variant("original")["size_bytes"]
    assert ran.variant("int8-static")["quality"]["lower"] > 0.9
    assert [each["rows"] for each in ran.variant("int4")["timings"]] == [1, 8, 32]
    assert ran.found["samples"] == {"calibrating": 256, "measuring": 944, "repeated": 0}
    assert json.loads((out / "manifest.json").read_text()) == ran.found
    for each in ran.found["variants"][1:]:
        content = (out / each["file"]["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == each["file"]["sha256"]
        assert len(content) == each["size_bytes"]
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        assert session.run(None, {"x": trained.x[:3]})[0].dtype == np.float32
    report = (out / "report.md").read_text()
    assert ran.found["reason"] in report
    assert all(f"`{name}`" in report for name in names)


def test_a_second_run_replaces_the_first(
    trained: Any, samples: SavesSamples, optimize: Optimize, tmp_path: Path
) -> None:
    arguments = (trained.path, "--samples", samples(x=trained.x), "--floor=0.9", "--out", tmp_path / "out")
    assert optimize(*arguments, "--precisions=fp16").code == 0
    assert optimize(*arguments, "--precisions=fp32").code == 0
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert [each["name"] for each in manifest["variants"]] == ["original", "fp32"]


def test_a_second_run_leaves_its_own_variants_and_what_is_not_of_the_first(
    trained: Any, samples: Callable[..., str], optimize: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = (trained.path, "--samples", samples(x=trained.x), "--floor=0.9", "--out", out)
    optimize(*arguments, "--precisions=fp32,fp16", "--prune=0.3")
    (out / "notes.txt").write_text("mine")
    (out / "original.onnx").write_text("mine too")
    (out / "pruned-30.onnx").write_text("trained again")
    optimize(*arguments, "--precisions=fp32")
    kept = {each.name for each in out.iterdir()} - {"plot.svg"}
    assert kept == {"fp32.onnx", "manifest.json", "report.md", "notes.txt", "original.onnx", "pruned-30.onnx"}


def test_a_manifest_that_names_files_elsewhere_removes_none(
    trained: Any, samples: Callable[..., str], optimize: Callable[..., Any], tmp_path: Path
) -> None:
    out, mine = tmp_path / "out", tmp_path / "mine.onnx"
    out.mkdir()
    mine.write_bytes(b"mine")
    file = {"name": "../mine.onnx", "sha256": hashlib.sha256(b"mine").hexdigest()}
    (out / "manifest.json").write_text(json.dumps({"variants": [{"file": file}]}))
    ran = optimize(trained.path, "--samples", samples(x=trained.x), "--floor=0.9", "--precisions=fp32", "--out", out)
    assert ran.code == 0
    assert mine.exists()


def test_a_folder_with_something_else_in_it_is_left_alone(
    trained: Any, samples: SavesSamples, optimize: Optimize, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("chapter one")
    ran = optimize(trained.path, "--samples", samples(x=trained.x), "--out", tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert "has files in it that are not an earlier result: samples.npz, thesis.txt; delete them" in ran.err


def test_without_matplotlib_the_report_says_why_it_has_no_plot(
    trained: Any, samples: SavesSamples, optimize: Optimize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture, "can_draw", lambda: False)
    optimize(
        trained.path, "--samples", samples(x=trained.x), "--floor=0.9", "--precisions=fp32", "--out", tmp_path / "out"
    )
    assert "There is no plot: matplotlib is not installed" in (tmp_path / "out/report.md").read_text()
    assert not (tmp_path / "out/plot.svg").exists()


def test_with_labels_accuracy_is_measured_of_the_original_too(
    trained: Any, samples: SavesSamples, optimize: Optimize
) -> None:
    wrong = np.arange(len(trained.labels)) % 10 == 0
    labels = np.where(wrong, (trained.labels + 1) % 3, trained.labels)
    path = samples(x=trained.x, kind=labels)
    arguments = (trained.path, "--samples", path, "--labels=kind", "--precisions=fp32")
    ran = optimize(*arguments, "--floor=0.8")
    assert ran.code == 0
    assert ran.found["quality"] == "accuracy"
    assert ran.variant("original")["quality"]["share"] == pytest.approx(0.9, abs=0.05)
    impossible = optimize(*arguments, "--floor=0.95")
    assert impossible.code == 1
    assert impossible.found["chosen"] is None
    assert "Nothing is inside the floor 0.95, the original included: ask for a lower --floor" in impossible.out


def test_a_latency_that_nothing_meets(trained: Any, samples: SavesSamples, optimize: Optimize) -> None:
    path = samples(x=trained.x)
    ran = optimize(trained.path, "--samples", path, "--floor=0.9", "--latency=0.0001us", "--precisions=fp32")
    assert ran.code == 1
    assert {each["verdict"] for each in ran.found["variants"]} == {"too slow"}


def test_a_model_for_batches_of_one_size_is_measured_at_that_size(
    fixed_batch: Path, trained: Any, samples: SavesSamples, optimize: Optimize
) -> None:
    ran = optimize(fixed_batch, "--samples", samples(x=trained.x[:1001]), "--floor=0.9", "--precisions=fp32,int8")
    assert ran.code == 0, ran.err
    assert all([timing["rows"] for timing in each["timings"]] == [4] for each in ran.found["variants"])
    assert ran.variant("int8-static")["quality"]["samples"] == 751


def test_calibration_samples_need_not_fill_their_last_batch(
    trained: Any, samples: SavesSamples, optimize: Optimize
) -> None:
    ran = optimize(trained.path, "--samples", samples(x=trained.x[:507]), "--floor=0.9", "--precisions=int8")
    assert ran.found["samples"]["calibrating"] == 126
    assert "disqualified" not in {each["verdict"] for each in ran.found["variants"]}


def test_a_triton_directory_gives_its_newest_version(
    trained: Any, samples: SavesSamples, optimize: Optimize, tmp_path: Path
) -> None:
    for version in ("2", "10"):
        (tmp_path / "kinds" / version).mkdir(parents=True)
    (tmp_path / "kinds/2/model.onnx").write_bytes(b"old")
    (tmp_path / "kinds/10/model.onnx").write_bytes(trained.path.read_bytes())
    ran = optimize(tmp_path / "kinds", "--samples", samples(x=trained.x), "--floor=0.9", "--precisions=fp32")
    assert ran.code == 0, ran.err


def test_what_a_library_cannot_do_is_reported_in_its_words_and_the_rest_goes_on(
    trained: Any, samples: SavesSamples, optimize: Optimize, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(recipe: Recipe, *_: object) -> None:
        raise RuntimeError(f"no kernel for {recipe.precision}")

    monkeypatch.setitem(building._MAKERS, building.Method.CAST, refuse)
    ran = optimize(trained.path, "--samples", samples(x=trained.x), "--floor=0.9", "--precisions=fp32,fp16")
    assert ran.code == 0
    assert ran.variant("fp16")["verdict"] == "disqualified"
    assert ran.variant("fp16")["reason"] == "onnxruntime.transformers.float16: RuntimeError: no kernel for fp16"
    assert ran.variant("fp32")["verdict"] == "fits"


def _exponential(path: Path, factor: float) -> Path:
    """y = exp(factor x), element by element."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["h"]), helper.make_node("Exp", ["h"], ["y"])],
        "exponential",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])],
        [helper.make_tensor("w", TensorProto.FLOAT, [16], [factor] * 16)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def test_what_overflows_is_disqualified(
    trained: Any, samples: SavesSamples, optimize: Optimize, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(_recipe: Recipe, model: onnx.ModelProto, _batches: object, target: Path) -> None:
        tensor = model.graph.initializer[0]
        weights = numpy_helper.to_array(tensor) * np.float32(1e38)
        weights[0, 0] = 0.0
        tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
        onnx.save(model, str(target))

    # ONNX Runtime computes fp16 in fp32 on most processors, so what overflows on others does not here.
    monkeypatch.setitem(building._MAKERS, building.Method.CAST, overflow)
    ran = optimize(trained.path, "--samples", samples(x=trained.x), "--floor=0.9", "--precisions=fp16")
    assert ran.variant("fp16")["verdict"] == "disqualified"
    assert "output 'y' has NaN or infinity in" in ran.variant("fp16")["reason"]
    assert ran.found["chosen"] == "original"


def test_a_model_without_layers_has_nothing_to_quantise(
    trained: Any, samples: SavesSamples, optimize: Optimize, tmp_path: Path
) -> None:
    model = _exponential(tmp_path / "small.onnx", 1.0)
    ran = optimize(model, "--samples", samples(x=trained.x), "--floor=0.9", "--precisions=int4,int8", "--prune=0.5")
    assert ran.variant("int4")["reason"] == "no part of this model can be held in int4 this way"
    assert "layers with weights" in ran.variant("int8-edges")["reason"]
    assert ran.variant("pruned-50")["reason"] == "no layer of this model has weights to prune"


def test_pruning_zeroes_the_smallest_weights_of_each_layer(
    trained: Any, samples: SavesSamples, optimize: Optimize, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    optimize(
        trained.path, "--samples", samples(x=trained.x), "--floor=0.5", "--precisions=fp32", "--prune=0.3", "--out", out
    )
    before = [numpy_helper.to_array(each) for each in onnx.load(str(out / "fp32.onnx")).graph.initializer]
    after = [numpy_helper.to_array(each) for each in onnx.load(str(out / "pruned-30.onnx")).graph.initializer]
    for old, new in zip(before, after, strict=True):
        assert (new == 0).sum() == int(0.3 * old.size)
        assert np.abs(old[new == 0]).max() <= np.abs(new[new != 0]).min()
        assert (old[new != 0] == new[new != 0]).all()
