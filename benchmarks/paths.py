"""Where the benchmarks keep what they need and what they make. Everything below `.cache/` is ignored by git."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "bench"
MODELS = CACHE / "models"
RESULTS = CACHE / "results"
LOGS = CACHE / "logs"
SERVERS = Path(__file__).resolve().parent / "servers"
PAGE = ROOT / "docs" / "benchmarks.md"
IMAGES = ROOT / "docs" / "img"


def environment_of(peer: str) -> Path:
    """The peer's own virtual environment."""
    return CACHE / peer


def site_packages_of(peer: str) -> Path:
    """Where its packages are. Raises FileNotFoundError where `install` has not been."""
    found = sorted((environment_of(peer) / "lib").glob("python3*/site-packages"))
    if not found:
        raise FileNotFoundError(
            f"{peer} is not installed in {environment_of(peer)}: run `python -m benchmarks install`"
        )
    return found[0]
