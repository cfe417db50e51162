"""Records to page: verdicts, tables, and that nothing is left out silently."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import plan, records
from benchmarks.records import Failure, Run
from benchmarks.report.page import render
from benchmarks.report.targets import targets

TITLES = {"headrace": "headrace", "triton": "Triton", "mosec": "mosec", "bentoml": "BentoML"}
Make = Callable[..., Any]


def verdicts(run: Run) -> dict[str, tuple[str, str]]:
    """(figure, verdict) by the first words of what is measured and the peer."""
    return {
        f"{target.what} | {target.against}": ("; ".join(figure.text() for figure in target.figures), target.verdict)
        for target in targets(run)
    }


def test_there_is_a_row_for_every_target_and_an_empty_run_meets_none(run: Run) -> None:
    assert len(targets(run)) == 12
    assert {target.verdict for target in targets(run)} == {"not measured"}


@pytest.mark.parametrize(("rate", "verdict"), [(1800.0, "met"), (1790.0, "missed")])
def test_a_ratio_of_medians_is_held_to_its_bound(run: Run, closed: Make, rate: float, verdict: str) -> None:
    run.closed += [closed("headrace", value) for value in (rate, rate - 500, rate + 900)]
    run.closed += [closed("triton", value) for value in (1000.0, 5.0, 9000.0)]
    assert verdicts(run)["mlp throughput at 64 in flight | Triton"] == (f"{rate / 1000:.2f}", verdict)


def test_a_target_of_two_figures_needs_both(run: Run, closed: Make) -> None:
    name = "mlp throughput at 64 and 512 in flight | mosec"
    run.closed += [closed("headrace", 20.0), closed("mosec", 10.0)]
    assert verdicts(run)[name] == ("64: 2.00; 512: not measured", "not measured")
    run.closed += [closed("headrace", 5.0, in_flight=512), closed("mosec", 10.0, in_flight=512)]
    assert verdicts(run)[name] == ("64: 2.00; 512: 0.50", "missed")


def test_open_loop_with_a_failed_request_is_never_faster(run: Run, opened: Make) -> None:
    name = "mlp p99 at 4,000 and 8,000 req/s, open loop | Triton"
    run.open += [opened("headrace", 1.0, failed=1), opened("triton", 9.0)]
    assert verdicts(run)[name][0].startswith("4,000: infinite")
    run.open += [opened("headrace", 3.0), opened("headrace", 4.0)]
    assert verdicts(run)[name][0].startswith("4,000: 0.44")


def test_goodput_counts_only_with_its_latency(run: Run, special: Make) -> None:
    run.special += [special("goodput", share=0.95, p99_ms=-1.0)]
    name = "goodput at 2x capacity, 50 ms deadline; p99 of what was admitted | own peak"
    assert verdicts(run)[name] == ("goodput: 0.95; p99: infinite ms", "missed")


@pytest.mark.parametrize(("ratio", "verdict"), [(2.84, "missed"), (2.86, "met"), (3.14, "met"), (3.16, "missed")])
def test_shares_are_held_from_both_sides(run: Run, special: Make, ratio: float, verdict: str) -> None:
    run.special += [special("tenants", ratio=ratio)]
    assert verdicts(run)["two tenants, weights 3:1, both flooding | their weights"][1] == verdict


def test_a_system_that_could_not_be_measured_stands_in_the_tables(run: Run, closed: Make) -> None:
    run.closed += [closed("headrace", 10.0)]
    run.failures += [Failure("bentoml", "mlp", "pip could not install | it")]
    page = render(run, TITLES, {})
    assert "| BentoML | NOT MEASURED: pip could not install / it |" in page
    assert "- BentoML, mlp: pip could not install" in page


def test_the_page_has_medians_ranges_ratios_and_refusals(run: Run, closed: Make, opened: Make) -> None:
    run.closed += [closed("headrace", value) for value in (12000.0, 10000.0, 15000.0)]
    run.closed += [closed("triton", 4000.0, refused=17)]
    run.open += [opened("headrace", 2.5), opened("triton", -1.0, failed=3)]
    page = render(run, TITLES, {"latency": "![latency](x.svg)"})
    assert "| headrace | 12,000 (10,000 to 15,000) |" in page
    assert "| Triton | 3.00 |" in page
    assert "| Triton | mlp | 64 | 17 | 4,000 |" in page
    assert "| Triton | 4,000 | 1.00 | never | 3 | 0.10 |" in page
    assert "![latency](x.svg)" in page
    assert "a processor" in page


def test_records_survive_the_disk_and_runs_can_be_put_together(
    run: Run, closed: Make, opened: Make, special: Make, tmp_path: Path
) -> None:
    run.closed.append(closed("headrace", 1.0))
    run.open.append(opened("headrace", 2.0))
    run.special.append(special("bare", rate=3.0))
    run.failures.append(Failure("ray", "mlp", "no"))
    records.save(run, tmp_path / "run.json")
    again = records.load(tmp_path / "run.json")
    assert again == run
    both = records.merged([run, again])
    assert both.closed == [closed("headrace", 1.0)] * 2


def test_every_system_takes_its_turn_in_every_round() -> None:
    turns = plan.closed_turns(plan.Settings(workloads=("mlp",), rounds=2, slow_rounds=1))
    order = [(turn.round, turn.system) for turn in turns]
    assert order[:3] == [(0, "headrace"), (0, "triton"), (0, "mosec")]
    assert (1, "ray") not in order
    assert order[-3:] == [(1, "headrace"), (1, "triton"), (1, "mosec")]
    assert {turn.loads for turn in turns if turn.system == "headrace"} == {(1, 16, 64, 512)}


def test_open_loop_rounds_go_to_those_whom_a_target_names() -> None:
    turns = plan.open_turns(plan.Settings(rounds=3, slow_rounds=2))
    assert [turn.system for turn in turns if turn.round == 0] == ["headrace", "triton", "mosec"]
    assert [turn.system for turn in turns if turn.round > 0] == ["headrace", "triton"] * 2
    assert {turn.round for turn in turns if turn.fractions} == {0, 1}
    assert plan.open_rates(10_000.0, fractions=True)[-1] == (9000, 0.9)
