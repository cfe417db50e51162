"""The autoscaler's metrics: plain integers that the fleet keeps anyway, read at export."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from headrace_autoscaler.core.budgets import Standing
from headrace_autoscaler.fleet.fleet import RunnerFleet
from headrace_common.telemetry import Attributes, Telemetry

_Observed = tuple[int, Attributes]


def observe_fleet(telemetry: Telemetry, fleet: RunnerFleet) -> None:
    def instances() -> Iterator[_Observed]:
        held = Counter(
            (runner.assignment.tenant, runner.assignment.model, runner.state.label)
            for runner in fleet.registry
            if runner.assignment is not None
        )
        for (tenant, model, state), count in held.items():
            yield count, {"tenant": tenant, "model": model, "state": state}

    def standby() -> Iterator[_Observed]:
        states = Counter(runner.state.label for runner in fleet.registry if runner.assignment is None)
        for state in ("starting", "standby"):
            yield states[state], {"state": state}

    def cold_starts() -> Iterator[_Observed]:
        for model, count in fleet.history.cold_start_counts():
            yield count, {"model": model}

    def outgrown() -> Iterator[_Observed]:
        for (tenant, model), count in fleet.placing.outgrown.items():
            yield count, {"tenant": tenant, "model": model}

    telemetry.observe("headrace_instances_over_memory", "Instances that outgrew their memory.", "", outgrown)

    def budgets(value: Callable[[Standing], float]) -> Callable[[], Iterator[tuple[float, Attributes]]]:
        def observed() -> Iterator[tuple[float, Attributes]]:
            for standings in fleet.standings().values():
                for each in standings:
                    budget = each.budget
                    yield value(each), {"tenant": budget.tenant, "model": budget.model, "period": budget.period.value}

        return observed

    telemetry.observe("headrace_instances", "Instances by state.", "", instances, "gauge")
    telemetry.observe("headrace_standby_runners", "Runners without a model.", "", standby, "gauge")
    telemetry.observe("headrace_cold_starts", "Starts from zero.", "", cold_starts)
    telemetry.observe(
        "headrace_decisions", "Decisions that differed from the one before.", "",
        lambda: [(fleet.history.decision_count, {})],
    )  # fmt: skip
    telemetry.observe("headrace_loads_failed", "Loads that failed.", "", lambda: [(fleet.placing.failed_count, {})])
    telemetry.observe("headrace_routers", "Connected routers.", "", lambda: [(fleet.router_count, {})], "gauge")
    telemetry.observe(
        "headrace_budget_spent", "Share of a budget that is spent.", "", budgets(_spent_share), "gauge"
    )  # fmt: skip
    telemetry.observe(
        "headrace_budget_state", "0: within, 1: 80 % spent, 2: spent.", "", budgets(lambda each: each.state), "gauge"
    )


def _spent_share(standing: Standing) -> float:
    return standing.spent_micros / standing.budget.micros if standing.budget.micros else 1.0
