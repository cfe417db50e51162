from __future__ import annotations

import pytest
from google.protobuf.message import Message

from headrace.control.v1 import control_pb2
from headrace.runner.v1 import runner_pb2
from headrace.v1 import models_pb2, resources_pb2, tenants_pb2
from headrace_common.errors import InvalidArgument
from headrace_common.validation import validate


def spec(**fields: object) -> models_pb2.DeployModelRequest:
    return models_pb2.DeployModelRequest(model=models_pb2.ModelSpec(**fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        pytest.param(models_pb2.DeployModelRequest(), "model", id="no model"),
        pytest.param(spec(name="a b"), "model.name", id="a name with a space"),
        pytest.param(spec(name="m", min_instances=-1), "model.min_instances", id="negative minimum"),
        pytest.param(spec(name="m", engine="gpu9000"), "model.engine", id="unknown engine"),
        pytest.param(
            spec(name="m", resources=resources_pb2.Quantities(cpu="lots")), "model.resources.cpu", id="nested quantity"
        ),
        pytest.param(
            tenants_pb2.SetTenantRequest(tenant=tenants_pb2.TenantSpec(name="t", weight=-1.0)),
            "tenant.weight",
            id="negative weight",
        ),
        pytest.param(runner_pb2.LoadRequest(), "instance_id", id="internal messages too"),
    ],
)
def test_a_broken_rule_is_named_by_its_field(message: Message, field: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        validate(message)
    assert field in refusal.value.message


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(spec(name="resnet-50.v2"), id="a plain model"),
        pytest.param(control_pb2.Hello(), id="a file without rules"),
    ],
)
def test_a_good_message_passes(message: Message) -> None:
    validate(message)
