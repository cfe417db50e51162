"""Stands in for every service of the mesh: `python standin.py PROCESS CONTEXT`.

Notes in STATE/events what happens to it. STANDIN_* in the environment make it misbehave:
STANDIN_CRASH=PROCESS ends that process at once; STANDIN_REFUSE=PROCESS, or a file
STATE/refuse-PROCESS, lets it say that it cannot start; STANDIN_NEVER=PROCESS lets it never become ready;
STANDIN_HANG=1 makes Drain hang; STANDIN_STUBBORN=1 makes runners ignore SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

RUNNER = """
import os, signal, sys
if os.environ.get("STANDIN_STUBBORN"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").write(str(os.getpid()))
while True:
    signal.pause()
"""


def main() -> None:
    process, context_file = sys.argv[1], Path(sys.argv[2])
    if os.environ.get("STANDIN_CRASH") == process:
        print(f"{process}: there is no libfoo here", file=sys.stderr)
        sys.exit(3)
    from headrace_common.config import load_context

    context = load_context(context_file)
    if os.environ.get("STANDIN_REFUSE") == process or (context.state_dir / f"refuse-{process}").exists():
        print('{"event":"start_failed","reason":"there is no room here"}', file=sys.stderr)
        sys.exit(2)
    if os.environ.get("STANDIN_NEVER") == process:
        print(f"{process} sulks", file=sys.stderr, flush=True)
        signal.pause()
    if process == "autoscaler":
        pid_file = context.state_dir / "runner.pid"
        if not pid_file.exists():
            subprocess.Popen([sys.executable, "-c", RUNNER, str(pid_file)])
    asyncio.run(serve(process, context))


def note(context: Any, text: str) -> None:
    with (context.state_dir / "events").open("a") as events:
        events.write(text + "\n")


async def serve(process: str, context: Any) -> None:
    import grpc

    server = grpc.aio.server(options=(("grpc.so_reuseport", 1),))
    server.add_generic_rpc_handlers((handlers(process, context),))
    server.add_insecure_port(f"unix:{context.socket}")
    if process.startswith("router-"):
        assert server.add_insecure_port(context.listen)
        serve_admin(process, context)
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    note(context, f"{process} SIGTERM")
    await server.stop(0)


def handlers(process: str, context: Any) -> Any:
    import grpc

    from headrace.client import methods
    from headrace.control.v1 import process_pb2
    from headrace.oip import inference_pb2
    from headrace.v1 import mesh_pb2

    async def status(_request: Any, _context: Any) -> mesh_pb2.GetStatusResponse:
        routers = [{"id": f"router-{index}"} for index in range(context.mesh.router.processes)]
        standby = [{"id": "r", "state": "standby"}] if context.mesh.autoscaler.standby else []
        return mesh_pb2.GetStatusResponse(routers=routers, standby=standby)

    async def ready(_request: Any, _context: Any) -> inference_pb2.ServerReadyResponse:
        return inference_pb2.ServerReadyResponse(ready=True)

    async def scrape(_request: Any, _context: Any) -> process_pb2.ScrapeMetricsResponse:
        return process_pb2.ScrapeMetricsResponse(text=b"# TYPE work_total counter\nwork_total 2\n")

    async def drain(request: process_pb2.DrainRequest, _context: Any) -> process_pb2.DrainResponse:
        note(context, f"{process} drain")
        if os.environ.get("STANDIN_HANG"):
            await asyncio.Event().wait()
        return process_pb2.DrainResponse()

    table = {
        methods.GET_STATUS: status,
        methods.SERVER_READY: ready,
        methods.SCRAPE_METRICS: scrape,
        methods.DRAIN: drain,
    }

    class Handlers(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            for method, behave in table.items():
                if method.path == handler_call_details.method:
                    return grpc.unary_unary_rpc_method_handler(
                        behave, method.request.FromString, method.response.SerializeToString
                    )
            return None

    return Handlers()


def serve_admin(process: str, context: Any) -> None:
    """As Envoy's: answers in chunks; its statistics say that something is in flight the first time."""

    in_flight = [1]

    class Admin(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def address_string(self) -> str:
            return "unix"

        def log_message(self, format: str, *args: Any) -> None:
            return

        def do_POST(self) -> None:
            note(context, f"{process} POST {self.path}")
            self._answer("OK\n")

        def do_GET(self) -> None:
            left = in_flight.pop() if in_flight else 0
            note(context, f"{process} in flight {left}")
            self._answer(f"http.admin.downstream_rq_active: 1\nhttp.front.downstream_rq_active: {left}\n")

        def _answer(self, body: str) -> None:
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            data = body.encode()
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))

    path = context.runtime_dir / f"{process}-admin.sock"
    server = ThreadingUnixStreamServer(str(path), Admin)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert isinstance(server.socket, socket.socket)


if __name__ == "__main__":
    main()
