"""What a runner does when its engine is lost: the process ends, as if the engine had ended it itself."""

from __future__ import annotations

import os
from typing import NoReturn

from headrace_common.enforcement import ENGINE_LOST_STATUS
from headrace_common.logs import get_logger
from headrace_runner.engines.base import EngineLost


def end_process(error: EngineLost) -> NoReturn:
    """What is in hand is executed elsewhere, and nothing is said of the model."""
    get_logger().error("engine_lost", reason=str(error))
    os._exit(ENGINE_LOST_STATUS)
