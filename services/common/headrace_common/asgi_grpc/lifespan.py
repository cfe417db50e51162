"""The ASGI lifespan protocol over an async context manager."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from headrace_common.asgi_grpc.call import Receive, Send
from headrace_common.logs import get_logger


async def serve_lifespan(running: AbstractAsyncContextManager[object], receive: Receive, send: Send) -> None:
    """Enters `running` at start-up and leaves it at shutdown; a failure of either is told to the server."""
    phase = "startup"
    try:
        await receive()
        async with running:
            await send({"type": "lifespan.startup.complete"})
            await receive()
            phase = "shutdown"
        await send({"type": "lifespan.shutdown.complete"})
    except Exception as error:  # noqa: BLE001 - the server is told, and ends
        get_logger().error(f"{phase}_failed", error=repr(error), exc_info=error)
        await send({"type": f"lifespan.{phase}.failed", "message": str(error)})
