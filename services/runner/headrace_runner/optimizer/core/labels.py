"""The right answers that came with the samples: whether the model can give them, and which answers are right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace_common.errors import InvalidArgument
from headrace_runner.optimizer.core.comparing import Answers

_NUMBERS = "biuf"
_MOST_TOLD = 5


@dataclass(frozen=True, slots=True)
class Labels:
    """Attributes:
    name: of their array.
    values: [rows, ...]: one for each answer.
    """

    name: str
    values: NDArray[Any]

    def check(self, output: str, answers: Answers) -> None:
        """Raises InvalidArgument where the model could not answer with some of them, however good it were.

        Args:
            answers: the model's, to any number of rows, at the output of that name.
        """
        found, what = answers.values, f"--labels {self.name}"
        if found.dtype.kind == "f":
            raise InvalidArgument(
                f"{what}: output {output!r} has no classes to choose from (a row is {list(found.shape[1:])}); use "
                "--agreement, or name another --output"
            )
        if found.shape[1:] != self.values.shape[1:]:
            raise InvalidArgument(
                f"{what}: expected one label per answer, {list(found.shape[1:])} a row; found "
                f"{list(self.values.shape[1:])}"
            )
        if (found.dtype.kind in _NUMBERS) != (self.values.dtype.kind in _NUMBERS):
            raise InvalidArgument(
                f"{what}: are {self.values.dtype}; the model answers {found.dtype}, which none of them can equal"
            )
        if self.values.dtype.kind in _NUMBERS:
            self._check_range(*_range(answers), classes=answers.classes > 0)

    def right(self, rows: NDArray[np.intp], answers: Answers) -> NDArray[np.bool_]:
        """[rows]: those of the answers that are right, whose labels are in these rows."""
        found, labels = answers.values, self.values[rows]
        if found.shape != labels.shape:
            return np.zeros(len(rows), np.bool_)
        return np.asarray((found == _like(found, labels)).reshape(len(rows), -1).all(axis=1))

    def _check_range(self, least: int, most: int, *, classes: bool) -> None:
        outside = (self.values < least) | (self.values > most)
        if not outside.any():
            return
        rows = int(outside.reshape(len(outside), -1).any(axis=1).sum())
        values, counts = np.unique(self.values[outside], return_counts=True)
        told = [f"{values[place]:g} ({counts[place]:,})" for place in np.argsort(-counts, kind="stable")[:_MOST_TOLD]]
        told += [f"{len(values) - _MOST_TOLD:,} more values"] if len(values) > _MOST_TOLD else []
        range_of = "the model's classes are numbered" if classes else "the model's answers are of a type that holds"
        hint = "leave out the samples that have no right answer here"
        if classes and self.values.min() >= 1 and self.values.max() == most + 1:
            hint = "they seem to be counted from 1: subtract 1"
        raise InvalidArgument(
            f"--labels {self.name}: {rows:,} of {len(outside):,} different samples have a label that no answer can "
            f"equal: {', '.join(told)}; {range_of} {least} to {most}; {hint}"
        )


def _range(answers: Answers) -> tuple[int, int]:
    """Of what may be answered: least and most."""
    if answers.classes:
        return 0, answers.classes - 1
    if answers.values.dtype.kind == "b":
        return 0, 1
    limits = np.iinfo(answers.values.dtype)
    return int(limits.min), int(limits.max)


def _like(answer: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    """Labels as the engine has them: its text is bytes."""
    if labels.dtype.kind == "U" and answer.dtype.kind == "O":
        return np.char.encode(labels, "utf-8").astype(object)
    return labels
