"""Reads the catalogue of instance shapes: the one that comes with headrace, and the user's own over it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace_autoscaler.core.allocator.catalog import Catalog, parse_catalog
from headrace_common.errors import InvalidArgument

_NAME = "catalog.toml"


def load_catalog(own: str | Path = "") -> Catalog:
    """Args:
        own: the user's file; empty: none.

    Raises:
        InvalidArgument: names file, entry, what was expected and what came.
    """
    shipped = shipped_path()
    catalog = parse_catalog(_read(shipped), f"catalogue {shipped}")
    return parse_catalog(_read(Path(own)), f"catalogue {own}", catalog) if own else catalog


def shipped_path() -> Path:
    """Beside this module where headrace is installed, in deploy/ in a checkout."""
    beside = Path(__file__).with_name(_NAME)
    return beside if beside.is_file() else Path(__file__).parents[3] / "deploy" / _NAME


def _read(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgument(f"catalogue {path}: cannot be read: {' '.join(str(error).split())}") from None
