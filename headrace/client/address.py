"""Where the mesh is: a URL to what gRPC needs to connect."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from headrace.errors import InvalidArgument

DEFAULT_URL = "http://127.0.0.1:8080"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """A mesh's address.

    Attributes:
        url: as the user wrote it, for messages.
        target: gRPC target.
        tls: whether to speak TLS.
        loopback: the machine itself, where no proxy must be asked.
    """

    url: str
    target: str
    tls: bool
    loopback: bool

    @property
    def options(self) -> list[tuple[str, int]]:
        """Channel options. Sizes are the mesh's to limit; retries are ours and not gRPC's."""
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ]
        if self.loopback:
            options.append(("grpc.enable_http_proxy", 0))
        return options


def parse_address(url: str | None) -> Address:
    """Reads a URL; None: HEADRACE_URL, or the default of `headrace up`.

    Raises:
        InvalidArgument: not http://HOST[:PORT], https://HOST[:PORT] or unix:PATH.
    """
    text = url or os.environ.get("HEADRACE_URL") or DEFAULT_URL
    if text.startswith("unix:"):
        return Address(text, text, tls=False, loopback=True)
    try:
        parts = urlsplit(text)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        raise _not_a_url(text) from None
    if parts.scheme not in _PORTS or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise _not_a_url(text)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Address(text, f"{host}:{port}", parts.scheme == "https", is_loopback(parts.hostname))


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine, without asking a name server."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _not_a_url(text: str) -> InvalidArgument:
    return InvalidArgument(f"the mesh's URL: expected http://HOST:PORT or https://HOST:PORT; got {text!r}")
