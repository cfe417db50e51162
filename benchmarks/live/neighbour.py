"""A tenant inside its quota: alone, beside one inside its own, and beside one that asks for ten times that."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from benchmarks import open_loop
from benchmarks.figures import spread
from benchmarks.generator.schedule import Outcome, Plan
from benchmarks.special.engine import body, slow_engine
from benchmarks.systems.open_inference import GRPC_HEADERS, PATH
from headrace.v1 import resources_pb2, tenants_pb2

QUOTA, TIMES = 100.0, 10
CALM_RATE = 47.0
"""Not a part of the quota: two even streams at 50 and 100 a second would never meet, or always."""
ROUNDS = 5
_WARM_UP_S, _SECONDS = 2.0, 8.0
_FLOOD = f"beside one at {TIMES} times its quota"


def measure(rounds: int = ROUNDS) -> None:
    """Prints a table of medians over rounds in which the calm tenant is alone, beside the other inside its quota, and
    beside it at ten times that, in turn."""
    p99_ms: dict[str, list[float]] = {"alone": [], "beside one at its quota": [], _FLOOD: []}
    refused: list[float] = []
    with slow_engine() as (mesh, client):
        url = mesh.url + PATH
        for name in ("calm", "greedy"):
            nominal = resources_pb2.Quantities(requests_per_second=QUOTA, concurrency=32)
            client.set_tenant(tenants_pb2.TenantSpec(name=name, nominal=nominal))
        for _ in range(rounds):
            for case, rate in zip(p99_ms, (0.0, QUOTA, TIMES * QUOTA), strict=True):
                calm, greedy = _beside(url, rate)
                p99_ms[case].append(calm.p99_ms)
            refused.append(greedy.failed / greedy.offered if greedy else 0.0)
    print("| p99 of the tenant inside its quota, ms | median | least | most |\n| --- | ---: | ---: | ---: |")
    for case, values in p99_ms.items():
        each = spread(values)
        print(f"| {case} | {each.median:.2f} | {each.low:.2f} | {each.high:.2f} |")
    alone, inside, flood = (spread(values).median for values in p99_ms.values())
    print(
        f"\nWhat is over the quota moves it by {100 * (flood / inside - 1):+.0f} %; sharing an instance at all, by ",
        end="",
    )
    print(f"{100 * (inside / alone - 1):+.0f} %. {100 * spread(refused).median:.0f} % of the flood were refused.")


def _beside(url: str, rate: float) -> tuple[Outcome, Outcome | None]:
    """What the calm tenant saw, and the other, which offers `rate`; 0: nothing."""
    if not rate:
        return _offer(url, "calm", CALM_RATE), None
    with ThreadPoolExecutor(1) as threads:
        flood = threads.submit(_offer, url, "greedy", rate)
        return _offer(url, "calm", CALM_RATE), flood.result()


def _offer(url: str, tenant: str, rate: float) -> Outcome:
    headers = GRPC_HEADERS | {"x-headrace-tenant": tenant}
    return open_loop.offer(url, body(), headers, True, Plan(rate, _WARM_UP_S, _SECONDS))
