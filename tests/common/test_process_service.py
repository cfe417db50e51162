"""What every process answers about itself."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading

import grpc

from headrace.control.v1 import process_pb2, process_pb2_grpc
from headrace_common.grpc_server import add_process_service, new_server


async def test_a_scrape_of_many_series_does_not_hold_up_other_calls() -> None:
    began, drained = threading.Event(), threading.Event()

    def scrape() -> bytes:
        began.set()
        assert drained.wait(10), "nothing else was answered meanwhile"
        return b"a 1\n"

    async def drain(_timeout_s: float | None) -> int:
        drained.set()
        return 0

    directory = tempfile.mkdtemp(prefix="hr-")
    server = new_server()
    add_process_service(server, scrape, drain)
    server.add_insecure_port(f"unix:{directory}/s.sock")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"unix:{directory}/s.sock") as channel:
            stub = process_pb2_grpc.ProcessServiceStub(channel)
            scraping = stub.ScrapeMetrics(process_pb2.ScrapeMetricsRequest(), timeout=20)
            assert await asyncio.to_thread(began.wait, 10)
            await stub.Drain(process_pb2.DrainRequest(), timeout=20)
            assert (await scraping).text == b"a 1\n"
    finally:
        await server.stop(0)
        shutil.rmtree(directory)
