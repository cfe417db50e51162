"""Why something is not admitted: which limits bind, whose they are, and what raising them takes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from headrace_autoscaler.core.quota.amounts import Amount


class Limit(StrEnum):
    """What can bind, in the order in which it is looked at."""

    MODEL = "model limit"
    """A model's own limit inside its tenant's."""
    NOMINAL = "nominal"
    """The tenant's, where nothing can be borrowed: it is alone, or the dimension is money."""
    BORROWING = "borrowing limit"
    """Nominal plus the tenant's borrowing limit."""
    BORROWED = "borrowed by others"
    """The tenant asks for its own, and others have borrowed it: they give it back."""
    LENDING = "lending limit"
    """Another tenant's: it has idle what it does not lend."""
    COHORT = "cohort"
    """The sum of the nominal quantities of the cohort's tenants is used."""


@dataclass(frozen=True, slots=True)
class Binding:
    """One limit that binds.

    Attributes:
        owner: whose limit: a model, a tenant, or for COHORT the cohort.
        limit: what it is now: for BORROWING nominal and borrowing limit together, for COHORT and BORROWED the cohort's
            sum, for LENDING what the owner lends.
        used: of that; for LENDING what the owner has idle and does not lend.
        missing: raising `limit` by exactly this, and what else binds by its own, admits the demand. A cohort's sum is
            raised by raising the nominal quantity of the tenant that asks.
        borrowers: for BORROWED: who has how much, over its nominal quantity; the one with most of its share first.
    """

    kind: Limit
    owner: str
    limit: Amount
    used: Amount
    missing: Amount
    borrowers: tuple[tuple[str, Amount], ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """What `tenant` asks for `model` is not admitted now.

    Attributes:
        asked: of the dimension of each binding.
        bindings: at least one; model's before tenant's before cohort's.
    """

    tenant: str
    model: str
    cohort: str
    bindings: tuple[Binding, ...]
    asked: tuple[Amount, ...]

    @property
    def first(self) -> Binding:
        return self.bindings[0]

    @property
    def reclaimable(self) -> bool:
        """All that stands against it is what others have borrowed of the tenant's own."""
        return all(binding.kind is Limit.BORROWED for binding in self.bindings)


@dataclass(frozen=True, slots=True)
class Reclaim:
    """A lender takes this much back; never more than `borrower` holds above its nominal quantity.

    Attributes:
        share: the borrower's dominant share over its weight; the highest gives back first.
    """

    borrower: str
    amount: Amount
    share: float
