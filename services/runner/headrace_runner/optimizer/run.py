"""One optimisation from the model and the samples to the choice."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from headrace_common.errors import InvalidArgument
from headrace_runner.core.signature import mismatch
from headrace_runner.engines.base import EngineError, LoadedModel
from headrace_runner.optimizer import building, measuring, sources
from headrace_runner.optimizer.core import comparing
from headrace_runner.optimizer.core.choice import Candidate, Demand, choose
from headrace_runner.optimizer.core.comparing import Answers, Comparison
from headrace_runner.optimizer.core.recipes import ORIGINAL, Recipe
from headrace_runner.optimizer.core.statistics import samples_needed
from headrace_runner.optimizer.results import Making, Result
from headrace_runner.optimizer.samples import Samples, read_samples

Stage = Callable[[str], AbstractContextManager[measuring.Progress]]
"""A stage's name to what is told how far it is."""

_ANSWER_ROWS, _CALIBRATION_ROWS = 32, 16


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked for.

    Attributes:
        labels: array of the samples with right answers; None: agreement with the original.
        output: the only one to compare; empty: all.
        tolerance: see `comparing.agreeing`.
        sizes: rows per batch, to time.
        budget_s: for timing.
    """

    source: Path
    samples: Path
    demand: Demand
    recipes: tuple[Recipe, ...]
    labels: str | None = None
    output: str = ""
    comparison: Comparison = Comparison.AUTO
    tolerance: float = 0.01
    sizes: tuple[int, ...] = (1, 8, 32)
    threads: int = 1
    budget_s: float = 20.0


@dataclass(slots=True)
class _Trial:
    """A variant on its way to be a candidate."""

    name: str
    making: Making
    path: Path
    size_bytes: int = 0
    problem: str = ""
    loaded: LoadedModel | None = None
    right: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))


class Optimization:
    """Built by `open_optimization`, which checks all that can be checked before anything is made."""

    def __init__(self, question: Question, source: sources.Source, original: LoadedModel, samples: Samples) -> None:
        self._question, self._source, self._original, self._samples = question, source, original, samples
        calibrating, measuring_rows = comparing.split(samples.count)
        self._calibration, self._held_out = samples.rows(calibrating), samples.rows(measuring_rows)
        self._labels = None if samples.labels is None else samples.labels[measuring_rows]
        self._batch = _fixed_batch(original)
        self._outputs = (question.output,) if question.output else tuple(each.name for each in original.outputs)
        self._notes: tuple[str, ...] = ()
        self._counts = {
            "calibrating": len(calibrating),
            "measuring": len(measuring_rows),
            "repeated": samples.repeated,
        }

    def run(self, folder: Path, stage: Stage) -> Result:
        """Builds into `folder`, measures, chooses.

        Raises:
            InvalidArgument: the original itself cannot answer the samples.
        """
        question = self._question
        trials = self._build(folder, stage)
        reference = self._reference()
        trials[0].right = self._right(reference, reference)
        with stage("comparing") as progress:
            for done, trial in enumerate(trials[1:], 1):
                self._compare(trial, reference)
                progress(done, len(trials) - 1)
        sizes = question.sizes if self._batch is None else (self._batch,)
        models = {trial.name: trial.loaded for trial in trials if trial.loaded and not trial.problem}
        with stage("timing") as progress:
            timings, failed = measuring.time_all(models, self._held_out, sizes, question.budget_s, progress)
        candidates = [
            Candidate(
                trial.name,
                trial.size_bytes,
                int(trial.right.sum()),
                len(trial.right),
                timings.get(trial.name, ()),
                trial.problem or failed.get(trial.name, ""),
            )
            for trial in trials
        ]
        return Result(
            str(question.source),
            self._source.sha256,
            question.demand,
            choose(candidates, question.demand),
            {trial.name: trial.making for trial in trials},
            self._counts,
            _machine(question.threads),
            self._notes,
        )

    def _build(self, folder: Path, stage: Stage) -> list[_Trial]:
        original = _Trial(ORIGINAL, Making("as given", "the model as it came", ("onnxruntime",)), self._source.path)
        original.size_bytes, original.loaded = self._source.size_bytes, self._original
        trials = [original]
        with stage("building") as progress:
            base = self._cleaned()
            for done, recipe in enumerate(self._question.recipes, 1):
                trials.append(self._made(recipe, base, folder))
                progress(done, len(self._question.recipes))
        return trials

    def _cleaned(self) -> onnx.ModelProto:
        try:
            return building.clean(self._source.model)
        except building.NotBuilt as error:
            self._notes = (f"the model could not be cleaned up, so variants are made of it as it is: {error}",)
            return self._source.model

    def _made(self, recipe: Recipe, base: onnx.ModelProto, folder: Path) -> _Trial:
        making = Making(recipe.precision, recipe.what, recipe.engines)
        trial = _Trial(recipe.name, making, folder / f"{recipe.name}.onnx")
        try:
            building.build(recipe, base, self._calibration_batches, trial.path)
            trial.size_bytes = trial.path.stat().st_size
            trial.loaded = sources.load(trial.path, trial.path.name, self._question.threads)
        except (building.NotBuilt, EngineError) as error:
            trial.problem = str(error)
        else:
            expected, found = sources.signature_of(self._original), sources.signature_of(trial.loaded)
            difference = mismatch(expected, found)
            trial.problem = f"it is another model to its callers: {difference}" if difference else ""
        return trial

    def _calibration_batches(self) -> Iterator[dict[str, NDArray[Any]]]:
        # Whole ones only: the percentile's histograms take batches of one size.
        return measuring.batches(self._calibration, self._batch or _CALIBRATION_ROWS, whole=True)

    def _reference(self) -> dict[str, Answers]:
        try:
            return self._answers(self._original)
        except EngineError as error:
            raise InvalidArgument(f"{self._question.samples}: the model itself cannot answer these: {error}") from None

    def _compare(self, trial: _Trial, reference: dict[str, Answers]) -> None:
        if trial.problem or trial.loaded is None:
            return
        try:
            found = self._answers(trial.loaded)
        except EngineError as error:
            trial.problem = f"it fails on the samples: {error}"
            return
        trial.right = self._right(reference, found)
        for name, rows in comparing.broken(reference, found).items():
            trial.problem = f"output {name!r} has NaN or infinity in {rows:,} of {len(trial.right):,} samples"

    def _answers(self, model: LoadedModel) -> dict[str, Answers]:
        return measuring.answer_all(
            model,
            self._held_out,
            self._batch or _ANSWER_ROWS,
            self._question.comparison,
            whole=self._batch is not None,
            outputs=self._outputs,
        )

    def _right(self, reference: dict[str, Answers], found: dict[str, Answers]) -> NDArray[np.bool_]:
        if self._labels is None:
            return comparing.agreeing(reference, found, self._question.tolerance)
        [answer] = [found[name].values for name in self._outputs]
        if answer.dtype.kind == "f":
            raise InvalidArgument(
                f"--labels {self._question.labels}: output {self._outputs[0]!r} has no classes to choose from "
                f"(a row is {list(answer.shape[1:])}); use --agreement, or name another --output"
            )
        if answer.shape != self._labels.shape:
            raise InvalidArgument(
                f"--labels {self._question.labels}: expected one label per answer, {list(answer.shape[1:])} a row; "
                f"found {list(self._labels.shape[1:])}"
            )
        return np.asarray((answer == self._labels).reshape(len(answer), -1).all(axis=1))


def open_optimization(question: Question) -> Optimization:
    """Raises InvalidArgument or FailedPrecondition where the question cannot be answered."""
    source = sources.read_source(question.source)
    original = sources.load_original(source, question.threads)
    if not original.inputs:
        raise InvalidArgument(f"{source.path}: has no inputs, so there is nothing to measure with")
    samples = read_samples(question.samples, original.inputs, question.labels)
    _check_outputs(question, original)
    _check_enough(question, samples)
    return Optimization(question, source, original, samples)


def _check_outputs(question: Question, original: LoadedModel) -> None:
    names = [each.name for each in original.outputs]
    known = ", ".join(map(repr, names))
    if question.output and question.output not in names:
        raise InvalidArgument(f"--output {question.output}: the model has {known}")
    if question.labels is not None and not question.output and len(names) > 1:
        raise InvalidArgument(f"--labels {question.labels}: the model has {known}; name the one it is for by --output")


def _check_enough(question: Question, samples: Samples) -> None:
    """Refuses what could not be told even if every answer were right."""
    floor = question.demand.floor
    least = samples_needed(1.0, floor) or 0
    measured = samples.count - comparing.calibration_count(samples.count)
    if measured < least:
        raise InvalidArgument(
            f"{question.samples}: has {samples.count:,} different samples, of which {measured:,} are left to measure "
            f"with; to tell a floor of {floor:g} takes {least:,} even if every answer is right: bring "
            f"{comparing.samples_for(least):,} samples, or ask for a lower --floor"
        )


def _fixed_batch(model: LoadedModel) -> int | None:
    """The first dimension of the inputs where the model fixes it. Raises InvalidArgument where they differ."""
    sizes = {each.dims[0] for each in model.inputs if each.dims and isinstance(each.dims[0], int)}
    if len(sizes) > 1:
        raise InvalidArgument(f"the model's inputs fix different first dimensions: {sorted(sizes)}")
    return sizes.pop() if sizes else None


def _machine(threads: int) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": _cpu_model(),
        "engine": f"onnxruntime {onnxruntime.__version__}",
        "threads": threads,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
