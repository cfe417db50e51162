"""How limits are divided among routers and lent among tenants, and how the parts move with demand.

Every configured router has a floor of each limit, which is its for ever, heard or not. What is above the
floors is lent by demand: to a router for as long as its lease runs, and to another one only when the first
has said that it obeys a smaller lease, or when its lease must have run out. So the sum of what all routers
could be obeying never exceeds the limit, whatever messages are late or lost. Of tenants of one cohort it is the
sum of all their limits that is never exceeded: see `lending`.

A lease runs from when its router *sent* the last message that had been heard (see QuotaLease.answers). What
was heard at some moment was sent before it, so a lease has run out at that moment plus the time to live,
however long it was on its way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil

from headrace_autoscaler.core.ghosts import Ghost, Ghosts
from headrace_autoscaler.core.lease_pool import HEADROOM, Pool, Terms
from headrace_autoscaler.core.leased_limits import BY_DIMENSION, BY_NAME, DIMENSIONS, DUST, LeasedLimit, is_limited
from headrace_autoscaler.core.lending import Lending, Trees
from headrace_autoscaler.core.loans import Loan, Loans
from headrace_autoscaler.core.promises import Promised, promised_units
from headrace_autoscaler.core.quota import Amount, Amounts, Bounds, Dimension, QuotaTree, Refusal, TenantQuota
from headrace_autoscaler.domain import Limits
from headrace_common.quantities import MAX

DEAD_BAND = 0.02
"""Of a limit: less is not worth a message."""
_NOTHING: Mapping[str, int] = {}
_NOTHING_PROMISED: Promised = {}


@dataclass(frozen=True, slots=True)
class Share:
    """One router's part of a key's limits, and its floor. None: no limit."""

    limits: Limits
    floor: Limits

    @property
    def limited(self) -> bool:
        return is_limited(self.limits)


@dataclass(frozen=True, slots=True)
class Want:
    """What one router was seen to need of a key's limits: requests per second, and requests in hand."""

    rate: float = 0.0
    in_hand: float = 0.0


@dataclass(frozen=True, slots=True)
class LimitStanding:
    """How a leased limit stands. Integers of its smallest unit.

    Attributes:
        limit: the nominal quantity, or a model's own.
        total: what all routers are to have together, with what is borrowed, or without what is lent.
        wanted: what they would hold, had nobody been refused, with the floors of those that need less.
    """

    limit: int
    total: int
    wanted: int


class LeaseBook:
    """All limits, by key: "tenant" or "tenant/model". All times are monotonic seconds.

    Args:
        routers: that are configured: "router-0" and on.
        held_until: until then routers may be obeying leases of an autoscaler before this one.
        promised: what limits were that they may have been leased by, beside what limits there are. Where there is
            anything of that, nobody knows what a router has that is not yet heard of, but for its floors.
    """

    def __init__(self, routers: int, ttl_s: float, held_until: float, promised: Promised = _NOTHING_PROMISED) -> None:
        self.routers = tuple(f"router-{number}" for number in range(routers))
        self._ttl_s = ttl_s
        self._held_until = held_until
        self._promised = promised
        self._unheard = set(self.routers)
        self._pools: dict[str, dict[str, Pool]] = {}
        self._lending = Lending((), routers)
        self._wants: dict[str, dict[str, Want]] = {}
        self._needs_by: dict[str, dict[str, dict[str, int]]] = {}
        self._unsettled: set[str] = set()
        self._sent: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
        self._serial = 0
        self._excess: dict[str, Mapping[str, Limits]] = {}
        self._ghosts = Ghosts()
        self._loans = Loans()
        self._now = float("-inf")

    def set_limits(self, limits: Mapping[str, Limits], quotas: Iterable[TenantQuota] = ()) -> None:
        """The limits that there are. What routers may still obey of those that are gone stays booked: see `ghosts`, and
        `loans` for what of them was lent.

        Args:
            quotas: of tenants; who is not among them neither lends nor borrows.
        """
        self._needs_by.clear()
        before, quotas = self._lending, [each for each in quotas if each.name in limits]
        cohorts = {each.name: each.cohort for each in quotas}
        for key, pools in self._pools.items():
            for name in list(pools):
                cohort = before.cohort(key, BY_NAME[name].dimension)
                gone = key not in limits or getattr(limits[key], name) is None
                if gone or (BY_NAME[name].dimension is not None and cohorts.get(key, "") != cohort):
                    self._depart(key, BY_NAME[name], pools.pop(name), cohort)
        for key in [key for key in self._pools if key not in limits]:
            del self._pools[key]
            self._unsettled.discard(key)
        self._lending = Lending(quotas, len(self.routers))
        for key, each in limits.items():
            self._set(key, each)
        self._lending = Lending(quotas, len(self.routers), self._ghosts, self._loans)
        for key, pools in self._pools.items():
            for name, pool in pools.items():
                self._lending.join(key, BY_NAME[name].dimension, pool)

    def want(self, router: str, wants: Mapping[str, Want]) -> None:
        """All that a router was seen to need, by key; what is not named it does not need."""
        before = self._wants.get(router, {})
        for key in before.keys() | wants.keys():
            if key in self._pools:
                self._unsettled.add(key)
                if before.get(key) != wants.get(key):
                    self._needs_by.pop(key, None)
                    self._lending.demand_changed(key)
        self._wants[router] = dict(wants)

    def moves(self, routers: Iterable[str], now: float) -> dict[str, list[str]]:
        """For each of these routers the keys of which its part is to change."""
        self._prepare(now)
        found = {router: [key for key in self._unsettled if self._moves(key, router, now)] for router in routers}
        moving = {key for keys in found.values() for key in keys}
        self._unsettled = {key for key in self._unsettled if key in moving or self._wanted(key)}
        return found

    def issue(self, router: str, keys: Iterable[str], heard_at: float, now: float) -> tuple[int, dict[str, Share]]:
        """The router's shares, booked as sent to it under a serial that `applied` takes.

        Args:
            heard_at: when the message was heard that the leases answer.
        """
        self._prepare(now)
        self._serial += 1
        keys = tuple(keys)
        self._ghosts.issued(router, self._serial, heard_at + self._ttl_s, now)
        shares = {key: self._share(key, router, heard_at + self._ttl_s, now) for key in keys}
        self._sent.setdefault(router, []).append((self._serial, keys))
        return self._serial, shares

    def applied(self, router: str, serial: int) -> bool:
        """The router has said that it obeys what was issued under this serial. Whether others may have more by that."""
        self._unheard.discard(router)
        sent = self._sent.get(router, [])
        freed = self._ghosts.applied(router, serial)
        if freed:
            self._lending.given_back()
            self._unsettled.update(self._lending.everybody())
        obeyed = [(issued, key) for issued, keys in sent if issued <= serial for key in keys]
        given_back = {key for issued, key in obeyed if self._obeyed(key, router, issued)}
        if given_back:
            freed = True
            self._lending.given_back()
            self._unsettled |= given_back | self._lending.companions(given_back)
        self._sent[router] = [each for each in sent if each[0] > serial]
        if freed:
            self._unsettled |= self._loans.keys() & self._pools.keys()
        return freed

    def holds(self, router: str, excess: Mapping[str, Limits], now: float) -> None:
        """All that the router has in hand beyond its leases, by key. Nobody else has it until it is answered, or until
        the router has been silent for as long as a lease lasts."""
        changed = set()
        for key in self._excess.get(router, {}).keys() | excess.keys():
            for name, pool in self._pools.get(key, {}).items():
                amount = getattr(excess.get(key), name, None) or 0
                if pool.holds(router, BY_NAME[name].units(amount), now + self._ttl_s):
                    changed.add(key)
        self._excess[router] = excess
        if excess or changed:
            self._lending.given_back()
            self._unsettled |= changed | self._lending.companions(changed)

    def allot(self) -> None:
        """Divides cohorts by the demand that is known now, which `moves` and `issue` do too."""
        self._unsettled |= self._lending.allot(self._needs_of)

    def standing(self, key: str, name: str, proven: Mapping[str, int] = _NOTHING) -> LimitStanding | None:
        """Of one of `DIMENSIONS`, as it was divided last; None: there is no such limit.

        Args:
            proven: by router, units that it needs whatever it was seen to need.
        """
        pool = self._pools.get(key, {}).get(name)
        if pool is None:
            return None
        needs = self._needs(key, BY_NAME[name])
        if proven:
            needs = {each: max(needs.get(each, 0), proven.get(each, 0)) for each in needs.keys() | proven.keys()}
        return LimitStanding(pool.terms.limit, pool.total, pool.wanted(needs))

    def obeys(self, key: str, name: str, router: str, now: float) -> int:
        """The least of a limit that a router may be obeying; 0 where there is no such limit."""
        pool = self._pools.get(key, {}).get(name)
        return 0 if pool is None else min(pool.total, pool.obeys(router, now))

    def leaves(self, key: str, name: str, router: str, now: float) -> int:
        """What a router surely has beyond what it was seen to need; negative: that is more."""
        return self.obeys(key, name, router, now) - self._needs(key, BY_NAME[name]).get(router, 0)

    def refusal(
        self, key: str, tenant: str, model: str, dimension: Dimension, missing: int, trees: Trees
    ) -> Refusal | None:
        """What stands against so much more than what a key's routers are to have; None: nothing does.

        Args:
            trees: empty at first; the same for all that is asked at one moment, as filling one goes through a cohort.
        """
        each = BY_DIMENSION[dimension]
        pool = self._pools[key][each.name]
        if key == tenant and self._lending.lends(tenant):
            return self._lending.refusal(trees, tenant, model, Amount(dimension, missing), self._needs_of)
        tree, limit, taken = QuotaTree(), Amount(dimension, pool.terms.limit), Amount(dimension, pool.total)
        if key != tenant:
            tree.set_model(model, Bounds.of(limit))
            tree.take(tenant, model, Amounts.of(taken))
        else:
            tree.set_tenant(TenantQuota(tenant, Bounds.of(limit)))
            tree.take(tenant, model, Amounts.of(taken))
        return tree.refusal(tenant, model, Amounts.of(Amount(dimension, missing)))

    def _set(self, key: str, limits: Limits) -> None:
        pools = self._pools.setdefault(key, {})
        for each in DIMENSIONS:
            limit = getattr(limits, each.name)
            if limit is None:
                pools.pop(each.name, None)
                continue
            terms = self._lending.terms(key, each.dimension, each.units(limit))
            before = MAX if self._promised else self._lending.before(key, each.dimension, terms.limit)
            known = pools.get(each.name)
            if known is not None and known.terms == terms:
                continue
            if known is None:
                cohort = self._lending.cohort(key, each.dimension)
                known = self._ghosts.back(key, each.name, cohort)
                if each.dimension is not None:
                    self._loans.returned(key, each.dimension, cohort)
            if known is None:
                floors, sure = self._floors_before(key, each, terms)
                pools[each.name] = Pool(
                    terms, self.routers, most=before, held_until=self._held_until, floors=floors, sure=sure
                )
            else:
                known.set_terms(terms, before)
                pools[each.name] = known
            self._unsettled.add(key)

    def _floors_before(self, key: str, each: LeasedLimit, terms: Terms) -> tuple[dict[str, int], int]:
        """What somebody before us may have promised routers that we have not heard of, by router, and at least."""
        count = len(self.routers)
        largest, smallest = promised_units(self._promised, key, each, terms.limit)
        known = terms.floor(count) if self._now < self._held_until else 0
        floor = max(known, Terms(largest).floor(count)) if key in self._promised else known
        sure = min(terms.floor(count), Terms(smallest).floor(count))
        return {router: floor if router in self._unheard else 0 for router in self.routers}, sure

    def _depart(self, key: str, each: LeasedLimit, pool: Pool, cohort: str) -> None:
        ghost = Ghost(key, each.name, each.dimension, cohort, pool.parts_within(pool.terms.limit, self._now), pool)
        if cohort and each.dimension is not None:
            until = self._lending.lasts(cohort, each.dimension)
            out = pool.terms.limit + ghost.borrowed(self._now)
            self._loans.left(Loan(key, each.dimension, cohort, out, until, ghost))
        self._ghosts.add(ghost)

    def _prepare(self, now: float) -> None:
        # As of the last grant: whatever has run out since then has not been granted to others.
        self._now = now
        self.allot()
        self._ghosts.expire(now)
        self._lending.book(now)
        self._unsettled |= self._loans.expire(now) & self._pools.keys()

    def _obeyed(self, key: str, router: str, serial: int) -> bool:
        # All of them: none may be left out because another one has given something back.
        freed = [pool.applied(router, serial) for pool in self._pools.get(key, {}).values()]
        return any(freed)

    def _share(self, key: str, router: str, expires: float, now: float) -> Share:
        parts, floors = {}, {}
        for name, pool in self._pools.get(key, {}).items():
            each = BY_NAME[name]
            part = self._part(key, each, pool, router, now)
            pool.grant(router, part, self._serial, expires, now)
            parts[name], floors[name] = each.amount(part), each.amount(min(pool.floor, part))
        self._lending.granted(key, now)
        return Share(Limits(**parts), Limits(**floors))  # type: ignore[arg-type]

    def _part(self, key: str, each: LeasedLimit, pool: Pool, router: str, now: float) -> int:
        most = self._lending.most(key, each.dimension, pool.terms.limit)
        return pool.part(router, self._needs(key, each), most, now)

    def _moves(self, key: str, router: str, now: float) -> bool:
        for name, pool in self._pools[key].items():
            change = self._part(key, BY_NAME[name], pool, router, now) - pool.granted(router)
            if abs(change) > DEAD_BAND * max(pool.total, pool.terms.limit):
                return True
            # Little of a large limit may be all of a small one.
            if change < 0 and self._lending.owes(key, BY_NAME[name].dimension):
                return True
        return False

    def _needs_of(self, tenant: str, dimension: Dimension) -> dict[str, int]:
        return self._needs(tenant, BY_DIMENSION[dimension])

    def _needs(self, key: str, each: LeasedLimit) -> dict[str, int]:
        """Units, by router; the same object until they change."""
        known = self._needs_by.setdefault(key, {})
        if each.name not in known:
            known[each.name] = self._find_needs(key, each)
        return known[each.name]

    def _find_needs(self, key: str, each: LeasedLimit) -> dict[str, int]:
        """Of bytes nobody knows the need; routers with much in hand hold many."""
        needs = {router: getattr(wants[key], each.by) for router, wants in self._wants.items() if key in wants}
        if each.name == "queue_bytes":
            total = sum(needs.values()) or 1.0
            limit = self._pools[key][each.name].terms.limit
            return {router: int(limit * need / total / HEADROOM) for router, need in needs.items()}
        return {router: min(MAX, ceil(need * each.scale - DUST)) for router, need in needs.items()}

    def _wanted(self, key: str) -> bool:
        return any(key in wants for wants in self._wants.values())
