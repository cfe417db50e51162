"""Where instances are, as what, and which go: a snapshot in, actions with reasons out.

What a tenant is guaranteed (its nominal quantities) is placed first and may take the room of what others have beyond
theirs; what is spare then goes by dominant-resource share over weight (A. Ghodsi and others, NSDI 2011). Whatever runs
and is still wanted stays where it is. A plan of what a plan leads to does nothing: it ends when nothing that is refused
can be placed with all the room and quota there is then.

Linear in models, instances and nodes, except that taking room back looks at what is spare once for every instance that
takes it. Whoever looks in vain is answered from memory: see `hopeless`.
"""

from __future__ import annotations

import heapq
from collections import deque

from headrace_autoscaler.core.allocator.choice import Choice, Market
from headrace_autoscaler.core.allocator.needs import Held, Need
from headrace_autoscaler.core.allocator.outcome import Gone, Outcome, put_in_order
from headrace_autoscaler.core.allocator.purse import Purse
from headrace_autoscaler.core.allocator.reclaim import Holdings, Victims, in_turn
from headrace_autoscaler.core.allocator.rooms import Room, Rooms
from headrace_autoscaler.core.allocator.types import Instance, Key, Plan, Snapshot

_ROUNDS = 32
"""Tries of what found no room. It ends as soon as one changes nothing, which two or three usually see."""


def plan(snapshot: Snapshot) -> Plan:
    return _Planning(snapshot).run()


class _Planning:
    """One run. Books what it decides, so that later decisions of the same run see it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._rooms = Rooms(snapshot.nodes)
        self._purse = Purse(snapshot)
        self._gone: list[Gone] = []
        self._needs: list[Need] = []
        self._by_tenant: dict[str, list[Need]] = {}
        self._holdings = Holdings(self._purse)
        self._changes = 0

    def run(self) -> Plan:
        self._match(self._by_key())
        self._keep()
        self._rooms.open()
        for _ in range(_ROUNDS):
            before = self._changes
            self._place(guaranteed=True)
            self._place(guaranteed=False)
            self._spread()
            if self._changes == before:
                break
            self._wait_again()
        self._give_reasons()
        return put_in_order(Outcome(self._snapshot, self._rooms, self._needs, self._gone))

    def _give_reasons(self) -> None:
        """Of what has less than it needs. Nothing has changed since the round in which it was refused."""
        for need in self._needs:
            if need.refused is not None and need.short:
                need.reason = self._why(need, need.refused)

    def _why(self, need: Need, choice: Choice) -> str:
        return self._purse.why(need.demand, choice) or f"no {choice.kind.shape} node has room for it"

    def _wait_again(self) -> None:
        """What had no room or quota is tried with what is there now."""
        self._holdings.look_again()
        for need in self._needs:
            if need.struck or need.missing:
                need.restore()
                need.aim()

    def _by_key(self) -> dict[Key, list[Instance]]:
        running: dict[Key, list[Instance]] = {}
        for each in sorted(self._snapshot.instances, key=lambda each: each.id):
            if not each.draining:
                running.setdefault((each.model, each.revision), []).append(each)
        return running

    def _match(self, running: dict[Key, list[Instance]]) -> None:
        """Takes what may stay into the rooms, and lets go of what is not needed."""
        market = Market(self._rooms.kinds)
        for demand in self._snapshot.demands:
            instances = running.pop((demand.model, demand.revision), None)
            if instances is None and demand.rate <= 0 and not demand.minimum:
                continue
            need = Need(demand, len(self._needs), market.heads(demand))
            if not need.heads:
                need.reason = market.why_none(demand)
            self._needs.append(need)
            self._by_tenant.setdefault(demand.tenant, []).append(need)
            if instances:
                self._settle_in(need, instances)
            need.aim()
        for left in running.values():
            self._gone += [Gone(each, "the model or this revision of it is gone") for each in left]

    def _settle_in(self, need: Need, instances: list[Instance]) -> None:
        for instance in instances:
            room = self._rooms.by_node.get(instance.node)
            choice = None if room is None else need.choice_of(instance.way, room.kind)
            if room is None or room.node.ending:
                self._gone.append(Gone(instance, room.node.ending if room else "its node is gone", need))
            elif instance.tenant != need.demand.tenant:
                self._gone.append(
                    Gone(instance, "a runner serves one tenant for life, and the model has another now", need)
                )
            elif choice is None or choice.way.resources != instance.resources:
                self._gone.append(Gone(instance, "it may not run like this any more", need))
            else:
                need.held.append(Held(choice, room, instance.device, instance))
        if len(need.held) > 1 or not need.demand.rate:
            for held in need.dispensable():
                need.held.remove(held)
                self._send_away(need, held, "fewer are enough")
        for held in need.held:
            held.room.take(held.choice.way.resources, held.device)

    def _keep(self) -> None:
        """Of what runs, all stays that its tenant may have: what is guaranteed to it first, the longest-running of
        that; then what is beyond, by dominant share."""
        waiting: list[tuple[Need, Held]] = []
        for tenant in sorted(self._by_tenant):
            running = [(need, held) for need in self._by_tenant[tenant] for held in need.held]
            if len(running) > 1:
                running.sort(key=lambda each: each[1].age)
            for need, held in running:
                if not held.room.within_capacity:
                    self._lose(need, held, "its node is over its capacity")
                elif not (self._purse.guaranteed(tenant, held.choice) and self._purse.pay(need.demand, held.choice)):
                    waiting.append((need, held))
                else:
                    self._holdings.add(need, held)
        for need, held in in_turn(self._purse, waiting):
            if self._purse.pay(need.demand, held.choice):
                self._holdings.add(need, held)
            else:
                self._lose(need, held, self._purse.why(need.demand, held.choice))

    def _lose(self, need: Need, held: Held, reason: str) -> None:
        """What runs and cannot be booked."""
        need.held.remove(held)
        held.room.give_back(held.choice.way.resources, held.device)
        self._send_away(need, held, reason)
        need.aim()

    def _place(self, *, guaranteed: bool) -> None:
        """Everybody's first missing instance, then everybody's second; the tenant with the lowest share first."""
        queues: dict[str, deque[Need]] = {}
        for tenant, needs in self._by_tenant.items():
            missing = [need for need in needs if need.missing]
            if missing:
                missing.sort(key=lambda need: (bool(need.held), -self._purse.weight_of(need.missing[0]), need.number))
                queues[tenant] = deque(missing)
        heap = [(self._purse.share(tenant), tenant) for tenant in queues]
        heapq.heapify(heap)
        while heap:
            _, tenant = heapq.heappop(heap)
            queue = queues[tenant]
            need = queue.popleft()
            if self._step(need, guaranteed) and need.missing:
                queue.append(need)
            if queue:
                heapq.heappush(heap, (self._purse.share(tenant), tenant))

    def _step(self, need: Need, guaranteed: bool) -> bool:
        """Places one missing instance, as whatever there is room for, or everything that a cheaper footing takes.
        False: nothing is left to try in this pass."""
        if need.leaving:
            return self._replace(need) if not guaranteed else False
        while need.missing and not need.leaving:
            choice = need.missing[0]
            own = self._purse.guaranteed(need.demand.tenant, choice)
            if guaranteed and not own:
                return False
            if self._start(need, choice, own):
                need.missing = need.missing[1:]
                break
            self._strike(need, choice)
        if not need.missing:
            self._let_go(need)
        return True

    def _strike(self, need: Need, choice: Choice) -> None:
        """What has failed is not tried again, nor is the same way on other kinds of node where that would fail too."""
        instead = choice.next
        while instead is not None and self._would_fail(need, instead):
            need.refused = instead
            instead = instead.next
        need.strike(choice, instead)
        need.aim()

    def _would_fail(self, need: Need, choice: Choice) -> bool:
        room, victims = self._outlook(need, choice, self._purse.guaranteed(need.demand.tenant, choice))
        return room is None and not victims

    def _replace(self, need: Need) -> bool:
        """All or nothing, and nobody else makes room for it: half a change would be dearer than none."""
        started: list[Held] = []
        short = need.short
        for choice in need.missing:
            room = self._find(need, choice) if self._purse.could_pay(need.demand, choice) else None
            if room is None:
                if short:
                    # Said now, while what is given back again is booked.
                    need.reason, need.refused = self._why(need, choice), None
                for each in started:
                    need.held.remove(each)
                    self._release(need, each)
                self._changes -= 2 * len(started)
                need.strike(choice, choice.next)
                need.missing, need.leaving = (), frozenset()
                return True
            started.append(self._book(need, choice, room))
        need.missing = ()
        self._let_go(need)
        return True

    def _start(self, need: Need, choice: Choice, own: bool) -> bool:
        room, victims = self._outlook(need, choice, own)
        if room is not None:
            self._book(need, choice, room)
            return True
        need.refused = choice
        if not victims:
            return False
        for loser, held in victims:
            self._drop(loser, held, self._taken_back(need, own))
        # Quota and room may both have been lacking.
        return self._start(need, choice, own)

    def _outlook(self, need: Need, choice: Choice, own: bool) -> tuple[Room | None, Victims]:
        """Where it may start at once, or else whose going gives it the quota or, if that is not it, the room."""
        if not self._purse.could_pay(need.demand, choice):
            return None, self._holdings.quota_for(need, choice) if own else []
        room = self._find(need, choice)
        return room, [] if room is not None else self._holdings.room_for(need, choice, own)

    def _find(self, need: Need, choice: Choice) -> Room | None:
        return self._rooms.find(choice, need.domains() if need.demand.spread > 1 else None)

    def _book(self, need: Need, choice: Choice, room: Room) -> Held:
        self._purse.take(need.demand, choice)
        return self._put(need, choice, room)

    def _put(self, need: Need, choice: Choice, room: Room) -> Held:
        resources = choice.way.resources
        held = Held(choice, room, room.device_for(resources) if resources.gpu_millis else None, None)
        room.take(resources, held.device)
        need.held.append(held)
        self._holdings.add(need, held)
        self._changes += 1
        return held

    def _taken_back(self, need: Need, own: bool) -> str:
        tenant = need.demand.tenant
        return f"tenant '{tenant}' takes back its own" if own else f"tenant '{tenant}' has less of what is spare"

    def _drop(self, need: Need, held: Held, reason: str) -> None:
        need.held.remove(held)
        self._release(need, held)
        self._send_away(need, held, reason)
        need.restore()
        need.aim()

    def _release(self, need: Need, held: Held) -> None:
        held.room.give_back(held.choice.way.resources, held.device)
        self._purse.give_back(need.demand, held.choice)
        self._holdings.discard(need, held)
        self._changes += 1

    def _let_go(self, need: Need) -> None:
        """Once it has what it needs, what it can do without goes."""
        for held in need.dispensable():
            need.held.remove(held)
            self._release(need, held)
            self._send_away(need, held, "fewer or cheaper ones are enough")

    def _send_away(self, need: Need, held: Held, reason: str) -> None:
        """What has not started needs nobody to stop it."""
        if held.instance is not None:
            self._gone.append(Gone(held.instance, reason, need))

    def _spread(self) -> None:
        """Moves what shares a failure domain into one where there is none of its model, where there is room."""
        for need in self._needs:
            if need.demand.spread > 1 and len(need.held) > 1:
                while self._spread_one(need):
                    pass

    def _spread_one(self, need: Need) -> bool:
        domains = need.domains()
        if len(domains) >= min(need.demand.spread, len(need.held)):
            return False
        crowded = [held for held in need.held if domains[held.room.node.domain] > 1]
        for held in sorted(crowded, key=lambda each: each.staying_cost):
            resources = held.choice.way.resources
            room = self._rooms.find_elsewhere(held.choice, domains)
            if room is None:
                continue
            self._send_away(need, held, "its model is to be spread over failure domains")
            need.held.remove(held)
            held.room.give_back(resources, held.device)
            self._holdings.discard(need, held)
            self._put(need, held.choice, room)
            return True
        return False
