"""What callers give, as messages of the API. Shared by the blocking and the asynchronous client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from numbers import Real
from typing import Any, TypedDict, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.errors import InvalidArgument
from headrace.v1 import models_pb2, resources_pb2
from headrace_common.quantities import parse_seconds

DEFAULT_TIMEOUT_S = 30.0
DEPLOY_TIMEOUT_S = 600.0
UPLOAD_TIMEOUT_S = 3600.0

Built = TypeVar("Built", bound=Message)


class ModelOptions(TypedDict, total=False):
    """What a deploy may say besides source and name. What is absent has the mesh's default.

    Durations are text ("100ms", "60s", "5m") or `timedelta`. Quantities are text as in the API:
    {"cpu": "500m", "memory": "1Gi"}; a budget is {"per_hour": "1.50"}.
    """

    tenant: str
    min_instances: int | None
    max_instances: int | None
    idle_timeout: str | timedelta | None
    slo: str | timedelta | None
    max_batch_size: int | None
    resources: Mapping[str, Any]
    limits: Mapping[str, Any]
    budget: Mapping[str, str]
    shared_with: Sequence[str]
    engine: str
    engine_options: Mapping[str, str]
    response_cache: bool | None
    cache_ttl: str | timedelta | None
    cache_shared: bool
    instance_concurrency: int | None
    policy: str
    padding: Mapping[str, float]
    states: Mapping[str, str]
    sequence_idle: str | timedelta | None
    tolerates_spot: bool
    spread: int
    gpu_architectures: Sequence[str]
    traffic: str
    cost_sensitivity: str
    schedules: Sequence[str]
    targets: Mapping[str, float]
    slo_credit: str | None
    max_cpu: str | None


class OptimizeOptions(TypedDict, total=False):
    """What an optimisation may ask for. What is absent has the mesh's default.

    `labels` names the array with right answers; without it answers are compared with the original's. `latency` is text
    ("20ms") or a `timedelta`. With `keep_original` nothing is deployed: what was found is listed.
    """

    labels: str
    floor: float | None
    latency: str | timedelta | None
    precisions: Sequence[str]
    prune: Sequence[float]
    keep_original: bool


def build(kind: type[Built], **fields: Any) -> Built:
    """A message of these fields.

    Raises:
        InvalidArgument: a value is not of its field's kind; names the field.
    """
    try:
        return kind(**fields)
    except (TypeError, ValueError):
        for name, value in fields.items():
            try:
                kind(**{name: value})
            except (TypeError, ValueError):
                raise InvalidArgument(f"{name}: {value!r} of type {type(value).__name__} cannot be sent") from None
        raise


def timeout(seconds: float) -> float:
    """A deadline, in seconds from now, once it is known to be one.

    Raises:
        InvalidArgument: it is none.
    """
    if not isinstance(seconds, Real) or not 0 < seconds < float("inf"):
        raise InvalidArgument(f"timeout_s: expected more than 0 seconds; got {seconds!r}")
    return seconds


def model_spec(name: str, options: ModelOptions) -> models_pb2.ModelSpec:
    """The API's ModelSpec out of what a caller, or a command line, gave.

    Raises:
        InvalidArgument: an unknown quantity, or a value of the wrong kind.
    """
    given: dict[str, Any] = {key: value for key, value in options.items() if value not in (None, "", {}, ())}
    try:
        for key in ("resources", "limits"):
            if key in given:
                given[key] = resources_pb2.Quantities(**given[key])
        if "budget" in given:
            given["budget"] = resources_pb2.Budget(**given["budget"])
        for key in ("idle_timeout", "slo", "cache_ttl", "sequence_idle"):
            if key in given:
                given[key] = duration(given[key], key)
        return models_pb2.ModelSpec(name=name, **given)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"model {name!r}: {error}") from None


def optimization(options: OptimizeOptions) -> models_pb2.Optimization:
    """The API's Optimization out of what a caller, or a command line, gave.

    Raises:
        InvalidArgument: a value of the wrong kind.
    """
    given: dict[str, Any] = {key: value for key, value in options.items() if value not in (None, "", ())}
    if "latency" in given:
        given["latency"] = duration(given["latency"], "latency")
    return build(models_pb2.Optimization, **given)


def duration(span: str | timedelta, what: str) -> Duration:
    """Text such as "100ms", or a timedelta. `what` is for the error."""
    seconds = parse_seconds(span, what) if isinstance(span, str) else span.total_seconds()
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def timestamp(moment: datetime) -> Timestamp:
    """A moment; one without a zone is UTC."""
    if not isinstance(moment, datetime):
        raise InvalidArgument(f"expected a datetime; got {moment!r}")
    message = Timestamp()
    message.FromDatetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    return message
