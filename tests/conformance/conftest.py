"""Every store: SQLite and PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace_autoscaler.store import SqlStore, sqlite_url


class Postgres:
    """A real server in a directory of its own, on a unix socket."""

    def __init__(self, programs: Path) -> None:
        # PostgreSQL refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else None
        self._programs = programs
        self.directory = Path(tempfile.mkdtemp(prefix="hr-pg-"))
        if self._user:
            shutil.chown(self.directory, self._user)
        self._run("initdb", "-D", "data", "-U", "headrace", "-A", "trust", "--no-sync")
        self._run("pg_ctl", "-D", "data", "-l", "log", "-w", "-o", f"-k {self.directory} -h '' -F", "start")
        self._databases = 0

    def database(self) -> str:
        """The URL of a new, empty database."""
        self._databases += 1
        name = f"d{self._databases}"
        self._run("createdb", "-h", str(self.directory), "-U", "headrace", name)
        return f"postgresql://headrace@/{name}?host={self.directory}"

    def take_away(self) -> None:
        """The newest database ends its connections and takes no others."""
        name = f"d{self._databases}"
        self._sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        self._sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    def bring_back(self) -> None:
        self._sql(f"ALTER DATABASE d{self._databases} ALLOW_CONNECTIONS true")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", "data", "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.directory)

    def _sql(self, statement: str) -> None:
        self._run("psql", "-h", str(self.directory), "-U", "headrace", "-d", "postgres", "-c", statement)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, *arguments],
            cwd=self.directory,
            user=self._user,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=60,
        )


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    programs = found[-1].parent if found else Path(on_path).parent if on_path else None
    if programs is None:
        reason = "PostgreSQL is not installed (initdb not found)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    server = Postgres(programs)
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "headrace.db")
    return request.getfixturevalue("postgres").database()


@pytest.fixture
def open_store(url: str) -> Iterator[Callable[[], SqlStore]]:
    stores: list[SqlStore] = []

    def opened() -> SqlStore:
        stores.append(SqlStore.open(url))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], SqlStore]) -> SqlStore:
    return open_store()
