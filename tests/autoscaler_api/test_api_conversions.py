"""What the API shows means what was said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.v1 import resources_pb2
from headrace_autoscaler.api.convert_quantities import budget_pb, exact_bytes, limits_of, quantities_pb
from headrace_autoscaler.api.convert_specs import deploy_request, model_spec_pb
from headrace_autoscaler.api.convert_time import duration, seconds, timestamp
from headrace_autoscaler.domain import (
    Limits,
    ModelSpec,
    Resources,
)
from headrace_common.quantities import parse_bytes
from headrace_common.validation import validate

amounts = st.none() | st.integers(0, 2**62)
rates = st.none() | st.just(0.0) | st.floats(0.001, 1e9)


limits = st.builds(Limits, amounts, amounts, amounts, amounts, amounts, rates, amounts, amounts).filter(
    lambda value: all((m or 0) < 10**18 for m in (value.budget_micros_per_hour, value.budget_micros_per_month))
)


specs = st.builds(
    ModelSpec,
    name=st.just("m"),
    tenant=st.sampled_from(["acme", "default"]),
    min_instances=st.integers(0, 9),
    max_instances=st.none() | st.integers(9, 99),
    idle_timeout_s=st.integers(0, 10**6).map(lambda ms: ms / 1000),
    slo_s=st.none() | st.integers(1, 10**6).map(lambda ms: ms / 1000),
    max_batch_size=st.none() | st.integers(1, 65536),
    resources=st.builds(
        Resources, st.integers(1, 10**9), st.integers(1, 2**50), st.integers(0, 9000), st.integers(0, 2**40)
    ),
    limits=limits,
    shared_with=st.lists(st.sampled_from(["*", "globex"]), max_size=2).map(tuple),
    engine=st.sampled_from(["", "onnxruntime"]),
    engine_options=st.dictionaries(st.sampled_from("ab"), st.text(max_size=3)).map(lambda d: tuple(sorted(d.items()))),
    source=st.sampled_from(["", "s3://b/m"]),
    padding=st.dictionaries(st.sampled_from("xy"), st.floats(-9, 9)).map(lambda d: tuple(sorted(d.items()))),
    tolerates_spot=st.booleans(),
    spread=st.integers(1, 64),
    gpu_architectures=st.sets(st.sampled_from(["sm_75", "sm_86", "sm_89"])).map(lambda found: tuple(sorted(found))),
    idle_timeout_asked=st.just(True),
    policy=st.sampled_from(["headrace", "balanced"]),
    traffic=st.sampled_from(["", "spiky"]),
    cost_sensitivity=st.sampled_from(["", "high"]),
    schedules=st.lists(st.just("0 8 * * 1-5 Europe/Paris=4"), max_size=2).map(tuple),
    targets=st.dictionaries(st.sampled_from(["cpu", "rate"]), st.floats(0.1, 1)).map(
        lambda d: tuple(sorted(d.items()))
    ),
    slo_credit_micros=st.none() | st.integers(1, 10**9),
    max_cpu_millicores=st.none() | st.integers(1, 10**9),
    states=st.dictionaries(st.sampled_from("xy"), st.sampled_from("ab")).map(lambda d: tuple(sorted(d.items()))),
    sequence_idle_s=st.none() | st.integers(1, 10**6).map(lambda ms: ms / 1000),
)


@given(specs)
def test_a_shown_spec_is_valid_and_means_the_same(spec: ModelSpec) -> None:
    shown = model_spec_pb(spec)
    validate(shown)
    assert deploy_request(shown, "somebody").spec == spec


@given(limits)
def test_limits_come_back_exactly(value: Limits) -> None:
    shown, budget = quantities_pb(value), budget_pb(value) or resources_pb2.Budget()
    validate(budget)
    assert limits_of(shown, budget, "nominal") == value


@given(st.integers(0, 2**62))
def test_bytes_are_written_exactly(count: int) -> None:
    assert parse_bytes(exact_bytes(count), "x") == count


@given(st.integers(0, 10**15))
def test_times_come_back_to_the_microsecond(micros: int) -> None:
    assert seconds(duration(micros / 1e6)) == pytest.approx(micros / 1e6, abs=1e-6)
    assert seconds(timestamp(micros / 1e6)) == pytest.approx(micros / 1e6, abs=1e-6)


# Uploads.
