"""The sign of life that a runner leaves."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from headrace.runner.v1 import runner_pb2 as pb
from headrace_common.life_sign import LifeSign, read_life
from headrace_runner import pulse

LOADED = pb.RunnerStatus(tenant="acme", model="m", revision=1)


def test_what_could_not_be_written_is_written_once_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "PERIOD_S", 0.01)
    written = threading.Event()
    whole = LifeSign.write

    def write(sign: LifeSign, path: Path) -> None:
        whole(sign, path)
        if sign.model:
            written.set()

    monkeypatch.setattr(LifeSign, "write", write)
    folder = tmp_path / "runtime"
    sign = pulse.Pulse(folder / "runner-1.life")
    sign.start()  # There is no such directory.
    sign.tell(LOADED)
    assert not written.is_set()
    folder.mkdir()
    assert written.wait(30)
    sign.stop()
    read = read_life(folder / "runner-1.life")
    assert read is not None
    assert (read[0].tenant, read[0].model) == ("acme", "m")
