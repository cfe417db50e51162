"""Carries a plan out: one system at a time, its answers checked, its load counted."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import answers, h2load, open_loop, plan, records, special, workloads
from benchmarks.figures import median
from benchmarks.generator.schedule import Plan
from benchmarks.processes import DidNotStart
from benchmarks.records import Closed, Failure, Open, Run
from benchmarks.report.machine import describe
from benchmarks.systems import SYSTEMS, Counts, Running
from benchmarks.workloads import Workload
from headrace.errors import HeadraceError

_HOPELESS = (DidNotStart, answers.WrongAnswer, HeadraceError, OSError, ValueError)
"""Once is enough: the system is left out from here on. What h2load or the generator could not do is tried again."""
_PROBLEMS = (*_HOPELESS, answers.NoAnswer, subprocess.SubprocessError)


class Runner:
    """One run.

    Attributes:
        run: what has been measured so far; `path` has the same.
    """

    def __init__(self, settings: plan.Settings, path: Path, not_installed: Mapping[str, str]) -> None:
        """
        Args:
            not_installed: peers that are not there, and why.
        """
        versions = {name: SYSTEMS[name].version() for name in settings.systems}
        asked = {
            "rounds": settings.rounds,
            "slow_rounds": min(settings.rounds, settings.slow_rounds),
            "seconds": settings.seconds,
        }
        self.run = Run(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", describe(), versions, asked)
        self.path = path
        self._settings = settings
        self._began = time.monotonic()
        self._not_installed = not_installed
        self._hopeless: set[tuple[str, str]] = set()
        self._workloads = {name: workloads.load(name) for name in workloads.NAMES}

    def all(self) -> Run:
        """Everything the settings name."""
        for turn in plan.closed_turns(self._settings):
            self._turn(
                turn.system, turn.workload, lambda running, workload, turn=turn: self._closed(running, workload, turn)
            )
        if self._settings.open_loop and "mlp" in self._settings.workloads:
            for open_turn in plan.open_turns(self._settings):
                self._turn(
                    open_turn.system,
                    "mlp",
                    lambda running, workload, turn=open_turn: self._open(running, workload, turn),
                )
        for kind in self._settings.specials:
            for round_ in range(1 if kind == "memory" else self._settings.rounds):
                self._special(kind, round_)
        return self.run

    def _turn(self, system: str, name: str, measure: Callable[[Running, Workload], None]) -> None:
        """What fails is named on the page."""
        if (system, name) in self._hopeless:
            return
        workload = self._workloads[name]
        try:
            if problem := self._not_installed.get(SYSTEMS[system].peer):
                raise DidNotStart(problem)
            with SYSTEMS[system].running(workload) as running:
                answers.check(running, workload)
                measure(running, workload)
        except _PROBLEMS as error:
            self._failed(system, name, error)
            if isinstance(error, _HOPELESS):
                self._hopeless.add((system, name))
        self._save()

    def _closed(self, running: Running, workload: Workload, turn: plan.Turn) -> None:
        settings = self._settings
        for in_flight in turn.loads:
            _load(running, in_flight, settings.warm_up_s)
            answers.drain(running, workload)
            before = settled(running)
            seen = _load(running, in_flight, settings.seconds)
            measured = closed_of(turn, in_flight, seen, before, settled(running))
            self.run.closed.append(measured)
            print(
                f"{turn.workload} {turn.system}, {in_flight} in flight, round {turn.round}: {measured.rate:.0f} req/s, "
                f"p50 {measured.p50_ms:.2f} ms, p99 {measured.p99_ms:.2f} ms, {measured.refused} refused",
                flush=True,
            )

    def _open(self, running: Running, workload: Workload, turn: plan.OpenTurn) -> None:
        system = turn.system
        capacity = self._capacity(system, workload, running)
        for rate, fraction in plan.open_rates(capacity, turn.fractions):
            answers.drain(running, workload)
            offered = Plan(rate, self._settings.warm_up_s, self._settings.seconds)
            outcome = open_loop.offer(running.url, running.body, running.headers, running.http2, offered)
            failed = outcome.failed + outcome.unanswered
            figures = (outcome.ok, failed, outcome.p50_ms, outcome.p99_ms, outcome.late_p99_ms)
            self.run.open.append(Open(system, workload.name, rate, fraction, turn.round, *figures))
            print(
                f"{workload.name} {system}, {rate:.0f} req/s offered, round {turn.round}: p50 {outcome.p50_ms:.2f} ms, "
                f"p99 {outcome.p99_ms:.2f} ms, {failed} failed, generator late by {outcome.late_p99_ms:.2f} ms (p99)",
                flush=True,
            )

    def _capacity(self, system: str, workload: Workload, running: Running) -> float:
        """The best median of its closed loops; measured now where there was none."""
        by_load = [self.run.closed_rates(system, workload.name, load) for load in plan.LOADS]
        known = [median(rates) for rates in by_load if rates]
        if known:
            return max(known)
        seen = _load(running, 64, self._settings.seconds)
        return seen.ok / seen.seconds

    def _special(self, kind: str, round_: int) -> None:
        try:
            measured = special.MEASUREMENTS[kind](self._settings, round_)
        except _PROBLEMS as error:
            self._failed("headrace", kind, error)
        else:
            self.run.special.append(measured)
            print(f"{kind}, round {round_}: {measured.values}", flush=True)
        self._save()

    def _failed(self, system: str, what: str, error: Exception) -> None:
        print(f"NOT MEASURED: {system}, {what}: {error!r}\n{error}", flush=True)
        self.run.failures.append(Failure(system, what, reason_of(error)))

    def _save(self) -> None:
        self.run.minutes = (time.monotonic() - self._began) / 60
        records.save(self.run, self.path)


def closed_of(
    turn: plan.Turn, in_flight: int, seen: h2load.Load, before: Counts | None, after: Counts | None
) -> Closed:
    """What was served: never more than the server itself counts as a success."""
    served, refused = seen.ok, seen.done - seen.ok
    if before is not None and after is not None:
        # The server also counts what was still under way when h2load stopped, so it may say more, never less.
        served = min(seen.ok, after.ok - before.ok)
        refused += seen.ok - served
    return Closed(
        turn.system,
        turn.workload,
        in_flight,
        turn.round,
        seen.seconds,
        served / seen.seconds,
        seen.ok / seen.seconds,
        refused,
        seen.latency_ms(0.5),
        seen.latency_ms(0.99),
    )


def reason_of(error: Exception) -> str:
    """One line for the page."""
    match error:
        case subprocess.TimeoutExpired():
            return f"{Path(error.cmd[0]).name} did not end within {error.timeout:g} s"
        case subprocess.CalledProcessError():
            return f"{Path(error.cmd[0]).name} ended with status {error.returncode}"
    return (str(error) or type(error).__name__).splitlines()[0]


def settled(running: Running) -> Counts | None:
    """The server's counts once they no longer move: it books an answer a little after it is sent."""
    if running.counts is None:
        return None
    counts = running.counts()
    while True:
        time.sleep(0.2)
        again = running.counts()
        if again == counts:
            return counts
        counts = again


def _load(running: Running, in_flight: int, seconds: float) -> h2load.Load:
    return h2load.load(running.url, running.body, running.headers, running.http2, in_flight, seconds)
