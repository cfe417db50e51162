"""The sequences of a stateful model: whose turn it is, and what its state is.

A step of a sequence needs the state that the step before it left, so at most one step of a sequence is on its way, and
the others wait behind it in the order in which they came. A step happens or it does not: only one that is answered with
its result moves the state on. Whatever else becomes of it, the state is as it was, and the next step goes on from
there; except where it was to begin the sequence anew: what comes after it must not go on from what was before.

State is memory that a client takes by beginning sequences, so it is counted: by tenant over all models, of all tenants,
and by number per tenant and model. Why a sequence was dropped is remembered for a while, because its client will ask.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from headrace_common.errors import FailedPrecondition, QuotaExceeded
from headrace_router.core.waiting import Waiting
from headrace_router.domain import SequenceRules, SequenceStep

OVERHEAD_BYTES = 1024
"""What a sequence costs beside its tensors."""
REMEMBERED = 4096
"""So many sequences that are over are known with the reason."""
SHOWN = 64
"""Characters of an id that an error shows."""
NOT_BEGUN = "it has not begun: its first request failed"

Key = tuple[str, int | str]
"""Tenant and id: nobody reaches the sequences of another tenant."""


class SequenceBook:
    """Of one router: what the state of its sequences takes, and why sequences ended.

    Args:
        most: sequences of one tenant at one model.
        most_bytes: of one tenant.
        most_bytes_of_all: of all tenants together.
    """

    def __init__(self, most: int, most_bytes: int, most_bytes_of_all: int) -> None:
        self.most = most
        self.most_bytes = most_bytes
        self.most_bytes_of_all = most_bytes_of_all
        self.bytes_of: dict[str, int] = {}
        self._bytes_of_all = 0
        self._ended: OrderedDict[tuple[str, Key], str] = OrderedDict()

    def take(self, tenant: str, size_bytes: int) -> str:
        """Takes room for a sequence's state. The limit that it would pass, in words; "": none, and it is taken."""
        held = self.bytes_of.get(tenant, 0)
        if held + size_bytes > self.most_bytes:
            return (
                f"max_sequence_bytes: the state of tenant {tenant!r}'s open sequences may take {self.most_bytes} bytes"
            )
        if self._bytes_of_all + size_bytes > self.most_bytes_of_all:
            return f"max_all_sequence_bytes: the state of all open sequences may take {self.most_bytes_of_all} bytes"
        self.bytes_of[tenant] = held + size_bytes
        self._bytes_of_all += size_bytes
        return ""

    def give_back(self, tenant: str, size_bytes: int) -> None:
        self._bytes_of_all -= size_bytes
        left = self.bytes_of[tenant] - size_bytes
        if left:
            self.bytes_of[tenant] = left
        else:
            del self.bytes_of[tenant]

    def ended(self, model: str, key: Key, reason: str) -> None:
        self._ended[model, key] = reason
        self._ended.move_to_end((model, key))
        if len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)

    def begun(self, model: str, key: Key) -> None:
        self._ended.pop((model, key), None)

    def why(self, model: str, key: Key) -> str:
        """Why it is not open; "" where it is not known."""
        return self._ended.get((model, key), "")


class Sequence:
    """One sequence. There is one as long as it has state or a step in hand.

    Attributes:
        state: what the last step left; None: no step has happened yet, or the last one was the end.
        running: the step whose turn it is; None: it waits for its client.
        waiting: steps behind that one; None: one was there that would have begun anew, and is answered already.
        used_at: when it last had a step in hand.
    """

    __slots__ = ("ended", "running", "state", "used_at", "waiting")

    def __init__(self) -> None:
        self.state: tuple[bytes, ...] | None = None
        self.running: Waiting | None = None
        self.waiting: deque[Waiting | None] = deque()
        self.used_at = 0.0
        self.ended = NOT_BEGUN

    def is_behind(self, item: Waiting) -> bool:
        """It waits for the turn of others."""
        return self.running is not item and item in self.waiting

    def can_go(self, item: Waiting) -> bool:
        """There is a state for it to go on from, or it needs none."""
        return self.state is not None or _begins(item)

    def give_turn(self, item: Waiting) -> None:
        self.running = item
        if _begins(item):
            self.not_begun()

    def not_begun(self) -> None:
        """What was before is over, whatever becomes of what begins."""
        self.state, self.ended = None, NOT_BEGUN

    def withdraw(self, item: Waiting) -> None:
        """A step that waits goes; one that would have begun anew leaves its place to tell those behind it."""
        waiting = self.waiting
        at = waiting.index(item)
        del waiting[at]
        told_before, told_after = at > 0 and waiting[at - 1] is None, at < len(waiting) and waiting[at] is None
        if told_before and told_after:
            del waiting[at]
        elif _begins(item) and not (told_before or told_after):
            waiting.insert(at, None)


class SequenceTable:
    """All sequences of one revision at one router."""

    def __init__(self, model: str, rules: SequenceRules, book: SequenceBook) -> None:
        self._model = model
        self._rules = rules
        self._book = book
        self._size_bytes = rules.state_bytes + OVERHEAD_BYTES
        # The one that was used longest ago is first.
        self._sequences: OrderedDict[Key, Sequence] = OrderedDict()
        self._open_of: dict[str, int] = {}
        self._retired = ""

    def __len__(self) -> int:
        return len(self._sequences)

    @property
    def size_bytes(self) -> int:
        """Of all their state."""
        return len(self._sequences) * self._size_bytes

    def arrive(self, item: Waiting, step: SequenceStep, now: float) -> bool:
        """Whether it is this step's turn; otherwise it waits behind others of its sequence.

        Raises:
            FailedPrecondition: the sequence is not open and this does not begin it.
            QuotaExceeded: there is no room for another one.
        """
        key = (item.tenant, step.id)
        sequence = self._sequences.get(key)
        if sequence is not None and self._is_stale(sequence, now):
            self._drop(key, self._idle)
            sequence = None
        if sequence is None:
            if not step.start:
                raise self._unknown(key)
            sequence = self._open(key)
        if sequence.running is not None:
            sequence.waiting.append(item)
            return False
        sequence.give_turn(item)
        return True

    def is_busy(self, item: Waiting, step: SequenceStep) -> bool:
        """A step that came now would wait."""
        sequence = self._sequences.get((item.tenant, step.id))
        return sequence is not None and sequence.running is not None

    def state_for(self, item: Waiting, step: SequenceStep) -> tuple[bytes, ...]:
        """What the step whose turn it is begins with, in the order of the rules."""
        state = self._sequences[item.tenant, step.id].state
        return self._rules.initial if state is None else state

    def is_behind(self, item: Waiting, step: SequenceStep) -> bool:
        """It waits for the turn of others."""
        sequence = self._sequences.get((item.tenant, step.id))
        return sequence is not None and sequence.is_behind(item)

    def happened(self, item: Waiting, step: SequenceStep, state: tuple[bytes, ...]) -> None:
        """The step whose turn it is has its result; `over` comes next."""
        key = (item.tenant, step.id)
        sequence = self._sequences.get(key)
        if sequence is None or sequence.running is not item:
            return
        if step.end:
            sequence.state, sequence.ended = None, "it has ended, by a request with sequence_end"
        else:
            sequence.state = state
        if step.start:
            self._book.begun(self._model, key)

    def over(self, item: Waiting, step: SequenceStep, now: float) -> tuple[list[Waiting], Waiting | None]:
        """A step is answered, whatever with. Whose turn cannot come any more, and whose it is now."""
        key = (item.tenant, step.id)
        sequence = self._sequences.get(key)
        if sequence is None:
            return [], None
        if sequence.running is not item:
            if item in sequence.waiting:
                sequence.withdraw(item)
            return [], None
        sequence.running, sequence.used_at = None, now
        self._sequences.move_to_end(key)
        if self._retired and sequence.state is not None:
            sequence.state, sequence.ended = None, self._retired
        stranded: list[Waiting] = []
        while sequence.waiting:
            following = sequence.waiting.popleft()
            if following is None:
                sequence.not_begun()
            elif sequence.can_go(following):
                sequence.give_turn(following)
                return stranded, following
            else:
                self._book.ended(self._model, key, sequence.ended)
                stranded.append(following)
        if sequence.state is None:
            self._drop(key, sequence.ended)
        return stranded, None

    def expire(self, now: float) -> int:
        """Drops the sequences that nobody has used for too long. How many."""
        stale: list[Key] = []
        for key, sequence in self._sequences.items():
            if sequence.running is not None:
                continue
            if not self._is_stale(sequence, now):
                break
            stale.append(key)
        for key in stale:
            self._drop(key, self._idle)
        return len(stale)

    def retire(self, reason: str) -> None:
        """The revision is going: its sequences end, those with a step in hand once that is answered."""
        self._retired = reason
        for key in [key for key, sequence in self._sequences.items() if sequence.running is None]:
            self._drop(key, reason)

    def stranded(self, item: Waiting, step: SequenceStep) -> FailedPrecondition:
        """Why a step's turn cannot come any more."""
        return self._unknown((item.tenant, step.id))

    @property
    def _idle(self) -> str:
        return f"it was dropped after {self._rules.max_idle_s:g} s without a request"

    def _is_stale(self, sequence: Sequence, now: float) -> bool:
        return sequence.running is None and now - sequence.used_at > self._rules.max_idle_s

    def _open(self, key: Key) -> Sequence:
        tenant, book, mine = key[0], self._book, self._open_of.get(key[0], 0)
        if mine >= book.most:
            text = f"max_sequences: tenant {tenant!r} has {mine} open sequences of model {self._model!r}"
            raise _no_room(text, tenant, "sequences")
        if limit := book.take(tenant, self._size_bytes):
            text = f"{limit}, and one more of model {self._model!r} takes {self._size_bytes}"
            raise _no_room(text, tenant, "sequence_bytes")
        self._open_of[tenant] = mine + 1
        sequence = self._sequences[key] = Sequence()
        return sequence

    def _drop(self, key: Key, reason: str) -> None:
        del self._sequences[key]
        left = self._open_of[key[0]] - 1
        if left:
            self._open_of[key[0]] = left
        else:
            del self._open_of[key[0]]
        self._book.give_back(key[0], self._size_bytes)
        self._book.ended(self._model, key, reason)

    def _unknown(self, key: Key) -> FailedPrecondition:
        name = str(key[1])
        shown = name if len(name) <= SHOWN else f"{name[:SHOWN]}..."
        why = self._book.why(self._model, key) or (
            "no request with sequence_start has begun it at this router; all requests of a sequence go to one router, "
            "by one connection"
        )
        return FailedPrecondition(
            f"sequence {shown!r} of model {self._model!r} is not open: {why}. Begin it anew: set sequence_start on its "
            "first request"
        )


def _begins(item: Waiting) -> bool:
    step = item.request.sequence
    return step is not None and step.start


def _no_room(text: str, tenant: str, dimension: str) -> QuotaExceeded:
    text = f"{text}; it is a limit of this router: end some with sequence_end"
    return QuotaExceeded(text, subject=f"tenant:{tenant}", dimension=dimension, retry_after_s=1.0)
