"""From what was found on a machine to what it can run, what is missing, and the command that helps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headrace_common.gpu_facts import Gpu, target_name

RUNS, COMPILES, IDLE, MISSING, BROKEN = "runs", "compiles", "idle", "missing", "broken"
EXTRAS = {"onnxruntime": "", "torch": "torch", "tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt-rtx"}
"""Engines, and headrace's extra that installs each; "": headrace itself does."""
_CPU_PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a library said when it was loaded, in a process of its own.

    Attributes:
        installed: False: nothing else was looked at.
        error: why it could not be loaded; "": it could.
        facts: version and what else it tells.
    """

    installed: bool
    error: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineReport:
    """
    Attributes:
        state: "runs", "compiles" (and executes nothing here), "idle" (installed, and of no use here), "missing" or
            "broken".
        detail: on what it runs, or why it does not.
        install: the command that installs or mends it; "": nothing to do.
    """

    name: str
    version: str
    state: str
    detail: str
    install: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is configured and cannot work, and what helps."""

    what: str
    remedy: str


def engine_reports(
    findings: Mapping[str, Finding], gpus: Sequence[Gpu], no_gpu: str, served: Collection[str]
) -> list[EngineReport]:
    """One for each engine.

    Args:
        findings: by engine.
        no_gpu: why there are no GPUs.
        served: the engines that a runner of this version has.
    """
    reports = [_report(name, findings[name], gpus, no_gpu) for name in EXTRAS]
    return [
        replace(each, detail=f"{each.detail}; runners do not serve with it yet")
        if each.state != MISSING and each.name not in served
        else each
        for each in reports
    ]


def engine_problems(reports: Sequence[EngineReport]) -> list[Problem]:
    """Of the engines that every mesh needs."""
    return [
        Problem(f"{report.name}: {report.detail}", report.install)
        for report in reports
        if report.state in (BROKEN, MISSING) and not EXTRAS[report.name]
    ]


def pip(extra: str) -> str:
    """The command that installs an extra of headrace."""
    return f"pip install 'headrace[{extra}]'"


def _report(name: str, finding: Finding, gpus: Sequence[Gpu], no_gpu: str) -> EngineReport:
    install = pip(EXTRAS[name]) if EXTRAS[name] else f"pip install {name}"
    if not finding.installed:
        return EngineReport(name, "", MISSING, "not installed", install)
    if finding.error:
        reason = f"installed, and cannot be loaded: {finding.error}"
        return EngineReport(name, "", BROKEN, reason, f"{install} --force-reinstall")
    state, detail = _SAYS[name](finding.facts, gpus, no_gpu)
    return EngineReport(name, str(finding.facts.get("version", "")), state, detail)


def _onnxruntime(facts: Mapping[str, Any], _gpus: Sequence[Gpu], _no_gpu: str) -> tuple[str, str]:
    others = [name.removesuffix("ExecutionProvider") for name in facts["providers"] if name != _CPU_PROVIDER]
    return RUNS, "on CPU" + (f"; execution providers that it has beside: {', '.join(others)}" if others else "")


def _torch(facts: Mapping[str, Any], _gpus: Sequence[Gpu], no_gpu: str) -> tuple[str, str]:
    if not facts["cuda"]:
        return RUNS, "on CPU; this build of it has no CUDA"
    return RUNS, f"on CPU and CUDA {facts['cuda']}" if facts["cuda_works"] else f"on CPU; CUDA: {no_gpu}"


def _tensorrt(_facts: Mapping[str, Any], gpus: Sequence[Gpu], no_gpu: str) -> tuple[str, str]:
    if not gpus:
        return IDLE, f"neither compiles nor executes: {no_gpu}"
    return RUNS, f"compiles for and executes on {_names(gpus)}"


def _tensorrt_rtx(facts: Mapping[str, Any], gpus: Sequence[Gpu], no_gpu: str) -> tuple[str, str]:
    targets = facts["targets"]
    compiles = "compiles for " + ", ".join(target_name(target) for target in targets)
    usable = [gpu for gpu in gpus if gpu.capability in targets]
    if usable:
        return RUNS, f"executes on {_names(usable)}; {compiles}"
    return COMPILES, f"{compiles}; executes nothing: {no_gpu or _names(gpus) + ' is none of these'}"


def _names(gpus: Sequence[Gpu]) -> str:
    return ", ".join(f"{gpu.name} ({target_name(gpu.capability)})" for gpu in gpus)


_SAYS = {"onnxruntime": _onnxruntime, "torch": _torch, "tensorrt": _tensorrt, "tensorrt-rtx": _tensorrt_rtx}
