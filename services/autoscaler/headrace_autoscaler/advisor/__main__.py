"""`python -m headrace_autoscaler.advisor`: a question as JSON on standard input, an advice on standard output."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from headrace_autoscaler.advisor.picture import check_picture, draw
from headrace_autoscaler.advisor.question import read_question
from headrace_autoscaler.advisor.report import lines, plain
from headrace_autoscaler.advisor.results import read_results
from headrace_autoscaler.core.allocator.advice import advise
from headrace_autoscaler.shape_catalog import load_catalog
from headrace_common.errors import FailedPrecondition, InvalidArgument


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 where something given is wrong."""
    options = _parser().parse_args(arguments)
    try:
        return _advise(options)
    except (InvalidArgument, FailedPrecondition) as error:
        print(f"headrace: {error.message}", file=sys.stderr)  # noqa: T201 - a program for people
    except OSError as error:
        print(f"headrace: {error.filename}: {error.strerror}", file=sys.stderr)  # noqa: T201 - as above
    return 2


def _advise(options: argparse.Namespace) -> int:
    if options.plot is not None:
        check_picture(options.plot)
    catalog = load_catalog(options.catalog)
    results = None if options.variants is None else read_results(options.variants)
    advice = advise(read_question(sys.stdin.read(), options.what, results), catalog)
    if options.plot is not None:
        draw(advice, catalog, options.plot)
    if options.json:
        print(json.dumps(plain(advice), indent=2))  # noqa: T201 - as above
    else:
        print("\n".join(lines(advice, options.top)))  # noqa: T201 - as above
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m headrace_autoscaler.advisor", description=__doc__)
    parser.add_argument("--what", default="the question", help="what the document is, for errors")
    parser.add_argument("--variants", type=Path, metavar="DIR")
    parser.add_argument("--catalog", default="", metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--top", type=int, default=8, metavar="N")
    parser.add_argument("--json", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
