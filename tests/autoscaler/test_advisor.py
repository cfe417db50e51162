"""What the advisor says of prices that can be worked out by hand, and how it is asked."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace_autoscaler.advisor.question import read_question
from headrace_autoscaler.core.allocator import CapacityClass, Way
from headrace_autoscaler.core.allocator.advice import Advice, advise
from headrace_autoscaler.core.allocator.options import Option, Question
from headrace_autoscaler.domain import Resources
from headrace_autoscaler.shape_catalog import load_catalog
from headrace_common.errors import InvalidArgument

GIB = 1 << 30
WAY = Way("fp32", Resources(1000, GIB), ((1, 10_000), (8, 40_000)))
"""100 a second one by one, 200 in batches of 8."""
INT8 = Way("int8", Resources(1000, GIB), ((1, 5_000), (8, 20_000)))
GPU = Way("on a GPU", Resources(1000, GIB, 1000, 4 * GIB), ((1, 1_000),))
ASKED = Question("m", (WAY,), rate=1000.0, mean_rate=100.0, slo_s=0.1, utilisation=0.5)


def ask(**changes: Any) -> Advice:
    return advise(replace(ASKED, **changes), load_catalog())


def option(advice: Advice, shape: str, capacity_class: str = "on_demand") -> Option:
    [found] = [each for each in advice.options if (each.shape, each.capacity_class) == (shape, capacity_class)]
    return found


def test_how_many_of_which() -> None:
    on_xlarge = option(ask(), "c5.xlarge")
    assert (on_xlarge.each, on_xlarge.rows, on_xlarge.instances) == (100.0, 8, 10)
    assert (on_xlarge.per_node, on_xlarge.nodes, on_xlarge.micros_per_hour) == (4, 3, 510_000)
    assert on_xlarge.micros_per_million == round(510_000 / 360_000 * 1e6)
    best = ask().best
    assert best is not None
    assert (best.shape, best.capacity_class, best.nodes) == ("c5.large", CapacityClass.RESERVED, 5)


def test_an_objective_that_no_batch_meets_costs_more() -> None:
    assert option(ask(slo_s=0.05), "c5.xlarge").instances == 20
    assert not option(ask(slo_s=0.001), "c5.xlarge").meets_objective
    assert ask(slo_s=0.001).best is None


def test_spot_only_where_it_is_tolerated() -> None:
    assert CapacityClass.SPOT not in {each.capacity_class for each in ask().options}
    best = ask(tolerates_spot=True).best
    assert best is not None
    assert best.capacity_class is CapacityClass.SPOT


def test_shapes_that_cannot_run_it_say_why() -> None:
    excluded = {each.shape: each.reason for each in ask(ways=(GPU,), engine="tensorrt").excluded}
    assert excluded["p3.2xlarge"] == "tensorrt does not support sm_70"
    assert excluded["c5.large"] == "it has no GPU"
    assert {each.shape for each in ask(ways=(GPU,), engine="tensorrt").options} == {"g4dn.xlarge", "g4dn.2xlarge"}


def test_the_break_even_rate_is_where_the_two_cost_the_same() -> None:
    advice = ask(rate=1.0, mean_rate=0.001)
    assert advice.footing is not None
    rate = advice.footing.break_even_rate
    assert rate is not None
    # Half of a c5.large: 0.0425 an hour on demand, 0.02635 reserved; kept warm for a minute.
    up = 1 - math.exp(-rate * (60 + 0.5 / 100))
    assert up * 42_500 == pytest.approx(26_350)
    assert advice.footing.better == "serverless"
    assert advice.footing.serverless_micros_per_hour == round(42_500 * (1 - math.exp(-0.001 * 60.005)))
    busy = ask(rate=1.0, mean_rate=rate * 1.1).footing
    assert busy is not None
    assert busy.better == "reserved"


def savings(advice: Advice) -> dict[str, tuple[int | None, float | None]]:
    return {each.name: (each.micros_per_hour, each.share) for each in advice.savings}


def test_what_batching_saves_follows_from_the_profile() -> None:
    # 20 single ones on ten nodes, or 10 on five, at 0.0527 each.
    assert savings(ask())["batching"] == (5 * 52_700, 0.5)
    assert savings(ask(ways=(replace(WAY, profile_us=((1, 10_000),)),)))["batching"] == (0, 0.0)


def test_what_batching_saves_is_not_known_without_a_single_row() -> None:
    advice = ask(ways=(replace(WAY, profile_us=((8, 40_000),)),))
    [batching] = [each for each in advice.savings if each.name == "batching"]
    assert (batching.micros_per_hour, batching.share) == (None, None)
    assert batching.why == "no run of a single row was measured, to compare with"


def test_what_a_cache_saves_needs_a_hit_rate() -> None:
    assert savings(ask())["response cache"] == (None, None)
    assert savings(ask(hit_rate=0.4))["response cache"] == (2 * 52_700, 0.4)
    # It is on: what came is more than what engines saw.
    assert ask(hit_rate=0.4, caches=True).options[0].instances == 6
    assert savings(ask(hit_rate=0.4, caches=True))["response cache"] == (2 * 52_700, 0.4)


def test_what_a_variant_saves_follows_from_its_own_profile() -> None:
    assert savings(ask())["variant"] == (None, None)
    assert savings(ask(variants=(INT8,)))["variant"] == (2 * 52_700, 0.5)


DOCUMENT: dict[str, Any] = {
    "model": "m",
    "rate": 10,
    "slo": "100ms",
    "ways": [{"name": "fp32", "cpu": "1", "memory": "1Gi", "latency_us": {"8": 40000, "1": 10000}}],
}


def test_a_document_becomes_a_question() -> None:
    question = read_question(json.dumps(DOCUMENT), "p.json")
    assert question == Question("m", (WAY,), rate=10.0, mean_rate=10.0, slo_s=0.1)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        pytest.param({"rate": None}, ["rate", "missing", "--rate"], id="no rate"),
        pytest.param({"rate": "fast"}, ["rate", "a number from 1e-06", "'fast'"], id="not a number"),
        pytest.param({"slo": "soon"}, ["slo", "100ms", "'soon'"], id="not a duration"),
        pytest.param({"hit_rate": 2}, ["hit_rate", "from 0 to 1"], id="not a share"),
        pytest.param({"ways": []}, ["ways", "each measured"], id="no way"),
        pytest.param({"ways": [{"latency": {}}]}, ["ways[0]", "latency: there is no such key"], id="unknown key"),
        pytest.param({"ways": [{"latency_us": {}}]}, ["ways[0].latency_us", "rows per batch"], id="no measurement"),
        pytest.param({"ways": [{"latency_us": {"0": 1}}]}, ["latency_us", "'0': 1"], id="no rows"),
        pytest.param({"ways": DOCUMENT["ways"] * 2}, ["names that differ"], id="two of one name"),
        pytest.param({"ways": [{"latency_us": {"²": 5}}]}, ["latency_us", "'²': 5"], id="a digit that is no number"),
        pytest.param({"ways": [{"latency_us": {"1": 1e400}}]}, ["latency_us", "'1': inf"], id="no end of time"),
        pytest.param({"ways": [{"latency_us": {"1": float("nan")}}]}, ["latency_us", "'1': nan"], id="no time"),
        pytest.param({"ways": [{"latency_us": {"9" * 5000: 5}}]}, ["latency_us", "whole rows"], id="no end of rows"),
        pytest.param({"rate": 1e-300}, ["rate", "expected 0, or a number from 1e-06"], id="nearly nothing"),
        pytest.param({"utilisation": 1e-320}, ["utilisation", "a number from 1e-06"], id="nearly idle"),
        pytest.param({"gpu_architectures": 5}, ["gpu_architectures", "a list of texts; got 5"], id="no list"),
        pytest.param(
            {"gpu_architectures": "sm_75"}, ["gpu_architectures", "a list of texts; got 'sm_75'"], id="a text"
        ),
        pytest.param({"tolerates_spot": "no"}, ["tolerates_spot", "true or false; got 'no'"], id="no flag"),
        pytest.param({"min_instances": 2.7}, ["min_instances", "a whole number; got 2.7"], id="part of an instance"),
        pytest.param({"utilisation": 0}, ["utilisation", "more than 0"], id="never busy"),
        pytest.param({"mean_rate": 11}, ["mean_rate", "at most the rate of 10; got 11"], id="mean over most"),
        pytest.param({"speed": 1}, ["speed: there is no such key"], id="key"),
    ],
)
def test_a_document_that_is_wrong_is_told_where(change: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        read_question(json.dumps(DOCUMENT | change), "p.json")
    for part in ["p.json", *parts]:
        assert part in refusal.value.message


def advisor(*arguments: str, question: dict[str, Any] = DOCUMENT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace_autoscaler.advisor", *arguments]
    return subprocess.run(command, input=json.dumps(question), capture_output=True, text=True, timeout=60, check=False)


def test_the_program_prints_a_table_and_draws_a_picture(tmp_path: Path) -> None:
    for name in ("p.svg", "p.html"):
        done = advisor("--plot", str(tmp_path / name))
        assert (done.returncode, done.stderr) == (0, "")
        assert "c5.large" in done.stdout
        assert "break-even" in done.stdout
        assert "<svg" in (tmp_path / name).read_text()


def test_the_program_prints_json() -> None:
    found = json.loads(advisor("--json").stdout)
    assert found["options"][0]["best"]
    assert found["payment"]["break_even_rate"] > 0
    assert {each["name"] for each in found["savings"]} == {"batching", "response cache", "variant"}


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        pytest.param(("--plot", "p.gif"), ".svg, .html, .png", id="picture"),
        pytest.param(("--catalog", "/nowhere.toml"), "catalogue /nowhere.toml", id="catalogue"),
        pytest.param(("--plot", "/nowhere/p.svg"), "/nowhere/p.svg: No such file", id="folder"),
    ],
)
def test_the_program_says_in_a_line_what_is_wrong(arguments: tuple[str, ...], part: str) -> None:
    done = advisor(*arguments)
    assert done.returncode == 2
    assert part in done.stderr
    assert done.stderr.count("\n") == 1
