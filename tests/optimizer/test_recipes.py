from __future__ import annotations

import pytest

from headrace_runner.optimizer.core.recipes import PRECISIONS, plan


@pytest.mark.parametrize(
    ("precisions", "pruned", "names"),
    [
        (["fp32"], [], ["fp32"]),
        (["int4", "fp16"], [], ["fp16", "int4"]),
        (["int8"], [], ["int8-static", "int8-percentile", "int8-edges", "int8-symmetric", "int8-dynamic"]),
        ([], [0.5, 0.3, 0.5], ["pruned-30", "pruned-50"]),
        ([], [], []),
    ],
)
def test_the_recipes_for_what_was_asked(precisions: list[str], pruned: list[float], names: list[str]) -> None:
    assert [each.name for each in plan(precisions, pruned)] == names


def test_each_has_a_name_of_its_own_and_runs_where_it_is_measured() -> None:
    recipes = plan(PRECISIONS, [0.5])
    assert len({each.name for each in recipes}) == len(recipes)
    assert all("onnxruntime" in each.engines for each in recipes)
    assert [each.name for each in recipes if "tensorrt" in each.engines] == [
        "fp32",
        "fp16",
        "int8-symmetric",
        "pruned-50",
    ]
