"""/metrics of the whole mesh on one loopback listener.

Each scrape asks every process over its unix socket, in parallel, and merges the families by name;
the label `process` says whose a sample is. A process that does not answer within five seconds is
left out, and its `headrace_process_up` is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from headrace.client import methods
from headrace.control.v1 import process_pb2
from headrace.mesh.listening import ListenAddress, cannot_bind
from headrace_common.logs import get_logger

# A process with thousands of models takes seconds over its text; a dead one refuses at once. Prometheus waits for ten.
SCRAPE_TIMEOUT_S = 5.0
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    # A shared subchannel would remember a dead process and wait before it looks again.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one process said; None: nothing."""

    process: str
    text: str | None


def merge(scrapes: Iterable[Scrape]) -> list[Metric]:
    """Families of all processes under one name each, with the label `process` on every sample.

    A text that cannot be parsed counts as no answer. Where processes disagree on a family's type,
    the first one's holds and the others' samples of it are left out.
    """
    merged: dict[str, Metric] = {}
    up = GaugeMetricFamily("headrace_process_up", "Whether the process answered this scrape.", labels=["process"])
    for scrape in scrapes:
        families = _families(scrape.text)
        up.add_metric([scrape.process], 0 if families is None else 1)
        for family in families or ():
            target = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type, family.unit))
            if target.type == family.type:
                for sample in family.samples:
                    target.add_sample(
                        sample.name, {**sample.labels, "process": scrape.process}, sample.value, sample.timestamp
                    )
    return [*merged.values(), up]


def _families(text: str | None) -> list[Metric] | None:
    if text is None:
        return None
    try:
        return list(text_string_to_metric_families(text))
    except ValueError:
        return None


def scrape_processes(runtime: Path, timeout_s: float = SCRAPE_TIMEOUT_S) -> list[Scrape]:
    """Asks every process that has a socket in the runtime directory, all at once."""
    sockets = sorted(path for path in runtime.glob("*.sock") if not path.name.endswith("-admin.sock"))
    channels = [grpc.insecure_channel(f"unix:{path}", options=_OPTIONS) for path in sockets]
    try:
        calls = [
            methods.SCRAPE_METRICS.on(channel).future(process_pb2.ScrapeMetricsRequest(), timeout=timeout_s)
            for channel in channels
        ]
        return [Scrape(path.stem, _text(call)) for path, call in zip(sockets, calls, strict=True)]
    finally:
        for channel in channels:
            channel.close()


def _text(call: Any) -> str | None:
    try:
        response: process_pb2.ScrapeMetricsResponse = call.result()
    except grpc.RpcError:
        return None
    return response.text.decode(errors="replace")


class MeshCollector:
    """A prometheus_client collector over a mesh.

    Args:
        runtime: the mesh's runtime directory.
        restarts: restarts so far by process, as the supervisor counts them.
    """

    def __init__(self, runtime: Path, restarts: Callable[[], Mapping[str, int]]) -> None:
        self._runtime = runtime
        self._restarts = restarts

    def describe(self) -> list[Metric]:
        """Nothing in advance: what there is depends on what runs."""
        return []

    def collect(self) -> Iterator[Metric]:
        yield from merge(scrape_processes(self._runtime))
        restarts = CounterMetricFamily(
            "headrace_process_restarts", "Times that the supervisor started the process again.", labels=["process"]
        )
        for process, count in self._restarts().items():
            restarts.add_metric([process], count)
        yield restarts


class MetricsGateway:
    """The listener. Serves in threads of its own until closed."""

    def __init__(self, address: ListenAddress, collector: MeshCollector) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(collector)
        self._server, self._thread = start_http_server(address.port, address.host, registry)
        self.address = ListenAddress(address.host, self._server.server_port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def open_gateway(address: ListenAddress, collector: MeshCollector, required: bool) -> MetricsGateway:
    """Listens at the address; if something has taken it, and another one will do, at any free port.

    Raises:
        FailedPrecondition: the address is required and cannot be had.
    """
    try:
        return MetricsGateway(address, collector)
    except OSError as error:
        refusal = cannot_bind(address, "telemetry.metrics_listen", error)
        if required:
            raise refusal from None
        get_logger().warning("metrics port in use", wanted=str(address), reason=f"{refusal.message}; taking any")
        return MetricsGateway(ListenAddress(address.host, 0), collector)
