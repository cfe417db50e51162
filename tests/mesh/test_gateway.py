import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.core import Metric

from headrace.client import methods
from headrace.control.v1 import process_pb2
from headrace.errors import FailedPrecondition
from headrace.mesh.gateway import MeshCollector, MetricsGateway, Scrape, merge, open_gateway, scrape_processes
from headrace.mesh.listening import ListenAddress

HISTOGRAM = """# HELP wait_seconds Time in queue.
# TYPE wait_seconds histogram
wait_seconds_bucket{le="0.1",model="m"} 1
wait_seconds_bucket{le="+Inf",model="m"} 2
wait_seconds_sum{model="m"} 0.3
wait_seconds_count{model="m"} 2
"""


def samples(metrics: list[Metric], name: str) -> dict[tuple[tuple[str, str], ...], float]:
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for metric in metrics
        for sample in metric.samples
        if sample.name == name
    }


def test_one_family_holds_the_samples_of_all_processes() -> None:
    text = "# HELP requests_total Requests.\n# TYPE requests_total counter\nrequests_total 3\n"
    merged = merge([Scrape("router-0", text), Scrape("router-1", text)])
    assert [metric.name for metric in merged] == ["requests", "headrace_process_up"]
    assert samples(merged, "requests_total") == {(("process", "router-0"),): 3, (("process", "router-1"),): 3}


def test_histograms_keep_their_buckets_and_labels() -> None:
    merged = merge([Scrape("router-0", HISTOGRAM)])
    assert merged[0].type == "histogram"
    buckets = samples(merged, "wait_seconds_bucket")
    assert buckets[(("le", "+Inf"), ("model", "m"), ("process", "router-0"))] == 2


def test_silence_and_nonsense_count_as_down() -> None:
    merged = merge([Scrape("a", None), Scrape("b", "{{{ nonsense"), Scrape("c", "")])
    assert samples(merged, "headrace_process_up") == {
        (("process", "a"),): 0,
        (("process", "b"),): 0,
        (("process", "c"),): 1,
    }


def test_a_family_of_two_types_keeps_the_first() -> None:
    merged = merge([Scrape("a", "# TYPE x gauge\nx 1\n"), Scrape("b", "# TYPE x histogram\nx_sum 1\nx_count 1\n")])
    assert samples(merged, "x") == {(("process", "a"),): 1}
    assert not samples(merged, "x_sum")


@contextmanager
def process(path: Path, scrape: Callable[[Any, Any], process_pb2.ScrapeMetricsResponse]) -> Iterator[None]:
    handler = grpc.unary_unary_rpc_method_handler(
        scrape, process_pb2.ScrapeMetricsRequest.FromString, process_pb2.ScrapeMetricsResponse.SerializeToString
    )
    service, _, name = methods.SCRAPE_METRICS.path.removeprefix("/").partition("/")
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
        server.add_insecure_port(f"unix:{path}")
        server.start()
        try:
            yield
        finally:
            server.stop(None).wait()


def answer(text: bytes) -> Callable[[Any, Any], process_pb2.ScrapeMetricsResponse]:
    return lambda _request, _context: process_pb2.ScrapeMetricsResponse(text=text)


@pytest.fixture
def runtime(short_dir: Path) -> Iterator[Path]:
    """One process that lives, one that is dead, one that hangs, and an Envoy's admin socket."""
    with ExitStack() as stack:
        stack.enter_context(process(short_dir / "router-0.sock", answer(b"# TYPE a gauge\na 1\n")))
        for name in ("dead.sock", "hung.sock", "router-0-admin.sock"):
            listener = stack.enter_context(closing(socket.socket(socket.AF_UNIX)))
            listener.bind(str(short_dir / name))
            if name == "hung.sock":
                listener.listen()
        yield short_dir


def test_who_does_not_answer_in_time_is_left_out(runtime: Path) -> None:
    began = time.monotonic()
    scrapes = {scrape.process: scrape.text for scrape in scrape_processes(runtime, timeout_s=1)}
    assert scrapes == {"router-0": "# TYPE a gauge\na 1\n", "dead": None, "hung": None}
    assert time.monotonic() - began < 3


def test_the_listener_serves_the_merged_text(runtime: Path) -> None:
    collector = MeshCollector(runtime, lambda: {"router-0": 2})
    with (
        closing(MetricsGateway(ListenAddress("127.0.0.1", 0), collector)) as gateway,
        urllib.request.urlopen(f"{gateway.address.url}/metrics", timeout=10) as response,
    ):
        text = response.read().decode()
    assert 'a{process="router-0"} 1.0' in text
    assert 'headrace_process_up{process="dead"} 0.0' in text
    assert 'headrace_process_restarts_total{process="router-0"} 2.0' in text


def test_a_port_that_was_taken_meanwhile_is_replaced_unless_it_was_asked_for(runtime: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = ListenAddress("127.0.0.1", listener.getsockname()[1])
        collector = MeshCollector(runtime, dict)
        with pytest.raises(FailedPrecondition, match=f"telemetry.metrics_listen: port {taken.port} of .* is in use"):
            open_gateway(taken, collector, required=True)
        gateway = open_gateway(taken, collector, required=False)
        try:
            assert gateway.address.port not in (0, taken.port)
        finally:
            gateway.close()
