"""A real mesh in real processes: Envoy, autoscaler, runners. One for the session, others on demand."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from headrace import Client
from headrace.cli.views import model_view, status_view
from headrace.oip import inference_pb2 as oip
from headrace.oip import inference_pb2_grpc

HEADRACE = str(Path(sys.executable).parent / "headrace")
READY_WITHIN_S = 60
STOPPED_WITHIN_S = 60


@dataclass
class Mesh:
    """A `headrace up` and what a person does with it."""

    process: subprocess.Popen[str]
    url: str
    state: Path
    environment: dict[str, str]
    log: list[str] = field(default_factory=list)

    @property
    def target(self) -> str:
        """host:port, as clients want it."""
        return self.url.removeprefix("http://")

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [HEADRACE, *arguments], env=self.environment, capture_output=True, text=True, timeout=90, check=False
        )
        if check:
            assert done.returncode == 0, f"headrace {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done

    def describe(self, name: str) -> dict[str, Any]:
        """What `headrace describe --json` prints, without a process for it: tests poll this."""
        with Client(self.url) as client:
            return model_view(client.model(name))

    def status(self) -> dict[str, Any]:
        """What `headrace status --json` prints."""
        with Client(self.url) as client:
            return status_view(client.status())

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, Any, dict[str, str]]:
        """POSTs JSON (or bytes as they are); returns status, JSON answer, headers in lower case."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers or {}, method="POST")
        return _answer(request)

    def get(self, path: str) -> tuple[int, Any, dict[str, str]]:
        return _answer(urllib.request.Request(self.url + path))

    def pids(self, module: str) -> list[int]:
        """Processes of this mesh that run a module or program, by what /proc says."""
        return [pid for pid, command in processes_of(self.state) if module in command]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(STOPPED_WITHIN_S)


def _answer(request: urllib.request.Request) -> tuple[int, Any, dict[str, str]]:
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            status, body, headers = response.status, response.read(), response.headers
    except urllib.error.HTTPError as error:
        status, body, headers = error.code, error.read(), error.headers
    decoded = json.loads(body) if body else None
    return status, decoded, {key.lower(): value for key, value in headers.items()}


def processes_of(state: Path) -> list[tuple[int, str]]:
    """(pid, command line) of every live process that belongs to a mesh: its environment or its
    arguments name the marker that `start_mesh` sets."""
    marker = f"HEADRACE_TEST_MESH={state}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if marker in (entry / "environ").read_bytes().split(b"\0"):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if command:
                    found.append((int(entry.name), command))
    return found


def start_mesh(state: Path, *flags: str, config: dict[str, Any] | None = None) -> Mesh:
    settings: dict[str, Any] = {"telemetry": {"metrics_listen": "127.0.0.1:0"}, "runner": {"allow_fake_engine": True}}
    for section, values in (config or {}).items():
        settings.setdefault(section, {}).update(values)
    path = state.parent / f"{state.name}.yaml"
    path.write_text(yaml.safe_dump(settings))
    environment = {**os.environ, "HEADRACE_TEST_MESH": str(state)}
    environment.pop("HEADRACE_URL", None)
    process = subprocess.Popen(
        [HEADRACE, "up", "--listen", "127.0.0.1:0", "--state", str(state), "--config", str(path), *flags],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stderr
    log: list[str] = []
    threading.Thread(target=log.extend, args=(process.stderr,), daemon=True).start()
    timer = threading.Timer(READY_WITHIN_S, process.kill)
    timer.start()
    line = process.stdout.readline()
    timer.cancel()
    if not line.startswith("ready http://"):
        process.kill()
        process.wait()
        pytest.fail(f"headrace up said {line!r}\n" + "".join(log))
    url = line.split()[1]
    environment["HEADRACE_URL"] = url
    return Mesh(process, url, state, environment, log)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small models: add.onnx, strings.onnx, fixed.onnx, slow.fake.json, fragile.fake.json."""
    folder = tmp_path_factory.mktemp("models")
    onnx.save(linear("batch"), folder / "add.onnx")
    onnx.save(linear(1), folder / "fixed.onnx")
    onnx.save(identity(TensorProto.STRING), folder / "strings.onnx")
    tensors = [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    echo = {"inputs": tensors, "outputs": [{**tensors[0], "name": "y"}], "behaviour": "echo"}
    (folder / "slow.fake.json").write_text(json.dumps({**echo, "latency_ms": 50}))
    (folder / "fragile.fake.json").write_text(json.dumps({**echo, "fail_on": 13.0, "crash_on": 66.0}))
    return folder


def linear(first_dimension: str | int, added: float = 1.0) -> onnx.ModelProto:
    """y = x + added, on x FP32 [first_dimension, 4]."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [first_dimension, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [first_dimension, 4])
    constant = helper.make_tensor("c", TensorProto.FLOAT, [1], [added])
    return _model([helper.make_node("Add", ["x", "c"], ["y"])], [x], [y], [constant])


def identity(kind: int) -> onnx.ModelProto:
    """out = in, on [batch, 2] of any type."""
    tensors = [helper.make_tensor_value_info(name, kind, ["batch", 2]) for name in ("in", "out")]
    return _model([helper.make_node("Identity", ["in"], ["out"])], tensors[:1], tensors[1:], [])


def _model(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any]) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="session")
def state_root() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="hr-e2e-"))
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def mesh(state_root: Path, models: Path) -> Iterator[Mesh]:
    """A mesh that tests share: they deploy under names of their own and leave it serving."""
    room = {"autoscaler": {"cpu_overcommit": 64.0}}
    running = start_mesh(state_root / "shared", "--standby", "2", config=room)
    for name in ("add", "strings", "fixed"):
        running.cli("deploy", str(models / f"{name}.onnx"), "--name", name, "--min-instances", "1", "--wait")
    for name in ("slow", "fragile"):
        running.cli("deploy", str(models / f"{name}.fake.json"), "--name", name, "--wait")
    yield running
    assert running.stop() == 0
    assert processes_of(running.state) == []


@pytest.fixture
def fresh_mesh(state_root: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Mesh]]:
    """Starts meshes of a test's own; they are gone at its end, however it ends."""
    started: list[Mesh] = []

    def start(*flags: str, state: Path | None = None, config: dict[str, Any] | None = None) -> Mesh:
        where = state or state_root / f"{request.node.name[:24].replace('[', '-')}-{len(started)}"
        started.append(start_mesh(where, *flags, config=config))
        return started[-1]

    yield start
    for one in started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            one.stop(signal.SIGTERM)
    for one in started:
        for pid, _ in processes_of(one.state):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def rows() -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.arange(8, dtype=np.float32).reshape(2, 4)


class Load:
    """Clients that keep asking one model, and check every answer, until told to stop.

    `answer` says what is right for an input row; `errors` and `wrong` hold what was not.
    """

    def __init__(
        self, mesh: Mesh, model: str, allowed: Callable[[float, float], bool], threads: int = 8, tenant: str = ""
    ) -> None:
        self.errors: list[str] = []
        self.wrong: list[tuple[float, float]] = []
        self.answered = 0
        self._mesh, self._model, self._allowed = mesh, model, allowed
        self._caller = (("x-headrace-tenant", tenant),) if tenant else ()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self, number: int) -> None:
        with grpc.insecure_channel(self._mesh.target) as channel:
            stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
            while not self._stop.is_set():
                number = (number + 8) % 100_000
                self._ask_once(stub, float(number))

    def _ask_once(self, stub: Any, value: float) -> None:
        request = oip.ModelInferRequest(model_name=self._model)
        request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
        request.raw_input_contents.append(np.full(4, value, np.float32).tobytes())
        try:
            response = stub.ModelInfer(request, timeout=60, metadata=self._caller)
        except grpc.RpcError as error:
            self.errors.append(f"{error.code()}: {error.details()}")
            return
        got = np.frombuffer(response.raw_output_contents[0], np.float32)
        self.answered += 1
        if not all(self._allowed(value, float(one)) for one in got) or len(set(got.tolist())) != 1:
            self.wrong.append((value, float(got[0])))

    def more(self, count: int) -> None:
        """Waits until this many further requests were answered."""
        goal = self.answered + count
        eventually(lambda: self.answered >= goal, f"{count} more answers", within_s=60)


@pytest.fixture
def load() -> type[Load]:
    return Load


def eventually(condition: Callable[[], Any], what: str, within_s: float = 30) -> Any:
    """Polls a real process until something is so; what is returned is the condition's value."""
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while time.monotonic() < deadline:
        if value := condition():
            return value
        pause.wait(0.05)
    pytest.fail(f"not within {within_s} s: {what}")


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[..., Any]:
    return eventually
