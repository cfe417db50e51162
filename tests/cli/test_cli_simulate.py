"""`headrace simulate`, as people type it. It runs a program of its own, so what that prints is captured as well."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.cli.main import main

KEYS = {
    "policy", "slo_share", "cost", "instance_seconds", "service_seconds", "p50_wait_ms", "p99_wait_ms", "cold_starts",
    "refused", "scale_changes_per_hour", "quota_violations",
}  # fmt: skip
Simulate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def simulate(capfd: pytest.CaptureFixture[str]) -> Simulate:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["simulate", *arguments])
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "trace.csv"
    rows = [f"2026-01-01 00:{second // 60:02}:{second % 60:02},{1 + second % 7}" for second in range(600)]
    path.write_text("TIMESTAMP,GeneratedTokens\n" + "\n".join(rows) + "\n")
    return str(path)


def test_json_is_one_object_per_policy_in_the_order_given(simulate: Simulate, trace: str) -> None:
    code, out, _ = simulate("--trace", trace, "--policy", "kpa, hpa", "--service-ms", "500", "--slo", "2s", "--json")
    scores: list[dict[str, Any]] = json.loads(out)
    assert code == 0
    assert [found["policy"] for found in scores] == ["kpa", "hpa"]
    assert all(found.keys() >= KEYS for found in scores)
    assert all(found["service_seconds"] == pytest.approx(300) for found in scores)


def test_a_table_for_people_has_every_policy(simulate: Simulate, trace: str) -> None:
    code, out, _ = simulate("--trace", trace, "--service-per-token", "20")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("POLICY")
    assert {line.split()[0] for line in lines[1:]} >= {"kpa", "ray", "hpa", "conservative", "balanced", "aggressive"}


def test_flags_change_a_scenario(simulate: Simulate) -> None:
    arguments = ("--scenario", "sparse", "--policy", "kpa", "--json", "--price", "1.00", "--slo-credit", "0.5")
    _, plain, _ = simulate(*arguments)
    _, slower, _ = simulate(*arguments, "--cold-start", "30s", "--standby", "2")
    (fast,), (slow,) = json.loads(plain), json.loads(slower)
    assert fast["slo_share"] == 1.0
    assert slow["slo_share"] < 1.0
    assert slow["standby_seconds"] == 2 * fast["standby_seconds"]
    assert fast["credit"] == pytest.approx(0.5 * fast["requests"])


def test_what_a_deploy_says_of_its_policy_can_be_tried(simulate: Simulate) -> None:
    def run(policy: str, *arguments: str) -> dict[str, Any]:
        code, out, err = simulate("--scenario", "flash-crowd", "--policy", policy, "--json", *arguments)
        assert code == 0, err
        [found] = json.loads(out)
        return dict(found)

    plain, patient = run("headrace"), run("headrace", "--cost-sensitivity", "high")
    assert patient["excess_seconds"] < plain["excess_seconds"]
    assert run("balanced", "--cost-sensitivity", "low")["slo_share"] > run("balanced")["slo_share"]
    bounded = run("headrace", "--min-instances", "3", "--max-instances", "4")
    assert 3 * 1790 < bounded["instance_seconds"] <= 4 * 1900
    roomy = run("headrace", "--target", "concurrency=0.5", "--target", "queue-wait=10ms")
    assert roomy["instance_seconds"] > 1.5 * plain["instance_seconds"]
    _, out, _ = simulate("--scenario", "sparse", "--policy", "headrace", "--idle-timeout", "10m", "--json")
    assert json.loads(out)[0]["cold_starts"] < 20
    _, _, err = simulate("--scenario", "steady", "--policy", "headrace,kpa", "--idle-timeout", "10m")
    assert "--idle-timeout is for policy headrace; it changes nothing of kpa" in err


def test_a_sensitivity_leaves_policies_alone_that_have_nothing_to_adjust(simulate: Simulate) -> None:
    _, plain, _ = simulate("--scenario", "steady", "--json")
    code, low, _ = simulate("--scenario", "steady", "--cost-sensitivity", "low", "--json")
    assert code == 0
    changed = {
        was["policy"] for was, now in zip(json.loads(plain), json.loads(low), strict=True) if was["cost"] != now["cost"]
    }
    assert changed == {"headrace", "conservative", "balanced", "aggressive"}


def test_models_and_nodes(simulate: Simulate, trace: str) -> None:
    code, out, _ = simulate(
        "--trace", trace, "--policy", "kpa", "--models", "5", "--nodes", "2", "--instances-per-node", "2",
        "--tenant-instances", "3", "--json",
    )  # fmt: skip
    assert code == 0
    (found,) = json.loads(out)
    assert found["starts_refused"] > 0
    assert found["quota_violations"] == 0


def test_tenants_and_a_schedule_are_tried_before_they_are_set(simulate: Simulate, trace: str, tmp_path: Path) -> None:
    tenants = tmp_path / "tenants.toml"
    tenants.write_text('[default]\nmemory = "3Gi"\nrps = 0.5\n[other]\ncpu = 1\n')
    code, out, err = simulate(
        "--trace", trace, "--policy", "kpa,headrace", "--tenants", str(tenants), "--memory", "2Gi",
        "--schedule", "5 0 * * * UTC=3", "--schedule", "8 0 * * *=0", "--service-ms", "2000", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert "tenant other has limits and sends no request" in err
    for found in json.loads(out):
        assert found["refused_by_reason"]["over rps"] == 300
        assert found["starts_refused"] > 0
        assert found["quota_violations"] == 0


def test_events_and_a_picture_are_written(simulate: Simulate, trace: str, tmp_path: Path) -> None:
    events, picture = tmp_path / "events.jsonl", tmp_path / "picture.html"
    simulate("--trace", trace, "--policy", "kpa,ray", "--events", str(events), "--plot", str(picture))
    runs = [json.loads(line) for line in events.read_text().splitlines() if '"event":"run"' in line]
    assert [run["policy"] for run in runs] == ["kpa", "ray"]
    html = picture.read_text()
    assert html.count("<svg") == 2
    assert "kpa: " in html
    assert "http" not in html


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected --trace FILE or --scenario NAME, one of the two"),
        (["--trace", "x.csv", "--scenario", "steady"], "expected --trace FILE or --scenario NAME, one of the two"),
        (["--trace", "nowhere.csv"], "trace nowhere.csv: cannot be read: No such file or directory"),
        (["--scenario", "calm"], "scenario 'calm' is not known; there are steady"),
        (["--scenario", "steady", "--policy", "kap"], "policy 'kap' is not known; there are"),
        (["--scenario", "steady", "--slo", "soon"], "--slo: expected a duration like 100ms, 60s, 5m or 1h; got 'soon'"),
        (["--scenario", "steady", "--concurrency", "0"], "argument --concurrency: expected 1 or more; got 0"),
        (["--scenario", "steady", "--service-ms", "-3"], "argument --service-ms: expected more than 0; got -3"),
        (["--scenario", "steady", "--plot", "x.gif"], "expected a name that ends in .png or .html; got 'x.gif'"),
        (["--scenario", "steady", "--schedule", "0 8 * * *=1"], "give it: --start 2026-11-02T00:00Z"),
        (["--scenario", "steady", "--start", "Monday"], "--start: expected a date and a time like 2026-11-02T00:00Z"),
        (["--scenario", "steady", "--tenants", "nobody.toml"], "tenants nobody.toml: cannot be read"),
        (["--scenario", "steady", "--cpu", "0"], "--cpu: an instance needs more than 0"),
        (["--scenario", "steady", "--policy", "kpa", "--cost-sensitivity", "low"], "'kpa' has nothing to adjust"),
        (["--scenario", "steady", "--cost-sensitivity", "some"], "expected high, normal, low or none, got 'some'"),
        (
            ["--scenario", "steady", "--target", "speed=3"],
            "--target: expected METRIC=VALUE with a metric of concurrency",
        ),
        (
            ["--scenario", "steady", "--min-instances", "2", "--max-instances", "1"],
            "expected 1 (--max-instances) at most",
        ),
        (["--scenario", "steady", "--min-instances", "10001"], "--min-instances: expected 0 to 10000; got 10001"),
        (["--scenario", "steady", "--service-per-token", "3"], "scenario steady has no tokens; use --service-ms"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(simulate: Simulate, arguments: list[str], message: str) -> None:
    code, out, err = simulate(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
