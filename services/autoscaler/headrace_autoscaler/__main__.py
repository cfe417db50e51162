"""`python -m headrace_autoscaler --context FILE`: the autoscaler process."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from pydantic import ValidationError

from headrace_autoscaler.process import Autoscaler
from headrace_autoscaler.stopping import end_anyway
from headrace_common.config import load_context
from headrace_common.ending import leave
from headrace_common.errors import HeadraceError
from headrace_common.logs import configure_logging, get_logger


def main() -> int:
    parser = argparse.ArgumentParser(prog="headrace_autoscaler", description="The autoscaler of a headrace mesh.")
    parser.add_argument("--context", type=Path, required=True, metavar="FILE", help="what the mesh tells this process")
    path = parser.parse_args().context
    try:
        context = load_context(path)
    except (OSError, ValidationError) as error:
        sys.stderr.write(f"context {path}: cannot be read: {' '.join(str(error).split())}\n")
        return 2
    configure_logging(context.process, context.mesh.telemetry.log_level)
    try:
        return asyncio.run(_run(Autoscaler(context)))
    except HeadraceError as error:
        get_logger().error("start failed", reason=error.message)
        return 2


async def _run(autoscaler: Autoscaler) -> int:
    """Until a signal says to stop (0), or a newer autoscaler has taken over (1)."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, autoscaler.stop)
    code = 1 if await autoscaler.run() else 0
    end_anyway(code)
    return code


if __name__ == "__main__":
    leave(main())
