"""One optimisation from the model and the samples to the choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from headrace_common.errors import InvalidArgument
from headrace_runner.core.signature import mismatch
from headrace_runner.engines.base import EngineError, LoadedModel
from headrace_runner.optimizer import building, machine, measuring, sources
from headrace_runner.optimizer.core import comparing
from headrace_runner.optimizer.core.choice import Candidate, Demand, choose
from headrace_runner.optimizer.core.comparing import Answers, Comparison
from headrace_runner.optimizer.core.labels import Labels
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
        recipes: of the model, and of each of the variants.
        variants: made elsewhere, by name.
        labels: array of the samples with right answers; None: agreement with the original.
        output: the only one to compare; empty: all.
        tolerance: see `comparing.agreeing`.
        sizes: rows per batch, to time.
        budget_s: for timing.
        max_samples_bytes: of the samples, unpacked; 0: any number.
    """

    source: Path
    samples: Path
    demand: Demand
    recipes: tuple[Recipe, ...]
    variants: tuple[tuple[str, Path], ...] = ()
    labels: str | None = None
    output: str = ""
    comparison: Comparison = Comparison.AUTO
    tolerance: float = 0.01
    sizes: tuple[int, ...] = (1, 8, 32)
    threads: int = 1
    budget_s: float = 20.0
    max_samples_bytes: int = 0


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

    def __init__(
        self,
        question: Question,
        source: sources.Source,
        given: Sequence[sources.Variant],
        original: LoadedModel,
        samples: Samples,
    ) -> None:
        self._question, self._source, self._given, self._original = question, source, given, original
        calibrating, measuring_rows = comparing.split(samples.count)
        self._calibration, self._held_out = samples.rows(calibrating), samples.rows(measuring_rows)
        self._measuring = measuring_rows
        self._labels = None if samples.labels is None else Labels(str(question.labels), samples.labels)
        self._batch = _fixed_batch(original)
        self._outputs = (question.output,) if question.output else tuple(each.name for each in original.outputs)
        self._notes: list[str] = []
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
        with stage("answering"):
            reference = self._reference()
        trials = self._build(folder, stage)
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
            machine.describe(question.threads),
            tuple(self._notes),
        )

    def _build(self, folder: Path, stage: Stage) -> list[_Trial]:
        original = _Trial(ORIGINAL, Making("as given", "the model as it came", ("onnxruntime",)), self._source.path)
        original.size_bytes, original.loaded = self._source.size_bytes, self._original
        trials = [original]
        bases = 1 + sum(not each.is_quantized for each in self._given)
        total = len(self._given) + bases * len(self._question.recipes)
        with stage("building") as progress:
            for trial in self._built(folder):
                trials.append(trial)
                progress(len(trials) - 1, total)
        return trials

    def _built(self, folder: Path) -> Iterator[_Trial]:
        yield from self._family("", self._source.model, folder)
        for variant in self._given:
            yield self._as_given(variant, folder)
            if variant.is_quantized:
                self._notes.append(f"{variant.name} is quantised already, so nothing more is made of it")
            else:
                yield from self._family(f"{variant.name}+", variant.source.model, folder)

    def _family(self, prefix: str, model: onnx.ModelProto, folder: Path) -> Iterator[_Trial]:
        base = self._cleaned(prefix, model) if self._question.recipes else model
        for recipe in self._question.recipes:
            yield self._made(prefix, recipe, base, folder)

    def _cleaned(self, prefix: str, model: onnx.ModelProto) -> onnx.ModelProto:
        try:
            return building.clean(model)
        except building.NotBuilt as error:
            what = prefix.removesuffix("+") or "the model"
            self._notes.append(f"{what} could not be cleaned up, so variants are made of it as it is: {error}")
            return model

    def _as_given(self, variant: sources.Variant, folder: Path) -> _Trial:
        """Written anew: what is measured, and kept, is one file with all its weights."""
        making = Making("as given", f"made elsewhere: {variant.path.name}", ("onnxruntime",))
        trial = _Trial(variant.name, making, folder / f"{variant.name}.onnx")
        onnx.save(variant.source.model, str(trial.path))
        trial.size_bytes, trial.loaded = trial.path.stat().st_size, variant.loaded
        return trial

    def _made(self, prefix: str, recipe: Recipe, base: onnx.ModelProto, folder: Path) -> _Trial:
        name = f"{prefix}{recipe.name}"
        what = f"{prefix.removesuffix('+')}, {recipe.what}" if prefix else recipe.what
        trial = _Trial(name, Making(recipe.precision, what, recipe.engines), folder / f"{name}.onnx")
        try:
            building.build(recipe, base, self._calibration_batches, trial.path)
            trial.size_bytes = trial.path.stat().st_size
            trial.loaded = sources.load(trial.path, trial.path.name, self._question.threads)
        except (building.NotBuilt, EngineError) as error:
            trial.problem = str(error)
        else:
            difference = mismatch(sources.signature_of(self._original), sources.signature_of(trial.loaded))
            trial.problem = f"it is another model to its callers: {difference}" if difference else ""
        return trial

    def _calibration_batches(self) -> Iterator[dict[str, NDArray[Any]]]:
        # Whole ones only: the percentile's histograms take batches of one size.
        return measuring.batches(self._calibration, self._batch or _CALIBRATION_ROWS, whole=True)

    def _reference(self) -> dict[str, Answers]:
        """What the original answers, found to be something to compare with."""
        try:
            reference = self._answers(self._original)
        except EngineError as error:
            raise InvalidArgument(f"{self._question.samples}: the model itself cannot answer these: {error}") from None
        if not any(each.values.size for each in reference.values()):
            raise InvalidArgument(
                f"{self._question.source}: its answers hold no values, so there is nothing to compare"
            )
        if self._labels is not None:
            [output] = self._outputs
            self._labels.check(output, reference[output])
        return reference

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
        [output] = self._outputs
        return self._labels.right(self._measuring, found[output])


def open_optimization(question: Question) -> Optimization:
    """Raises InvalidArgument or FailedPrecondition where the question cannot be answered."""
    source = sources.read_source(question.source)
    original = sources.load_given(source, question.threads)
    _check_model(source, original)
    given = [sources.read_variant(name, path, original, question.threads) for name, path in question.variants]
    samples = read_samples(question.samples, original.inputs, question.labels, question.max_samples_bytes)
    _check_outputs(question, original)
    _check_enough(question, samples)
    return Optimization(question, source, given, original, samples)


def _check_model(source: sources.Source, original: LoadedModel) -> None:
    for kind, tensors in (("inputs", original.inputs), ("outputs", original.outputs)):
        if not tensors:
            raise InvalidArgument(f"{source.path}: has no {kind}, so there is nothing to measure with")
    if single := [each.name for each in original.inputs if not each.dims]:
        raise InvalidArgument(
            f"{source.path}: input {single[0]!r} is a single value and has no rows; expected inputs with a row per "
            "sample: make it a constant of the model"
        )


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
