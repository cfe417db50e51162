"""Uploads, fetches and what becomes of files that nobody uses."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_autoscaler.artifacts import ArtifactStore, FileHeader
from headrace_autoscaler.artifacts.incoming import DISK_RESERVE_BYTES
from headrace_autoscaler.artifacts.paths import check_path
from headrace_common.clock import FakeClock
from headrace_common.errors import FailedPrecondition, HeadraceError, InvalidArgument, LimitExceeded

Part = FileHeader | bytes


def header(path: str, content: bytes, *, size: int | None = None, sha256: str | None = None) -> FileHeader:
    return FileHeader(
        path, len(content) if size is None else size, hashlib.sha256(content).hexdigest() if sha256 is None else sha256
    )


async def stream(*parts: Part) -> AsyncIterator[Part]:
    for part in parts:
        yield part


def nothing() -> frozenset[str]:
    return frozenset()


def left_behind(store: ArtifactStore) -> list[str]:
    return sorted(str(path.relative_to(store.directory)) for path in store.directory.rglob("*") if path.is_file())


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts", 1000, 3600.0, clock)


async def test_files_arrive_whole_in_chunks_of_any_size(store: ArtifactStore) -> None:
    artifact = await store.receive(
        stream(header("1/model.onnx", b"abcdef"), b"abc", b"", b"def", header("empty", b""), header("c", b"x"), b"x")
    )
    assert [(file.path, file.size_bytes) for file in artifact.files] == [("1/model.onnx", 6), ("c", 1), ("empty", 0)]
    assert artifact.size_bytes == 7
    assert (store.directory / artifact.name / "1/model.onnx").read_bytes() == b"abcdef"
    assert await store.find(artifact.name) == artifact
    assert await store.read(artifact.name, "c") == b"x"


async def test_the_same_files_in_any_order_are_the_same_artifact(store: ArtifactStore) -> None:
    one = await store.receive(stream(header("a", b"1"), b"1", header("b", b"2"), b"2"))
    two = await store.receive(stream(header("b", b"2"), b"2", header("a", b"1"), b"1"))
    renamed = await store.receive(stream(header("b", b"1"), b"1", header("a", b"2"), b"2"))
    assert one == two
    assert renamed.name != one.name
    assert not list((store.directory / ".incoming").iterdir())


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ((), InvalidArgument, "holds no file"),
        ((b"x",), InvalidArgument, "a chunk came before any file header"),
        ((header("a", b"abc"), b"ab"), InvalidArgument, "'a': its header announced 3 bytes, 2 came"),
        ((header("a", b"abc"), b"abcd"), InvalidArgument, "'a': more content than the 3 bytes"),
        ((header("a", b"abc"), b"abd"), InvalidArgument, "'a': its content has sha256 .* upload again"),
        ((header("a", b""), header("a", b"")), InvalidArgument, "'a': the file was sent before"),
        ((header("a", b""), header("a/b", b"")), InvalidArgument, "'a/b': the path is both a file and a directory"),
        ((header("a/b", b""), header("a", b"")), InvalidArgument, "'a': the path is both a file and a directory"),
        ((header("a", b"", size=1001),), LimitExceeded, "over the limit of 1000 .*autoscaler.max_artifact_bytes"),
        (
            (header("a", b"x" * 600), b"x" * 600, header("b", b"x" * 401), b"x" * 401),
            LimitExceeded,
            "'b': the artifact is at least 1001, over",
        ),
    ],
    ids=[
        "nothing at all",
        "content without a header",
        "too few bytes",
        "too many bytes",
        "another digest",
        "one path twice",
        "a directory where a file is",
        "a file where a directory is",
        "one file too large",
        "files too large together",
    ],
)
async def test_a_broken_upload_is_refused_and_leaves_nothing(
    store: ArtifactStore, parts: tuple[Part, ...], error: type[HeadraceError], message: str
) -> None:
    with pytest.raises(error, match=message):
        await store.receive(stream(*parts))
    assert left_behind(store) == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/etc/passwd", "absolute"),
        ("C:/x", "absolute"),
        ("../x", r"'\.\.' segment"),
        ("a/../../x", r"'\.\.' segment"),
        ("a/./x", r"'\.' or"),
        ("a//x", "empty"),
        ("a/", "empty"),
        ("", "empty"),
        ("a\\b", "backslash"),
        ("a\nb", "unprintable"),
        ("a\0b", "unprintable"),
        (".headrace-manifest.json", "reserved"),
        ("x" * 201, "longer than 200 bytes"),
        ("/".join(["x" * 100] * 6), "longer than 512 bytes"),
    ],
)
async def test_paths_that_leave_or_break_the_artifact_are_refused(store: ArtifactStore, path: str, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        await store.receive(stream(header(path, b"")))
    assert left_behind(store) == []


@given(st.lists(st.text(st.sampled_from("ab./\\:~ \0é"), max_size=8), max_size=4))
def test_whatever_path_is_accepted_stays_inside(paths: list[str]) -> None:
    taken: list[str] = []
    root = Path("/folder/of/artifact")
    for path in paths:
        try:
            check_path(path, taken)
        except InvalidArgument:
            continue
        assert (root / path).is_relative_to(root)
        assert ".." not in Path(path).parts
        assert str(Path(path)) == path
        taken.append(path)


async def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "artifacts", 1000, free_bytes=lambda _: DISK_RESERVE_BYTES + 5)
    with pytest.raises(LimitExceeded, match=r"'a': the disk of the mesh's state directory is full"):
        await store.receive(stream(header("a", b"123456"), b"123456"))
    assert (await store.receive(stream(header("a", b"12345"), b"12345"))).size_bytes == 5


async def test_a_cancelled_upload_is_cleaned_up(store: ArtifactStore) -> None:
    begun = asyncio.Event()

    async def stalls() -> AsyncIterator[Part]:
        yield header("a", b"abc")
        yield b"ab"
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.receive(stalls()))
    await begun.wait()
    assert left_behind(store) != []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list((store.directory / ".incoming").iterdir()) == []


async def test_a_cancelled_upload_waits_for_the_disk_to_let_go(tmp_path: Path) -> None:
    asked, answer = threading.Event(), threading.Event()

    def slow_disk(_: Path) -> int:
        asked.set()
        answer.wait(10)
        return 1 << 40

    store = ArtifactStore(tmp_path / "artifacts", 1000, free_bytes=slow_disk)
    task = asyncio.create_task(store.receive(stream(header("1/model.onnx", b"abc"), b"abc")))
    assert await asyncio.to_thread(asked.wait, 10)
    task.cancel()
    asyncio.get_running_loop().call_soon(answer.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list((store.directory / ".incoming").iterdir()) == []


async def test_uploads_that_a_crash_cut_off_are_removed_at_the_next_start(store: ArtifactStore) -> None:
    kept = await store.receive(stream(header("a", b"1"), b"1"))
    half = store.directory / ".incoming" / "left" / "a"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    again = ArtifactStore(store.directory, 1000)
    assert not half.exists()
    assert await again.find(kept.name) == kept


async def test_artifacts_without_a_model_go_after_their_time(store: ArtifactStore, clock: FakeClock) -> None:
    used = await store.receive(stream(header("a", b"1"), b"1"))
    idle = await store.receive(stream(header("a", b"2"), b"2"))
    clock.advance(3000)
    renewed = await store.receive(stream(header("a", b"3"), b"3"))
    assert await store.collect(lambda: {used.name}, clock.wall()) == ()
    clock.advance(700)
    with store.pinned(idle.name):
        assert await store.collect(lambda: {used.name}, clock.wall()) == (), "a deploy of it is under way"
    assert await store.collect(lambda: {used.name}, clock.wall()) == (idle.name,)
    assert await store.find(idle.name) is None
    assert await store.find(used.name) == used
    assert await store.find(renewed.name) == renewed


async def test_uploading_again_renews_the_time(store: ArtifactStore, clock: FakeClock) -> None:
    artifact = await store.receive(stream(header("a", b"1"), b"1"))
    clock.advance(3000)
    await store.receive(stream(header("a", b"1"), b"1"))
    clock.advance(3000)
    assert await store.collect(nothing, clock.wall()) == ()
    clock.advance(601)
    assert await store.collect(nothing, clock.wall()) == (artifact.name,)


async def test_removal_spares_what_is_in_use_or_unknown(store: ArtifactStore) -> None:
    artifact = await store.receive(stream(header("a", b"1"), b"1"))
    assert not await store.remove_unused(artifact.name, lambda: {artifact.name})
    assert not await store.remove_unused("f" * 64, nothing)
    assert await store.remove_unused(artifact.name, nothing)
    assert left_behind(store) == []


async def test_what_was_uploaded_again_is_there_for_what_it_was_uploaded_for(
    store: ArtifactStore, clock: FakeClock
) -> None:
    def content() -> AsyncIterator[Part]:
        return stream(header("a", b"1"), b"1")

    name = (await store.receive(content(), announced=True)).name
    with store.pinned(name):
        await store.receive(content(), announced=True)
    assert not await store.remove_unused(name, nothing), "its last user has ended, and the next one is on its way"
    with store.pinned(name):
        pass
    assert await store.remove_unused(name, nothing)
    await store.receive(content(), announced=True)
    clock.advance(61.0)
    assert await store.remove_unused(name, nothing), "nobody came"


@pytest.mark.parametrize("name", ["..", "../artifacts", "", "x" * 64, "A" * 64, "0" * 63])
async def test_names_that_are_no_digest_find_nothing(store: ArtifactStore, name: str) -> None:
    assert await store.find(name) is None


def test_paths_of_the_state_directory_are_taken_out_of_messages(store: ArtifactStore) -> None:
    inside = store.directory / ("a" * 64) / "1" / "model.onnx"
    text = f"Load model from {inside} failed; see {store.directory.parent}/headrace.db; node /a/b/MatMul"
    assert store.redact(text) == "Load model from 1/model.onnx failed; see headrace.db; node /a/b/MatMul"


# Fetching. fsspec's in-memory file system stands in for a bucket.


@pytest.fixture
def bucket() -> Iterator[fsspec.AbstractFileSystem]:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/b/ocr/1/model.onnx": b"one", "/b/ocr/config.pbtxt": b"", "/b/big.onnx": b"x" * 1001})
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.mark.usefixtures("bucket")
async def test_a_directory_and_a_file_are_fetched(store: ArtifactStore) -> None:
    directory = await store.fetch("memory://b/ocr", ("memory",))
    assert [file.path for file in directory.files] == ["1/model.onnx", "config.pbtxt"]
    assert await store.read(directory.name, "1/model.onnx") == b"one"
    file = await store.fetch("memory://b/ocr/1/model.onnx", ("memory",))
    assert [file.path for file in file.files] == ["model.onnx"]


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("memory://b/big.onnx", LimitExceeded, "over the limit"),
        ("memory://b/none", InvalidArgument, "source memory://b/none: cannot be read: FileNotFoundError"),
        ("memory://b/none?sig=s3cr3t", InvalidArgument, r"^((?!s3cr3t).)*$"),
        ("memory://u:pw@b/ocr", InvalidArgument, "must not hold credentials"),
        ("memory://b/x::file:///etc/passwd", InvalidArgument, "must not hold '::'"),
        ("gs://b/ocr", InvalidArgument, r"may not fetch gs:// .*allowed: memory.*autoscaler\.source_schemes"),
        ("file:///etc/passwd", InvalidArgument, "may not fetch file://"),
        ("/etc/passwd", InvalidArgument, "expected a URL"),
        ("memory://b/ocr/", None, ""),
    ],
)
async def test_sources_that_may_not_or_cannot_be_fetched(
    store: ArtifactStore, url: str, error: type[HeadraceError] | None, message: str
) -> None:
    if error is None:
        assert (await store.fetch(url, ("memory",))).size_bytes == 3
        return
    with pytest.raises(error, match=message):
        await store.fetch(url, ("memory",))
    assert left_behind(store) == []


async def test_a_scheme_whose_package_is_missing_says_which(store: ArtifactStore) -> None:
    fsspec.register_implementation("lacking", "lacking_package.FileSystem", errtxt="Install lacking_package")
    with pytest.raises(FailedPrecondition, match=r"lacking:// needs the package .*Install lacking_package"):
        await store.fetch("lacking://bucket/model.onnx", ("lacking",))


async def test_the_same_files_from_two_uploaders_at_once_are_one_artifact(store: ArtifactStore) -> None:
    for round_ in range(20):
        content = f"round {round_}".encode()
        received = await asyncio.gather(*(store.receive(stream(header("m.onnx", content), content)) for _ in range(6)))
        assert len({artifact.name for artifact in received}) == 1
