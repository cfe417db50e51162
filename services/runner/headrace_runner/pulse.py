"""Shows that this process lives: an autoscaler that was away when it ended can tell until when."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from headrace.runner.v1 import runner_pb2 as pb
from headrace_common.life_sign import PERIOD_S, LifeSign
from headrace_common.logs import get_logger


class Pulse:
    """A file that says what is held, and is touched once a second, by a thread: the event loop may be held up by a
    model. It stays when the runner ends, and goes with whoever has taken note of that."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sign = LifeSign(os.getpid())
        self._written = self._warned = False
        self._writing = threading.Lock()
        self._stopped = threading.Event()

    def start(self) -> None:
        self._write()
        threading.Thread(target=self._beat, name="pulse", daemon=True).start()

    def tell(self, status: pb.RunnerStatus) -> None:
        """What it holds, from when it is told to load; for life."""
        if not status.model or self._sign.model:
            return
        shape = status.shape
        self._sign = LifeSign(
            os.getpid(),
            status.tenant,
            status.model,
            status.revision,
            status.version,
            shape.cpu_millicores,
            shape.memory_bytes,
            shape.gpu_millis,
            shape.gpu_memory_bytes,
        )
        self._write()

    def stop(self) -> None:
        self._stopped.set()
        self._touch()

    def _beat(self) -> None:
        while not self._stopped.wait(PERIOD_S):
            if self._written:
                self._touch()
            else:
                self._write()

    def _write(self) -> None:
        with self._writing:
            try:
                self._sign.write(self._path)
                self._written, self._warned = True, False
            except OSError as error:
                # It costs no answer, and is tried again. What is there says less than it should, and gets no fresher.
                self._written, warned, self._warned = False, self._warned, True
                if not warned:
                    get_logger().warning("no sign of life", file=str(self._path), error=str(error))

    def _touch(self) -> None:
        try:
            os.utime(self._path)
        except OSError:
            return  # Whoever saw this runner end has removed it.
