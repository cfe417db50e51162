"""What clients say of sequences, by every door: read, checked, and bound to the request."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from headrace.oip import inference_pb2 as pb
from headrace_common.errors import InvalidArgument
from headrace_router.domain import SequenceRules, SequenceStep, SignalSpec, StateSpec
from headrace_router.oip import describe
from headrace_router.oip.caller import Caller
from headrace_router.oip.hot import HotInference
from headrace_router.oip.json_decode import JsonDecoder
from headrace_router.oip.parameters import read_settings
from headrace_router.oip.signature import Signature

STATE = StateSpec("state", "state_out", "FP32", (1, 2, 3), bytes(24))
STATEFUL = SequenceRules((STATE,), max_idle_s=5.0)


def with_id(datatype: str) -> SequenceRules:
    return replace(STATEFUL, signals=(SignalSpec("id", "id", datatype, (1, 1)),))


@pytest.fixture
def stateful(catalogue: Any, make_add_entry: Callable[..., Any]) -> Any:
    """The model "add", as if it kept state."""
    entry = make_add_entry(sequences=STATEFUL)
    catalogue.entries[0] = entry
    return entry


def step_message(make_add_request: Callable[..., Any], rows: int = 1, **parameters: Any) -> pb.ModelInferRequest:
    message: pb.ModelInferRequest = make_add_request(rows)
    for name, value in parameters.items():
        field = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
        setattr(message.parameters[name], field, value)
    return message


@pytest.mark.parametrize(
    ("parameters", "step"),
    [
        ({"sequence_id": 7, "sequence_start": True}, SequenceStep(7, True, False)),
        ({"sequence_id": 7}, SequenceStep(7)),
        ({"sequence_id": "call-7", "sequence_end": True}, SequenceStep("call-7", False, True)),
        ({"sequence_id": 2**64 - 1}, SequenceStep(2**64 - 1)),
    ],
    ids=["a number, the first", "neither first nor last", "a text, the last", "the highest number"],
)
def test_a_step_is_read(make_add_entry: Callable[..., Any], parameters: dict[str, Any], step: SequenceStep) -> None:
    assert read_settings(parameters, make_add_entry(sequences=STATEFUL)).sequence == step


@pytest.mark.parametrize(
    ("rules", "parameters", "said"),
    [
        (STATEFUL, {}, "the first one of a sequence has 'sequence_start': true; got none"),
        (STATEFUL, {"sequence_id": 0}, "got none"),
        (STATEFUL, {"sequence_id": ""}, "got none"),
        (STATEFUL, {"sequence_id": -1}, "a number from 1 to 18446744073709551615, or a text of at most 128"),
        (STATEFUL, {"sequence_id": True}, "a number from 1"),
        (STATEFUL, {"sequence_id": "x" * 129}, "at most 128 characters"),
        (STATEFUL, {"sequence_id": 1, "sequence_start": 1}, "'sequence_start' is true or false; got 1"),
        (with_id("INT32"), {"sequence_id": 2**31}, "a number from 1 to 2147483647; got 2147483648"),
        (with_id("UINT64"), {"sequence_id": "call-7"}, "a number from 1 to 18446744073709551615; got 'call-7'"),
        (None, {"sequence_id": 1}, "model 'add' is not stateful; leave it out"),
    ],
    ids=[
        "no parameters", "no number", "no text", "negative", "a truth value", "too long", "no flag",
        "too high for the model", "a text for a model that takes numbers", "not stateful",
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(
    make_add_entry: Callable[..., Any], rules: SequenceRules | None, parameters: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidArgument, match=said):
        read_settings(parameters, make_add_entry(sequences=rules))


async def test_over_grpc_each_request_has_its_own_step(
    hot: HotInference, plane: Any, stateful: Any, make_add_request: Callable[..., Any]
) -> None:
    said: list[dict[str, Any]] = [
        {"sequence_id": 1, "sequence_start": True}, {"sequence_id": 1}, {"sequence_id": 2, "sequence_start": True},
        {"sequence_id": 1}, {"sequence_id": 1, "sequence_end": True},
    ]  # fmt: skip
    for parameters in said:
        await hot.infer_bytes(step_message(make_add_request, **parameters).SerializeToString(), "default")
    assert [request.sequence for request in plane.requests] == [
        read_settings(parameters, stateful).sequence for parameters in said
    ]


async def test_over_grpc_a_step_is_one_row(
    hot: HotInference, stateful: Any, make_add_request: Callable[..., Any]
) -> None:
    message = step_message(make_add_request, rows=2, sequence_id=1, sequence_start=True)
    with pytest.raises(
        InvalidArgument, match="'a' of model 'add' has 2 rows; a request of a stateful model is one step"
    ):
        await hot.infer_bytes(message.SerializeToString(), "default")


def test_over_rest_each_request_has_its_own_step(make_add_entry: Callable[..., Any]) -> None:
    decoder, signature = JsonDecoder(), Signature(make_add_entry(sequences=STATEFUL))
    inputs = [{"name": name, "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]} for name in ("a", "b")]
    steps = []
    for parameters in ({"sequence_id": "x", "sequence_start": True}, {"sequence_id": "x"}, {"sequence_id": "x"}):
        body = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
        steps.append(decoder.decode(body, None, signature, Caller("default"), 0.0).request.sequence)
    assert steps == [SequenceStep("x", True), SequenceStep("x"), SequenceStep("x")]


def test_its_configuration_says_that_a_model_is_stateful(stateful: Any) -> None:
    batching = describe.model_config(stateful).sequence_batching
    [state] = batching.state
    assert (state.input_name, state.output_name, list(state.dims)) == ("state", "state_out", [2, 3])
    assert batching.max_sequence_idle_microseconds == 5_000_000
    assert "sequence" in describe.server_metadata().extensions
