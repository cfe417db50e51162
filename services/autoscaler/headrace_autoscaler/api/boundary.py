"""The edge of every method: who calls, is the request well-formed, and which status an error becomes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from typing import NoReturn, Protocol, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from headrace_autoscaler.api.names import check_names
from headrace_common.errors import HeadraceError, PermissionDenied
from headrace_common.identity import TENANT_KEY, tenant_of
from headrace_common.logs import get_logger
from headrace_common.status import DETAILS_KEY, wire_status
from headrace_common.validation import validate

Q = TypeVar("Q")
R = TypeVar("R")
S = TypeVar("S")


class Context(Protocol):
    """What is used here of grpc.aio.ServicerContext, so that other hosts may offer the same."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: tuple[tuple[str, bytes], ...] = ()
    ) -> NoReturn: ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        tenant: "default" for who names none.
        named: it said so itself. Who names no tenant is the operator, on loopback.
    """

    tenant: str
    named: bool

    def check_may_change(self, model: str, owner: str) -> None:
        """Raises PermissionDenied where a tenant would change another tenant's model."""
        if self.named and self.tenant != owner:
            raise PermissionDenied(
                f"model {model!r}: tenant {self.tenant!r} may only deploy and delete models of its own, and this is "
                f"of tenant {owner!r}"
            )


def caller_of(context: Context) -> Caller:
    """From the call's metadata.

    Raises:
        Unauthenticated: the header does not hold one tenant's name.
    """
    values = [
        value.decode(errors="replace") if isinstance(value, bytes) else value
        for key, value in context.invocation_metadata() or ()
        if key == TENANT_KEY
    ]
    return Caller(tenant_of(",".join(values) if values else None), bool(values))


def answers(method: Callable[[S, Q, Context], Awaitable[R]]) -> Callable[[S, Q, Context], Awaitable[R]]:
    """Wraps a method with one answer. A stream of requests is validated by who reads it."""

    @wraps(method)
    async def guarded(self: S, request: Q, context: Context) -> R:
        try:
            caller_of(context)
            if isinstance(request, Message):
                check_names(request)
                validate(request)
            return await method(self, request, context)
        except Exception as error:  # noqa: BLE001 - every error becomes a status here
            await refuse(context, error)

    return guarded


def streams(method: Callable[[S, Q, Context], AsyncIterator[R]]) -> Callable[[S, Q, Context], AsyncIterator[R]]:
    """Wraps a method with one request and a stream of answers."""

    @wraps(method)
    async def guarded(self: S, request: Q, context: Context) -> AsyncIterator[R]:
        try:
            caller_of(context)
            if isinstance(request, Message):
                validate(request)
            async for answer in method(self, request, context):
                yield answer
        except Exception as error:  # noqa: BLE001 - every error becomes a status here
            await refuse(context, error)

    return guarded


async def refuse(context: Context, error: Exception) -> NoReturn:
    """Ends the call with the error's status; what is not ours goes to the log in full."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, HeadraceError):
        get_logger(part="api").error("method failed", exc_info=error)
    status = wire_status(error)
    trailers = ((DETAILS_KEY, status.details),) if status.details is not None else ()
    await context.abort(status.code, status.message, trailers)
