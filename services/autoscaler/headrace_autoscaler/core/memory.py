"""What is learnt, as plain JSON values and back: so that a restart forgets nothing.

A class that learns says in `MEMORY` which attributes those are, and of what kind. Moments are of the monotonic clock,
whose origin may be another one after a restart: they are moved by what separates the two.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Json = Any
"""None, a number, a string, or a list or a dict of such."""
_FOREVER = "forever"
FORM = 1
"""Counts the forms of what is told: one more whenever what a `MEMORY` says comes to mean something else."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of value is told and understood.

    Attributes:
        put: the value as JSON.
        take: the value again, from JSON, what the attribute holds now, and the seconds by which moments are moved.
            Raises ValueError or TypeError for what no `put` can have told.
    """

    put: Callable[[Any], Json]
    take: Callable[[Json, Any, float], Any]


Schema = Mapping[str, Kind]


def remember(holder: object) -> dict[str, Json] | None:
    """All that it has learnt; None: it learns nothing."""
    schema: Schema | None = getattr(holder, "MEMORY", None)
    return None if schema is None else {name: kind.put(getattr(holder, name)) for name, kind in schema.items()}


def recall(holder: object, told: Json, shift_s: float) -> None:
    """Has `holder` know what one of its class knew.

    Args:
        shift_s: this clock's time less the other's, of the same moment.

    Raises:
        ValueError, TypeError: that is not of this class, as it is now. The holder is of no use then.
    """
    schema: Schema | None = getattr(holder, "MEMORY", None)
    if schema is None:
        return
    if not isinstance(told, dict) or told.keys() != schema.keys():
        raise ValueError(f"expected {', '.join(schema)} of a {type(holder).__name__}")
    for name, kind in schema.items():
        setattr(holder, name, kind.take(told[name], getattr(holder, name), shift_s))


def shift_between(then: tuple[float, float], now: tuple[float, float]) -> float:
    """What moves moments of an earlier monotonic clock to this one; 0 where it is the same, to the bit.

    Args:
        then, now: a moment by the earlier clock, and one by this clock: monotonic and wall-clock seconds each.
    """
    passed_s = max(0.0, now[1] - then[1])
    same = now[0] >= then[0] and abs(now[0] - then[0] - passed_s) < _SAME_CLOCK_S
    return 0.0 if same else now[0] - passed_s - then[0]


_SAME_CLOCK_S = 1.0
"""The wall clock may be corrected by so much before the machine is taken to have been started anew."""


def _number(told: Json, _held: Any = None, _shift_s: float = 0.0) -> float:
    if isinstance(told, bool) or not isinstance(told, int | float) or not math.isfinite(told):
        raise ValueError(f"expected a number, got {told!r}")
    return told


def _count(told: Json, _held: Any, _shift_s: float) -> int:
    if isinstance(told, bool) or not isinstance(told, int):
        raise ValueError(f"expected a whole number, got {told!r}")
    return told


def _flag(told: Json, _held: Any, _shift_s: float) -> bool:
    if not isinstance(told, bool):
        raise ValueError(f"expected true or false, got {told!r}")
    return told


def _text(told: Json, _held: Any, _shift_s: float) -> str:
    if not isinstance(told, str):
        raise ValueError(f"expected a text, got {told!r}")
    return told


NUMBER = Kind(lambda value: value, _number)
COUNT = Kind(lambda value: value, _count)
FLAG = Kind(bool, _flag)
TEXT = Kind(str, _text)
MOMENT = Kind(
    lambda value: _FOREVER if value == math.inf else value,
    lambda told, _, shift_s: math.inf if told == _FOREVER else _number(told) + shift_s,
)


def maybe(kind: Kind) -> Kind:
    """Or None."""
    return Kind(
        lambda value: None if value is None else kind.put(value),
        lambda told, held, shift_s: None if told is None else kind.take(told, held, shift_s),
    )


def row(*kinds: Kind, make: Callable[[list[Any]], Any] = tuple) -> Kind:
    """Values of several kinds, in order."""

    def take(told: Json, _held: Any, shift_s: float) -> Any:
        return make([kind.take(each, None, shift_s) for kind, each in zip(kinds, told, strict=True)])

    return Kind(lambda value: [kind.put(each) for kind, each in zip(kinds, value, strict=True)], take)


def many(kind: Kind, length: int | None = None) -> Kind:
    """A list, or a deque where the attribute is one. Length: exactly so many; None: any number."""

    def take(told: Json, held: Any, shift_s: float) -> Any:
        if not isinstance(told, list) or length not in (None, len(told)):
            raise ValueError(f"expected {'a list of' if length is None else length} values, got {told!r:.100}")
        values = [kind.take(each, None, shift_s) for each in told]
        return deque(values, held.maxlen) if isinstance(held, deque) else values

    return Kind(lambda value: [kind.put(each) for each in value], take)


def table(kind: Kind) -> Kind:
    """A dict by whole numbers."""

    def take(told: Json, _held: Any, shift_s: float) -> Any:
        if not isinstance(told, dict):
            raise ValueError(f"expected values by number, got {told!r}")
        return {int(key): kind.take(each, None, shift_s) for key, each in told.items()}

    return Kind(lambda value: {str(key): kind.put(each) for key, each in value.items()}, take)


def part(make: Callable[[], Any] | None = None) -> Kind:
    """An object that learns, too. Make: one for each that is recalled; None: the attribute holds one already."""

    def take(told: Json, held: Any, shift_s: float) -> Any:
        holder = held if make is None else make()
        recall(holder, told, shift_s)
        return holder

    return Kind(remember, take)
