"""`headrace doctor`: the report for people and for programs; what is in it is tested in tests/runner."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]


def test_people_get_the_machine_the_engines_and_the_commands_that_add_what_is_missing(run: Run) -> None:
    done = run("doctor")

    assert done.code == 0
    lines = [line.split() for line in done.out.splitlines()]
    assert ["ENGINE", "VERSION", "STATE", "DETAIL"] in lines
    assert next(line for line in lines if line[:1] == ["onnxruntime"])[2] == "runs"
    assert "processors:" in done.out
    assert "pip install 'headrace[" in done.out


def test_what_cannot_work_as_configured_is_a_problem_and_the_exit_code(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("autoscaler: {catalog: /nowhere.toml}")
    for_people = run("doctor", "--config", str(tmp_path / "mesh.yaml"))
    for_programs = run("doctor", "--config", str(tmp_path / "mesh.yaml"), "--json")

    assert (for_people.code, for_programs.code) == (1, 1)
    assert "problem: autoscaler.catalog: /nowhere.toml cannot be read\n" in for_people.out
    assert [each["remedy"] for each in json.loads(for_programs.out)["problems"]] == ["name a file of shapes and rates"]
