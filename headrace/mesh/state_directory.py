"""The state directory: made, found writable, and locked against a second mesh."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from pathlib import Path

from headrace.errors import FailedPrecondition

# A supervisor that was killed leaves its guard some seconds of work; a start just after waits for it.
_GUARD_WORK_S = 15.0
_POLL_S = 0.05


def default_state_dir() -> Path:
    """$XDG_STATE_HOME/headrace, or ~/.local/state/headrace."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "headrace"


class StateLock:
    """The lock on a state directory, held by everyone who has its descriptor open."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        os.close(self.descriptor)


def prepare_state_dir(path: Path) -> None:
    """Makes the directory and its logs directory.

    Raises:
        FailedPrecondition: it cannot be made or written to.
    """
    try:
        (path / "logs").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
        with tempfile.TemporaryFile(dir=path / "logs"):
            pass
    except OSError as error:
        raise _unwritable(path, error) from None


def lock_state_dir(path: Path) -> StateLock:
    """Takes the lock `<path>/lock`.

    Raises:
        FailedPrecondition: another mesh has it.
    """
    try:
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise FailedPrecondition(f"state directory {path}: cannot open its lock: {error.strerror}") from None
    deadline = time.monotonic() + _GUARD_WORK_S
    while not _try_lock(descriptor):
        holder = _holder(descriptor)
        if holder is None or _is_alive(holder) or time.monotonic() > deadline:
            os.close(descriptor)
            who = f" (process {holder})" if holder else ""
            raise FailedPrecondition(
                f"state directory {path}: another mesh{who} uses it; stop that one or choose another with --state"
            )
        time.sleep(_POLL_S)
    try:
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(descriptor)
        raise _unwritable(path, error) from None
    return StateLock(descriptor)


def _unwritable(path: Path, error: OSError) -> FailedPrecondition:
    return FailedPrecondition(
        f"state directory {path}: cannot be written: {error.strerror}; choose another with --state"
    )


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")
