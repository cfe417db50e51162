"""Reads a question: a JSON document, from a file of the user's or from what the mesh says of a model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from headrace_autoscaler.advisor.results import Results
from headrace_autoscaler.core.allocator.options import Quality, Question
from headrace_autoscaler.core.allocator.types import Variant, Way
from headrace_autoscaler.domain import Resources
from headrace_common.errors import InvalidArgument
from headrace_common.quantities import parse_bytes, parse_millis, parse_seconds

_KEYS = (
    "model",
    "ways",
    "variants",
    "original",
    "rate",
    "mean_rate",
    "slo",
    "engine",
    "gpu_architectures",
    "tolerates_spot",
    "min_instances",
    "hit_rate",
    "caches",
    "keep_warm",
    "utilisation",
)
_MOST_MICROS = 1e15
_LEAST = 1e-6
"""Of a rate or a utilisation: less is none at all, and no number of nodes is known for it."""
_COUNT = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_WAY_KEYS = ("name", "cpu", "memory", "gpu", "gpu_memory", "shape", "gpu_architecture", "latency_us")
_VARIANT_KEYS = (*_WAY_KEYS, "variant", "engine", "gpu_architectures", "quality", "outside")
_QUALITY_KEYS = ("kind", "share", "lower", "floor")


def read_question(text: str, what: str, results: Results | None = None) -> Question:
    """Args:
        what: the document, for errors.
        results: of an optimiser's run: its variants are added, and its original is how the model runs where the
            document does not say that.

    Raises:
        InvalidArgument: names document, key, what was expected and what came.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{what}: expected JSON: {error}") from None
    _table(document, what, _KEYS)
    rate = _number(document, "rate", what, None)
    if rate is None:
        raise InvalidArgument(f"{what}: rate: expected requests per second; it is missing: say --rate")
    mean = _number(document, "mean_rate", what, rate)
    if mean is not None and mean > rate:
        raise InvalidArgument(f"{what}: mean_rate: expected at most the rate of {rate:g}; got {mean:g}")
    default = Question("", (), 0.0, 0.0)
    ways = _ways(document, "ways", what, required=results is None)
    variants, qualities = _variants(document, what)
    held = ways[0].resources if ways else Resources()
    original = _ways(document, "original", what, required=False)
    if results is not None:
        original = (results.original(held),)
        variants += results.variants(held)
        qualities |= results.qualities
        _check_names(variants, f"{what}: variants")
    return Question(
        model=str(document.get("model", results.model if results else "the model")),
        ways=ways or original,
        variants=variants,
        original=original,
        qualities=qualities,
        rate=rate,
        mean_rate=rate if mean is None else mean,
        slo_s=_seconds(document, "slo", what, None),
        engine=str(document.get("engine", "")),
        architectures=_texts(document, "gpu_architectures", what),
        tolerates_spot=_flag(document, "tolerates_spot", what),
        minimum=_whole(document, "min_instances", what),
        hit_rate=_share(document, "hit_rate", what, None),
        caches=_flag(document, "caches", what),
        warm_s=_seconds(document, "keep_warm", what, default.warm_s) or 0.0,
        utilisation=_utilisation(document, what, default.utilisation),
    )


def _ways(document: Mapping[str, Any], key: str, what: str, *, required: bool) -> tuple[Way, ...]:
    ways = tuple(_way(each, where, _WAY_KEYS) for each, where in _entries(document, key, what, required=required))
    _check_names(ways, f"{what}: {key}")
    return ways


def _variants(document: Mapping[str, Any], what: str) -> tuple[tuple[Way, ...], dict[str, Quality]]:
    ways: list[Way] = []
    qualities: dict[str, Quality] = {}
    for entry, where in _entries(document, "variants", what, required=False):
        way = _way(entry, where, _VARIANT_KEYS)
        name = str(entry.get("variant", way.name))
        quality = _quality(entry.get("quality"), f"{where}.quality")
        outside = str(entry.get("outside", ""))
        if quality is not None:
            qualities[name] = quality
            outside = outside or ("" if quality.is_enough else str(quality))
        built_for = _texts(entry, "gpu_architectures", where)
        ways.append(replace(way, variant=Variant(name, str(entry.get("engine", "")), built_for, outside)))
    _check_names(ways, f"{what}: variants")
    return tuple(ways), qualities


def _quality(found: Any, where: str) -> Quality | None:
    if found is None:
        return None
    _table(found, where, _QUALITY_KEYS)
    share = _share(found, "share", where, None)
    if share is None:
        raise InvalidArgument(f"{where}: share: expected the share of right answers, from 0 to 1; it is missing")
    lower, floor = _share(found, "lower", where, None), _share(found, "floor", where, None)
    return Quality(str(found.get("kind", "accuracy")), share, lower, floor)


def _entries(document: Mapping[str, Any], key: str, what: str, *, required: bool) -> list[tuple[Any, str]]:
    found = document.get(key, [])
    if not isinstance(found, list) or (required and not found):
        raise InvalidArgument(f"{what}: {key}: expected a list of ways to run the model, each measured; got {found!r}")
    return [(each, f"{what}: {key}[{number}]") for number, each in enumerate(found)]


def _check_names(ways: Sequence[Way], where: str) -> None:
    names = [way.name for way in ways]
    if len(set(names)) < len(names):
        raise InvalidArgument(f"{where}: expected names that differ; got {', '.join(names)}")


def _way(entry: Any, where: str, keys: Sequence[str]) -> Way:
    _table(entry, where, keys)
    default = Resources()
    # Of a variant it may be missing: there are some that nothing could be timed on where they were made.
    measured = "latency_us" in entry or keys is not _VARIANT_KEYS
    cpu = parse_millis(str(entry["cpu"]), f"{where}.cpu") if "cpu" in entry else default.cpu_millicores
    memory = parse_bytes(str(entry["memory"]), f"{where}.memory") if "memory" in entry else default.memory_bytes
    gpu = parse_millis(str(entry.get("gpu", "0")), f"{where}.gpu")
    gpu_memory = parse_bytes(str(entry.get("gpu_memory", "0")), f"{where}.gpu_memory")
    if cpu <= 0 or memory <= 0:
        raise InvalidArgument(f"{where}: expected more than no cpu and no memory")
    return Way(
        name=str(entry.get("name", "as deployed")),
        resources=Resources(cpu, memory, gpu, gpu_memory),
        profile_us=_profile(entry.get("latency_us"), f"{where}.latency_us") if measured else (),
        shape=str(entry.get("shape", "")),
        architecture=str(entry.get("gpu_architecture", "")),
    )


def _profile(table: Any, where: str) -> tuple[tuple[int, int], ...]:
    """{"1": 900, "8": 2100}: rows per batch to microseconds."""
    if not isinstance(table, dict) or not table:
        raise InvalidArgument(f'{where}: expected rows per batch to microseconds, such as {{"1": 900}}; got {table!r}')
    points: list[tuple[int, int]] = []
    for rows, micros in table.items():
        is_count = _COUNT.fullmatch(rows) is not None
        if not is_count or not _is_number(micros) or not 0 < micros < _MOST_MICROS:
            raise InvalidArgument(f"{where}: expected whole rows to microseconds over 0; got {rows!r}: {micros!r}")
        points.append((int(rows), max(1, round(micros))))
    return tuple(sorted(points))


def _table(value: Any, where: str, keys: Sequence[str]) -> None:
    if not isinstance(value, dict):
        raise InvalidArgument(f"{where}: expected an object with {', '.join(keys)}; got {value!r}")
    for key in value:
        if key not in keys:
            raise InvalidArgument(f"{where}: {key}: there is no such key; expected {', '.join(keys)}")


def _number(document: Mapping[str, Any], key: str, what: str, default: float | None) -> float | None:
    value = document.get(key)
    if value is None:
        return default
    if not _is_number(value) or not (value == 0 or _LEAST <= value < 1e12):
        raise InvalidArgument(f"{what}: {key}: expected 0, or a number from {_LEAST:g}; got {value!r}")
    return float(value)


def _share(document: Mapping[str, Any], key: str, what: str, default: float | None) -> float | None:
    value = _number(document, key, what, default)
    if value is not None and value > 1:
        raise InvalidArgument(f"{what}: {key}: expected a share from 0 to 1; got {value!r}")
    return value


def _seconds(document: Mapping[str, Any], key: str, what: str, default: float | None) -> float | None:
    value = document.get(key)
    return default if value is None else parse_seconds(str(value), f"{what}: {key}")


def _whole(document: Mapping[str, Any], key: str, what: str) -> int:
    value = _number(document, key, what, 0.0) or 0.0
    if value != int(value):
        raise InvalidArgument(f"{what}: {key}: expected a whole number; got {value:g}")
    return int(value)


def _flag(document: Mapping[str, Any], key: str, what: str) -> bool:
    value = document.get(key, False)
    if not isinstance(value, bool):
        raise InvalidArgument(f"{what}: {key}: expected true or false; got {value!r}")
    return value


def _texts(document: Mapping[str, Any], key: str, what: str) -> tuple[str, ...]:
    value = document.get(key, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InvalidArgument(f"{what}: {key}: expected a list of texts; got {value!r}")
    return tuple(value)


def _utilisation(document: Mapping[str, Any], what: str, default: float) -> float:
    value = _share(document, "utilisation", what, default)
    if value == 0:
        raise InvalidArgument(f"{what}: utilisation: expected more than 0; got 0")
    return default if value is None else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
