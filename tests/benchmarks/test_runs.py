"""A run that meets trouble: it goes on, and says what it could not measure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import records, runs
from benchmarks.plan import Settings
from benchmarks.processes import DidNotStart
from benchmarks.runs import Runner
from benchmarks.systems import Running
from benchmarks.workloads import Workload

SETTINGS = Settings(systems=("triton", "mosec"), workloads=("mlp",), specials=(), open_loop=False, rounds=2)


class Broken:
    """A system that never starts."""

    name = title = "broken"
    peer = "mosec"
    protocol = "none"
    starts = 0

    def version(self) -> str:
        return "0"

    @contextmanager
    def running(self, workload: Workload) -> Iterator[Running]:
        self.starts += 1
        raise DidNotStart("port 1 is taken\nits log")
        yield


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Broken:
    """Stands for Triton and for mosec."""
    made = Broken()
    monkeypatch.setattr(runs, "SYSTEMS", {"triton": made, "mosec": made})
    return made


def test_what_does_not_start_is_left_out_of_later_rounds_and_named(broken: Broken, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    run = Runner(SETTINGS, path, {}).all()
    assert broken.starts == 2
    assert [(failure.system, failure.reason) for failure in run.failures] == [
        ("triton", "port 1 is taken"),
        ("mosec", "port 1 is taken"),
    ]
    assert records.load(path) == run


def test_what_could_not_be_installed_is_named_with_pips_own_reason(broken: Broken, tmp_path: Path) -> None:
    run = Runner(SETTINGS, tmp_path / "run.json", {"mosec": "pip could not install it"}).all()
    assert broken.starts == 0
    assert {failure.reason for failure in run.failures} == {"pip could not install it"}
