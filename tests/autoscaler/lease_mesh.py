"""Routers and autoscalers that come and go, on streams that delay and lose; and that nobody has more than there is."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace_autoscaler.core.leased_limits import DIMENSIONS
from headrace_autoscaler.core.leases import LeaseBook, Share, Want
from headrace_autoscaler.core.promises import Promise, with_earlier
from headrace_autoscaler.core.quota import TenantQuota
from headrace_autoscaler.domain import Limits

TTL_S = 10.0
REPLACED = ("before", "after", "never")
"""The autoscaler, with a change."""
NAMES = ("router-0", "router-1", "router-2", "router-9")


@dataclass
class Stream:
    """One Sync stream. What was written on it can be read late, even after the other end has given it up.

    Attributes:
        due: keys that have changed since the last update, which the next one has to name.
        whole: versions of updates that name all keys.
    """

    down: list[tuple[int, int, dict[str, Share | None]]] = field(default_factory=list)
    due: set[str] = field(default_factory=set)
    whole: set[int] = field(default_factory=set)
    up: list[tuple[int | None, dict[str, Limits]]] = field(default_factory=list)
    version: int = 0
    serials: dict[int, int] = field(default_factory=dict)
    changes: dict[int, int] = field(default_factory=dict)
    answers: int = 0
    heard_at: float = 0.0
    open: bool = True


@dataclass
class Unheard:
    """What a limit was before a change, and which routers may not have heard of that."""

    promise: Promise
    change: int
    routers: set[str]


@dataclass
class Router:
    """What a router obeys. Without any lease it serves nobody: it does not know the models yet.

    Attributes:
        changes: the last that had been made when the lease was issued that it obeys, by key.
        in_hand: requests that it has let in and not answered, by key.
        strays: keys of which it had more in hand than a floor when its lease ran out: nobody knows how long that takes.
    """

    stream: Stream | None = None
    sent_at: dict[int, float] = field(default_factory=dict)
    leases: dict[str, tuple[Share, float]] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)
    in_hand: dict[str, int] = field(default_factory=dict)
    strays: set[str] = field(default_factory=set)

    def excess(self, now: float) -> dict[str, Limits]:
        beyond = {key: count for key, count in self.in_hand.items() if count > self.obeys(key, "concurrency", now)}
        return {key: Limits(concurrency=count) for key, count in beyond.items() if key in self.leases}

    def obeys(self, key: str, name: str, now: float) -> float:
        if key not in self.leases:
            return 0
        share, expires = self.leases[key]
        limits = share.limits if now < expires else share.floor
        return getattr(limits, name) or 0


class LeaseMesh(RuleBasedStateMachine):
    """`set_up` first."""

    names = st.sampled_from(NAMES)
    places = st.integers(0, 3)
    routers: dict[str, Router]

    def set_up(self, processes: int, limits: dict[str, Limits], quotas: Iterable[TenantQuota] = ()) -> None:
        self.processes, self.limits, self.quotas = processes, limits, tuple(quotas)
        self.now = 0.0
        self.routers = {name: Router() for name in NAMES}
        self.wants: dict[str, dict[str, Want]] = {}
        self.changes = 0
        self.promises: dict[str, Unheard] = {}
        self.book = self.new_book()

    def new_book(self) -> LeaseBook:
        promised = {key: each.promise for key, each in self.promises.items()}
        book = LeaseBook(self.processes, TTL_S, self.now + TTL_S, promised)
        book.set_limits(self.limits, self.quotas)
        return book

    def changed(self, *keys: str) -> None:
        """Before the change itself. Streams' next updates name these keys."""
        self.changes += 1
        for router in self.routers.values():
            if router.stream is not None:
                router.stream.due.update(keys)

    def promise(self, key: str, was: Limits | None) -> None:
        """Before a change: as if the autoscaler were killed at any moment. After `changed`."""
        if was is not None:
            earlier = self.promises.get(key)
            promise = with_earlier(was, earlier.promise if earlier else None)
            self.promises[key] = Unheard(promise, self.changes, set(self.book.routers))

    def key(self, place: int) -> str:
        return list(self.limits)[place % len(self.limits)]

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, 9.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(name=names)
    def connects(self, name: str) -> None:
        router = self.routers[name]
        if router.stream is not None:
            router.stream.open = False
        router.stream = Stream(heard_at=self.now)
        router.sent_at = {0: self.now}

    @rule(name=names, late_s=st.sampled_from([0.0, 2.0, 12.0]))
    def connects_and_is_heard_late(self, name: str, late_s: float) -> None:
        self.connects(name)
        self.now += late_s
        stream = self.routers[name].stream
        assert stream is not None
        stream.heard_at = self.now

    @rule(name=names)
    def the_autoscaler_writes(self, name: str) -> None:
        self.the_autoscaler_writes_of_some(name, self.limits)

    @rule(name=names, place=places)
    def the_autoscaler_writes_of_one(self, name: str, place: int) -> None:
        self.the_autoscaler_writes_of_some(name, [self.key(place)])

    def the_autoscaler_writes_of_some(self, name: str, keys: Collection[str]) -> None:
        stream = self.routers[name].stream
        if stream is None or not stream.open:
            return
        stream.due.update(keys if stream.version else self.limits)
        serial, shares = self.book.issue(name, stream.due & self.limits.keys(), stream.heard_at, self.now)
        stream.version += 1
        stream.serials[stream.version], stream.changes[stream.version] = serial, self.changes
        if stream.due >= self.limits.keys():
            stream.whole.add(stream.version)
        stream.down.append((stream.version, stream.answers, {key: shares.get(key) for key in sorted(stream.due)}))
        stream.due = set()

    @rule(name=names)
    def the_router_reads(self, name: str) -> None:
        router = self.routers[name]
        stream = router.stream
        if stream is None or not stream.down:
            return
        version, answers, shares = stream.down.pop(0)
        if version == 1:
            router.leases.clear()
        for key, share in shares.items():
            router.leases.pop(key, None)
            if share is not None:
                router.leases[key] = share, router.sent_at[answers] + TTL_S
                router.changes[key] = stream.changes[version]
        router.sent_at[version] = self.now
        stream.up.append((version, router.excess(self.now)))

    @rule(name=names)
    def the_router_reports(self, name: str) -> None:
        router = self.routers[name]
        if router.stream is not None:
            router.stream.up.append((None, router.excess(self.now)))

    @rule(name=names, place=places, count=st.sampled_from([1, 3, 20]))
    def requests_come(self, name: str, place: int, count: int) -> None:
        """As many of them are let in as the lease has left."""
        router, key = self.routers[name], self.key(place)
        free = int(router.obeys(key, "concurrency", self.now)) - router.in_hand.get(key, 0)
        if free <= 0:
            return
        router.in_hand[key] = router.in_hand.get(key, 0) + min(count, free)
        [keys] = [keys for keys in self.groups() if key in keys]
        most = self.most(keys, "concurrency")
        if most is not None and not self.changes:
            self.note_strays()
            assert self.occupied(keys) <= most, (name, key)

    @rule(name=names, place=places, count=st.sampled_from([1, 20]))
    def requests_are_answered(self, name: str, place: int, count: int) -> None:
        router, key = self.routers[name], self.key(place)
        router.in_hand[key] = max(0, router.in_hand.get(key, 0) - count)

    @rule(name=names)
    def the_autoscaler_reads(self, name: str) -> None:
        stream = self.routers[name].stream
        if stream is None or not stream.open or not stream.up:
            return
        version, excess = stream.up.pop(0)
        self.book.holds(name, excess, self.now)
        if version is None:
            return
        stream.answers, stream.heard_at = version, self.now
        self.book.applied(name, stream.serials[stream.answers])
        for unheard in self.promises.values():
            if stream.answers in stream.whole and stream.changes[stream.answers] >= unheard.change:
                unheard.routers.discard(name)
        self.promises = {key: each for key, each in self.promises.items() if each.routers}

    @rule(name=names, busy=names, place=places)
    def the_autoscaler_writes_to_one_that_is_read_at_once(self, name: str, busy: str, place: int) -> None:
        self.demand_is_reported(busy, place, 100.0, 40.0)
        stream = self.routers[name].stream
        if stream is None or not stream.open:
            self.connects(name)
        self.the_autoscaler_writes(name)
        self.the_router_reads(name)

    @rule(name=names)
    def the_autoscaler_gives_the_stream_up(self, name: str) -> None:
        stream = self.routers[name].stream
        if stream is not None:
            stream.open = False
            self.wants[name] = {}
            self.book.want(name, {})

    @rule(name=names)
    def the_router_is_replaced(self, name: str) -> None:
        self.the_autoscaler_gives_the_stream_up(name)
        self.routers[name] = Router()

    @rule()
    def the_autoscaler_is_replaced(self) -> None:
        for router in self.routers.values():
            if router.stream is not None:
                router.stream.open = False
        self.wants = {}
        for unheard in self.promises.values():
            unheard.routers = set(self.book.routers)
        self.book = self.new_book()

    @rule(name=names, place=places, rate=st.floats(0.0, 100.0), in_hand=st.floats(0.0, 40.0))
    def demand_is_reported(self, name: str, place: int, rate: float, in_hand: float) -> None:
        self.wants.setdefault(name, {})[self.key(place)] = Want(rate, in_hand)
        self.book.want(name, self.wants[name])

    @precondition(lambda self: self.processes > 1 or len(self.limits) > 1)
    @rule(busy=names, place=places)
    def all_goes_well_for_a_while(self, busy: str, place: int) -> None:
        """Else messages are hardly ever in step, and nothing is lent."""
        for name in self.routers:
            self.demand_is_reported(name, place, *((100.0, 40.0) if name == busy else (0.0, 0.0)))
        for _ in range(3):
            for name in self.routers:
                self.catches_up(name)

    @precondition(lambda self: self.processes > 1 or len(self.limits) > 1)
    @rule(busy=names, place=places, then=names, other=places)
    def demand_moves_while_requests_are_in_hand(self, busy: str, place: int, then: str, other: int) -> None:
        self.all_goes_well_for_a_while(busy, place)
        self.requests_come(busy, place, 20)
        self.all_goes_well_for_a_while(then, other)
        self.requests_come(then, other, 20)

    def catches_up(self, name: str) -> None:
        """All that is on its way arrives, and one more update."""
        router = self.routers[name]
        if router.stream is None or not router.stream.open:
            self.connects(name)
        while router.stream is not None and (router.stream.down or router.stream.up):
            self.the_router_reads(name)
            self.the_autoscaler_reads(name)
        self.the_autoscaler_writes(name)
        self.the_router_reads(name)
        self.the_autoscaler_reads(name)

    def obeyed(self, keys: Iterable[str], name: str) -> float:
        """By all routers, of these keys together."""
        return sum(router.obeys(key, name, self.now) for router in self.routers.values() for key in keys)

    def occupied(self, keys: Iterable[str]) -> float:
        """What routers have in hand of these keys together, but for what strays."""
        return sum(
            min(count, router.obeys(key, "concurrency", self.now)) if key in router.strays else count
            for router in self.routers.values()
            for key, count in router.in_hand.items()
            if key in keys
        )

    def note_strays(self) -> None:
        for router in self.routers.values():
            for key, count in router.in_hand.items():
                if count <= router.obeys(key, "concurrency", self.now):
                    router.strays.discard(key)
                elif key not in router.leases or self.now >= router.leases[key][1]:
                    router.strays.add(key)

    def most(self, keys: Iterable[str], name: str) -> float | None:
        """What there is of these keys together; None: no limit."""
        limits = [getattr(self.limits[key], name) for key in keys]
        return None if None in limits else sum(limits)

    def groups(self) -> list[list[str]]:
        """Keys that share what they have."""
        return [[key] for key in self.limits]

    def settled(self) -> list[set[str]]:
        """The same, of those that nobody has left lately with what it had borrowed."""
        return [set(keys) for keys in self.groups()]

    @invariant()
    def who_is_over_is_sent_floors_only(self) -> None:
        """What a cut leaves over falls: nobody is let in above floors until there is room for that."""
        for keys in self.settled() if hasattr(self, "limits") else ():
            for each in DIMENSIONS:
                limits = [getattr(self.limits[key], each.name) for key in keys]
                if None in limits or self.obeyed(keys, each.name) <= sum(limits) * (1 + 1e-9):
                    continue
                for name, router in self.routers.items():
                    for key in keys & router.leases.keys():
                        share, expires = router.leases[key]
                        if router.changes[key] < self.changes or self.now >= expires:
                            continue
                        part, floor = getattr(share.limits, each.name) or 0, getattr(share.floor, each.name) or 0
                        assert part <= floor, (name, key, each.name, part, floor)

    @invariant()
    def nobody_has_more_than_there_is(self) -> None:
        if hasattr(self, "limits"):
            self.note_strays()
        for keys in self.groups() if hasattr(self, "limits") else ():
            for each in DIMENSIONS:
                most = self.most(keys, each.name)
                if most is None:
                    continue
                assert self.obeyed(keys, each.name) <= most * (1 + 1e-9), (keys, each.name)
                parts = [router.obeys(key, each.name, self.now) for router in self.routers.values() for key in keys]
                assert [each.amount(each.units(part)) for part in parts] == parts, "whole units"
