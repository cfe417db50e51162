"""Reads what `headrace optimize` found: the manifest of its folder, or what it printed with --json.

The optimiser is a program of another service, so this knows the document and not its code: what is not needed here may
be anything, and another format is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headrace_autoscaler.core.allocator.options import Quality
from headrace_autoscaler.core.allocator.types import Variant, Way
from headrace_autoscaler.core.allocator.variants import ORIGINAL
from headrace_autoscaler.domain import Resources
from headrace_common.errors import InvalidArgument

FORMAT = 1
_MANIFEST = "manifest.json"
_MAKE = "`headrace optimize MODEL --samples FILE.npz --out DIR` makes one"

_Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class _Source(_Part):
    path: str


class _Machine(_Part):
    engine: str
    threads: Annotated[int, Field(ge=1, le=1024)]


class _Timing(_Part):
    rows: Annotated[int, Field(ge=1)]
    latency_s: Annotated[float, Field(gt=0)]


class _Kept(_Part):
    share: _Share
    lower: _Share


class _Variant(_Part):
    name: Annotated[str, Field(min_length=1)]
    engines: tuple[str, ...]
    verdict: str
    reason: str
    quality: _Kept | None
    timings: tuple[_Timing, ...]


class _Document(_Part):
    source: _Source
    quality: str
    floor: _Share
    machine: _Machine
    variants: tuple[_Variant, ...]


@dataclass(frozen=True, slots=True)
class Results:
    """A run of the optimiser, as ways to run the model.

    Attributes:
        model: the name of the file that it was.
        qualities: of the variants, by name.
    """

    model: str
    qualities: Mapping[str, Quality]
    _document: _Document

    def original(self, held: Resources) -> Way:
        """Args:
        held: by an instance of the model, of which the memory is taken: the optimiser measures none.
        """
        [found] = [each for each in self._document.variants if each.name == ORIGINAL]
        return self._way(found, held, "")

    def variants(self, held: Resources) -> tuple[Way, ...]:
        """All but the original; those that may not be used say why.

        Args:
            held: as of `original`.
        """
        return tuple(
            self._way(each, held, self._outside(each)) for each in self._document.variants if each.name != ORIGINAL
        )

    def _outside(self, variant: _Variant) -> str:
        quality = self.qualities.get(variant.name)
        if quality is None or variant.verdict == "disqualified":
            return variant.reason
        # Too slow for the optimiser's --latency is no matter here: the objective of the plan is another.
        return "" if quality.is_enough else str(quality)

    def _way(self, variant: _Variant, held: Resources, outside: str) -> Way:
        timed_on = self._document.machine.engine.partition(" ")[0]
        here = variant.name == ORIGINAL or timed_on in variant.engines
        engine = timed_on if here else ", ".join(variant.engines)
        times = {each.rows: max(1, round(each.latency_s * 1e6)) for each in variant.timings} if here else {}
        resources = Resources(1000 * self._document.machine.threads, held.memory_bytes)
        return Way(
            variant.name, resources, tuple(sorted(times.items())), variant=Variant(variant.name, engine, (), outside)
        )


def read_results(path: Path) -> Results:
    """Args:
        path: the folder, or a file with the document.

    Raises:
        InvalidArgument: names the file, what is wrong with it and what makes a right one.
    """
    file = path / _MANIFEST if path.is_dir() else path
    document = _parsed(_read(file), f"--variants {file}")
    names = [each.name for each in document.variants]
    if names.count(ORIGINAL) != 1 or len(set(names)) < len(names):
        raise InvalidArgument(
            f"--variants {file}: expected variants with names that differ, of which one is '{ORIGINAL}'; got {names!r}"
        )
    if not document.variants[names.index(ORIGINAL)].timings:
        raise InvalidArgument(f"--variants {file}: '{ORIGINAL}' has no timings to compare with: {_MAKE} that has")
    qualities = {
        each.name: Quality(document.quality, each.quality.share, each.quality.lower, document.floor)
        for each in document.variants
        if each.quality is not None and each.name != ORIGINAL
    }
    return Results(Path(document.source.path).stem or "the model", qualities, document)


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        raise InvalidArgument(f"--variants {file}: there is no such file: {_MAKE}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"--variants {file}: cannot be read as JSON: {error}") from None


def _parsed(document: Any, where: str) -> _Document:
    if not isinstance(document, dict) or "format" not in document or "variants" not in document:
        raise InvalidArgument(f"{where}: is no result of `headrace optimize`: {_MAKE}")
    if document["format"] != FORMAT:
        raise InvalidArgument(
            f"{where}: has format {document['format']!r}, and this headrace reads {FORMAT}: make it again with this one"
        )
    try:
        return _Document.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InvalidArgument(f"{where}: {key}: {first['msg']}; got {first['input']!r:.80}") from None
