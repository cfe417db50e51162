"""The output folder: whatever ends a run, the next finds a result that is whole, or none, or is told what to delete."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace_runner.optimizer import folder as folders
from headrace_runner.optimizer import report

Optimize = Callable[..., Any]
Files = dict[str, bytes]


@pytest.fixture
def run(trained: Any, samples: Callable[..., str], optimize: Optimize) -> Optimize:
    path = samples(x=trained.x)

    def run(out: Path, precisions: str = "fp32,fp16") -> Any:
        return optimize(
            trained.path, "--samples", path, "--floor=0.9", "--batches=1", f"--precisions={precisions}", "--out", out
        )

    return run


def files(out: Path) -> Files:
    return {each.name: each.read_bytes() for each in out.iterdir()}


def names(out: Path) -> set[str]:
    """All but the plot, which takes a library that need not be there."""
    return {each.name for each in out.iterdir()} - {"plot.svg"}


def interrupt(*_: object) -> Any:
    raise KeyboardInterrupt


def test_an_interrupted_run_leaves_the_earlier_result_as_it_was(
    run: Optimize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(out)
    before = files(out)
    with monkeypatch.context() as patched:
        patched.setattr(report, "markdown", interrupt)
        assert run(out, "fp32").code == 130
    assert files(out) == before


def test_an_interrupted_first_run_is_not_in_the_way_of_the_next(
    run: Optimize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(report, "markdown", interrupt)
        assert run(out).code == 130
    assert run(out).code == 0


def test_what_a_killed_run_left_half_written_is_cleared_by_the_next(run: Optimize, tmp_path: Path) -> None:
    unfinished = tmp_path / "out" / folders.UNFINISHED
    unfinished.mkdir(parents=True)
    (unfinished / "int8-static.onnx").write_bytes(b"half of it")
    assert run(tmp_path / "out", "fp32").code == 0
    assert names(tmp_path / "out") == {"fp32.onnx", "manifest.json", "report.md"}


@pytest.mark.parametrize("steps", range(5))
def test_a_run_that_is_ended_while_it_puts_its_files_in_place_leaves_nothing_of_it_after_the_next(
    run: Optimize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    out, done = tmp_path / "out", 0
    run(out, "int4")

    def some(source: Path, target: Path) -> None:
        nonlocal done
        if target.parent == out:
            done += 1
            if done > steps:
                raise KeyboardInterrupt
        os.rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(folders.os, "replace", some)
        run(out, "fp32,fp16")
    assert run(out, "fp32").code == 0
    assert names(out) == {"fp32.onnx", "manifest.json", "report.md"}
    assert [each["name"] for each in json.loads((out / "manifest.json").read_bytes())["variants"]] == [
        "original",
        "fp32",
    ]


def test_a_full_disk_is_said_of_the_folder_and_leaves_the_earlier_result(
    run: Optimize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(out)
    before = files(out)

    def full(source: Path, _: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))

    monkeypatch.setattr(shutil, "move", full)
    ran = run(out, "fp32")
    assert (ran.code, ran.err) == (2, f"headrace: --out {out}: cannot be written: No space left on device\n")
    assert files(out) == before


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    run: Optimize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write wherever the file system lets it, so that permissions would prove nothing here.
    monkeypatch.setattr(folders.os, "access", lambda path, _: Path(path) != tmp_path)
    ran = run(tmp_path / "results" / "today")
    assert (ran.code, ran.out) == (2, "")
    assert f"{tmp_path} cannot be written to; name another folder" in ran.err
    assert not (tmp_path / "results").exists()


def test_files_in_the_way_are_named(run: Optimize, tmp_path: Path) -> None:
    for name in ("fp16.onnx", "fp32.onnx"):
        (tmp_path / name).write_bytes(b"")
    ran = run(tmp_path)
    assert "has files in it that are not an earlier result: fp16.onnx, fp32.onnx, samples.npz; delete them" in ran.err
