"""What a simulation is run on: traces from files, named scenarios, and what the user changed."""

import sys
from pathlib import Path

import numpy as np
import pytest

from headrace_autoscaler.core.policies.named import POLICIES
from headrace_autoscaler.sim.cases import Changes, case_of_scenario, case_of_trace
from headrace_autoscaler.sim.engine import simulate
from headrace_autoscaler.sim.plot import check_plot, draw
from headrace_autoscaler.sim.scenarios import SCENARIOS, scenario
from headrace_autoscaler.sim.score import score
from headrace_autoscaler.sim.trace import Trace, read_trace
from headrace_common.errors import FailedPrecondition, InvalidArgument

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:17:14.0319600,110,27
"""


def read(tmp_path: Path, text: str) -> Trace:
    path = tmp_path / "trace.csv"
    path.write_text(text, encoding="utf-8")
    return read_trace(path)


def test_the_azure_format_is_read_to_the_microsecond(tmp_path: Path) -> None:
    trace = read(tmp_path, AZURE)
    assert trace.arrival_s.tolist() == [0.0, 0.052, 10.052]
    assert trace.tokens is not None
    assert trace.tokens.tolist() == [10, 8, 27]
    assert (trace.models, trace.tenants, trace.unsorted) == (None, None, 0)


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param("10.5\n12\n", id="seconds"),
        pytest.param("2024-05-10 00:00:00.5+00:00\n2024-05-10 02:00:02+02:00\n", id="offsets"),
        pytest.param("2024-05-10T00:00:00.5Z\n\n2024-05-10T00:00:02Z\n", id="RFC 3339, and an empty line"),
    ],
)
def test_other_timestamps_are_read_too(tmp_path: Path, rows: str) -> None:
    assert read(tmp_path, "Timestamp\n" + rows).arrival_s.tolist() == [0.0, 1.5]


def test_unsorted_rows_are_sorted_with_their_columns_and_the_user_is_told(tmp_path: Path) -> None:
    trace = read(tmp_path, "TIMESTAMP,model,tenant\n5,b,y\n3,a,x\n4,c,z\n")
    assert (trace.arrival_s.tolist(), trace.models, trace.tenants) == (
        [0.0, 1.0, 2.0],
        ["a", "c", "b"],
        ["x", "z", "y"],
    )
    found = case_of_trace("t", trace, Changes())
    assert found.notes == ("1 rows were out of order; sorted",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected a header with a TIMESTAMP column; got nothing"),
        ("time,model\n1,a\n", "line 1: expected a header with a TIMESTAMP column; got time, model"),
        ("TIMESTAMP\n", "has a header and no requests"),
        ("TIMESTAMP,model,timestamp\n1,a,2\n", "line 1: expected one timestamp column; got 2"),
        ("TIMESTAMP\n1\nsoon\n", "line 3: TIMESTAMP: expected a time like .*; got 'soon'"),
        ("TIMESTAMP\nnan\n", "line 2: TIMESTAMP: expected a time like .*; got 'nan'"),
        ("TIMESTAMP,model\n1,a\n2\n", "line 3: expected 2 fields as in the header; got 1"),
        ("TIMESTAMP,model\n1,\n", "line 2: expected a name under model and tenant; got nothing"),
        ("TIMESTAMP\n1\n2023-11-16 18:17:03\n", "line 3: TIMESTAMP: expected seconds as in the rows before; got '2023"),
        ("TIMESTAMP\n2023-11-16 18:17:03\n1\n", "line 3: TIMESTAMP: expected a date and a time as in the rows before"),
        ("TIMESTAMP,GeneratedTokens\n1,-4\n", "line 2: GeneratedTokens: expected a count of tokens; got '-4'"),
        (f"TIMESTAMP,GeneratedTokens\n1,{'9' * 400}\n", "line 2: GeneratedTokens: expected a count of tokens; got '9"),
    ],
)
def test_what_is_wrong_with_a_trace_is_said_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        read(tmp_path, text)


def test_a_file_that_is_not_there_or_is_no_text_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be read: No such file"):
        read_trace(tmp_path / "missing.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00TIMESTAMP")
    with pytest.raises(InvalidArgument, match="is no CSV text"):
        read_trace(tmp_path / "binary.csv")


def test_service_time_is_constant_or_by_token(tmp_path: Path) -> None:
    trace = read(tmp_path, AZURE)
    constant = case_of_trace("t", trace, Changes(service_s=0.3))
    assert constant.workload.service_s.tolist() == [0.3, 0.3, 0.3]
    assert constant.conditions.slo_s == pytest.approx(1.5)
    by_token = case_of_trace("t", trace, Changes(service_per_token_s=0.01))
    assert by_token.workload.service_s.tolist() == pytest.approx([0.10, 0.08, 0.27])
    assert by_token.conditions.slo_s == pytest.approx(5 * 0.15)
    assert (constant.workload.service_known, by_token.workload.service_known) == (True, False)
    with pytest.raises(InvalidArgument, match="has no GeneratedTokens column; use --service-ms"):
        case_of_trace("t", read(tmp_path, "TIMESTAMP\n1\n"), Changes(service_per_token_s=0.01))


def test_a_model_of_two_tenants_is_two_models(tmp_path: Path) -> None:
    trace = read(tmp_path, "TIMESTAMP,model,tenant\n1,a,x\n2,a,y\n3,a,x\n")
    workload = case_of_trace("t", trace, Changes()).workload
    assert (workload.models, workload.tenants) == (("x/a", "y/a"), ("x", "y"))
    assert workload.model.tolist() == [0, 1, 0]
    with pytest.raises(InvalidArgument, match="has its own model or tenant column"):
        case_of_trace("t", trace, Changes(models=3))


def test_requests_without_models_are_spread_by_popularity(tmp_path: Path) -> None:
    trace = read(tmp_path, "TIMESTAMP\n" + "\n".join(str(k) for k in range(5000)))
    workload = case_of_trace("t", trace, Changes(models=10)).workload
    counts = np.bincount(workload.model, minlength=10)
    # The first of ten has 1 / (1 + 1/2^1.1 + .. + 1/10^1.1) = 0.373 of all.
    assert counts[0] / 5000 == pytest.approx(0.373, abs=0.03)
    assert counts[0] > counts[1] > counts[4] > counts[9] > 0


def test_a_cold_start_that_only_a_standby_allows_is_charged_one() -> None:
    steady = scenario("steady")
    assert case_of_scenario(steady, Changes()).conditions.standby == 0
    assert case_of_scenario(steady, Changes(cold_start_s=0.06)).conditions.standby == 1
    assert case_of_scenario(steady, Changes(cold_start_s=0.06, standby=4)).conditions.standby == 4
    many = scenario("zipf-1000")
    assert case_of_scenario(many, Changes()).conditions.standby == 40
    assert case_of_scenario(many, Changes(cold_start_s=2.0)).conditions.standby == 0


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_the_same_every_time_and_inside_its_horizon(name: str) -> None:
    first, second = scenario(name).workload(), scenario(name).workload()
    assert np.array_equal(first.arrival_s, second.arrival_s)
    assert np.array_equal(first.model, second.model)
    assert (np.diff(first.arrival_s) >= 0).all()
    assert first.arrival_s[0] >= 0
    assert first.arrival_s[-1] < first.horizon_s
    assert first.requests > 100


def test_a_scenario_that_is_not_known_is_said_with_those_that_are() -> None:
    with pytest.raises(InvalidArgument, match=r"scenario 'calm' is not known; there are steady, .*zipf-1000"):
        scenario("calm")


def test_requests_of_one_moment_have_a_picture(tmp_path: Path) -> None:
    given_case = case_of_trace("one", read(tmp_path, "TIMESTAMP\n5\n"), Changes())
    outcome = simulate(given_case, "kpa", POLICIES["kpa"])
    draw([outcome], [score(outcome)], tmp_path / "one.html")
    assert "nan" not in (tmp_path / "one.html").read_text()


def test_a_png_without_matplotlib_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(FailedPrecondition, match="pip install matplotlib"):
        check_plot(tmp_path / "picture.png")
    check_plot(tmp_path / "picture.html")
