"""A tenant inside its quota, alone and beside one that asks for ten times its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from benchmarks import open_loop
from benchmarks.figures import spread
from benchmarks.generator.schedule import Outcome, Plan
from benchmarks.special.engine import body, slow_engine
from benchmarks.systems.open_inference import GRPC_HEADERS, PATH
from headrace.v1 import resources_pb2, tenants_pb2

QUOTA, TIMES = 100.0, 10
CALM_RATE = 50.0
ROUNDS = 5
_WARM_UP_S, _SECONDS = 2.0, 8.0


def measure(rounds: int = ROUNDS) -> None:
    """Prints a table of medians over rounds in which the calm tenant is alone and beside the other in turn."""
    alone, beside, refused = [], [], []
    with slow_engine() as (mesh, client):
        url = mesh.url + PATH
        for name in ("calm", "greedy"):
            nominal = resources_pb2.Quantities(requests_per_second=QUOTA, concurrency=32)
            client.set_tenant(tenants_pb2.TenantSpec(name=name, nominal=nominal))
        for _ in range(rounds):
            alone.append(_offer(url, "calm", CALM_RATE).p99_ms)
            with ThreadPoolExecutor(1) as threads:
                flood = threads.submit(_offer, url, "greedy", TIMES * QUOTA)
                beside.append(_offer(url, "calm", CALM_RATE).p99_ms)
                refused.append(flood.result().failed / flood.result().offered)
    quiet, loud = spread(alone), spread(beside)
    print("| p99 of the tenant inside its quota, ms | median | least | most |\n| --- | ---: | ---: | ---: |")
    print(f"| alone | {quiet.median:.2f} | {quiet.low:.2f} | {quiet.high:.2f} |")
    print(f"| beside one at {TIMES} times its quota | {loud.median:.2f} | {loud.low:.2f} | {loud.high:.2f} |")
    print(f"\nmoves by {100 * (loud.median / quiet.median - 1):+.0f} %; of the other's requests")
    print(f"{100 * spread(refused).median:.0f} % were refused; {rounds} rounds")


def _offer(url: str, tenant: str, rate: float) -> Outcome:
    headers = GRPC_HEADERS | {"x-headrace-tenant": tenant}
    return open_loop.offer(url, body(), headers, True, Plan(rate, _WARM_UP_S, _SECONDS))
