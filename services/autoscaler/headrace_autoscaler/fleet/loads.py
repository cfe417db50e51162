"""What serves a model and what it has to serve, for the choice among its variants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headrace_autoscaler.core.allocator.choice import sustained
from headrace_autoscaler.core.explaining import Standing
from headrace_autoscaler.core.pricing import LocalPrices
from headrace_autoscaler.core.room import Room
from headrace_autoscaler.core.sizing import rate_of, room_for
from headrace_autoscaler.core.variant_choice import Load
from headrace_autoscaler.fleet.demand_book import DemandBook
from headrace_autoscaler.fleet.observation import holdings
from headrace_autoscaler.fleet.runners import Registry, RunnerState
from headrace_autoscaler.fleet.shapes import Shapes
from headrace_autoscaler.ports import Catalogue
from headrace_common.clock import Clock


@dataclass(frozen=True, slots=True)
class Loads:
    catalogue: Catalogue
    registry: Registry
    demand: DemandBook
    shapes: Shapes
    prices: LocalPrices
    clock: Clock

    def of(self, name: str, standing: Standing | None, room: Callable[[], Room]) -> Load | None:
        """See `ports.Fleet.load_of`.

        Args:
            standing: what the last plan made of the model.
            room: with all that is held.
        """
        model = self.catalogue.model(name)
        current = model.current if model is not None else None
        if model is None or current is None or standing is None or standing.want.key != (name, current.revision):
            return None
        want, live = standing.want, self.registry.holding(standing.want.key)
        settled = all(runner.state is RunnerState.READY for runner in live)
        shapes = {runner.assignment.resources for runner in live if runner.assignment is not None}
        profile = self.shapes.profile_of(current, want.resources)
        if not profile or not settled or shapes != {want.resources}:
            return None
        spec, each = model.spec, sustained(profile, model.spec.slo_s)[0]
        arrivals = self.demand.rows_per_s(want.key, self.clock.monotonic())

        def room_without_its_own(most: int) -> int:
            own = [held for held in holdings(self.registry, frozenset()) if held.key == want.key]
            return room_for(room(), want, most, own)

        return Load(
            resources=want.resources,
            profile_us=profile,
            slo_s=spec.slo_s,
            rate=rate_of(max(want.desired, standing.wanted), want.minimum, each, arrivals),
            bounds=(spec.min_instances, spec.max_instances),
            micros_per_hour=self.prices.shape(want.resources).micros_per_hour,
            room_for=room_without_its_own,
        )
