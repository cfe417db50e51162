"""Which connection takes the next request."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol as Interface

from benchmarks.generator import http1, http2

MOST_CONNECTIONS = 512
"""As many as the closed loop opens; a server that needs more is behind anyway."""


class Protocol(Interface):
    """A connection's protocol without its socket; see `http2.Connection`."""

    @property
    def ready(self) -> bool: ...
    def request(self, number: int) -> None: ...
    def to_send(self) -> bytes: ...
    def feed(self, received: bytes) -> list[tuple[int, bool]]: ...


@dataclass(eq=False, slots=True)
class Link:
    """A socket, its protocol, and bytes that the socket would not take yet."""

    socket: socket.socket
    protocol: Protocol
    unsent: bytes = b""

    def fileno(self) -> int:
        return self.socket.fileno()


class SharedLinks:
    """HTTP/2: a few connections in turn, each with as many requests as come."""

    def __init__(self, make: Callable[[], http2.Connection], address: tuple[str, int], count: int) -> None:
        self.links = [Link(connected(address), make()) for _ in range(count)]

    def take(self, number: int) -> Link | None:
        """The connection that has it now; None: it waits for one."""
        link = self.links[number % len(self.links)]
        link.protocol.request(number)
        return link

    def give_back(self, link: Link) -> None:
        """One of its requests has ended."""


class LoneLinks:
    """HTTP/1.1: an idle connection, or one more; when there are as many as may be, requests wait here."""

    def __init__(self, make: Callable[[], http1.Connection], address: tuple[str, int], count: int) -> None:
        self._make, self._address = make, address
        self.links = [Link(connected(address), make()) for _ in range(count)]
        self._idle = list(self.links)
        self._waiting: deque[int] = deque()

    def take(self, number: int) -> Link | None:
        if self._idle:
            link = self._idle.pop()
        elif len(self.links) < MOST_CONNECTIONS:
            link = Link(connected(self._address), self._make())
            self.links.append(link)
        else:
            self._waiting.append(number)
            return None
        link.protocol.request(number)
        return link

    def give_back(self, link: Link) -> None:
        if self._waiting:
            link.protocol.request(self._waiting.popleft())
        else:
            self._idle.append(link)


def connected(address: tuple[str, int]) -> socket.socket:
    """Not blocking, and nothing held back to fill packets."""
    made = socket.create_connection(address)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setblocking(False)
    return made
