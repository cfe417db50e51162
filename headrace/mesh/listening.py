"""Addresses to listen on: parsed, checked to be this machine's own, found free, and held."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

from headrace.client.address import is_loopback
from headrace.errors import FailedPrecondition, InvalidArgument


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """A loopback address. Port 0: any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self}"

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET


def parse_listen(text: str, what: str) -> ListenAddress:
    """Reads HOST:PORT.

    Raises:
        InvalidArgument: not of this form, or not loopback.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidArgument(f"{what}: expected HOST:PORT such as 127.0.0.1:8080; got {text!r}")
    if not is_loopback(host):
        raise InvalidArgument(
            f"{what}: {host} is not loopback, and the mesh has no credentials yet that would keep others out; "
            "use 127.0.0.1 or [::1]"
        )
    return ListenAddress("127.0.0.1" if host == "localhost" else host, int(port))


class HeldPort:
    """A port that is ours until `close`: bound, not listening, and shared with the routers by SO_REUSEPORT."""

    def __init__(self, address: ListenAddress, holder: socket.socket) -> None:
        self.address = address
        self._holder = holder

    def close(self) -> None:
        self._holder.close()


def hold_port(address: ListenAddress, what: str) -> HeldPort:
    """Takes a port for the routers.

    Raises:
        FailedPrecondition: something else listens there.
    """
    if address.port:
        check_free(address, what)
    try:
        holder = _bind_shared(address, reuse_address=False)
    except OSError:
        # Connections that somebody else has just closed there are still in TIME_WAIT.
        holder = _bind_or_refuse(address, what)
    return HeldPort(ListenAddress(address.host, holder.getsockname()[1]), holder)


def _bind_or_refuse(address: ListenAddress, what: str) -> socket.socket:
    try:
        return _bind_shared(address, reuse_address=True)
    except OSError as error:
        raise cannot_bind(address, what, error) from None


def _bind_shared(address: ListenAddress, reuse_address: bool) -> socket.socket:
    """Bound and not listening. Without SO_REUSEADDR on it, another mesh's `check_free` sees it."""
    holder = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse_address))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((address.host, address.port))
    except OSError:
        holder.close()
        raise
    return holder


def check_free(address: ListenAddress, what: str) -> None:
    """Raises FailedPrecondition where something listens already, even if it shares its port."""
    with socket.socket(address.family, socket.SOCK_STREAM) as probe:
        # Without SO_REUSEPORT, or another mesh's port would look free and half its connections be ours.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            raise cannot_bind(address, what, error) from None


def cannot_bind(address: ListenAddress, what: str, error: OSError) -> FailedPrecondition:
    """Why an address cannot be listened on, for people; `what` is who wants to."""
    if error.errno == errno.EADDRINUSE:
        return FailedPrecondition(
            f"{what}: port {address.port} of {address.host} is in use; stop what listens there or choose another port"
        )
    return FailedPrecondition(f"{what}: cannot listen on {address}: {error.strerror}")
