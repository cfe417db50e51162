"""What both clients keep of a mesh: where it is, who calls, deadlines, retries, and grpc's callables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from headrace.client import messages
from headrace.client.address import Address, parse_address
from headrace.client.methods import Method
from headrace.client.retry import Attempts, RetryBudget, RetryPolicy
from headrace.errors import FailedPrecondition, HeadraceError
from headrace_common.identity import TENANT_KEY, tenant_name


class Connection:
    """A client's own half of a connection.

    Args:
        url, tenant, timeout_s, retry, clock, jitter: as the clients take them.

    Attributes:
        metadata: that goes with every call.
        closed: no call is made any more.
    """

    def __init__(
        self,
        url: str | None,
        tenant: str | None,
        timeout_s: float,
        retry: RetryPolicy,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self.address: Address = parse_address(url)
        self.timeout_s = messages.timeout(timeout_s)
        self.metadata = ((TENANT_KEY, tenant_name(tenant, "tenant")),) if tenant else ()
        self.closed = False
        self._retry = retry
        self._budget = RetryBudget(retry)
        self._clock = clock
        self._jitter = jitter
        self._callables: dict[str, Any] = {}

    def open(self, kind: Any) -> Any:
        """A channel of `grpc` or of `grpc.aio`, whichever is given."""
        address = self.address
        if address.tls:
            return kind.secure_channel(address.target, grpc.ssl_channel_credentials(), options=address.options)
        return kind.insecure_channel(address.target, options=address.options)

    def callable(self, channel: Any, method: Method[Any, Any], kind: str) -> Any:
        """What grpc makes of a method; the same each time."""
        found = self._callables.get(method.path)
        if found is None:
            found = self._callables[method.path] = method.on(channel, kind)
        return found

    def check_open(self) -> None:
        """Raises FailedPrecondition once the client is closed."""
        if self.closed:
            raise FailedPrecondition("the client is closed")

    def attempts(self, timeout_s: float | None) -> Attempts:
        """A call begins, with its own deadline or the client's."""
        within_s = self.timeout_s if timeout_s is None else messages.timeout(timeout_s)
        return Attempts(self._retry, self._budget, self._clock() + within_s)

    def left_s(self, attempts: Attempts) -> float | None:
        """Time that a sending has now."""
        return attempts.remaining_s(self._clock())

    def delay_s(self, attempts: Attempts, error: HeadraceError, repeatable: bool) -> float:
        """How long to wait before the call is sent again; raises the error if it is not."""
        delay_s = attempts.delay_s(error, self._clock(), self._jitter()) if repeatable else None
        if delay_s is None:
            raise error
        return delay_s
