"""What limits were that routers may still obey, for an autoscaler that comes after this one.

A router obeys the floors of the last lease that it applied, whatever has become of the limit since; and where a limit
has risen, what its floor is now may have been lent to another one. Only this autoscaler knows what it was sent; so what
a limit was is kept with the limits themselves, from before it changes until every configured router is known to obey
something newer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from headrace_autoscaler.core.leased_limits import DIMENSIONS, LeasedLimit, is_limited
from headrace_autoscaler.core.quota import quota_of
from headrace_autoscaler.domain import Limits, ModelSpec, Tenant

_UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class Promise:
    """What the limits of one key were, each by itself.

    Attributes:
        largest: a silent router may have the floor of that.
        smallest: no router's floor was smaller than that of this, so nobody else was lent so much.
    """

    largest: Limits = _UNLIMITED
    smallest: Limits = _UNLIMITED


Promised = Mapping[str, Promise]
"""By key: "tenant" or "tenant/model"."""

_NOTHING = Promise()


def promised_to_tenant(old: Tenant | None, new: Tenant | None) -> Limits | None:
    """What routers may go on obeying of the old one. None: nothing else than of the new one."""
    return None if old is None or _terms(old) == _terms(new) else _leased(old.nominal)


def promised_to_model(old: ModelSpec | None, new: ModelSpec | None) -> Limits | None:
    """The same of a model's own limits."""
    if old is None or (new is not None and _leased(old.limits) == _leased(new.limits)):
        return None
    return _leased(old.limits)


def with_earlier(promised: Limits, earlier: Promise | None) -> Promise:
    if earlier is None:
        return Promise(promised, promised)
    return Promise(_each(max, promised, earlier.largest), _each(min, promised, earlier.smallest))


def promised_units(promised: Promised, key: str, each: LeasedLimit, limit: int) -> tuple[int, int]:
    """The largest and the smallest that a limit was, with what it is; in its smallest unit."""
    was = promised.get(key, _NOTHING)
    amounts = (getattr(was.largest, each.name), getattr(was.smallest, each.name))
    units = [limit, *(each.units(amount) for amount in amounts if amount is not None)]
    return max(units), min(units)


def _each(choose: Callable[..., float], one: Limits, other: Limits) -> Limits:
    both = {each.name: (getattr(one, each.name), getattr(other, each.name)) for each in DIMENSIONS}
    known = {name: [amount for amount in amounts if amount is not None] for name, amounts in both.items()}
    return Limits(**{name: choose(amounts) for name, amounts in known.items() if amounts})  # type: ignore[arg-type]


def _leased(limits: Limits) -> Limits | None:
    """Those of them that are leased; None: none is."""
    return Limits(**{each.name: getattr(limits, each.name) for each in DIMENSIONS}) if is_limited(limits) else None


def _terms(tenant: Tenant | None) -> object:
    """All that leases of a tenant follow from, but for what demand decides."""
    if tenant is None:
        return None
    quota = quota_of(tenant)
    bounds = (quota.borrowing_limit, quota.lending_limit) if tenant.cohort else ()
    dimensions = [each.dimension for each in DIMENSIONS if each.dimension is not None]
    return _leased(tenant.nominal), tenant.cohort, [[each.units[place] for place in dimensions] for each in bounds]
