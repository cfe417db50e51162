"""Where a deploy's files and settings come from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from headrace_autoscaler.artifacts import Artifact, ArtifactStore
from headrace_autoscaler.deploy_plan import DeployRequest
from headrace_autoscaler.domain import Model, Sequences, StateTensor
from headrace_autoscaler.repository import (
    CONFIG_PATH,
    MAX_TEXT_BYTES,
    Candidate,
    Settings,
    parse_config,
    settings_of,
)
from headrace_autoscaler.repository.plans import PlanFacts, manifest_paths, plan_facts
from headrace_autoscaler.repository.sequence_batching import INITIAL_DIRECTORY
from headrace_autoscaler.sequences import MAX_INITIAL_BYTES
from headrace_common.errors import InvalidArgument


async def resolve(
    request: DeployRequest, model: Model | None, artifacts: ArtifactStore, schemes: Collection[str]
) -> Artifact:
    """The files of a deploy: fetched, uploaded before, or those that the model serves already.

    Raises:
        InvalidArgument: there are none; says what to do.
    """
    if request.url:
        return await artifacts.fetch(request.url, schemes)
    name = request.artifact or (model.current.artifact if model and model.current else "")
    if not name:
        raise InvalidArgument("source: expected a path or URL of model files, or an uploaded artifact; got neither")
    artifact = await artifacts.find(name)
    if artifact is None:
        raise InvalidArgument(
            f"artifact {name[:80]!r}: not there: never uploaded, or removed after its time without a model; "
            "upload the files again"
        )
    return artifact


async def read_plans(
    artifact: Artifact, candidates: Sequence[Candidate], artifacts: ArtifactStore
) -> Mapping[str, PlanFacts]:
    """What the manifests of these versions' TensorRT plans say, by plan. Raises InvalidArgument."""
    manifests = manifest_paths([file for each in candidates for file in each.files])
    return {plan: plan_facts(path, await artifacts.read(artifact.name, path)) for plan, path in manifests.items()}


async def read_settings(artifact: Artifact, model: str, artifacts: ArtifactStore) -> Settings:
    """What the artifact's config.pbtxt says, if it has one.

    Raises:
        InvalidArgument: lists all that is wrong with it or not supported.
    """
    config = next((file for file in artifact.files if file.path == CONFIG_PATH), None)
    if config is None:
        return Settings()
    if config.size_bytes > MAX_TEXT_BYTES:
        raise InvalidArgument(f"{CONFIG_PATH}: {config.size_bytes} bytes, expected at most {MAX_TEXT_BYTES}")
    settings = settings_of(parse_config(await artifacts.read(artifact.name, CONFIG_PATH)), model)
    if settings.sequences is None:
        return settings
    return replace(settings, sequences=await _with_initial_states(settings.sequences, artifact, artifacts))


async def _with_initial_states(sequences: Sequences, artifact: Artifact, artifacts: ArtifactStore) -> Sequences:
    """The states that begin as a file says, with that file's content."""
    sizes = {file.path: file.size_bytes for file in artifact.files}
    states: list[StateTensor] = []
    total = 0
    for state in sequences.states:
        path = f"{INITIAL_DIRECTORY}/{state.initial_file}"
        if state.initial_file and path not in sizes:
            raise InvalidArgument(
                f"{CONFIG_PATH}: state {state.input!r} begins as {path} says, and there is no such file"
            )
        total += sizes.get(path, 0) if state.initial_file else 0
        if total > MAX_INITIAL_BYTES:
            raise InvalidArgument(f"{INITIAL_DIRECTORY}: {total} bytes, expected at most {MAX_INITIAL_BYTES}")
        content = await artifacts.read(artifact.name, path) if state.initial_file else b""
        states.append(replace(state, initial=content))
    return replace(sequences, states=tuple(states))
