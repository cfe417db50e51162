"""Leases as they came, the limiters that obey them, and the accounts that they count by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from headrace.control.v1 import control_pb2
from headrace_router.core.accounts import Account
from headrace_router.core.admission import Budget, Lease, Limiter, Limits
from headrace_router.lanes import Lane
from headrace_router.measures import Use

MOST_ACCOUNTS = 10_000
"""Above this, accounts with nothing in hand are folded away; callers may invent tenants."""
OTHERS = "(others)"

_Key = tuple[str, str]
_BUDGETS = {
    control_pb2.BUDGET_STATE_EXHAUSTED_REFUSE: Budget.REFUSE,
    control_pb2.BUDGET_STATE_EXHAUSTED_QUEUE: Budget.QUEUE,
}


class LimitBook:
    """One limiter per tenant, and one per tenant and model, leased or not."""

    def __init__(self) -> None:
        self._limiters: dict[_Key, Limiter] = {}
        self._accounts: dict[str, dict[tuple[str, int], Account]] = {}
        self._folded: dict[_Key, Use] = {}
        self._count = 0

    def open(self, lane: Lane, tenant: str) -> Account:
        """The tenant's account at a lane, made with its first request."""
        model, revision = lane.entry.key
        account = Account(tenant, model, revision, self._limiter(tenant, ""), self._limiter(tenant, model))
        account.tenant_limit.occupants.append(account)
        account.model_limit.occupants.append(account)
        lane.accounts[tenant] = account
        self._accounts.setdefault(tenant, {})[lane.entry.key] = account
        self._count += 1
        lane.queue.set_weight(tenant, self._weight(tenant, model))
        return account

    def apply(
        self, update: control_pb2.StateUpdate, lanes: Iterable[Lane], now: float, wall_s: float, age_s: float
    ) -> bool:
        """A full update ends the leases that it does not name. Whether one of these says that requests wait.

        Args:
            age_s: so long ago they began to run.
        """
        leases = {(lease.tenant, lease.model): _lease(lease, wall_s, age_s) for lease in update.leases}
        if update.full:
            gone = [key for key, limiter in self._limiters.items() if limiter.lease and key not in leases]
        else:
            gone = [_key(name) for name in update.removed_leases]
        for key in gone:
            if key in self._limiters:
                self._limiters[key].set_lease(None, now)
        for key, lease in leases.items():
            self._limiter(*key).set_lease(lease, now)
        touched = {tenant for tenant, _ in (*gone, *leases)}
        for lane in lanes:
            for tenant in touched & lane.accounts.keys():
                lane.queue.set_weight(tenant, self._weight(tenant, lane.entry.model))
        return any(lease.budget is Budget.QUEUE for lease in leases.values())

    def excess(self, now: float) -> list[control_pb2.Excess]:
        """All that is in hand beyond leases."""
        found = []
        for (tenant, model), limiter in self._limiters.items():
            held = None if limiter.lease is None else limiter.excess(now)
            if held is not None:
                in_hand = control_pb2.QuotaLimits(
                    concurrency=held.concurrency, queue_length=held.queue_length, queue_bytes=held.queue_bytes
                )
                found.append(control_pb2.Excess(tenant=tenant, model=model, in_hand=in_hand))
        return found

    def __iter__(self) -> Iterator[Account]:
        for accounts in self._accounts.values():
            yield from accounts.values()

    def uses(self) -> list[Use]:
        """Sums per tenant and model, since the start."""
        uses: dict[_Key, Use] = {}
        for folded in self._folded.values():
            use = uses.setdefault((folded.tenant, folded.model), Use(folded.tenant, folded.model))
            _add(use, folded)
        for account in list(self):
            key = (account.tenant, account.model)
            use = uses.setdefault(key, Use(*key))
            _add(use, _use(account))
        return list(uses.values())

    def fold(self, lanes: Iterable[Lane]) -> None:
        """Forgets idle accounts if there are very many; their sums stay."""
        if self._count > MOST_ACCOUNTS:
            for lane in lanes:
                for account in [account for account in lane.accounts.values() if account.idle]:
                    self._close(lane, account)

    def close(self, lane: Lane) -> None:
        """The lane is going: its accounts are folded."""
        for account in list(lane.accounts.values()):
            self._close(lane, account)

    def _close(self, lane: Lane, account: Account) -> None:
        tenant = account.tenant
        del lane.accounts[tenant]
        lane.queue.set_weight(tenant, 1.0)
        for limiter in (account.tenant_limit, account.model_limit):
            limiter.occupants.remove(account)
        of_tenant = self._accounts[tenant]
        del of_tenant[account.model, account.revision]
        self._count -= 1
        key = (tenant, account.model)
        if key not in self._folded and len(self._folded) >= MOST_ACCOUNTS:
            key = (OTHERS, account.model)
        _add(self._folded.setdefault(key, Use(*key)), _use(account))
        self._forget(tenant, account.model)

    def _forget(self, tenant: str, model: str) -> None:
        """Limiters that no account uses and no lease fills."""
        of_tenant = self._accounts[tenant]
        unused = [(tenant, model)] if not any(known == model for known, _ in of_tenant) else []
        if not of_tenant:
            del self._accounts[tenant]
            unused.append((tenant, ""))
        for key in unused:
            if self._limiters[key].lease is None:
                del self._limiters[key]

    def _limiter(self, tenant: str, model: str) -> Limiter:
        limiter = self._limiters.get((tenant, model))
        if limiter is None:
            subject = f"tenant:{tenant}/model:{model}" if model else f"tenant:{tenant}"
            limiter = self._limiters[tenant, model] = Limiter(subject)
        return limiter

    def _weight(self, tenant: str, model: str) -> float:
        """The model's lease speaks for its queue, else the tenant's."""
        limiter = self._limiter(tenant, model)
        return (limiter if limiter.lease else self._limiter(tenant, "")).weight


def may_be_sent(account: Account) -> bool:
    """No spent budget says that its requests wait."""
    return not (account.tenant_limit.holds or account.model_limit.holds)


def _use(account: Account) -> Use:
    return Use(
        account.tenant, account.model, account.totals, account.outcomes, account.queued, account.in_flight
    )  # fmt: skip


def _add(use: Use, other: Use) -> None:
    use.totals.add(other.totals)
    for reason, count in other.outcomes.items():
        use.outcomes[reason] = use.outcomes.get(reason, 0) + count
    use.queued += other.queued
    use.in_flight += other.in_flight


def _key(name: str) -> _Key:
    tenant, _, model = name.partition("/")
    return tenant, model


def _lease(lease: control_pb2.QuotaLease, wall_s: float, age_s: float) -> Lease:
    returns = lease.HasField("budget_returns_at")
    return Lease(
        limits=_limits(lease.limits),
        floor=_limits(lease.floor),
        ttl_s=lease.ttl.ToNanoseconds() / 1e9 - age_s if lease.ttl.ToNanoseconds() else None,
        budget=_BUDGETS.get(lease.budget_state, Budget.WITHIN),
        weight=lease.weight if lease.weight > 0 else 1.0,
        budget_reason=lease.budget_reason,
        budget_returns_s=lease.budget_returns_at.ToNanoseconds() / 1e9 - wall_s if returns else None,
    )


def _limits(limits: control_pb2.QuotaLimits) -> Limits:
    return Limits(
        limits.concurrency if limits.HasField("concurrency") else None,
        limits.requests_per_second if limits.HasField("requests_per_second") else None,
        limits.queue_length if limits.HasField("queue_length") else None,
        limits.queue_bytes if limits.HasField("queue_bytes") else None,
    )
