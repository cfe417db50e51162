"""One suite for every store: epochs, models, revisions and jobs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa

from headrace_autoscaler.core.jobs import Job, JobState, Optimization, Variant, VariantTiming
from headrace_autoscaler.core.promises import Promise
from headrace_autoscaler.domain import (
    Batching,
    DeployFailure,
    Limits,
    Loaded,
    ModelFile,
    ModelSpec,
    Resources,
    Revision,
    RevisionState,
    Signature,
    TensorSpec,
    Warmup,
    WarmupTensor,
)
from headrace_autoscaler.store import SqlStore
from headrace_autoscaler.store.engine import open_engine
from headrace_common.errors import NotFound, PermissionDenied

SPEC = ModelSpec(
    name="ocr",
    tenant="acme",
    min_instances=1,
    max_instances=7,
    idle_timeout_s=12.5,
    slo_s=0.1,
    max_batch_size=8,
    resources=Resources(500, 2 << 30),
    limits=Limits(
        concurrency=3, requests_per_second=1.5, queue_length=4, queue_bytes=5, budget_micros_per_hour=1_500_000
    ),
    instance_concurrency=6,
    shared_with=("*",),
    engine="onnxruntime",
    engine_options=(("intra_op_threads", "1"),),
    response_cache=True,
    cache_shared=True,
    cache_ttl_s=90.0,
    source="s3://bucket/ocr",
)


LOADED = Loaded(
    Signature((TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("y", "BYTES", (-1,), optional=True),), batchable=True),
    max_batch_size=8,
    batching="batchable: the probe of two rows agreed",
    platform="onnxruntime_onnx",
    resident_bytes=123,
    profile_us=((1, 100), (8, 300)),
)


JOB = Job(
    model="ocr",
    artifact="a" * 64,
    entry_point="1/model.onnx",
    samples="c" * 64,
    optimization=Optimization("digit", 0.95, 0.02, ("fp32", "int8"), (0.3,), keep_original=True),
    state=JobState.DONE,
    reason="the cheapest",
    created_at=1000.5,
    started_at=1001.25,
    ended_at=1002.0,
    attempts=2,
    chosen="int8",
    served="d" * 64,
    found=True,
    variants=(
        Variant("original", "as it was", "fits", "", 100, "accuracy", 1.0, 0.9, 1.0, 50, 0.5, artifact="a" * 64),
        Variant(
            name="int8",
            what="QDQ",
            verdict="fits",
            reason="",
            size_bytes=30,
            quality="accuracy",
            share=0.98,
            lower=0.95,
            upper=0.99,
            samples=50,
            cpu_s_per_row=0.1,
            timings=(VariantTiming(1, 0.1, 10.0), VariantTiming(8, 0.5, 16.0)),
            on_front=True,
            engines=("onnxruntime",),
            artifact="d" * 64,
        ),
    ),
)


REVISION = Revision(
    model="ocr",
    revision=0,
    version="1",
    state=RevisionState.LOADING,
    artifact="a" * 64,
    files=(ModelFile("model.onnx", "b" * 64, 10),),
    entry_point="model.onnx",
    engine="onnxruntime",
    batching=Batching(preferred_batch_sizes=(4, 8), max_queue_delay_us=100),
    warmup=(Warmup("w", 2, (WarmupTensor("x", "FP32", (2, 3), bytes(range(24))),)),),
    model_config=b"\xff\xfe\x00",
    deployed_at=1000.5,
)


def test_epochs_only_rise_across_stores(open_store: Callable[[], SqlStore]) -> None:
    assert open_store().last_epoch() == 0
    assert [open_store().begin_epoch() for _ in range(4)] == [1, 2, 3, 4]
    assert open_store().last_epoch() == 4


def test_a_model_and_its_revision_come_back_whole(open_store: Callable[[], SqlStore]) -> None:
    store = open_store()
    store.put_model(SPEC, 10.0)
    added = store.add_revision(REVISION)
    store.update_revision(replace(added, loaded=LOADED))
    (model,) = open_store().models()
    assert model.spec == SPEC
    assert model.created_at == 10.0
    assert not model.deleting
    assert model.revisions == (replace(REVISION, revision=1, loaded=LOADED),)


def test_putting_a_model_again_replaces_its_spec_and_keeps_the_rest(store: SqlStore) -> None:
    store.put_model(SPEC, 10.0)
    store.add_revision(REVISION)
    store.put_model(replace(SPEC, min_instances=0), 20.0)
    (model,) = store.models()
    assert (model.spec.min_instances, model.created_at, len(model.revisions)) == (0, 10.0, 1)


def test_the_owner_of_a_model_never_changes(store: SqlStore) -> None:
    store.put_model(SPEC, 10.0)
    with pytest.raises(PermissionDenied, match="'ocr' belongs to another tenant"):
        store.put_model(replace(SPEC, tenant="globex"), 20.0)
    assert store.models()[0].spec.tenant == "acme"


def test_revision_numbers_are_never_used_twice(store: SqlStore) -> None:
    store.put_model(SPEC, 10.0)
    assert store.add_revision(REVISION).revision == 1
    assert store.add_revision(REVISION).revision == 2
    store.remove_revision("ocr", 2)
    assert store.add_revision(REVISION).revision == 3, "after a revision was removed"
    store.remove_model("ocr")
    assert store.models() == ()
    store.put_model(replace(SPEC, tenant="globex"), 20.0)
    assert store.add_revision(REVISION).revision == 4, "after the model was removed and made anew"
    store.put_model(replace(SPEC, name="other"), 20.0)
    assert store.add_revision(replace(REVISION, model="other")).revision == 1


def test_revision_numbers_are_not_lost_to_a_refused_revision(store: SqlStore) -> None:
    with pytest.raises(NotFound, match="no model 'ocr'"):
        store.add_revision(REVISION)
    store.put_model(SPEC, 10.0)
    assert store.add_revision(REVISION).revision == 1


def test_stores_that_add_at_once_get_distinct_numbers(open_store: Callable[[], SqlStore]) -> None:
    stores = [open_store() for _ in range(4)]
    stores[0].put_model(SPEC, 10.0)
    with ThreadPoolExecutor(8) as threads:
        numbers = list(threads.map(lambda i: stores[i % 4].add_revision(REVISION).revision, range(40)))
    assert sorted(numbers) == list(range(1, 41))


def test_activation_swaps_all_at_once_and_takes_the_spec_along(store: SqlStore) -> None:
    store.put_model(SPEC, 10.0)
    for _ in range(4):
        store.add_revision(REVISION)
    store.activate_revisions("ocr", [1, 2])
    store.activate_revisions("ocr", [2, 3], replace(SPEC, min_instances=0))
    (model,) = store.models()
    assert [revision.state.value for revision in model.revisions] == ["retiring", "serving", "serving", "loading"]
    assert model.spec.min_instances == 0
    assert model.current is not None
    assert model.current.revision == 3


def test_activation_of_an_unknown_revision_changes_nothing(store: SqlStore) -> None:
    store.put_model(SPEC, 10.0)
    store.add_revision(REVISION)
    store.activate_revisions("ocr", [1])
    with pytest.raises(NotFound, match="'ocr' has no revision 9"):
        store.activate_revisions("ocr", [9])
    assert store.models()[0].revisions[0].state is RevisionState.SERVING


def test_updating_an_unknown_revision_is_refused(store: SqlStore) -> None:
    store.put_model(SPEC, 10.0)
    with pytest.raises(NotFound, match="'ocr' has no revision 5"):
        store.update_revision(replace(REVISION, revision=5))


def test_deletion_retires_what_serves_and_survives_a_new_spec(store: SqlStore) -> None:
    store.put_model(SPEC, 10.0)
    store.add_revision(REVISION)
    store.activate_revisions("ocr", [1])
    store.mark_deleting("ocr")
    (model,) = store.models()
    assert model.deleting
    assert model.revisions[0].state is RevisionState.RETIRING
    with pytest.raises(NotFound, match="no model 'nobody'"):
        store.mark_deleting("nobody")


def test_what_was_promised_is_kept_whoever_is_gone_until_it_is_forgotten(open_store: Callable[[], SqlStore]) -> None:
    store = open_store()
    of_acme = Promise(Limits(concurrency=21, queue_bytes=5), Limits(concurrency=20))
    of_ocr = Promise(Limits(requests_per_second=1.5), Limits(requests_per_second=0.5))
    store.promise("acme", of_ocr)
    store.promise("acme/ocr", of_ocr)
    store.promise("acme", of_acme)
    store.remove_tenant("acme")
    store.remove_model("ocr")
    assert open_store().promised() == {"acme": of_acme, "acme/ocr": of_ocr}
    store.forget_promised(["acme", "nobody"])
    assert open_store().promised() == {"acme/ocr": of_ocr}
    store.forget_promised([])


def test_failures_outlive_and_precede_models(store: SqlStore) -> None:
    store.record_failure("ocr", DeployFailure(1.0, "first"))
    store.record_failure("ocr", DeployFailure(2.0, "second"))
    store.record_failure("other", DeployFailure(3.0, "x"))
    assert store.failures() == {"ocr": DeployFailure(2.0, "second"), "other": DeployFailure(3.0, "x")}
    store.clear_failure("ocr")
    store.clear_failure("ocr")
    assert set(store.failures()) == {"other"}


def test_a_job_comes_back_whole_is_replaced_and_goes_with_its_model(open_store: Callable[[], SqlStore]) -> None:
    store = open_store()
    store.put_model(SPEC, 10.0)
    store.put_model(replace(SPEC, name="other"), 10.0)
    store.put_job(JOB)
    store.put_job(replace(JOB, model="other", state=JobState.QUEUED))
    assert open_store().jobs() == (JOB, replace(JOB, model="other", state=JobState.QUEUED))
    failed = replace(JOB, state=JobState.FAILED, reason="a lack of memory", variants=())
    store.put_job(failed)
    assert store.jobs()[0] == failed
    store.remove_job("other")
    store.remove_job("other")
    assert store.jobs() == (failed,)
    store.remove_model("ocr")
    assert store.jobs() == ()


def test_a_job_of_no_model_is_refused(store: SqlStore) -> None:
    with pytest.raises(NotFound, match="no model 'ocr'"):
        store.put_job(JOB)
    assert store.jobs() == ()


def test_models_from_before_jobs_are_kept(url: str, open_store: Callable[[], SqlStore]) -> None:
    open_store().put_model(SPEC, 10.0)
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE jobs"))
        connection.execute(sa.text("DROP TABLE promised_limits"))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0002'"))
    engine.dispose()
    store = open_store()
    assert [model.spec for model in store.models()] == [SPEC]
    store.put_job(JOB)
    assert store.jobs() == (JOB,)
