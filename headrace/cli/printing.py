"""Puts data on standard output: tables for people at a terminal, plain text of the same columns for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def print_json(value: Any, indent: int | None = 2) -> None:
    """JSON; with indent None on one line, as suits tensors."""
    print(json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], whole: Sequence[str] = ()) -> None:
    """One line a row, which a narrow terminal folds, except in the columns named `whole`.

    Without a terminal: columns padded with blanks, two at least between them.
    """
    cells = [["-" if cell in (None, "") else " ".join(str(cell).splitlines()) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(columns, cells, whole)
        return
    widths = [max(len(row[index]) for row in [list(columns), *cells]) for index in range(len(columns))]
    for row in [list(columns), *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_rows(rows: Sequence[Mapping[str, Any]], keys: Sequence[str], whole: Sequence[str] = ()) -> None:
    """A table of these keys of each row; `whole` as for `print_table`, by key."""
    print_table([_title(key) for key in keys], [[row[key] for key in keys] for row in rows], [*map(_title, whole)])


def print_fields(fields: Mapping[str, object]) -> None:
    """`name: value` lines; what is empty is left out."""
    shown = {name: value for name, value in fields.items() if value not in (None, "")}
    width = max((len(name) for name in shown), default=0) + 1
    for name, value in shown.items():
        print(f"{name + ':':{width}} {value}")


def print_heading(text: str) -> None:
    print(f"\n{text}")


def _title(key: str) -> str:
    return key.upper().replace("_", " ")


def _print_rich(columns: Sequence[str], cells: Sequence[Sequence[str]], whole: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in whole)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
