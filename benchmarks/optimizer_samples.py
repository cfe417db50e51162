"""`python -m benchmarks.optimizer_samples FILE.npz`: what `headrace optimize` measures magika by.

Files of this repository and of the Python installation, as they come: what is there often is in the samples often. With
--per-suffix N, at most N of each kind: a harder set, of files that magika itself is less sure of.
"""

from __future__ import annotations

import argparse
import random
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.paths import ROOT
from headrace.demo.magika_codec import MagikaCodec

_SEED = 20_110
_NOT_FILES_OF_PEOPLE = {".git", ".venv", "__pycache__", ".cache", "build"}
_LARGEST = 4 << 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optimizer_samples", description=__doc__)
    parser.add_argument("target", type=Path, metavar="FILE.npz")
    parser.add_argument("--files", type=int, default=4000, metavar="N")
    parser.add_argument("--per-suffix", type=int, default=0, metavar="N", help="At most this many of a suffix.")
    options = parser.parse_args()
    folders = (ROOT, Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib")))
    found = sorted({path for folder in folders for path in _files(folder)})
    random.Random(_SEED).shuffle(found)
    if options.per_suffix:
        found = _varied(found, options.per_suffix)
    codec = MagikaCodec()
    rows = [codec.features(path.read_bytes()) for path in found[: options.files]]
    kept = np.concatenate([row for row in rows if row is not None])
    np.savez(options.target, bytes=kept)
    print(f"{len(kept)} of {len(found)} files in {options.target}")
    return 0


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if not _NOT_FILES_OF_PEOPLE.isdisjoint(path.relative_to(folder).parts):
            continue
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= _LARGEST:
            yield path


def _varied(paths: list[Path], most: int) -> list[Path]:
    taken: Counter[str] = Counter()
    kept = []
    for path in paths:
        if taken[path.suffix] < most:
            taken[path.suffix] += 1
            kept.append(path)
    return kept


if __name__ == "__main__":
    sys.exit(main())
