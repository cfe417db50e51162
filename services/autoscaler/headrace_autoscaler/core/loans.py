"""What tenants that have left their cohort had lent there, and what a cut had left over of theirs.

Who leaves takes its own limit along. So much of it as routers could still be obeying in its old cohort, beyond what
that cohort has without it, is nobody's to grant until they have said that they obey less, or until those leases have
run out. It is counted as used where the tenant is now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from headrace_autoscaler.core.ghosts import Ghost
from headrace_autoscaler.core.quota import Dimension


@dataclass(slots=True)
class Loan:
    """
    Attributes:
        key: the tenant that has left.
        cohort: that it has left.
        units: at most so much is out; only ever less.
        until: when the last lease runs out that was granted while it was there; monotonic seconds.
        had: what its routers obey of its own.
    """

    key: str
    dimension: Dimension
    cohort: str
    units: int
    until: float
    had: Ghost

    def falls(self, overdrawn: int, uncovered: int, now: float) -> None:
        """
        Args:
            overdrawn: so much more is used or kept in the old cohort than there is.
            uncovered: so much more could be obeyed there.
        """
        lent = max(0, self.had.pool.terms.limit - self.had.kept(now)) if now < self.until else 0
        # What its own routers obey beyond its limit it had borrowed, which the cohort has, or else a cut has left over.
        self.units = min(self.units, min(lent, overdrawn) + min(self.had.borrowed(now), uncovered))


class Loans:
    def __init__(self) -> None:
        self._all: dict[tuple[str, Dimension, str], Loan] = {}

    def __iter__(self) -> Iterator[Loan]:
        return iter(self._all.values())

    def left(self, loan: Loan) -> None:
        self._all[loan.key, loan.dimension, loan.cohort] = loan

    def returned(self, key: str, dimension: Dimension, cohort: str) -> None:
        """It is in its old cohort again, which counts what is lent itself."""
        self._all.pop((key, dimension, cohort), None)

    def expire(self, now: float) -> set[str]:
        """Forgets what is given back, and what must have been. Whose that was."""
        over = {place: loan for place, loan in self._all.items() if not loan.units}
        for place in over:
            del self._all[place]
        return {loan.key for loan in over.values()}

    def keys(self) -> set[str]:
        return {loan.key for loan in self._all.values()}
