"""`python -m headrace_router --context FILE`: becomes Envoy with the router inside."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from headrace_common.config import load_context
from headrace_common.errors import HeadraceError
from headrace_router.envoy import launch


def main() -> int:
    """Returns only if Envoy could not be started: 2, after one line on standard error."""
    parser = argparse.ArgumentParser(prog="python -m headrace_router", description=__doc__)
    parser.add_argument("--context", type=Path, required=True, help="file with the process context, as JSON")
    arguments = parser.parse_args()
    try:
        launch(load_context(arguments.context), arguments.context)
    except HeadraceError as error:
        print(f"headrace_router: {error.message}", file=sys.stderr)  # noqa: T201 - for the person who started it
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        print(f"headrace_router: cannot start: {reason}", file=sys.stderr)  # noqa: T201
    return 2


if __name__ == "__main__":
    sys.exit(main())
