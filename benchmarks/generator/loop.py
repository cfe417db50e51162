"""Sends what is due and notes when answers come. One thread, one epoll."""

from __future__ import annotations

import select
import time

from benchmarks.generator.http2 import ProtocolError
from benchmarks.generator.pools import Link, LoneLinks, SharedLinks
from benchmarks.generator.schedule import Done, Plan

GIVES_UP_AFTER_S = 5.0
_READY_WITHIN_S = 10.0
_READ_BYTES = 1 << 18


class Loop:
    """One run of one plan.

    Attributes:
        done: answers in the order they came.
        sent_at: by number.
    """

    def __init__(self, plan: Plan, links: SharedLinks | LoneLinks) -> None:
        self.done: list[Done] = []
        self.sent_at: list[float] = []
        self._plan = plan
        self._links = links
        self._by_number: dict[int, Link] = {}
        self._poll = select.epoll()
        self._started = 0.0
        for link in links.links:
            self._watch(link)

    def run(self) -> None:
        """Returns when all is answered, or some time after the last request was due. Closes the connections."""
        try:
            self._settle()
            self._send_what_is_due()
        finally:
            self._poll.close()
            for link in self._links.links:
                link.socket.close()

    def _send_what_is_due(self) -> None:
        plan, count = self._plan, self._plan.count
        self._started = time.perf_counter()
        gives_up_at = plan.due(count) + GIVES_UP_AFTER_S
        number = 0
        while len(self.done) < count:
            now = time.perf_counter() - self._started
            if now > gives_up_at:
                return
            touched: dict[Link, None] = {}
            while number < count and plan.due(number) <= now:
                if (taken := self._take(number)) is not None:
                    touched[taken] = None
                self.sent_at.append(now)
                number += 1
            for link in touched:
                self._flush(link)
            left_s = (plan.due(number) if number < count else gives_up_at) - (time.perf_counter() - self._started)
            self._wait(max(0.0, left_s))

    def _settle(self) -> None:
        """Until every connection may send."""
        give_up = time.perf_counter() + _READY_WITHIN_S
        for link in self._links.links:
            self._flush(link)
        while not all(link.protocol.ready for link in self._links.links):
            if time.perf_counter() > give_up:
                raise ProtocolError("the server does not acknowledge the client's settings")
            self._wait(0.1)

    def _take(self, number: int) -> Link | None:
        known = len(self._links.links)
        link = self._links.take(number)
        if link is not None and len(self._links.links) > known:
            self._watch(link)
        return link

    def _watch(self, link: Link) -> None:
        self._by_number[link.fileno()] = link
        self._poll.register(link.fileno(), select.EPOLLIN)

    def _wait(self, timeout_s: float) -> None:
        # epoll counts in milliseconds, which is too coarse; select can wait for the epoll itself in microseconds.
        if not select.select([self._poll], [], [], timeout_s)[0]:
            return
        for descriptor, event in self._poll.poll(0):
            link = self._by_number[descriptor]
            if event & select.EPOLLOUT:
                self._poll.modify(descriptor, select.EPOLLIN)
            if event & ~select.EPOLLOUT:
                self._read(link)
            self._flush(link)

    def _read(self, link: Link) -> None:
        received = link.socket.recv(_READ_BYTES)
        if not received:
            raise ProtocolError("the server closed a connection")
        now = time.perf_counter() - self._started
        for number, ok in link.protocol.feed(received):
            self.done.append(Done(number, now, ok))
            self._links.give_back(link)

    def _flush(self, link: Link) -> None:
        data = link.unsent + link.protocol.to_send()
        if not data:
            return
        try:
            sent = link.socket.send(data)
        except BlockingIOError:
            sent = 0
        link.unsent = data[sent:]
        if link.unsent:
            self._poll.modify(link.fileno(), select.EPOLLIN | select.EPOLLOUT)
