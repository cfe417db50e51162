"""What the response cache decides: what is equal, what stays, who leads, and what a stored value is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_common import errors
from headrace_router.core.bounded_lru import BoundedLru
from headrace_router.core.flights import MOST_FAILURES, Flight, Scope, scope_of
from headrace_router.core.response_key import response_key
from headrace_router.core.stored_answers import decode_answer, encode_answer
from headrace_router.domain import InferenceRequest, RevisionEntry, TensorData

MakeRequest = Callable[..., InferenceRequest]

# --- what is equal ---


def changed(request: InferenceRequest, **tensor: Any) -> InferenceRequest:
    return replace(request, inputs=[replace(request.inputs[0], **tensor)])


def of_entry(request: InferenceRequest, **entry: Any) -> InferenceRequest:
    return replace(request, revision=replace(request.revision, **entry))


DIFFERENT: list[Any] = [
    pytest.param(lambda r: changed(r, data=b"\0" * 8), id="other bytes"),
    pytest.param(lambda r: changed(r, shape=(2, 1)), id="other shape"),
    pytest.param(lambda r: changed(r, datatype="INT32"), id="other datatype"),
    pytest.param(lambda r: changed(r, name="z"), id="other input"),
    pytest.param(lambda r: replace(r, outputs=("y",)), id="other outputs wanted"),
    pytest.param(lambda r: replace(r, tenant="other"), id="other tenant"),
    pytest.param(lambda r: of_entry(r, revision=2), id="other revision"),
    pytest.param(lambda r: of_entry(r, model="n"), id="other model"),
    pytest.param(lambda r: of_entry(r, created_us=7), id="other life of the model's name"),
    pytest.param(lambda r: replace(r, inputs=[*r.inputs, TensorData("o", "FP32", (0,), b"")]), id="one more input"),
]


@pytest.mark.parametrize("change", DIFFERENT)
def test_what_changes_the_answer_changes_the_key(make_request: MakeRequest, change: Any) -> None:
    request = make_request()
    assert response_key(change(request)) != response_key(request)
    assert len(response_key(request)) == 32


def test_what_does_not_change_the_answer_does_not_change_the_key(make_request: MakeRequest) -> None:
    request = make_request()
    other = make_request(
        arrived=9.0, deadline=10.0, priority=3, traceparent="00-a-b-01", data=memoryview(bytes(request.inputs[0].data))
    )
    assert response_key(other) == response_key(request)
    reloaded = of_entry(request, current=False, blocked_reason="no room")
    assert response_key(reloaded) == response_key(request)


def test_tenants_share_a_key_only_where_the_model_says_so(make_request: MakeRequest, entry: RevisionEntry) -> None:
    shared = replace(entry, cache_shared=True)
    keys = {response_key(make_request(tenant=tenant, entry=shared)) for tenant in ("a", "b")}
    assert len(keys) == 1
    assert keys.isdisjoint(response_key(make_request(tenant=tenant)) for tenant in ("a", "b"))


@given(st.lists(st.binary(max_size=6), min_size=2, max_size=2), st.lists(st.binary(max_size=6), min_size=2, max_size=2))
def test_bytes_never_pass_from_one_input_to_the_next(
    make_request: MakeRequest, first: list[bytes], second: list[bytes]
) -> None:
    def of(pieces: list[bytes]) -> bytes:
        tensors = [TensorData("x", "BYTES", (1,), piece) for piece in pieces]
        return response_key(replace(make_request(), inputs=tensors))

    assert (of(first) == of(second)) == (first == second)


# --- what stays ---


class DumbLru:
    """The same, by looking at everything each time."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.entries: list[tuple[bytes, int, int, float, int]] = []

    def get(self, key: bytes, now: float) -> int | None:
        found = [entry for entry in self.entries if entry[0] == key]
        self.entries = [entry for entry in self.entries if entry[0] != key]
        live = [entry for entry in found if entry[3] > now]
        self.entries += live
        return live[0][1] if live else None

    def put(self, key: bytes, value: int, size: int, expires: float, group: int) -> bool:
        self.entries = [entry for entry in self.entries if entry[0] != key]
        if size > self.max_bytes:
            return False
        self.entries.append((key, value, size, expires, group))
        while sum(entry[2] for entry in self.entries) > self.max_bytes:
            self.entries.pop(0)
        return True

    def drop(self, group: int) -> int:
        before = len(self.entries)
        self.entries = [entry for entry in self.entries if entry[4] != group]
        return before - len(self.entries)


KEYS = st.integers(0, 7).map(lambda n: bytes([n]))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("get"), KEYS),
        st.tuples(st.just("put"), KEYS, st.integers(0, 60), st.integers(1, 10), st.integers(0, 2)),
        st.tuples(st.just("drop"), st.integers(0, 2)),
        st.tuples(st.just("wait"), st.integers(1, 5)),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_bound_holds_and_what_is_kept_is_what_a_slow_oracle_keeps(steps: list[Any]) -> None:
    lru: BoundedLru[int] = BoundedLru(100)
    oracle = DumbLru(100)
    now = 0.0
    for number, (step, *given_) in enumerate(steps):
        if step == "wait":
            now += given_[0]
        elif step == "get":
            assert lru.get(given_[0], now) == oracle.get(given_[0], now)
        elif step == "drop":
            assert lru.drop(given_[0]) == oracle.drop(given_[0])
        else:
            key, size, ttl, group = given_
            assert lru.put(key, number, size, now + ttl, group) == oracle.put(key, number, size, now + ttl, group)
        assert lru.size_bytes == sum(entry[2] for entry in oracle.entries) <= 100
        assert len(lru) == len(oracle.entries)
        assert set(lru.groups()) == {entry[4] for entry in oracle.entries}


def test_what_is_used_stays_and_what_is_not_makes_room() -> None:
    lru: BoundedLru[str] = BoundedLru(10)
    for key in (b"a", b"b"):
        lru.put(key, key.decode(), 5, 10.0, "g")
    assert lru.get(b"a", 0.0) == "a"
    lru.put(b"c", "c", 5, 10.0, "g")
    assert (lru.get(b"a", 0.0), lru.get(b"b", 0.0), lru.get(b"c", 0.0)) == ("a", None, "c")
    assert (lru.evictions, lru.expiries) == (1, 0)
    assert lru.get(b"a", 10.0) is None
    assert (len(lru), lru.expiries) == (1, 1)


# --- who leads ---


@dataclass(eq=False)
class One:
    name: str
    waits: bool = True


def flight_of(*names: str) -> tuple[Flight[One], list[One]]:
    flight: Flight[One] = Flight()
    ones = [One(name) for name in names]
    for one in ones:
        flight.join(one)
    return flight, ones


SCOPES = [
    (errors.InvalidArgument("x"), Scope.EVERYONE),
    (errors.NotFound("x"), Scope.EVERYONE),
    (errors.Unavailable("x"), Scope.EVERYONE),
    (errors.DeadlineExceeded("x"), Scope.LEADER),
    (errors.Cancelled("x"), Scope.LEADER),
    (errors.QuotaExceeded("x", subject="s", dimension="d", retry_after_s=None), Scope.LEADER),
    (KeyboardInterrupt(), Scope.LEADER),
    (errors.EngineFailed("x"), Scope.ENGINE),
    (errors.QueueFull("out of memory", retry_after_s=1.0), Scope.ENGINE),
    (RuntimeError("a bug"), Scope.ENGINE),
]


@pytest.mark.parametrize(("error", "scope"), SCOPES, ids=[type(error).__name__ for error, _ in SCOPES])
def test_whom_a_failure_concerns(error: BaseException, scope: Scope) -> None:
    assert scope_of(error) is scope


def test_what_befalls_a_leader_alone_makes_the_next_one_lead() -> None:
    flight, (a, b, c) = flight_of("a", "b", "c")
    a.waits = False
    assert flight.failed(Scope.LEADER).leader is b
    assert flight.failed(Scope.LEADER).leader is c
    last = flight.failed(Scope.LEADER)
    assert (last.leader, last.told) == (None, ())


def test_a_wrong_input_is_told_to_everyone_who_still_waits() -> None:
    flight, (a, b, c) = flight_of("a", "b", "c")
    b.waits = False
    handover = flight.failed(Scope.EVERYONE)
    assert (handover.leader, handover.told) == (None, (a, c))


def test_a_failing_engine_is_tried_again_and_not_for_ever() -> None:
    flight, ones = flight_of(*"abcdef")
    for _ in range(MOST_FAILURES - 1):
        assert flight.failed(Scope.ENGINE).leader is ones.pop(0)
    assert flight.failed(Scope.ENGINE).told == tuple(ones)


def test_an_answer_is_everyones_who_still_waits() -> None:
    flight, (a, b, c) = flight_of("a", "b", "c")
    b.waits = False
    flight.leave(c)
    assert flight.landed() == (a,)
    assert len(flight) == 0


# --- what is stored ---

TENSORS = st.lists(
    st.builds(
        TensorData,
        st.text(max_size=5),
        st.sampled_from(["FP32", "BYTES", "BOOL"]),
        st.lists(st.integers(0, 1 << 40), max_size=4).map(tuple),
        st.binary(max_size=20),
    ),
    max_size=3,
)
KEY = bytes(range(32))


@given(TENSORS)
def test_an_answer_survives_being_stored(outputs: list[TensorData]) -> None:
    assert decode_answer(KEY, encode_answer(KEY, outputs)) == outputs


@given(TENSORS, st.data())
def test_a_damaged_value_is_no_answer(outputs: list[TensorData], data: st.DataObject) -> None:
    value = bytearray(encode_answer(KEY, outputs))
    place = data.draw(st.integers(0, len(value) - 1))
    value[place] ^= data.draw(st.integers(1, 255))
    assert decode_answer(KEY, bytes(value)) is None
    assert decode_answer(KEY, bytes(value[:place])) is None


@given(st.binary(max_size=80))
def test_a_foreign_value_is_no_answer(value: bytes) -> None:
    assert decode_answer(KEY, value) is None
    assert decode_answer(KEY, b"HR\x01" + value) is None


def test_a_value_of_another_key_is_no_answer() -> None:
    assert decode_answer(KEY, encode_answer(bytes(32), [TensorData("y", "FP32", (1,), bytes(4))])) is None
