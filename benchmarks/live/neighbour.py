"""A tenant inside its quota: alone, beside one inside its own, and beside one that asks for ten times that."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from benchmarks import open_loop
from benchmarks.figures import spread
from benchmarks.generator.schedule import Outcome, Plan
from benchmarks.special.engine import LATENCY_MS, MODEL, body, slow_engine
from benchmarks.systems.open_inference import GRPC_HEADERS, PATH
from headrace.v1 import resources_pb2, tenants_pb2

QUOTA, TIMES = 100.0, 10
CALM_RATE = 47.0
"""Not a part of the quota: two even streams at 50 and 100 a second would never meet, or always."""
ROUNDS = 5
_WARM_UP_S, _SECONDS = 2.0, 8.0
_CALM, _GREEDY = "calm", "greedy"
_RATES = {"alone": 0.0, "beside one at its quota": QUOTA, f"beside one at {TIMES} times its quota": TIMES * QUOTA}


@dataclass(frozen=True, slots=True)
class Setting:
    """What two tenants share.

    Attributes:
        models: by tenant.
        deploy: of each model.
    """

    name: str
    models: Mapping[str, str] = field(default_factory=lambda: {_CALM: MODEL, _GREEDY: MODEL})
    deploy: Mapping[str, Any] = field(default_factory=dict)


SETTINGS = (
    Setting("a model each", {_CALM: "hers", _GREEDY: "his"}),
    Setting("one model that scales, objective 10 ms", deploy={"max_instances": 4, "slo": "10ms"}),
    Setting("one model, held to one instance"),
)


def measure(rounds: int = ROUNDS) -> None:
    """Prints, for each setting, a table of medians over rounds in which the calm tenant is alone, beside the other
    inside its quota, and beside it at ten times that, in turn."""
    for setting in SETTINGS:
        with slow_engine(2, tuple(dict.fromkeys(setting.models.values())), **setting.deploy) as (mesh, client):
            for name in (_CALM, _GREEDY):
                nominal = resources_pb2.Quantities(requests_per_second=QUOTA, concurrency=32)
                client.set_tenant(tenants_pb2.TenantSpec(name=name, nominal=nominal))
            _print(setting, *_measured(setting, mesh.url + PATH, rounds))
            for model in dict.fromkeys(setting.models.values()):
                print(f"instances of {model} at the end: {len(client.model(model).instances)}")


def _measured(setting: Setting, url: str, rounds: int) -> tuple[dict[str, list[float]], list[float]]:
    """p99 of the calm tenant in ms by case, and what share of the flood was refused."""
    p99_ms: dict[str, list[float]] = {case: [] for case in _RATES}
    refused: list[float] = []
    for _ in range(rounds):
        for case, rate in _RATES.items():
            calm, greedy = _beside(setting, url, rate)
            p99_ms[case].append(calm.p99_ms)
        refused.append(greedy.failed / greedy.offered if greedy else 0.0)
    return p99_ms, refused


def _print(setting: Setting, p99_ms: Mapping[str, list[float]], refused: list[float]) -> None:
    print(f"\n{setting.name}, {LATENCY_MS:g} ms a batch: p99 of the tenant inside its quota, ms\n")
    print("| | median | least | most |\n| --- | ---: | ---: | ---: |")
    for case, values in p99_ms.items():
        each = spread(values)
        print(f"| {case} | {each.median:.2f} | {each.low:.2f} | {each.high:.2f} |")
    alone, inside, flood = (spread(values).median for values in p99_ms.values())
    print(
        f"\nOne at {TIMES} times its quota moves it by {100 * (flood / alone - 1):+.0f} %; one inside its own, by ",
        end="",
    )
    print(f"{100 * (inside / alone - 1):+.0f} %. {100 * spread(refused).median:.0f} % of the flood were refused.")


def _beside(setting: Setting, url: str, rate: float) -> tuple[Outcome, Outcome | None]:
    """What the calm tenant saw, and the other, which offers `rate`; 0: nothing."""
    calm = setting.models[_CALM]
    if not rate:
        return _offer(url, _CALM, calm, CALM_RATE), None
    with ThreadPoolExecutor(1) as threads:
        flood = threads.submit(_offer, url, _GREEDY, setting.models[_GREEDY], rate)
        return _offer(url, _CALM, calm, CALM_RATE), flood.result()


def _offer(url: str, tenant: str, model: str, rate: float) -> Outcome:
    headers = GRPC_HEADERS | {"x-headrace-tenant": tenant}
    return open_loop.offer(url, body(model), headers, True, Plan(rate, _WARM_UP_S, _SECONDS))
