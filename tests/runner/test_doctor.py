"""`headrace doctor`: what is said of a machine, and of a configuration that cannot work on it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace_common.config import parse_mesh_config
from headrace_common.gpu_facts import Gpu
from headrace_runner.core.diagnosis import EngineReport, Finding, Problem, engine_problems, engine_reports
from headrace_runner.doctor.__main__ import main
from headrace_runner.doctor.configured import mesh_problems
from headrace_runner.doctor.library import examine

ENGINES = ("onnxruntime", "torch", "tensorrt", "tensorrt-rtx")
NO_DRIVER = "there is no NVIDIA driver"
L4, H100 = Gpu("NVIDIA L4", 89), Gpu("NVIDIA H100", 90)
PROVIDERS = ["CUDAExecutionProvider", "CPUExecutionProvider"]
FOUND = {
    "onnxruntime": Finding(True, facts={"version": "1", "providers": PROVIDERS}),
    "torch": Finding(True, facts={"version": "2.13", "cuda": "12.8", "cuda_works": True}),
    "tensorrt": Finding(True, facts={"version": "11.4"}),
    "tensorrt-rtx": Finding(True, facts={"version": "1.7", "targets": [75, 89]}),
}
NOTHING = dict.fromkeys(ENGINES, Finding(False))


def said(findings: dict[str, Finding], *gpus: Gpu, served: tuple[str, ...] = ENGINES) -> dict[str, EngineReport]:
    return {each.name: each for each in engine_reports(findings, gpus, "" if gpus else NO_DRIVER, served)}


@pytest.mark.parametrize(
    ("name", "gpus", "state", "detail"),
    [
        ("onnxruntime", (), "runs", "on CPU; execution providers that it has beside: CUDA"),
        ("torch", (L4,), "runs", "on CPU and CUDA 12.8"),
        ("tensorrt", (L4,), "runs", "compiles for and executes on NVIDIA L4 (sm_89)"),
        ("tensorrt", (), "idle", "neither compiles nor executes: there is no NVIDIA driver"),
        ("tensorrt-rtx", (L4,), "runs", "executes on NVIDIA L4 (sm_89); compiles for sm_75, sm_89"),
        ("tensorrt-rtx", (), "compiles", "compiles for sm_75, sm_89; executes nothing: there is no NVIDIA driver"),
        (
            "tensorrt-rtx",
            (H100,),
            "compiles",
            "compiles for sm_75, sm_89; executes nothing: NVIDIA H100 (sm_90) is none of these",
        ),
    ],
)
def test_an_engine_says_where_it_runs_or_why_it_does_not(
    name: str, gpus: tuple[Gpu, ...], state: str, detail: str
) -> None:
    report = said(FOUND, *gpus)[name]
    assert (report.state, report.detail, report.install) == (state, detail, "")


@pytest.mark.parametrize(
    ("facts", "detail"),
    [
        ({"version": "2", "cuda": "", "cuda_works": False}, "on CPU; this build of it has no CUDA"),
        ({"version": "2", "cuda": "12.8", "cuda_works": False}, "on CPU; CUDA: there is no NVIDIA driver"),
    ],
)
def test_torch_without_a_gpu_says_whether_its_build_or_the_machine_lacks_it(facts: dict[str, Any], detail: str) -> None:
    assert said(FOUND | {"torch": Finding(True, facts=facts)})["torch"].detail == detail


def test_an_engine_that_runners_do_not_have_is_not_said_to_serve() -> None:
    assert said(FOUND, served=("onnxruntime",))["torch"].detail.endswith("; runners do not serve with it yet")
    assert said(NOTHING, served=())["torch"].detail == "not installed"


def test_what_is_missing_comes_with_the_command_that_installs_it() -> None:
    assert {name: (each.state, each.install) for name, each in said(NOTHING).items()} == {
        "onnxruntime": ("missing", "pip install onnxruntime"),
        "torch": ("missing", "pip install 'headrace[torch]'"),
        "tensorrt": ("missing", "pip install 'headrace[tensorrt]'"),
        "tensorrt-rtx": ("missing", "pip install 'headrace[tensorrt-rtx]'"),
    }


def test_only_what_every_mesh_needs_is_a_problem_when_it_is_missing() -> None:
    broken = FOUND | {"onnxruntime": Finding(True, "bad ELF"), "torch": Finding(True, "bad ELF")}

    assert engine_problems(list(said(FOUND).values())) == []
    assert engine_problems(list(said(NOTHING).values())) == [
        Problem("onnxruntime: not installed", "pip install onnxruntime")
    ]
    assert engine_problems(list(said(broken).values())) == [
        Problem("onnxruntime: installed, and cannot be loaded: bad ELF", "pip install onnxruntime --force-reinstall")
    ]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise ImportError('libtorch.so: cannot open')", "ImportError: libtorch.so: cannot open"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "it ended its process by signal 9"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
    ids=["cannot be loaded", "kills its process", "broken inside"],
)
def test_a_library_that_fails_does_not_take_the_doctor_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, says: str
) -> None:
    (tmp_path / "torch.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert examine("torch") == Finding(True, says)


def test_a_library_may_print_as_it_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime.py").write_text("print('hello')\n__version__ = '0'\nget_available_providers = list\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert examine("onnxruntime") == Finding(True, facts={"version": "0", "providers": []})


VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
ENVOY = Finding(True, facts={"environment": {"LD_PRELOAD": f"/usr/lib/libpython{VERSION}.so"}})


@pytest.mark.parametrize(
    ("section", "what", "remedy"),
    [
        (
            {"router": {"shared_memory_dir": "/nowhere"}},
            "router.shared_memory_dir: /nowhere is no directory that can be written",
            "name one that is",
        ),
        (
            {"autoscaler": {"catalog": "/nowhere.toml"}},
            "autoscaler.catalog: /nowhere.toml cannot be read",
            "name a file of shapes and rates",
        ),
        (
            {"autoscaler": {"cgroup": "/nowhere"}},
            "autoscaler.cgroup: /nowhere/cgroup.controllers: No such file or directory",
            "name a group of its own, or off",
        ),
    ],
)
def test_a_configuration_that_cannot_work_here_is_a_problem_with_its_key(
    section: dict[str, Any], what: str, remedy: str
) -> None:
    assert mesh_problems(parse_mesh_config(section, "x"), ENVOY) == [Problem(what, remedy)]


def test_packages_are_missed_only_where_the_configuration_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace_runner.doctor.configured.find_spec", lambda name: None)
    wanting = {
        "router": {"cache_url": "redis://cache"},
        "autoscaler": {"database_url": "postgresql://db/x", "source_schemes": ["s3"]},
    }

    assert mesh_problems(parse_mesh_config({}, "x"), ENVOY) == []
    assert [problem.remedy for problem in mesh_problems(parse_mesh_config(wanting, "x"), ENVOY)] == [
        "pip install 'headrace[redis]'",
        "pip install 'headrace[postgres]'",
        "pip install 'headrace[remote]'",
    ]


@pytest.mark.parametrize(
    ("envoy", "what"),
    [
        (Finding(False), "pyvoy, which puts the router into Envoy: not installed"),
        (Finding(True, facts={"environment": {}}), "so Envoy cannot load it"),
    ],
)
def test_a_python_that_envoy_cannot_load_is_a_problem(envoy: Finding, what: str) -> None:
    [problem] = mesh_problems(parse_mesh_config({}, "x"), envoy)
    assert what in problem.what
    assert "install" in problem.remedy


def test_this_machine_is_looked_at_whole(capsys: pytest.CaptureFixture[str]) -> None:
    code = main([])

    report = json.loads(capsys.readouterr().out)
    assert (code, report["problems"]) == (0, [])
    assert report["machine"]["cpu_millicores"] > 0
    assert report["machine"]["memory_bytes"] > 0
    engines = {engine["name"]: engine for engine in report["engines"]}
    assert tuple(engines) == ENGINES
    assert (engines["onnxruntime"]["state"], bool(engines["onnxruntime"]["version"])) == ("runs", True)
    assert {package["name"]: package["install"] for package in report["packages"]}["redis"] == ""
    assert bool(report["gpu"]["gpus"]) != bool(report["gpu"]["missing"])


@pytest.mark.parametrize(
    ("text", "code"), [("router: {shared_memory_dir: /nowhere}", 1), ("router: {shared_memory_dirs: x}", 2)]
)
def test_the_exit_status_says_whether_the_configuration_works_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, code: int
) -> None:
    (tmp_path / "mesh.yaml").write_text(text)
    assert main(["--config", str(tmp_path / "mesh.yaml")]) == code
    assert ("there is no such key" in capsys.readouterr().err) == (code == 2)
