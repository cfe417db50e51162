"""Whether a plan can run on a machine: it holds code for one kind of GPU, and one version of one library reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headrace_common.errors import InvalidArgument
from headrace_common.gpu_facts import Gpu, target_name
from headrace_runner.core.plan_manifest import Manifest


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What a runner has.

    Attributes:
        engines: versions of the libraries that are installed, by engine.
        gpu: the one that the runner uses; None: there is none, or its driver does not answer.
        driver: version of NVIDIA's driver, such as "570.86.15"; "": none.
        platform: such as "linux-x86_64".
    """

    engines: Mapping[str, str] = field(default_factory=dict)
    gpu: Gpu | None = None
    driver: str = ""
    platform: str = ""


def refusal(manifest: Manifest, facts: MachineFacts) -> str:
    """Why this machine cannot run the plan, with what to do; "" if it can.

    By default plans are bound to the version that built them
    (https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/version-compatibility.html), and we build no
    others: a plan that is not bound carries code of its own.
    """
    return _wrong_library(manifest, facts) or _wrong_machine(manifest, facts)


def check_fits(manifest: Manifest, facts: MachineFacts) -> None:
    """Raises InvalidArgument with the `refusal`."""
    if reason := refusal(manifest, facts):
        raise InvalidArgument(reason)


def choose_plan(plans: Mapping[Path, Manifest], facts: MachineFacts) -> Path:
    """The plan that this machine can run; the first by name where there are several.

    Args:
        plans: of one model, by file.

    Raises:
        InvalidArgument: none fits; says why for the only one, or names what they were built for.
    """
    refusals = {path: refusal(manifest, facts) for path, manifest in sorted(plans.items())}
    for path, reason in refusals.items():
        if not reason:
            return path
    reasons = list(dict.fromkeys(refusals.values()))
    if len(reasons) == 1 or facts.gpu is None:
        raise InvalidArgument(reasons[0])
    built_for = ", ".join(map(target_name, sorted({manifest.request.target for manifest in plans.values()})))
    # Those for the GPU that is here have the better reason: only the library or the driver is wrong.
    near = [refusals[path] for path, each in sorted(plans.items()) if each.request.target == facts.gpu.capability]
    if near:
        raise InvalidArgument(near[0])
    name = next(iter(plans.values())).request.model
    has = target_name(facts.gpu.capability)
    raise InvalidArgument(
        f"{name} was built for {built_for}, and this runner's GPU, {facts.gpu.name}, is {has}: "
        f"headrace compile --target {has} builds a plan for it"
    )


def _wrong_library(manifest: Manifest, facts: MachineFacts) -> str:
    request = manifest.request
    build, name = request.build, request.file_name
    installed = facts.engines.get(build.engine, "")
    if not installed:
        return (
            f"{name} needs {build.engine} {build.version}, and this runner has none; "
            f"pip install 'headrace[{build.engine}]'"
        )
    if installed != build.version:
        return (
            f"{name} was built by {build.engine} {build.version}, and this runner has {installed}, which cannot read "
            "it: install the same version in both places, and compile it again"
        )
    return ""


def _wrong_machine(manifest: Manifest, facts: MachineFacts) -> str:
    request, gpu = manifest.request, facts.gpu
    build, name = request.build, request.file_name
    # Plans of TensorRT-RTX are portable between Linux and Windows, and no others between any two platforms.
    if build.platform != facts.platform:
        return f"{name} was built on {build.platform}, and this runner is on {facts.platform}: compile it there"
    wanted = target_name(request.target)
    missing = f"{name} needs a GPU of {wanted}, and this runner sees {{}}; `headrace doctor` says what is missing"
    if not facts.driver:
        return missing.format("no NVIDIA driver")
    if _branch(facts.driver) < manifest.minimum_driver:
        return (
            f"{name} was built for CUDA {build.cuda}, which needs NVIDIA driver {manifest.minimum_driver} or newer, "
            f"and this runner has {facts.driver}: update the driver"
        )
    if gpu is None:
        return missing.format("none")
    if gpu.capability != request.target:
        has = target_name(gpu.capability)
        return (
            f"{name} was built for {wanted}, and this runner's GPU, {gpu.name}, is {has}: "
            f"headrace compile --engine {build.engine} --target {has} builds one for it"
        )
    return ""


def _branch(driver: str) -> int:
    """570 of "570.86.15"; 0 of what is no version."""
    first = driver.partition(".")[0]
    return int(first) if first.isdigit() else 0
