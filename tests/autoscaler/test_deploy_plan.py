"""What a deploy comes to where a variant of the model serves, or is to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace_autoscaler.core.jobs import Job, Optimization, Variant
from headrace_autoscaler.deploy_plan import DeployRequest, as_it_stands, plan_revisions
from headrace_autoscaler.domain import Model, ModelFile, ModelSpec, Revision, RevisionState
from headrace_autoscaler.repository import Candidate, Settings
from headrace_common.errors import InvalidArgument

OPTIONS = (("device", "cpu"),)
SPEC = ModelSpec("m", engine="torch", engine_options=OPTIONS, source="s3://b/model.pt2", min_instances=2)
FOUND = (Variant("int8", "", "fits", "", 3, "agreement", artifact="int8"),)
JOB = Job("m", "original", "model.pt2", "samples", Optimization(), variants=FOUND, engine="torch")
CANDIDATES = {
    "original": Candidate(None, (ModelFile("model.pt2", "a", 9),), "model.pt2", "torch"),
    "int8": Candidate(None, (ModelFile("model.onnx", "b", 3),), "model.onnx", "onnxruntime"),
}


def model(artifact: str, spec: ModelSpec = SPEC) -> Model:
    engine = CANDIDATES["original" if artifact == "other" else artifact].engine
    return Model(spec, 0.0, (Revision("m", 3, "1", RevisionState.SERVING, artifact, (), "model", engine),))


def planned(request: DeployRequest, now: Model, artifact: str, settings: Settings | None = None) -> Revision:
    standing = as_it_stands(request, now, JOB)
    [revision] = plan_revisions(now, standing, artifact, (CANDIDATES[artifact],), settings or Settings(), 5.0)
    return revision


def switch(to: str, now: Model) -> DeployRequest:
    return DeployRequest(now.spec, to, replaces=now.revisions[0].artifact)


@pytest.mark.parametrize(
    ("serves", "used", "engine", "options"),
    [
        ("original", "int8", "onnxruntime", ()),
        ("int8", "original", "torch", OPTIONS),
        ("int8", "int8", "onnxruntime", ()),
        ("original", "original", "torch", OPTIONS),
    ],
    ids=["a variant takes over", "the original comes back", "a variant again", "the original again"],
)
def test_options_go_to_the_engine_that_they_were_given_for(
    serves: str, used: str, engine: str, options: tuple[tuple[str, str], ...]
) -> None:
    now = model(serves)
    revision = planned(switch(used, now), now, used)
    assert (revision.engine, revision.engine_options, revision.version) == (engine, options, "1")
    assert as_it_stands(switch(used, now), now, JOB).spec == SPEC, "what was asked for stays as it was asked for"


def test_what_the_files_say_of_themselves_holds_for_a_variant_too() -> None:
    settings = Settings(engine_options=(("intra_op_threads", "2"),))
    now = model("original")
    assert planned(switch("int8", now), now, "int8", settings).engine_options == (("intra_op_threads", "2"),)


def test_a_switch_takes_the_spec_that_stands_when_it_has_its_turn() -> None:
    now = model("original")
    asked = switch("int8", now)
    later = replace(now, spec=replace(SPEC, min_instances=7))
    assert as_it_stands(asked, later, JOB).spec.min_instances == 7


@pytest.mark.parametrize("engine", ["", "torch"])
def test_settings_alone_speak_of_the_original(engine: str) -> None:
    asked = DeployRequest(ModelSpec("m", engine=engine, engine_options=OPTIONS, max_batch_size=4))
    for serves, options in (("int8", ()), ("original", OPTIONS)):
        revision = planned(asked, model(serves), serves)
        assert (revision.engine_options, revision.max_batch_size) == (options, 4)


def test_settings_alone_cannot_name_the_variants_engine() -> None:
    asked = DeployRequest(ModelSpec("m", engine="onnxruntime"))
    with pytest.raises(InvalidArgument, match="'onnxruntime' cannot load model 'm' as it was deployed, which is for"):
        as_it_stands(asked, model("int8"), JOB)


@pytest.mark.parametrize(
    ("asked", "now", "job"),
    [
        (DeployRequest(SPEC, "int8"), model("original"), JOB),
        (DeployRequest(SPEC), model("original"), JOB),
        (DeployRequest(ModelSpec("m")), model("other"), JOB),
        (DeployRequest(ModelSpec("m")), model("original"), None),
        (DeployRequest(SPEC, "original"), None, None),
    ],
    ids=["files are given", "a source is given", "neither original nor variant serves", "never optimized", "new"],
)
def test_a_deploy_that_says_all_there_is_to_say_is_taken_at_its_word(
    asked: DeployRequest, now: Model | None, job: Job | None
) -> None:
    assert as_it_stands(asked, now, job) is asked
