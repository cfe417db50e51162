"""Taking a database over where the mesh's own note of it cannot be kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace_autoscaler.store import SqlStore, sqlite_url
from headrace_autoscaler.succession import take_over


@pytest.mark.parametrize("mark", ["missing/epoch", "directory"])
async def test_a_note_that_cannot_be_written_keeps_no_autoscaler_from_its_start(tmp_path: Path, mark: str) -> None:
    (tmp_path / "directory").mkdir()
    store = SqlStore.open(sqlite_url(tmp_path / "headrace.db"))
    assert await take_over(store, tmp_path / mark) == 1
    store.close()


async def test_its_own_database_is_taken_over_at_each_start(tmp_path: Path) -> None:
    store = SqlStore.open(sqlite_url(tmp_path / "headrace.db"))
    assert [await take_over(store, tmp_path / "epoch") for _ in range(3)] == [1, 2, 3]
    store.close()
