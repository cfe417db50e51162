"""`python -m headrace_autoscaler.sim`: simulates, and prints JSON. `headrace simulate` is the same for people."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn, TypeVar

import orjson

from headrace_autoscaler.core.policies.base import Policy
from headrace_autoscaler.core.policies.choose import DEFAULT, factories
from headrace_autoscaler.domain import Resources
from headrace_autoscaler.sim.cases import Changes, case_of_scenario, case_of_trace
from headrace_autoscaler.sim.engine import simulate
from headrace_autoscaler.sim.events import write_events
from headrace_autoscaler.sim.outcome import Outcome
from headrace_autoscaler.sim.plot import check_plot, draw
from headrace_autoscaler.sim.scenarios import scenario
from headrace_autoscaler.sim.score import Score, score
from headrace_autoscaler.sim.tenants import read_tenants
from headrace_autoscaler.sim.trace import parse_moment, read_trace
from headrace_autoscaler.sim.workload import Case
from headrace_common.errors import HeadraceError, InvalidArgument
from headrace_common.quantities import parse_bytes, parse_micros, parse_millis, parse_seconds

_T = TypeVar("_T")
MOST_INSTANCES = 10_000
"""As for a deploy."""


def main() -> int:
    arguments = _parser().parse_args()
    try:
        if arguments.plot:
            check_plot(arguments.plot)
        case = _case(arguments)
        policies = factories(arguments.policy, arguments.cost_sensitivity)
        notes = (*case.notes, *_unheeded(arguments, policies))
        for note in notes:
            sys.stderr.write(f"headrace: {note}\n")
        scores = _run(case, policies, arguments)
    except HeadraceError as error:
        sys.stderr.write(f"headrace: {error.message}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"headrace: {error.filename or 'output'}: {error.strerror or error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    sys.stdout.buffer.write(orjson.dumps([each.view() for each in scores], option=orjson.OPT_INDENT_2) + b"\n")
    return 0


def _run(case: Case, policies: Mapping[str, Callable[[], Policy]], arguments: argparse.Namespace) -> list[Score]:
    outcomes: list[Outcome] = []
    scores = []
    file = arguments.events.open("wb") if arguments.events else None
    try:
        for name, factory in policies.items():
            outcome = simulate(case, name, factory)
            scores.append(score(outcome))
            if file:
                write_events(outcome, file)
            if arguments.plot:
                outcomes.append(outcome)
    finally:
        if file:
            file.close()
    if arguments.plot:
        draw(outcomes, scores, arguments.plot)
    return scores


def _case(arguments: argparse.Namespace) -> Case:
    changes = Changes(
        service_s=None if arguments.service_ms is None else arguments.service_ms / 1e3,
        service_per_token_s=None if arguments.service_per_token is None else arguments.service_per_token / 1e3,
        concurrency=arguments.concurrency,
        slo_s=_given(arguments.slo, "--slo", parse_seconds),
        cold_start_s=_given(arguments.cold_start, "--cold-start", parse_seconds),
        models=arguments.models,
        nodes=arguments.nodes,
        instances_per_node=arguments.instances_per_node,
        resources=_resources(arguments),
        tenants=read_tenants(arguments.tenants) if arguments.tenants else None,
        tenant_instances=arguments.tenant_instances,
        standby=arguments.standby,
        starts_per_s=arguments.starts_per_second,
        queue_length=arguments.queue_length,
        price_micros_per_hour=_given(arguments.price, "--price", parse_micros),
        credit_micros=_given(arguments.slo_credit, "--slo-credit", parse_micros),
        began=_given(arguments.start, "--start", parse_moment),
        schedules=tuple(arguments.schedule),
        targets=tuple(map(_target, arguments.target)),
        min_instances=arguments.min_instances,
        max_instances=arguments.max_instances,
        idle_timeout_s=_given(arguments.idle_timeout, "--idle-timeout", parse_seconds),
    )
    if arguments.scenario:
        return case_of_scenario(scenario(arguments.scenario), changes)
    return case_of_trace(str(arguments.trace), read_trace(arguments.trace), changes)


def _resources(arguments: argparse.Namespace) -> Resources | None:
    """What was given, over a deploy's defaults. Raises InvalidArgument: nothing of it."""
    given = {
        "cpu_millicores": _given(arguments.cpu, "--cpu", parse_millis),
        "memory_bytes": _given(arguments.memory, "--memory", parse_bytes),
        "gpu_millis": _given(arguments.gpu, "--gpu", parse_millis),
        "gpu_memory_bytes": _given(arguments.gpu_memory, "--gpu-memory", parse_bytes),
    }
    for field, flag in (("cpu_millicores", "--cpu"), ("memory_bytes", "--memory")):
        if given[field] == 0:
            raise InvalidArgument(f"{flag}: an instance needs more than 0")
    found = {field: amount for field, amount in given.items() if amount is not None}
    return Resources(**found) if found else None


def _unheeded(arguments: argparse.Namespace, policies: Iterable[str]) -> Iterator[str]:
    others = [name for name in policies if name != DEFAULT]
    if arguments.idle_timeout and others:
        yield f"--idle-timeout is for policy {DEFAULT}; it changes nothing of {', '.join(others)}"


def _target(text: str) -> tuple[str, float]:
    metric, _, value = text.partition("=")
    try:
        return metric.replace("-", "_"), float(value)
    except ValueError:
        raise InvalidArgument(
            f"--target: expected METRIC=NUMBER, of seconds where it is a time; got {text!r}"
        ) from None


def _given(text: str | None, flag: str, parse: Callable[[str, str], _T]) -> _T | None:
    return None if text is None else parse(text, flag)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as `headrace` has it."""
        self.exit(2, f"headrace: simulate: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="headrace_autoscaler.sim", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--trace", type=Path, metavar="FILE")
    source.add_argument("--scenario", metavar="NAME")
    parser.add_argument("--policy", default="all", metavar="P[,P...]")
    service = parser.add_mutually_exclusive_group()
    service.add_argument("--service-ms", type=_positive, metavar="N")
    service.add_argument("--service-per-token", type=_positive, metavar="MS")
    parser.add_argument("--starts-per-second", type=_positive, metavar="N")
    for flag in (
        "--slo",
        "--cold-start",
        "--price",
        "--slo-credit",
        "--start",
        "--cpu",
        "--memory",
        "--gpu",
        "--gpu-memory",
        "--idle-timeout",
    ):
        parser.add_argument(flag)
    parser.add_argument("--cost-sensitivity", default="")
    parser.add_argument("--schedule", action="append", default=[], metavar="CRON=N")
    parser.add_argument("--target", action="append", default=[], metavar="METRIC=NUMBER")
    for flag in ("--concurrency", "--models", "--nodes", "--instances-per-node"):
        parser.add_argument(flag, type=_whole(1), metavar="N")
    for flag in ("--tenant-instances", "--standby", "--queue-length"):
        parser.add_argument(flag, type=_whole(0), metavar="N")
    parser.add_argument("--min-instances", type=_whole(0, MOST_INSTANCES), metavar="N")
    parser.add_argument("--max-instances", type=_whole(1, MOST_INSTANCES), metavar="N")
    parser.add_argument("--tenants", type=Path, metavar="FILE")
    parser.add_argument("--events", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not (0.0 < value < math.inf):
        raise argparse.ArgumentTypeError(f"expected more than 0; got {text}")
    return value


def _whole(least: int, most: int | None = None) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least or (most is not None and value > most):
            allowed = f"{least} or more" if most is None else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"expected {allowed}; got {text}")
        return value

    return number


if __name__ == "__main__":
    sys.exit(main())
