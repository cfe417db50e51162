"""Segments: what is placed is read back, nothing overlaps, and nothing is left behind."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace_common.shared_memory import (
    BadRegion,
    Placer,
    Region,
    ResultPlacer,
    Segment,
    SegmentRefused,
    read_bundle,
    read_result,
)
from headrace_common.shared_memory.allocator import ALIGNMENT, Allocator

HALF = 1 << 16


@pytest.fixture
def directory() -> Iterator[Path]:
    """In memory, as in production: a disk's file system may know no nameless files."""
    path = Path(tempfile.mkdtemp(prefix="hr-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def segment(directory: Path) -> Segment:
    return Segment.make(directory, HALF)


# --- which bytes are free ---


class AllocatorAgainstBytes(RuleBasedStateMachine):
    """The oracle owns every byte one by one."""

    START, SIZE = 4096, 40 * ALIGNMENT

    def __init__(self) -> None:
        super().__init__()
        self.allocator = Allocator(self.START, self.SIZE)
        self.owner: dict[int, int] = {}
        self.regions: dict[int, int] = {}

    @rule(size=st.integers(0, 15 * ALIGNMENT))
    def take(self, size: int) -> None:
        needed = max(1, -(-size // ALIGNMENT)) * ALIGNMENT
        fits = [
            start
            for start in range(self.START, self.START + self.SIZE - needed + 1, ALIGNMENT)
            if not any(byte in self.owner for byte in range(start, start + needed, ALIGNMENT))
        ]
        offset = self.allocator.take(size)
        assert offset == (fits[0] if fits else None)
        if offset is not None:
            self.regions[offset] = needed
            self.owner.update((byte, offset) for byte in range(offset, offset + needed, ALIGNMENT))

    @precondition(lambda self: self.regions)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.regions)))
        del self.regions[offset]
        self.owner = {byte: owner for byte, owner in self.owner.items() if owner != offset}
        self.allocator.give_back(offset)

    @rule(offset=st.integers(4096, 4096 + SIZE))
    def give_back_what_is_not_taken(self, offset: int) -> None:
        if offset not in self.regions:
            with pytest.raises(KeyError):
                self.allocator.give_back(offset)

    @invariant()
    def counts(self) -> None:
        assert self.allocator.taken == len(self.regions)

    def teardown(self) -> None:
        """Everything is one piece again."""
        for offset in self.regions:
            self.allocator.give_back(offset)
        assert self.allocator.take(self.SIZE) == self.START


TestAllocator = AllocatorAgainstBytes.TestCase


# --- bundles, placed by the router and read by the runner ---


def test_what_is_placed_is_read_by_the_other_side(segment: Segment) -> None:
    other = Segment.find(segment.path)
    placer = Placer(segment, segment.bundles())
    region = placer.place([b"ab", memoryview(b"xcdx")[1:3], b"", bytearray(b"e")], 5)
    assert region is not None
    view = read_bundle(other, region)
    assert bytes(view) == b"abcde"
    assert view.readonly


def test_a_full_half_takes_no_more_until_something_is_given_back(segment: Segment) -> None:
    placer = Placer(segment, segment.bundles())
    first = placer.place([bytes(HALF - 64)], HALF - 64)
    assert first is not None
    assert placer.place([bytes(65)], 65) is None
    placer.give_back(first)
    assert placer.taken == 0
    assert placer.place([bytes(HALF)], HALF) == Region(first.offset, HALF)


def test_a_full_file_system_is_a_full_half(segment: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is reserved before it is touched: a fault there would kill the process."""
    placer = Placer(segment, segment.bundles())
    monkeypatch.setattr(Segment, "reserve", lambda *_: False)
    assert placer.place([b"x"], 1) is None
    assert placer.taken == 0


def test_an_unused_segment_holds_no_memory(directory: Path) -> None:
    segment = Segment.make(directory, 64 << 20)
    assert segment.path.stat().st_blocks * 512 <= 4096


@pytest.mark.parametrize(
    "region",
    [Region(0, 10), Region(4095, 10), Region(4096, HALF + 1), Region(4096 + HALF, 1), Region(1 << 60, 1)],
    ids=["the head", "before the half", "too long", "the other half", "far away"],
)
def test_a_region_outside_its_half_is_refused(segment: Segment, region: Region) -> None:
    with pytest.raises(BadRegion, match=f"{region.size_bytes} bytes at {region.offset}"):
        read_bundle(segment, region)


@pytest.mark.parametrize(
    "region",
    [Region(4096, 10), Region(4096 + HALF, 10), Region(4096 + HALF + 64, HALF - 63)],
    ids=["the other half", "where a head must be", "too long"],
)
def test_a_result_outside_its_half_is_refused(segment: Segment, region: Region) -> None:
    with pytest.raises(BadRegion):
        read_result(segment, region)


# --- results, placed by the runner and read by the router ---


def test_a_result_is_the_runners_again_with_the_last_view_of_it(segment: Segment) -> None:
    runner = ResultPlacer(Segment.find(segment.path))
    region = runner.place([b"0123456789"], 10)
    assert region is not None
    whole = read_result(segment, region)
    part = whole[2:4]
    del whole
    gc.collect()
    assert runner.taken == 1
    assert bytes(part) == b"23"
    del part
    assert runner.taken == 0


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 7)), max_size=60))
def test_what_is_still_read_is_never_overwritten(steps: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory(prefix="hr-", dir="/dev/shm") as name:
        segment = Segment.make(Path(name), 8192)
        runner = ResultPlacer(Segment.find(segment.path))
        held: dict[int, tuple[memoryview, bytes]] = {}
        for number, (size, slot) in enumerate(steps):
            held.pop(slot, None)
            content = bytes([number % 256]) * size
            region = runner.place([content], size)
            if region is not None:
                held[slot] = read_result(segment, region), content
            assert all(view == expected for view, expected in held.values())
        held.clear()
        assert runner.taken == 0


def test_views_outlive_the_segment(segment: Segment) -> None:
    runner = ResultPlacer(Segment.find(segment.path))
    region = runner.place([b"abc"], 3)
    assert region is not None
    view = read_result(segment, region)
    del segment, runner
    gc.collect()
    assert bytes(view) == b"abc"


# --- names ---


def test_the_name_is_gone_once_the_runner_has_the_segment(directory: Path, segment: Segment) -> None:
    assert list(directory.iterdir()) == [segment.path]
    Segment.find(segment.path)
    assert not list(directory.iterdir())


def test_a_segment_that_nobody_found_takes_its_name_along(directory: Path) -> None:
    segment = Segment.make(directory, HALF)
    del segment
    gc.collect()
    assert not list(directory.iterdir())


def test_the_next_segment_sweeps_away_what_a_killed_router_left(directory: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from headrace_common.shared_memory import Segment\n"
        "segment = Segment.make(Path(sys.argv[1]), 65536); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(directory)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(list(directory.iterdir())) == 1
    living = Segment.make(directory, HALF)
    other = Segment.make(directory, HALF)
    assert set(directory.iterdir()) == {living.path, other.path}


def test_what_is_not_a_segment_is_not_touched(directory: Path) -> None:
    path = directory / "precious"
    path.write_bytes(b"x" * (4096 + 2 * HALF))
    link = directory / "link"
    link.symlink_to(path)
    pipe = directory / "pipe"
    os.mkfifo(pipe)
    for wrong, says in (
        (path, "not a segment"),
        (link, "opened"),
        (pipe, "not a segment"),
        (directory / "none", "No such file"),
    ):
        with pytest.raises(SegmentRefused, match=says):
            Segment.find(wrong)
    assert path.exists()


def test_a_directory_that_cannot_hold_segments_is_said(directory: Path) -> None:
    with pytest.raises(SegmentRefused, match=f"no segment can be made in {directory}/none"):
        Segment.make(directory / "none", HALF)
