"""`headrace compile`: flags in, a table or JSON out; what it makes is tested in tests/runner."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from headrace.cli.plain_compiling import plain

Run = Callable[..., Any]
needs_tensorrt_rtx = pytest.mark.skipif(
    find_spec("tensorrt_rtx_bindings") is None, reason="needs TensorRT-RTX: pip install 'headrace[tensorrt-rtx]'"
)


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Rows and columns of any number."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "columns"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "columns"])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    path = tmp_path / "relu.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    return str(path)


@needs_tensorrt_rtx
def test_plans_are_listed_with_where_they_are_and_whether_they_were_built(run: Run, model: str, tmp_path: Path) -> None:
    arguments = ["compile", model, "--target", "sm_86,sm_120", "--out", str(tmp_path / "out"), "--name", "cutoff"]
    arguments += ["--shape", "x=1x4:8x4:64x16", "--cache", str(tmp_path / "cache")]
    first = run(*arguments)
    again = run(*arguments, "--json")

    assert (first.code, again.code) == (0, 0)
    heading, *rows = first.out.splitlines()
    assert heading.split() == ["TARGET", "PLAN", "MIB", "PRECISION", "BUILT"]
    assert [row.split()[:2] for row in rows] == [
        [target, str(tmp_path / "out" / f"cutoff.{target}.plan")] for target in ("sm_86", "sm_120")
    ]
    plans = json.loads(again.out)
    assert [(plan["target"], plan["cached"]) for plan in plans] == [("sm_86", True), ("sm_120", True)]
    assert plans[0]["manifest"]["profile"] == {"x": {"min": [1, 4], "opt": [8, 4], "max": [64, 16]}}


@needs_tensorrt_rtx
def test_what_is_refused_is_told_by_the_exit_code_and_leaves_nothing(run: Run, model: str, tmp_path: Path) -> None:
    done = run("compile", model, "--target", "sm_86", "--out", str(tmp_path / "out"), "--no-cache")

    assert (done.code, done.out) == (2, "")
    assert not (tmp_path / "out").exists()


AS_USUAL = ["m.onnx", "--target", "sm_86", "--out", "o"]


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        pytest.param(AS_USUAL, (AS_USUAL, False), id="as usual"),
        pytest.param([*AS_USUAL, "--json", "--no-cache"], ([*AS_USUAL, "--no-cache"], True), id="flags"),
        pytest.param([*AS_USUAL, "--help"], None, id="help"),
        pytest.param([*AS_USUAL, "--shape"], None, id="a value is missing"),
        pytest.param([*AS_USUAL, "--name", "--json"], None, id="a flag for a value"),
        pytest.param([*AS_USUAL, "--cache", ""], None, id="an empty value"),
        pytest.param([*AS_USUAL, "--batch=1:8"], None, id="joined"),
        pytest.param([*AS_USUAL, "--verb"], None, id="shortened"),
        pytest.param([*AS_USUAL, "n.onnx"], None, id="two models"),
        pytest.param(AS_USUAL[:3], None, id="no folder"),
    ],
)
def test_only_what_can_be_read_in_one_way_is_read_without_typer(arguments: list[str], given: Any) -> None:
    assert plain(arguments) == given
