"""The fleet: `ports.Fleet` over runners, and the loop that keeps instances as they should be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from headrace_autoscaler.core.budgets import TICK_US, Standings
from headrace_autoscaler.core.decider import Decider
from headrace_autoscaler.core.explaining import Explanation, explain
from headrace_autoscaler.core.explaining_requests import Surroundings, explain_held, explain_refused
from headrace_autoscaler.core.plans import Key
from headrace_autoscaler.core.pricing import LocalPrices
from headrace_autoscaler.core.raising import Raises
from headrace_autoscaler.core.rates import FREE, Rates
from headrace_autoscaler.core.replacement import Replacements
from headrace_autoscaler.core.variant_choice import Load
from headrace_autoscaler.domain import (
    FleetView,
    Limits,
    Loaded,
    ModelSpec,
    ModelView,
    Revision,
    RouterView,
)
from headrace_autoscaler.fleet.announcements import Announcements
from headrace_autoscaler.fleet.books import Books, Opening, UsageSink
from headrace_autoscaler.fleet.chronicle import Chronicle
from headrace_autoscaler.fleet.demand_book import DemandBook
from headrace_autoscaler.fleet.history import History
from headrace_autoscaler.fleet.job_desk import JobDesk
from headrace_autoscaler.fleet.lifecycle import Lifecycle, Timeouts
from headrace_autoscaler.fleet.loads import Loads
from headrace_autoscaler.fleet.observation import Judge
from headrace_autoscaler.fleet.placing import Placing
from headrace_autoscaler.fleet.reconciler import REFILL_HELD_S, Reconciler
from headrace_autoscaler.fleet.reports import Report
from headrace_autoscaler.fleet.retirement import Retirement
from headrace_autoscaler.fleet.runners import Registry, RunnerState
from headrace_autoscaler.fleet.shapes import Shapes
from headrace_autoscaler.fleet.standby_pool import STARTS_AT_ONCE, StandbyPool, bounds_of
from headrace_autoscaler.fleet.tasks import TaskSet
from headrace_autoscaler.fleet.treasury import Treasury
from headrace_autoscaler.fleet.verification import Verification, Verifications
from headrace_autoscaler.ports import Catalogue
from headrace_autoscaler.providers.base import InstanceProvider
from headrace_autoscaler.store.history_files import HistoryFiles
from headrace_common.clock import Clock
from headrace_common.config import AutoscalerConfig, ProcessContext
from headrace_common.logs import get_logger

_HOUSEKEEPING_PERIOD_S = 1.0
_ADOPTION_PATIENCE_S = 0.7
_SHORTEST_START_S = 0.001


@dataclass(frozen=True, slots=True)
class FleetParts:
    """What the fleet works with.

    Attributes:
        capacity: what may be promised on this machine.
        usage: where postings of the books go.
        rates: of what serving costs beside instances.
        opening: how far the books went when this autoscaler began.
        replaced: called when a later autoscaler keeps them.
    """

    context: ProcessContext
    epoch: int
    catalogue: Catalogue
    provider: InstanceProvider
    announcements: Announcements
    usage: UsageSink
    clock: Clock
    capacity: Limits
    rates: Rates = FREE
    opening: Opening = field(default_factory=Opening)
    replaced: Callable[[], None] = lambda: None

    @property
    def config(self) -> AutoscalerConfig:
        return self.context.mesh.autoscaler


class RunnerFleet:
    """`ports.Fleet`, and what `control/` tells: reports and routers that come and go.

    `start` adopts what runs and begins to reconcile; `shut_down` stops every instance; `close` leaves
    them running.
    """

    def __init__(self, parts: FleetParts) -> None:
        config = parts.config
        self._parts = parts
        self._wake = asyncio.Event()
        self._tasks = TaskSet()
        self._started_wall = parts.clock.wall()
        self._routers: dict[str, float] = {}
        self.registry = Registry()
        self.history = History()
        self._demand = DemandBook(config.window_s)
        prices = LocalPrices.parse(config.price_per_cpu_hour, config.currency)
        self._books = Books(prices, parts.rates, parts.usage, parts.clock, parts.epoch, parts.opening, parts.replaced)
        self.treasury = Treasury(
            self._books, prices, parts.rates, self.registry, self._demand, parts.announcements, config.drain_timeout_s
        )
        self._jobs = JobDesk(self._books, self.treasury.over_reason)
        self._verifications = Verifications()
        self._replacements = Replacements()
        self._shapes = Shapes(
            parts.catalogue, self.registry, lambda resources: prices.shape(resources).micros_per_hour, self._tasks
        )
        self._lifecycle = Lifecycle(
            parts.provider, self.registry, self._books, parts.clock, parts.epoch,
            Timeouts(config.load_timeout_s, config.drain_timeout_s), self._wake.set,
        )  # fmt: skip
        self.placing = Placing(
            self.registry, self._lifecycle, self._verifications, self.history, self._books, self._shapes, prices,
            parts.clock, parts.context.state_dir / "artifacts", parts.context.mesh.router.max_attempts,
        )  # fmt: skip
        self._loads = Loads(parts.catalogue, self.registry, self._demand, self._shapes, prices, parts.clock)
        self._standby = StandbyPool(bounds_of(config, prices), self._lifecycle.starts)
        retirement = Retirement(parts.catalogue, parts.announcements, self._tasks)
        decider = Decider(
            self.history.start_p95,
            lambda resources: prices.shape(resources).micros_per_hour,
            lambda: STARTS_AT_ONCE / max(_SHORTEST_START_S, self._lifecycle.starts.typical_s),
        )
        self._chronicle = Chronicle(
            HistoryFiles(parts.context.state_dir / "history"), self.history, decider, self._standby, parts.clock
        )
        self._judge = Judge(self.registry, self._demand, decider, self._shapes, retirement.silent)
        self._reconciler = Reconciler(
            catalogue=parts.catalogue,
            registry=self.registry,
            demand=self._demand,
            history=self.history,
            verifications=self._verifications,
            lifecycle=self._lifecycle,
            placing=self.placing,
            retirement=retirement,
            replacements=self._replacements,
            treasury=self.treasury,
            announcements=parts.announcements,
            clock=parts.clock,
            judge=self._judge,
            shapes=self._shapes,
            standby=self._standby,
            jobs=self._jobs,
            capacity=parts.capacity,
        )

    async def start(self) -> None:
        await self._chronicle.recall(self._parts.catalogue.models())
        await self._lifecycle.adopt(_ADOPTION_PATIENCE_S)
        if any(True for _ in self.registry):
            self._trust_what_runs()
        self.decide_now()
        self._tasks.start(self._reconcile_forever(), "reconcile")
        self._tasks.start(self._keep_house(), "housekeeping")
        self._tasks.start(self._keep_books(), "books")

    async def shut_down(self, drain_s: float) -> None:
        """Stops every instance, in order, and writes the books. `drain_s`: to answer what they hold."""
        await self._tasks.close()
        await self._lifecycle.shut_down(drain_s)
        await self._books.flush(self.registry, self._parts.catalogue.models())
        await self._chronicle.write_all()
        await self._lifecycle.close()

    async def close(self) -> None:
        """Leaves the runners to whoever comes next."""
        await self._tasks.close()
        await self._books.flush(self.registry, self._parts.catalogue.models())
        await self._lifecycle.close()

    # ports.Fleet

    async def verify(self, spec: ModelSpec, revision: Revision) -> Loaded:
        verification = Verification(spec, revision)
        self._wake.set()
        try:
            return await self._verifications.run(verification, self._parts.config.load_timeout_s)
        except BaseException:
            self._unload(verification.key, "its first load failed")
            raise
        finally:
            self._wake.set()

    async def discard(self, model: str, revision: int) -> None:
        self._verifications.release({(model, revision)})
        self._unload((model, revision), "its deploy was given up")

    def claim_job(self, spec: ModelSpec) -> str:
        return self._jobs.claim(spec, self._reconciler.room(), self._parts.clock.monotonic())

    def release_job(self, model: str) -> None:
        self._jobs.release(model)
        self._wake.set()

    def job_must_stop(self, model: str) -> str:
        return self._jobs.must_stop(model)

    def catalogue_changed(self) -> None:
        self._wake.set()

    def decide_now(self) -> None:
        try:
            self._reconciler.reconcile()
        except Exception as error:  # noqa: BLE001 - the next pass may find another state
            get_logger().error("reconcile failed", error=repr(error), exc_info=error)

    def view(self, model: str) -> ModelView:
        found = self._parts.catalogue.model(model)
        queued, in_flight, requests = self._demand.sums(model)
        return ModelView(
            instances=tuple(
                self._shapes.view(runner)
                for runner in self.registry.of_model(model)
                if runner.state is not RunnerState.GONE
            ),
            cold_start_count=self.history.cold_start_count(model),
            cold_starts=self.history.cold_starts(model),
            decisions=self.history.decisions(model),
            blocked_reason=self._reconciler.blocked_reason(found) if found else "",
            queued=queued,
            in_flight=in_flight,
            requests=requests,
            outgrown=self.history.outgrown(model),
            cold_start_p95_s=self.history.cold_start_p95(model),
            traffic=self._demand.traffic.view(model, self._parts.clock.monotonic()),
        )

    def load_of(self, model: str) -> Load | None:
        return self._loads.of(model, self._reconciler.standing(model), self._reconciler.room)

    def explain(self, spec: ModelSpec) -> Explanation:
        parts = self._parts
        raises = Raises(spec, {tenant.name: tenant for tenant in parts.catalogue.tenants()})
        standing, room, now_s = self._reconciler.standing(spec.name), self._reconciler.room(), int(parts.clock.wall())
        found = explain(spec, standing, room, raises, now_s)
        refused = parts.announcements.refused(spec.name)
        around = Surroundings(
            raises,
            self.treasury.standings,
            parts.context.mesh.router.max_queue_length,
            now_s,
            standing,
            room,
            found.obstacles,
        )
        found = found.with_held(explain_held(spec, self._demand.held(spec.name), around))
        return found.with_refused(explain_refused(spec, refused, around))

    def overview(self) -> FleetView:
        waiting = (RunnerState.STARTING, RunnerState.STANDBY)
        return FleetView(
            epoch=self._parts.epoch,
            started_at=self._started_wall,
            routers=tuple(self._router_view(router) for router in sorted(self._routers)),
            standby=tuple(
                runner.view() for runner in self.registry if runner.state in waiting and runner.assignment is None
            ),
            enforcement=self._parts.provider.enforcement,
            standby_target=self._standby.target,
        )

    def standings(self) -> Standings:
        return self.treasury.standings

    # What routers say, through control/.

    def router_connected(self, router: str) -> None:
        self._routers[router] = self._parts.clock.wall()
        self._wake.set()

    def router_gone(self, router: str) -> None:
        self._routers.pop(router, None)
        self._demand.router_gone(router)
        self._trust_what_runs()
        self._replacements.router_gone(router)

    def report(self, report: Report) -> None:
        """Counts what a router reports; decides at once where a model at zero is wanted."""
        self._demand.apply(report, self._parts.clock.monotonic())
        for entry in report.entries:
            model = self._parts.catalogue.model(entry.model)
            if model is not None:
                self._books.requests(entry, self._shapes.shape_of(model, entry.revision))
        for cache in report.caches:
            if (model := self._parts.catalogue.model(cache.model)) is not None:
                self._books.cache(cache, model.spec.tenant)
        for cold in report.cold_starts:
            self.history.completed(
                cold.model, cold.instance, cold.load_s, cold.warm_s, cold.first_answer_s, cold.total_s
            )
            if (runner := self.registry.get(cold.instance)) is not None:
                runner.answered = True
        if report.urgent:
            self._wake.set()
        else:
            self._replacements.report(report.router, report.runners)

    @property
    def router_count(self) -> int:
        return len(self._routers)

    def _router_view(self, router: str) -> RouterView:
        totals = self._demand.totals(router)
        return RouterView(
            router, self._routers[router], totals.queued, totals.in_flight, totals.requests, totals.refused
        )

    def _unload(self, key: Key, reason: str) -> None:
        for runner in self.registry.holding(key):
            self._lifecycle.drain(runner, reason)

    def _trust_what_runs(self) -> None:
        """Nothing goes until demand has been watched for a whole window: whoever was before us had reasons, and so has
        a router that is not heard for a moment."""
        self._judge.trust(self._parts.clock.monotonic() + self._parts.config.window_s)

    async def _reconcile_forever(self) -> None:
        while True:
            period_s = self._parts.config.decision_period_s
            if self._reconciler.refill_held or self.treasury.standings:
                # A budget is reviewed once per tick at the latest: so much may be overspent.
                period_s = min(period_s, REFILL_HELD_S, TICK_US / 1e6)
            with suppress(TimeoutError):
                async with asyncio.timeout(period_s):
                    await self._wake.wait()
            self._wake.clear()
            self.decide_now()

    async def _keep_house(self) -> None:
        clock = self._parts.clock
        # No runner that an earlier autoscaler started can be starting for longer. What shows itself after that
        # would be a successor's.
        adopt_until = clock.monotonic() + self._parts.config.load_timeout_s
        while True:
            await asyncio.sleep(_HOUSEKEEPING_PERIOD_S)
            try:
                if clock.monotonic() < adopt_until:
                    await self._lifecycle.adopt_new()
                await self._lifecycle.count_requests()
                await self._chronicle.write_what_is_due()
            except Exception as error:  # noqa: BLE001 - the next round may find another state
                get_logger().error("housekeeping failed", error=repr(error), exc_info=error)

    async def _keep_books(self) -> None:
        """On its own: no runner that is slow to answer holds up a posting."""
        while True:
            await asyncio.sleep(TICK_US / 1e6)
            try:
                departed = self._lifecycle.departed
                self._jobs.settle()
                if await self._books.flush(self.registry, self._parts.catalogue.models()):
                    await self._lifecycle.forget(departed)
            except Exception as error:  # noqa: BLE001 - the books must be written as long as anything runs
                get_logger().error("books not kept", error=repr(error), exc_info=error)
