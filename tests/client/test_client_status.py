"""What the mesh says on the wire arrives as the same error."""

import grpc
import pytest

from headrace import errors
from headrace.client.status import error_from_call, error_from_status
from headrace_common.errors import EngineFailed
from headrace_common.status import wire_status

SAME_ON_BOTH_SIDES = [
    errors.InvalidArgument("input 'x': expected FP32"),
    errors.NotFound("no model 'iris'"),
    errors.AlreadyExists("taken"),
    errors.FailedPrecondition("owns models"),
    errors.Unauthenticated("who are you"),
    errors.PermissionDenied("not yours"),
    errors.DeadlineExceeded("too late"),
    errors.Cancelled("gone"),
    errors.Unavailable("no memory for an instance"),
    errors.Unimplemented("no such thing"),
    errors.QueueFull("queue is full", retry_after_s=0.25),
    errors.QuotaExceeded("over 5 requests", subject="tenant:acme", dimension="concurrency", retry_after_s=1.5),
    errors.QuotaExceeded("no time helps", subject="tenant:acme", dimension="memory", retry_after_s=None),
    errors.LimitExceeded("message of 2 GiB"),
]


@pytest.mark.parametrize("sent", SAME_ON_BOTH_SIDES, ids=lambda error: f"{type(error).__name__}: {error}")
def test_an_error_arrives_as_what_it_was(sent: errors.HeadraceError) -> None:
    wire = wire_status(sent)
    received = error_from_status(wire.code, wire.message, wire.details)
    assert type(received) is type(sent)
    assert received.message == sent.message
    for attribute in ("subject", "dimension", "retry_after_s"):
        assert getattr(received, attribute, None) == getattr(sent, attribute, None)


def test_a_failed_engine_is_internal() -> None:
    wire = wire_status(EngineFailed("cuda says no"))
    received = error_from_status(wire.code, wire.message, wire.details)
    assert type(received) is errors.Internal
    assert "cuda" not in received.message


def test_every_status_has_an_error_with_words() -> None:
    for code in grpc.StatusCode:
        assert error_from_status(code, "", None).message


def test_details_that_do_not_parse_do_not_hide_the_refusal() -> None:
    received = error_from_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "over", b"\xff\xff\xff")
    assert received.message == "over"


@pytest.mark.parametrize("text", ["", "Deadline Exceeded", "Stream removed (Deadline Exceeded)"])
def test_a_deadline_that_passes_on_this_side_says_what_to_do(text: str) -> None:
    received = error_from_status(grpc.StatusCode.DEADLINE_EXCEEDED, text, None)
    assert type(received) is errors.DeadlineExceeded
    assert received.message.startswith("no answer within the deadline; allow more time")


def test_tracebacks_name_errors_as_callers_import_them() -> None:
    assert {getattr(errors, name).__module__ for name in errors.__all__} == {"headrace.errors"}


@pytest.mark.parametrize(
    "text",
    [
        "failed to connect to all addresses; last error: UNKNOWN: Connection refused",
        "errors resolving nohost.invalid:80: [field:hostname lookup error:Domain name not found]",
        "DNS resolution failed for nohost.invalid:80: UNAVAILABLE",
    ],
)
def test_without_a_connection_the_error_says_what_to_do(text: str) -> None:
    class Failed(grpc.RpcError):
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.UNAVAILABLE

        def details(self) -> str:
            return text

        def trailing_metadata(self) -> tuple[()]:
            return ()

    received = error_from_call(Failed(), "http://nohost.invalid")
    assert type(received) is errors.Unreachable
    assert received.message.startswith("cannot reach the mesh at http://nohost.invalid; start it with `headrace up`")
