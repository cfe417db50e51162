"""The output folder: variants, manifest, report and plot; the manifest is what says that all of it is there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

from headrace_common.errors import FailedPrecondition, InvalidArgument
from headrace_runner.optimizer import picture, report
from headrace_runner.optimizer.core.choice import Verdict
from headrace_runner.optimizer.core.recipes import ORIGINAL
from headrace_runner.optimizer.results import File, Result

MANIFEST, REPORT, PLOT = "manifest.json", "report.md", "plot.svg"
UNFINISHED = ".headrace-unfinished"
"""In the output folder, where a result is until it is whole: what a run that was ended has left is known by it."""


def check_folder(folder: Path) -> None:
    """Raises InvalidArgument where files of somebody else's could be overwritten, or nothing could be written."""
    if folder.exists() and not folder.is_dir():
        raise InvalidArgument(f"--out {folder}: is a file; expected a folder")
    there = sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []
    if there and not (folder / MANIFEST).is_file() and UNFINISHED not in there:
        names = ", ".join(there[:5]) + (f" and {len(there) - 5} more" if len(there) > 5 else "")
        raise InvalidArgument(
            f"--out {folder}: has files in it that are not an earlier result: {names}; delete them, or name an empty "
            "folder"
        )
    exists = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not os.access(exists, os.W_OK | os.X_OK):
        raise InvalidArgument(f"--out {folder}: {exists} cannot be written to; name another folder")


def keep(result: Result, built: Path, folder: Path) -> Result:
    """Moves the variants that work into the folder and writes what was found about them. An earlier result stays until
    the new one is whole.

    Args:
        built: where the variants are, by name.

    Returns:
        The result, which knows its files.

    Raises:
        FailedPrecondition: the folder cannot be written, say, because its disk is full.
    """
    fresh = folder / UNFINISHED
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _take_up(folder)
        fresh.mkdir()
        kept = _write(result, built, fresh)
        _install(folder)
    except OSError as error:
        _give_up(fresh)
        raise FailedPrecondition(f"--out {folder}: cannot be written: {error.strerror or error}") from None
    except BaseException:
        _give_up(fresh)
        raise
    return kept


def _write(result: Result, built: Path, fresh: Path) -> Result:
    files = {}
    for each in result.choice.judgements:
        name = f"{each.candidate.name}.onnx"
        if each.verdict is not Verdict.DISQUALIFIED and each.candidate.name != ORIGINAL:
            shutil.move(built / name, fresh / name)
            files[each.candidate.name] = File(name, _digest(fresh / name))
    kept = replace(result, files=files)
    plot = PLOT if picture.can_draw() else None
    if plot:
        picture.draw(kept, fresh / plot)
    (fresh / REPORT).write_text(report.markdown(kept, plot))
    manifest = fresh / f"{MANIFEST}.new"
    manifest.write_text(json.dumps(kept.plain(), indent=2) + "\n")
    os.replace(manifest, fresh / MANIFEST)
    return kept


def _install(folder: Path) -> None:
    """Puts what is whole in the earlier result's place, the manifest last. Begun again, it goes on where it ended."""
    fresh = folder / UNFINISHED
    if (folder / MANIFEST).exists():
        _clear(folder)
    for each in sorted(fresh.iterdir(), key=lambda each: each.name == MANIFEST):
        os.replace(each, folder / each.name)
    fresh.rmdir()


def _take_up(folder: Path) -> None:
    """What an earlier run has left: installed where it is whole, removed where it is not."""
    fresh = folder / UNFINISHED
    if (fresh / MANIFEST).is_file():
        _install(folder)
    elif fresh.exists():
        shutil.rmtree(fresh)


def _give_up(fresh: Path) -> None:
    """What is whole stays for the next run: some of it may be in its place already."""
    if not (fresh / MANIFEST).exists():
        shutil.rmtree(fresh, ignore_errors=True)


def _clear(folder: Path) -> None:
    """Removes what an earlier run wrote, the manifest last. A variant that was changed since is somebody else's."""
    try:
        written = json.loads((folder / MANIFEST).read_bytes())["variants"]
        files = {each["file"]["name"]: each["file"]["sha256"] for each in written if each["file"]}
    except (OSError, ValueError, KeyError, TypeError):
        files = {}
    for name, digest in files.items():
        path = folder / str(name)
        if path.parent == folder and path.is_file() and _digest(path) == digest:
            path.unlink()
    for name in (REPORT, PLOT, MANIFEST):
        (folder / name).unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
