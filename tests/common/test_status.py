from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from headrace_common import errors
from headrace_common.asgi_grpc.metadata import encode_message, encode_value
from headrace_common.status import DETAILS_KEY, GENERIC, wire_status


@pytest.mark.parametrize(
    ("error", "code", "http_status"),
    [
        pytest.param(errors.NotFound("x"), grpc.StatusCode.NOT_FOUND, 404, id="unknown model"),
        pytest.param(errors.InvalidArgument("x"), grpc.StatusCode.INVALID_ARGUMENT, 400, id="wrong tensor"),
        pytest.param(
            errors.QuotaExceeded("x", subject="tenant:a", dimension="concurrency", retry_after_s=0.1),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            429,
            id="over a quota",
        ),
        pytest.param(errors.QueueFull("x", retry_after_s=2), grpc.StatusCode.RESOURCE_EXHAUSTED, 503, id="load shed"),
        pytest.param(errors.DeadlineExceeded("x"), grpc.StatusCode.DEADLINE_EXCEEDED, 504, id="deadline"),
        pytest.param(errors.Unauthenticated("x"), grpc.StatusCode.UNAUTHENTICATED, 401, id="no credentials"),
        pytest.param(errors.PermissionDenied("x"), grpc.StatusCode.PERMISSION_DENIED, 403, id="not yours"),
        pytest.param(errors.Unavailable("x"), grpc.StatusCode.UNAVAILABLE, 503, id="no instance"),
        pytest.param(errors.EngineFailed("secret"), grpc.StatusCode.INTERNAL, 500, id="engine failed"),
        pytest.param(ValueError("secret"), grpc.StatusCode.INTERNAL, 500, id="a bug"),
    ],
)
def test_error_table(error: Exception, code: grpc.StatusCode, http_status: int) -> None:
    status = wire_status(error)
    assert (status.code, status.http_status) == (code, http_status)
    assert "secret" not in status.message


def test_a_subclass_maps_like_its_parent() -> None:
    class Special(errors.NotFound):
        pass

    assert wire_status(Special("x")).code is grpc.StatusCode.NOT_FOUND


def test_unknown_errors_say_nothing() -> None:
    assert wire_status(KeyError("path/to/something")).message == GENERIC


def test_a_quota_refusal_names_whose_limit_and_when_to_retry() -> None:
    error = errors.QuotaExceeded("too many", subject="tenant:acme", dimension="concurrency", retry_after_s=1.25)
    wire = wire_status(error)
    assert wire.details is not None
    status = status_pb2.Status.FromString(wire.details)
    failure, retry = error_details_pb2.QuotaFailure(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(failure)
    assert status.details[1].Unpack(retry)
    assert failure.violations[0].subject == "tenant:acme"
    assert failure.violations[0].description.startswith("concurrency")
    assert retry.retry_delay.ToMilliseconds() == 1250
    assert dict(wire.http_headers) == {"retry-after": "2"}


def test_a_message_of_any_length_fits_into_what_clients_take_as_trailers() -> None:
    text = "there is no model '" + "näme" * 50_000
    error = errors.QuotaExceeded(text, subject="tenant:a", dimension="concurrency", retry_after_s=1)
    status = wire_status(error)
    assert status.details is not None
    assert len(encode_message(status.message)) + len(encode_value(DETAILS_KEY, status.details)) < 8192 - 512
    assert status.message.startswith("there is no model 'näme")
    assert status.message.endswith("...")
