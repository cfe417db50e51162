"""The google.api.http annotations that are understood, and those that stop the start."""

from __future__ import annotations

import pytest
from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor

from headrace_common.errors import NotFound
from headrace_router.api.rules import Rules, WrongVerb


def service(*rules: http_pb2.HttpRule, client_streaming: bool = False) -> ServiceDescriptor:
    """One method a rule, in a pool of its own; the request has a text `a` and a message `inner` with a text `b`."""
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    inner = file.message_type.add(name="Inner")
    inner.field.add(name="b", number=1, type=9, label=1)
    request = file.message_type.add(name="Request")
    request.field.add(name="a", number=1, type=9, label=1)
    request.field.add(name="inner", number=2, type=11, label=1, type_name=".t.Inner")
    request.field.add(name="many", number=3, type=9, label=3)
    made = file.service.add(name="S")
    for index, rule in enumerate(rules):
        method = made.method.add(
            name=f"M{index}", input_type=".t.Request", output_type=".t.Inner", client_streaming=client_streaming
        )
        method.options.Extensions[annotations_pb2.http].CopyFrom(rule)
    pool.Add(file)
    return pool.FindServiceByName("t.S")


def test_literals_go_before_fields_and_verbs_are_told_apart() -> None:
    rules = Rules(
        [
            service(
                http_pb2.HttpRule(get="/v1/x/{a}"),
                http_pb2.HttpRule(get="/v1/x/all"),
                http_pb2.HttpRule(put="/v1/x/{inner.b}"),
            )
        ]
    )
    assert rules.find("GET", "/v1/x/all").rule.path == "/t.S/M1"
    assert rules.find("GET", "/v1/x/one").values == {("a",): "one"}
    assert rules.find("PUT", "/v1/x/all").values == {("inner", "b"): "all"}
    with pytest.raises(WrongVerb) as wrong:
        rules.find("DELETE", "/v1/x/all")
    assert wrong.value.allowed == "GET, PUT"
    with pytest.raises(NotFound):
        rules.find("GET", "/v1/x")


def test_additional_bindings_are_rules_too() -> None:
    more = http_pb2.HttpRule(get="/v1/one", additional_bindings=[http_pb2.HttpRule(post="/v1/two", body="*")])
    assert {(rule.verb, rule.segments) for rule in Rules([service(more)])} == {
        ("GET", ("v1", "one")),
        ("POST", ("v1", "two")),
    }


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (http_pb2.HttpRule(get="/v1/**"), "not understood"),
        (http_pb2.HttpRule(get="/v1/x:verb"), "not understood"),
        (http_pb2.HttpRule(get="/v1/{a=x/*}"), "single value"),
        (http_pb2.HttpRule(get="/v1/{nope}"), "single value"),
        (http_pb2.HttpRule(get="/v1/{inner}"), "single value"),
        (http_pb2.HttpRule(get="/v1/{many}"), "single value"),
        (http_pb2.HttpRule(put="/v1/x", body="nope"), "nope"),
        (http_pb2.HttpRule(get="/v1/x", response_body="b"), "response_body"),
        (http_pb2.HttpRule(custom=http_pb2.CustomHttpPattern(kind="LIST", path="/v1/x")), "needs one of"),
    ],
)
def test_annotations_beyond_what_is_known_are_errors(rule: http_pb2.HttpRule, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Rules([service(rule)])


def test_stream_of_requests_has_no_json_form() -> None:
    with pytest.raises(ValueError, match="one request"):
        Rules([service(http_pb2.HttpRule(post="/v1/x", body="*"), client_streaming=True)])
