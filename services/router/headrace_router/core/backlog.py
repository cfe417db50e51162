"""Requests of one priority level: fair between tenants, earliest deadline first inside one.

Between tenants: deficit-weighted sharing in its virtual-time form (start-time fair queueing, Goyal,
Vin and Cheng, 1996). Each tenant's clock advances by rows / weight when it is served, and the tenant
whose clock is behind all others goes next. That gives the shares of deficit round robin, without a
quantum and without rounds in which nobody can be served. A tenant that was away starts at the level's
own clock: silence earns nothing.

Every heap is lazy: entries are refreshed, or dropped, when they reach the top. That is right because
a tenant's clock and the key of a strand's head only rise between pushes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from heapq import heappop, heappush, heapreplace

from headrace_router.core.waiting import Waiting

PATIENCE_S = 30.0
"""A request without a deadline is ordered as if it had this one, so that a stream of requests with
deadlines cannot hold it up for ever."""

SAMPLE = 32
"""Entries looked at to tell how many of a strand are due before some moment."""
_FEW_TENANTS = 64
_Entry = tuple[float, int, Waiting]


class Strand:
    """Requests of one tenant and one group, by deadline."""

    __slots__ = ("group", "headed", "items", "order", "ringed", "share")

    def __init__(self, share: Share, group: Hashable, order: int) -> None:
        self.share = share
        self.group = group
        self.order = order
        self.items: list[_Entry] = []
        self.ringed = False
        self.headed = -1
        """Sequence number of the entry in `share.heads` that stands for this strand; -1: none."""

    def first(self) -> _Entry | None:
        items = self.items
        while items:
            entry = items[0]
            if entry[2].backlog is self:
                return entry
            heappop(items)
        return None

    def due_before(self, deadline: float) -> float:
        """How many, about; withdrawn ones count until they are swept."""
        step = len(self.items) // SAMPLE + 1
        return step * len([entry for entry in self.items[::step] if entry[0] <= deadline])

    def rows_before(self, deadline: float, enough: int) -> int:
        """Rows that are due before then, exactly; the count ends once there are enough."""
        items, rows, places = self.items, 0, [0]
        while places and rows < enough:
            place = places.pop()
            # A heap: what is below a later one is later still.
            if place < len(items) and items[place][0] <= deadline:
                item = items[place][2]
                if item.backlog is self:
                    rows += item.rows
                places += (2 * place + 1, 2 * place + 2)
        return rows


class Share:
    """One tenant at one level."""

    __slots__ = ("clock", "count", "heads", "order", "ringed", "strands", "tenant", "weight")

    def __init__(self, tenant: str, weight: float, order: int) -> None:
        self.tenant = tenant
        self.weight = weight
        self.order = order
        self.clock = 0.0
        self.count = 0
        self.ringed = False
        self.heads: list[tuple[float, int, Strand]] = []
        self.strands: dict[Hashable, Strand] = {}

    def first(self) -> Waiting | None:
        """Its request with the earliest deadline, over all groups."""
        heads = self.heads
        while heads:
            _, seq, strand = heads[0]
            if seq != strand.headed:
                heappop(heads)
                continue
            entry = strand.first()
            if entry is None:
                strand.headed = -1
                heappop(heads)
            elif entry[1] != seq:
                strand.headed = entry[1]
                heapreplace(heads, (entry[0], entry[1], strand))
            else:
                return entry[2]
        return None


class Backlog:
    """One level. `count` is of the requests that wait in it."""

    __slots__ = ("_clock", "_latest", "_orders", "_ring", "_rings", "_shares", "_strands", "count")

    def __init__(self) -> None:
        self.count = 0
        # The level's clock, and the furthest of any tenant's.
        self._clock = 0.0
        self._latest = 0.0
        self._orders = 0
        self._strands = 0
        self._shares: dict[str, Share] = {}
        self._ring: list[tuple[float, int, Share]] = []
        self._rings: dict[Hashable, list[tuple[float, int, Strand]]] = {}

    def __iter__(self) -> Iterator[Waiting]:
        """In no order."""
        for share in self._shares.values():
            for strand in share.strands.values():
                yield from (item for _, _, item in strand.items if item.backlog is strand)

    @property
    def litter(self) -> int:
        """Entries kept for nothing, at most: a measure of when to sweep."""
        return len(self._shares) + self._strands

    def push(self, item: Waiting, weight: float) -> None:
        share = self._shares.get(item.tenant)
        if share is None:
            share = self._open_share(item.tenant, weight)
        if not share.count and share.clock < self._clock:
            share.clock = self._clock
        self._insert(item, share)

    def _insert(self, item: Waiting, share: Share) -> None:
        strand = share.strands.get(item.group)
        if strand is None:
            strand = self._open_strand(share, item.group)
        if not share.ringed:
            share.ringed = True
            heappush(self._ring, (share.clock, share.order, share))
        self._place(item, strand)
        share.count += 1
        self.count += 1

    def _place(self, item: Waiting, strand: Strand) -> None:
        share = strand.share
        if not strand.ringed:
            strand.ringed = True
            heappush(self._rings[item.group], (share.clock, strand.order, strand))
        deadline = item.deadline
        patience = item.arrived + PATIENCE_S
        due = deadline if deadline < patience else patience
        items = strand.items
        heappush(items, (due, item.seq, item))
        if items[0][2] is item:
            strand.headed = item.seq
            heappush(share.heads, (due, item.seq, strand))
        item.backlog = strand

    def ahead(self, tenant: str, weight: float, deadline: float) -> float:
        """Requests that would go before one of this tenant with this deadline, about.

        Its tenant's with an earlier deadline, and what the others have a right to until it is its turn.
        """
        share = self._shares.get(tenant)
        own = others = 0.0
        if share is not None and share.count:
            weight = share.weight
            own = float(min(share.count, sum(strand.due_before(deadline) for strand in share.strands.values())))
            others = -float(share.count)
        others += self.count
        if not others:
            return own
        turns = (own + 1) / weight
        if len(self._shares) > _FEW_TENANTS:
            return own + min(others, turns * (len(self._shares) - 1))
        return own + sum(min(each.count, turns * each.weight) for each in self._shares.values() if each is not share)

    def head(self) -> Waiting | None:
        """The request that is next by right; its group is the next bundle's."""
        ring = self._ring
        while ring:
            clock, _, share = ring[0]
            if not share.count:
                share.ringed = False
                heappop(ring)
            elif share.clock > clock:
                heapreplace(ring, (share.clock, share.order, share))
            else:
                return share.first()
        return None

    def next_of(self, group: Hashable) -> Waiting | None:
        """The request of this group that is next."""
        ring = self._rings.get(group)
        while ring:
            clock, _, strand = ring[0]
            entry = strand.first()
            if entry is None:
                strand.ringed = False
                heappop(ring)
            elif strand.share.clock > clock:
                heapreplace(ring, (strand.share.clock, strand.order, strand))
            else:
                return entry[2]
        return None

    def rows_before(self, group: Hashable, deadline: float, enough: int) -> int:
        """Rows of a group that are due before then; the count ends once there are enough."""
        rows = 0
        for _, _, strand in self._rings.get(group, ()):
            if rows >= enough:
                break
            rows += strand.rows_before(deadline, enough - rows)
        return rows

    def groups(self) -> tuple[Hashable, ...]:
        """At least those that something waits of."""
        return tuple(self._rings)

    def serve(self, item: Waiting, *, charge: bool) -> None:
        """Takes out what `next_of` gave; its tenant pays for it unless it is only dropped."""
        strand: Strand = item.backlog
        share = strand.share
        heappop(strand.items)
        if charge:
            if share.clock > self._clock:
                self._clock = share.clock
            share.clock += item.rows / share.weight
            if share.clock > self._latest:
                self._latest = share.clock
        self._leave(item, share)

    def skip(self, item: Waiting) -> None:
        """Looks past what `next_of` gave, which stays; until `unskip`, nothing else may be done with it."""
        heappop(item.backlog.items)

    def unskip(self, item: Waiting) -> None:
        self._place(item, item.backlog)

    def remove(self, item: Waiting) -> None:
        """Takes out any; its entry stays until it comes to the top or `compact` is called."""
        strand: Strand = item.backlog
        self._leave(item, strand.share)

    def _leave(self, item: Waiting, share: Share) -> None:
        item.backlog = None
        share.count -= 1
        self.count -= 1
        if not self.count:
            # Nobody has a claim from before: whoever comes next starts as an equal.
            self._clock = self._latest

    def set_weight(self, tenant: str, weight: float) -> None:
        share = self._shares.get(tenant)
        if share is not None:
            share.weight = weight

    def compact(self) -> None:
        """Drops what stands for nothing. Tenants that are ahead of the level's clock stay ahead."""
        live = sorted(self, key=lambda item: item.seq)
        clocks = {tenant: (share.clock, share.weight) for tenant, share in self._shares.items()}
        busy = {item.tenant for item in live}
        self._shares, self._ring, self._rings = {}, [], {}
        self._strands = self.count = 0
        for tenant, (clock, weight) in clocks.items():
            if tenant in busy or clock > self._clock:
                self._open_share(tenant, weight).clock = clock
        for item in live:
            self._insert(item, self._shares[item.tenant])

    def _open_share(self, tenant: str, weight: float) -> Share:
        self._orders += 1
        share = self._shares[tenant] = Share(tenant, weight, self._orders)
        share.clock = self._clock
        return share

    def _open_strand(self, share: Share, group: Hashable) -> Strand:
        self._orders += 1
        self._strands += 1
        strand = share.strands[group] = Strand(share, group, self._orders)
        self._rings.setdefault(group, [])
        return strand
