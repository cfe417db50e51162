"""What we ask of gRPC's core."""

from __future__ import annotations

import subprocess
import sys

from headrace_common.grpc_core import EXPERIMENTS, VARIABLE, poll_without_event_engine


def test_an_operators_choice_stands() -> None:
    chosen = {VARIABLE: "mine"}
    poll_without_event_engine(chosen)
    assert chosen == {VARIABLE: "mine"}
    empty: dict[str, str] = {}
    poll_without_event_engine(empty)
    assert empty == {VARIABLE: EXPERIMENTS}


def test_the_installed_core_knows_what_is_switched_off() -> None:
    code = "import grpc; grpc.insecure_channel('unix:/nowhere').close()"
    known, unknown = (
        subprocess.run(
            [sys.executable, "-c", code], env={VARIABLE: value}, stderr=subprocess.PIPE, text=True, check=True
        ).stderr
        for value in (EXPERIMENTS, "-no_such_experiment")
    )
    assert "Unknown experiment" in unknown
    assert "Unknown experiment" not in known


def test_a_runner_sets_it_before_grpc_is_there() -> None:
    code = (
        "import os, sys, headrace_runner\n"
        "assert 'grpc' not in sys.modules and not any(name.startswith('grpc.') for name in sys.modules)\n"
        f"print(os.environ[{VARIABLE!r}])"
    )
    printed = subprocess.run([sys.executable, "-c", code], env={}, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert printed.strip() == EXPERIMENTS
