"""Envoy's configuration: rendered from the checked template, accepted by Envoy itself."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from headrace_common.config import ProcessContext
from headrace_common.embedding import check_embeddable
from headrace_common.errors import FailedPrecondition, InvalidArgument
from headrace_router.envoy import render, settings_of
from headrace_router.envoy.launch import envoy_arguments, envoy_environment
from headrace_router.envoy.settings import split_listen


def context(listen: str = "127.0.0.1:0", directory: str = "/run/mesh") -> ProcessContext:
    return ProcessContext(process="router-0", state_dir=Path(directory), runtime_dir=Path(directory), listen=listen)


def test_rendered_values_are_where_they_belong() -> None:
    rendered = yaml.safe_load(render(settings_of(context("[::1]:8081"))))
    listener = rendered["static_resources"]["listeners"][0]
    assert listener["address"] == {"socket_address": {"address": "::1", "port_value": 8081}}
    assert listener["additional_addresses"][0]["address"]["pipe"]["path"] == "/run/mesh/router-0.sock"
    assert rendered["admin"]["address"]["pipe"]["path"] == "/run/mesh/router-0-admin.sock"


def test_path_with_quotes_and_colons_stays_one_value() -> None:
    odd = """/run/it's: "odd" #1"""
    rendered = yaml.safe_load(render(settings_of(context(directory=odd))))
    assert rendered["admin"]["address"]["pipe"]["path"] == f"{odd}/router-0-admin.sock"


@pytest.mark.parametrize(
    ("template", "match"),
    [("${admin_socket}", "no place for"), ("${nobody_sets_this}", "no setting for nobody_sets_this")],
    ids=["a setting without a place", "a place without a setting"],
)
def test_template_and_settings_must_fit(template: str, match: str) -> None:
    with pytest.raises(InvalidArgument, match=match):
        render(settings_of(context()), template)


@pytest.mark.parametrize(
    ("listen", "expected"),
    [("127.0.0.1:8080", ("127.0.0.1", 8080)), ("[::1]:0", ("::1", 0)), ("localhost:65535", ("localhost", 65535))],
)
def test_listen_addresses(listen: str, expected: tuple[str, int]) -> None:
    assert split_listen(listen) == expected


@pytest.mark.parametrize("listen", ["8080", ":8080", "host:", "host:http", "host:65536", "host:-1"])
def test_listen_addresses_that_are_none(listen: str) -> None:
    with pytest.raises(InvalidArgument, match="expected HOST:PORT"):
        split_listen(listen)


@pytest.mark.parametrize(
    "embedding", [{}, {"LD_PRELOAD": ""}, {"LD_PRELOAD": "/usr/lib/libpython2.7.so"}], ids=["none", "empty", "other"]
)
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS frameworks name their library otherwise")
def test_python_without_shared_library_says_what_to_install(embedding: dict[str, str]) -> None:
    with pytest.raises(FailedPrecondition, match="apt install libpython3"):
        check_embeddable(embedding)


def test_envoy_accepts_the_configuration() -> None:
    with tempfile.TemporaryDirectory(prefix="hr-") as directory:
        configuration = Path(directory) / "envoy.yaml"
        settings = dataclasses.replace(
            settings_of(context(directory=directory), application="echo_app:app"), listen_port=1
        )
        configuration.write_text(render(settings))
        environment = envoy_environment(os.environ, Path(directory) / "context.json")
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), environment["PYTHONPATH"]])
        done = subprocess.run(
            [*envoy_arguments(configuration), "--mode", "validate"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stdout


def test_envoy_logs_json_lines() -> None:
    with tempfile.TemporaryDirectory(prefix="hr-") as directory:
        configuration = Path(directory) / "envoy.yaml"
        configuration.write_text('admin: "no such \\"thing\\""')
        done = subprocess.run(envoy_arguments(configuration), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    # Envoy repeats why it cannot start in plain text.
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith('{"ts"')]
    assert {line["level"] for line in lines} == {"critical"}
    assert all({"ts", "event", "error"} <= set(line) for line in lines)


@pytest.mark.parametrize(
    ("listen", "match"),
    [("nowhere", "expected HOST:PORT"), (None, "cannot start")],
    ids=["bad address", "context file missing"],
)
def test_start_that_cannot_be_is_one_line_and_exit_2(listen: str | None, match: str) -> None:
    with tempfile.TemporaryDirectory(prefix="hr-") as directory:
        file = Path(directory) / "router-0.json"
        if listen is not None:
            context(listen, directory).save(file)
        done = subprocess.run(
            [sys.executable, "-m", "headrace_router", "--context", str(file)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert match in done.stderr
    assert done.stderr.count("\n") == 1
