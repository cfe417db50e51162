"""A runner's life as a table, and what it obeys. Every change gives a new `Standing`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from headrace_common.errors import FailedPrecondition


class State(StrEnum):
    STARTING = "starting"
    STANDBY = "standby"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.STARTING: frozenset({State.STANDBY, State.DRAINING}),
    State.STANDBY: frozenset({State.LOADING, State.DRAINING}),
    State.LOADING: frozenset({State.READY, State.DRAINING, State.GONE}),
    State.READY: frozenset({State.DRAINING}),
    State.DRAINING: frozenset({State.GONE}),
    State.GONE: frozenset(),
}

LEAVING = frozenset({State.DRAINING, State.GONE})


class IllegalTransition(FailedPrecondition):
    """A step that the table does not have."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What a runner holds, from loading on, for life."""

    instance_id: str
    tenant: str
    model: str
    revision: int
    version: str = ""


class Admission(StrEnum):
    """What becomes of a router that attaches."""

    HOLD = "hold"
    """Nothing yet: the load has not come or is under way."""
    GRANT = "grant"
    LEAVE = "leave"
    """It gets no slots here: this runner is going, or holds another revision."""


@dataclass(frozen=True, slots=True)
class Verdict:
    admission: Admission
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a runner is in its life.

    Attributes:
        epoch: highest fencing epoch obeyed.
        reason: why it is going, once it is.
    """

    state: State = State.STARTING
    epoch: int = 0
    holding: Holding | None = None
    reason: str = ""

    def advance(self, to: State, reason: str = "") -> Standing:
        """One step of the table.

        Raises:
            IllegalTransition: names both states and what was possible.
        """
        if to not in TRANSITIONS[self.state]:
            possible = ", ".join(sorted(TRANSITIONS[self.state])) or "nothing"
            raise IllegalTransition(f"a runner cannot go from {self.state} to {to}; from here it can go to: {possible}")
        return replace(self, state=to, reason=reason or self.reason)

    def obey(self, epoch: int) -> Standing:
        """Accepts a command of `epoch`.

        Raises:
            FailedPrecondition: a higher epoch has been seen, so the sender has been replaced.
        """
        if epoch < self.epoch:
            raise FailedPrecondition(
                f"fencing epoch {epoch} is over: this runner has obeyed epoch {self.epoch}, so the sender was replaced"
            )
        return replace(self, epoch=epoch)

    def repeats(self, wanted: Holding) -> bool:
        """Whether a load of `wanted` has been asked of this runner before, and stands.

        Raises:
            FailedPrecondition: it holds, or held, something else, or is going.
        """
        if self.holding is None:
            return False
        if self.state in LEAVING:
            raise FailedPrecondition(f"this runner is {self.state} ({self.reason}); load on another one")
        if self.holding != wanted:
            raise FailedPrecondition(
                f"this runner holds {_describe(self.holding)} for life and cannot load {_describe(wanted)}"
            )
        return True

    def begin_load(self, wanted: Holding) -> Standing:
        return replace(self.advance(State.LOADING), holding=wanted)

    def admit(self, instance_id: str, model: str, revision: int) -> Verdict:
        """Judges a router that attaches for this instance.

        Raises:
            FailedPrecondition: this runner is another instance.
        """
        if self.holding is None:
            going = self.state in LEAVING
            return Verdict(Admission.LEAVE, self.reason) if going else Verdict(Admission.HOLD)
        if self.holding.instance_id != instance_id:
            raise FailedPrecondition(f"this runner is instance {self.holding.instance_id!r}, not {instance_id!r}")
        if (self.holding.model, self.holding.revision) != (model, revision):
            held = _describe(self.holding)
            return Verdict(Admission.LEAVE, f"instance {instance_id} holds {held}, not {model!r} revision {revision}")
        if self.state in LEAVING:
            return Verdict(Admission.LEAVE, self.reason)
        return Verdict(Admission.GRANT if self.state is State.READY else Admission.HOLD)


def _describe(holding: Holding) -> str:
    return f"instance {holding.instance_id} of {holding.model!r} revision {holding.revision}"
