"""What limits were that routers may still obey, for an autoscaler that comes after this one.

A router obeys the floors of the last lease that it applied, whatever has become of the limit since. Only this
autoscaler knows what it was sent; so what a limit was is kept with the limits themselves, from before it changes until
every configured router is known to obey something newer.
"""

from __future__ import annotations

from collections.abc import Mapping

from headrace_autoscaler.core.leased_limits import DIMENSIONS, is_limited
from headrace_autoscaler.core.quota import quota_of
from headrace_autoscaler.domain import Limits, ModelSpec, Tenant

Promised = Mapping[str, Limits]
"""By key: "tenant" or "tenant/model". The largest that each limit was."""


def promised_to_tenant(old: Tenant | None, new: Tenant | None) -> Limits | None:
    """What routers may go on obeying of the old one. None: nothing else than of the new one."""
    return None if old is None or _terms(old) == _terms(new) else _leased(old.nominal)


def promised_to_model(old: ModelSpec | None, new: ModelSpec | None) -> Limits | None:
    """The same of a model's own limits."""
    if old is None or (new is not None and _leased(old.limits) == _leased(new.limits)):
        return None
    return _leased(old.limits)


def with_earlier(promised: Limits, earlier: Limits | None) -> Limits:
    """The larger of each."""
    if earlier is None:
        return promised
    both = {each.name: (getattr(promised, each.name), getattr(earlier, each.name)) for each in DIMENSIONS}
    known = {name: [amount for amount in amounts if amount is not None] for name, amounts in both.items()}
    return Limits(**{name: max(amounts) for name, amounts in known.items() if amounts})


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
