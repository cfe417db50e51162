"""The output folder: variants, manifest, report and plot; the manifest is what says that all of it is there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

from headrace_common.errors import InvalidArgument
from headrace_runner.optimizer import picture, report
from headrace_runner.optimizer.core.choice import Verdict
from headrace_runner.optimizer.core.recipes import ORIGINAL
from headrace_runner.optimizer.results import File, Result

MANIFEST, REPORT, PLOT = "manifest.json", "report.md", "plot.svg"


def check_folder(folder: Path) -> None:
    """Raises InvalidArgument where files of somebody else's could be overwritten."""
    if folder.exists() and not folder.is_dir():
        raise InvalidArgument(f"--out {folder}: is a file; expected a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise InvalidArgument(f"--out {folder}: has files in it that are not an earlier result; name an empty folder")


def keep(result: Result, built: Path, folder: Path) -> Result:
    """Moves the variants that work into the folder and writes what was found about them.

    Args:
        built: where the variants are, by name.

    Returns:
        The result, which knows its files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    files = {}
    for each in result.choice.judgements:
        name = f"{each.candidate.name}.onnx"
        if each.verdict is not Verdict.DISQUALIFIED and each.candidate.name != ORIGINAL:
            shutil.move(built / name, folder / name)
            files[each.candidate.name] = File(name, _digest(folder / name))
    kept = replace(result, files=files)
    plot = PLOT if picture.can_draw() else None
    if plot:
        picture.draw(kept, folder / plot)
    (folder / REPORT).write_text(report.markdown(kept, plot))
    fresh = folder / f"{MANIFEST}.new"
    fresh.write_text(json.dumps(kept.plain(), indent=2) + "\n")
    os.replace(fresh, folder / MANIFEST)
    return kept


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
