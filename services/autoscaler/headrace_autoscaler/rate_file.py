"""Reads what serving costs beside instances from the operator's catalogue."""

from __future__ import annotations

import tomllib
from pathlib import Path

from headrace_autoscaler.core.rates import Rates, parse_rates
from headrace_common.config import AutoscalerConfig
from headrace_common.errors import InvalidArgument


def load_rates(config: AutoscalerConfig) -> Rates:
    """The table [rates] of `autoscaler.catalog`; what it lacks, and without such a file everything, has the default.

    Raises:
        InvalidArgument: names file and key.
    """
    if not config.catalog:
        return Rates()
    try:
        with Path(config.catalog).open("rb") as file:
            table = tomllib.load(file).get("rates", {})
        return parse_rates(table)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, InvalidArgument) as error:
        raise InvalidArgument(f"autoscaler.catalog {config.catalog}: {' '.join(str(error).split())}") from None
