"""TensorRT plans in an artifact: what their manifests say, and what that asks of the model. Pure.

A plan is for one kind of GPU and comes with the manifest that `headrace compile` wrote beside it. The runner holds the
whole of it against its machine; here it matters which library reads it, and which GPUs it was built for.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from headrace_autoscaler.domain import ModelFile, ModelSpec
from headrace_autoscaler.repository.layout import PLAN, Candidate
from headrace_common.errors import FailedPrecondition, InvalidArgument

ENGINES = ("tensorrt", "tensorrt-rtx")
MAX_MANIFEST_BYTES = 1 << 20
_WHOLE_GPU = 1000
_TARGET = re.compile(r"sm_[1-9][0-9]{1,2}")


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """
    Attributes:
        engine: of `ENGINES`.
        target: "sm_86".
    """

    engine: str
    target: str


def manifest_paths(files: Sequence[ModelFile]) -> dict[str, str]:
    """The manifest of each plan.

    Raises:
        InvalidArgument: one has none, or what is there is too large to be one.
    """
    sizes = {file.path: file.size_bytes for file in files}
    plans = sorted(path for path in sizes if path.endswith(PLAN))
    for plan in plans:
        size = sizes.get(f"{plan}.json")
        if size is not None and size > MAX_MANIFEST_BYTES:
            raise InvalidArgument(f"{plan}.json: {size} bytes, expected at most {MAX_MANIFEST_BYTES}")
        if size is None:
            raise InvalidArgument(
                f"{plan}: its manifest, {plan}.json, is missing: a plan says nothing of itself; deploy both, as "
                "`headrace compile` wrote them"
            )
    return {plan: f"{plan}.json" for plan in plans}


def plan_facts(path: str, content: bytes) -> PlanFacts:
    """What a manifest says. Raises InvalidArgument."""
    try:
        plain = json.loads(content)
        facts = PlanFacts(plain["engine"], plain["target"])
        if facts.engine not in ENGINES or not _TARGET.fullmatch(facts.target):
            raise ValueError(f"engine {facts.engine[:40]!r}, target {facts.target[:40]!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidArgument(
            f"{path}: it is not the manifest of a plan ({type(error).__name__}: {error}); compile it again"
        ) from None
    return facts


def loads(asked: str, engine: str) -> bool:
    """Whether what was asked for is this engine; the API writes "_" for "-", and Triton knows one TensorRT only."""
    asked = asked.replace("_", "-")
    return asked == engine or (asked == "tensorrt" and engine in ENGINES)


def of_plans(candidates: Sequence[Candidate], plans: Mapping[str, PlanFacts]) -> tuple[Candidate, ...]:
    """Candidates with the engine that their plans are for.

    Raises:
        InvalidArgument: a version's plans are for two.
    """
    return tuple(_of_plans(each, plans) if each.entry_point in plans else each for each in candidates)


def built_for(candidates: Sequence[Candidate], plans: Mapping[str, PlanFacts]) -> tuple[str, ...]:
    """The GPUs that all versions of plans are for, sorted; empty: there are no plans.

    Raises:
        InvalidArgument: the versions have none in common.
    """
    targets = {each.version: {facts.target for facts in _beside(each, plans).values()} for each in candidates}
    of_plans_only = [has for has in targets.values() if has]
    common = set.intersection(*of_plans_only) if of_plans_only else set()
    if of_plans_only and not common:
        told = "; ".join(f"version {version}: {', '.join(sorted(has))}" for version, has in targets.items())
        raise InvalidArgument(f"the versions were built for different GPUs, so that none could serve them all: {told}")
    return tuple(sorted(common, key=lambda target: int(target.removeprefix("sm_"))))


def spec_for_plans(spec: ModelSpec, targets: tuple[str, ...], gpu: str) -> ModelSpec:
    """The spec of a model of plans: on GPUs that they were built for, with a whole one where nothing is said.

    Args:
        targets: those that there are plans for.
        gpu: that of this machine; "": it has none.

    Raises:
        InvalidArgument: other GPUs were asked for.
        FailedPrecondition: this machine's is none of them.
    """
    asked = spec.gpu_architectures
    allowed = tuple(target for target in targets if target in asked) if asked else targets
    if not allowed:
        raise InvalidArgument(f"gpu_architectures: expected some of {', '.join(targets)}, got {', '.join(asked)}")
    if gpu not in allowed:
        has, todo = " has no GPU", "`headrace doctor` says what is missing"
        if gpu:
            has, todo = f"'s GPU is {gpu}", f"headrace compile --target {gpu} builds a plan for it"
        built = ", ".join(allowed)
        raise FailedPrecondition(f"model {spec.name!r} was built for {built}, and this machine{has}: {todo}")
    resources = spec.resources if spec.resources.gpu_millis else replace(spec.resources, gpu_millis=_WHOLE_GPU)
    return replace(spec, gpu_architectures=allowed, resources=resources)


def _beside(candidate: Candidate, plans: Mapping[str, PlanFacts]) -> Mapping[str, PlanFacts]:
    """The plans that the runner may pick from: those of the entry point's folder."""
    folder = posixpath.dirname(candidate.entry_point)
    return {path: facts for path, facts in plans.items() if posixpath.dirname(path) == folder}


def _of_plans(candidate: Candidate, plans: Mapping[str, PlanFacts]) -> Candidate:
    engines = sorted({facts.engine for facts in _beside(candidate, plans).values()})
    if len(engines) > 1:
        raise InvalidArgument(
            f"{candidate.entry_point}: the plans beside it are for {' and '.join(engines)}; expected those of one: a "
            "version has one engine"
        )
    return replace(candidate, engine=engines[0])
