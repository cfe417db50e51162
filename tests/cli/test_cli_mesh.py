"""status, logs, usage, tenant, and what every command has in common."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from headrace import errors
from headrace.cli.main import main
from headrace.client import methods
from headrace.v1 import mesh_pb2, resources_pb2, tenants_pb2, usage_pb2

Run = Callable[..., Any]
COMMANDS = (
    "up",
    "deploy",
    "list",
    "status",
    "describe",
    "explain",
    "delete",
    "logs",
    "infer",
    "tenant",
    "usage",
    "apply",
)


def headrace(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from headrace.cli.main import main; main(['--help']);"
        "print([m for m in ('grpc', 'numpy', 'onnxruntime', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert all(f" {command} " in done.stdout for command in COMMANDS)
    assert done.stdout.splitlines()[-1] == "[]"


def test_without_a_mesh_one_line_says_what_to_do() -> None:
    done = headrace("list", HEADRACE_URL="http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "headrace: cannot reach the mesh at http://127.0.0.1:1; start it with `headrace up` or set HEADRACE_URL to "
        "where it is\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("nonsense",), 2, "No such command"),
        (("deploy", "x"), 2, "Missing option '--name'; see"),
        (("deploy", "x", "--name", "m", "--tenant", "ünï"), 2, "--tenant: 'ünï' does not name a tenant"),
        (("list", "--colour"), 2, "--colour"),
        (("usage", "--since", "yesterday"), 2, "--since: expected a duration"),
        (("tenant", "set", "t", "--at-budget", "panic"), 2, "--at-budget: expected refuse or queue"),
    ],
)
def test_wrong_usage_is_one_line(run: Run, arguments: tuple[str, ...], code: int, expected: str) -> None:
    done = run(*arguments)
    assert done.code == code
    assert expected in done.err
    assert done.err.count("\n") == 1


def test_a_url_that_is_none_is_wrong_usage(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_URL", "localhost:8080")
    done = run("list")
    assert (done.code, done.out) == (2, "")
    assert "expected http://HOST:PORT" in done.err


def test_no_failure_shows_a_traceback(mesh: Any, run: Run) -> None:
    mesh.on(methods.GET_STATUS, lambda request: 1 / 0)
    done = run("status")
    assert done.code == 1
    assert "Traceback" not in done.err
    assert done.err.startswith("headrace: ")


def test_ctrl_c_is_quiet(mesh: Any) -> None:
    began, leave = threading.Event(), threading.Event()

    def forever(_request: Any) -> Any:
        yield mesh_pb2.ReadLogsResponse(line="{}")
        began.set()
        leave.wait(30)

    mesh.on(methods.READ_LOGS, forever, "unary_stream")
    # A suite that runs in the background of a shell has Ctrl-C ignored, and what it starts inherits that.
    heeded = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    process = subprocess.Popen(
        [sys.executable, "-c", heeded + "from headrace.cli.main import main; sys.exit(main())", "logs", "--follow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HEADRACE_URL": mesh.url},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "{}\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    leave.set()
    assert (process.returncode, stderr) == (130, "")


def test_a_reader_that_has_seen_enough_hears_nothing(mesh: Any) -> None:
    mesh.on(methods.READ_LOGS, lambda request: [mesh_pb2.ReadLogsResponse(line="x" * 1000)] * 5000, "unary_stream")
    done = subprocess.run(
        f"{sys.executable} -m headrace.cli.main logs | head -n 1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "HEADRACE_URL": mesh.url},
    )
    assert (done.returncode, done.stderr) == (1, "")


def test_status(mesh: Any, run: Run) -> None:
    status = mesh_pb2.GetStatusResponse(
        version="0.1.0",
        epoch=3,
        uptime={"seconds": 90},
        routers=[{"id": "router-0", "queued": 2, "refused": 1}],
        standby=[{"id": "s", "state": "standby"}],
        standby_target={"runners": 3, "reason": "as many as were wanted at once", "inputs": {"predicted": 3.0}},
        models=[{"name": "iris", "tenant": "acme", "state": 4, "instances": 1}],
        cpu_enforcement="cgroup",
        memory_enforcement="cgroup and watchdog",
    )
    mesh.on(methods.GET_STATUS, status)
    shown = json.loads(run("status", "--json").out)
    assert (shown["version"], shown["epoch"], shown["uptime_s"]) == ("0.1.0", 3, 90.0)
    assert (shown["routers"][0]["queued"], shown["standby"][0]["state"]) == (2, "standby")
    assert shown["models"][0]["state"] == "ready"
    assert shown["enforced"] == {"cpu": "cgroup", "memory": "cgroup and watchdog"}
    plain = run("status").out
    assert "cpu enforced by:" in plain
    assert "router-0  2" in plain
    assert "iris  acme    ready" in plain
    assert "1 (of 3: as many as were wanted at once)" in plain
    assert shown["standby_target"]["inputs"] == {"predicted": 3.0}


def test_logs_are_printed_as_they_are(mesh: Any, run: Run) -> None:
    mesh.on(methods.READ_LOGS, [mesh_pb2.ReadLogsResponse(line=f'{{"n":{n}}}') for n in (1, 2)], "unary_stream")
    assert run("logs", "iris", "--tail", "5").out == '{"n":1}\n{"n":2}\n'
    [request] = mesh.requests(methods.READ_LOGS)
    assert (request.model, request.follow, request.tail) == ("iris", False, 5)


@pytest.fixture
def books(mesh: Any) -> Any:
    rows = [
        usage_pb2.UsageRow(
            tenant="acme",
            model="iris",
            cost_micros=1_500_000,
            currency="USD",
            requests=3,
            capacity_class=resources_pb2.CAPACITY_CLASS_ON_DEMAND,
        ),
        usage_pb2.UsageRow(tenant="operator", cost_micros=12, currency="USD", instance_seconds=0.5),
    ]
    mesh.on(methods.GET_USAGE, usage_pb2.GetUsageResponse(rows=rows))
    return mesh


def test_usage_in_every_form_tells_the_same_money(books: Any, run: Run) -> None:
    by_json = json.loads(run("usage", "--json", "--tenant", "acme", "--since", "2h").out)
    by_csv = list(csv.DictReader(io.StringIO(run("usage", "--csv").out)))
    assert [row["cost"] for row in by_json] == [row["cost"] for row in by_csv] == ["1.50", "0.000012"]
    assert by_json[0]["class"] == "on_demand"
    assert "1.50" in run("usage").out
    request = books.requests(methods.GET_USAGE)[0]
    assert request.tenant == "acme"
    assert abs((datetime.now(UTC) - request.since.ToDatetime(UTC)).total_seconds() - 7200) < 60


def test_tenant_set_builds_the_whole_spec_out_of_flags(mesh: Any, run: Run) -> None:
    mesh.on(methods.SET_TENANT, tenants_pb2.SetTenantResponse())
    flags = (
        "--cpu 4 --memory 8Gi --gpu 1 --gpu-memory 16Gi --concurrency 10 --rps 5 --queue-length 30 --queue-bytes 1Mi "
        "--budget 1.50/h --budget 20/month "
        "--cohort team --borrow cpu=2 --borrow rps=3 --lend gpu-memory=1Gi --lend concurrency=4 --weight 2"
    )
    assert run("tenant", "set", "acme", *flags.split()).code == 0
    [request] = mesh.requests(methods.SET_TENANT)
    assert request.tenant == tenants_pb2.TenantSpec(
        name="acme",
        nominal={
            "cpu": "4", "memory": "8Gi", "gpu": "1", "gpu_memory": "16Gi", "concurrency": 10, "requests_per_second": 5,
            "queue_length": 30, "queue_bytes": "1Mi",
        },
        budget={"per_hour": "1.50", "per_month": "20"},
        cohort="team",
        borrowing_limit={"cpu": "2", "requests_per_second": 3},
        lending_limit={"gpu_memory": "1Gi", "concurrency": 4},
        weight=2,
    )  # fmt: skip


def test_a_tenant_without_flags_has_no_limits(mesh: Any, run: Run) -> None:
    mesh.on(methods.SET_TENANT, tenants_pb2.SetTenantResponse())
    assert run("tenant", "set", "acme").code == 0
    assert mesh.requests(methods.SET_TENANT)[0].tenant == tenants_pb2.TenantSpec(name="acme")


def test_what_is_set_of_a_tenant_can_be_taken_away_again(mesh: Any, run: Run) -> None:
    mesh.on(methods.SET_TENANT, tenants_pb2.SetTenantResponse())
    assert (
        run("tenant", "set", "acme", "--cohort", "", "--lift", "budget", "--lift", "limits", "--weight", "2").code == 0
    )
    [request] = mesh.requests(methods.SET_TENANT)
    assert request.tenant == tenants_pb2.TenantSpec(name="acme", cohort="", nominal={}, budget={}, weight=2)
    assert request.tenant.HasField("cohort")
    assert not request.tenant.HasField("lending_limit")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--borrow", "disk=2"], "--borrow: expected KEY=VALUE"),
        (["--borrow", "cpu"], "--borrow: expected KEY=VALUE"),
        (["--lend", "memory=lots"], "--lend memory: expected bytes"),
        (["--lend", "rps=fast"], "--lend rps: expected a number"),
        (["--borrow", "cpu=1", "--borrow", "cpu=2"], "cpu is given twice"),
        (["--concurrency", "9" * 22], "not in the range 0<=x<=9223372036854775807"),
        (["--borrow", f"concurrency={'9' * 22}"], "--borrow concurrency: expected 0 to 9223372036854775807"),
        (["--lend", "concurrency=-1"], "--lend concurrency: expected 0 to"),
        (["--rps", "0.0001"], "--rps: expected 0, or 0.001 and more; got 0.0001"),
        (["--lift", "cpu"], "--lift: expected limits, budget, borrow, lend; got 'cpu'"),
        (["--lift", "budget", "--budget", "1/h"], "--lift: budget is lifted and given as well"),
    ],
)
def test_wrong_quantities_of_a_tenant_are_named(mesh: Any, run: Run, flags: list[str], expected: str) -> None:
    done = run("tenant", "set", "acme", *flags)
    assert done.code == 2
    assert expected in done.err
    assert not mesh.seen


def test_looking_at_tenants_and_deleting_them(mesh: Any, run: Run) -> None:
    tenant = tenants_pb2.Tenant(
        name="acme", models=["iris"], spec={"name": "acme", "cohort": "team", "nominal": {"cpu": "4"}}
    )
    mesh.on(methods.LIST_TENANTS, tenants_pb2.ListTenantsResponse(tenants=[tenant]))
    mesh.on(methods.GET_TENANT, tenants_pb2.GetTenantResponse(tenant=tenant))
    mesh.on(methods.DELETE_TENANT, errors.FailedPrecondition("tenant 'acme' owns models: iris; delete them first"))
    assert run("tenant", "list").out.splitlines()[1] == "acme  team    1       cpu=4"
    assert json.loads(run("tenant", "describe", "acme", "--json").out)["spec"]["nominal"] == {"cpu": "4"}
    assert "cpu=4" in run("tenant", "describe", "acme").out
    done = run("tenant", "delete", "acme")
    assert (done.code, done.err) == (1, "headrace: tenant 'acme' owns models: iris; delete them first\n")


def test_the_entry_point_returns_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "headrace" in capsys.readouterr().out


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_one_line(mesh: Any, unbuffered: str) -> None:
    mesh.on(methods.GET_STATUS, mesh_pb2.GetStatusResponse())
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "headrace.cli.main", "status"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "HEADRACE_URL": mesh.url, "PYTHONUNBUFFERED": unbuffered},
        )
    assert (done.returncode, done.stderr) == (2, "headrace: No space left on device\n")


@pytest.mark.parametrize("command", ["up", "deploy", "infer", "logs", "usage", "apply", "list", "tenant set", "tenant"])
def test_help_names_values_and_not_their_types(run: Run, command: str) -> None:
    options = run(*command.split(), "--help").out.split(" Options ")[-1]
    assert "--help" in options
    assert "<" not in options.replace("<=", "")


def test_logs_of_a_model_that_no_line_names(mesh: Any, run: Run) -> None:
    mesh.on(methods.READ_LOGS, lambda request: [], "unary_stream")
    done = run("logs", "nope")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("headrace: no log line names a model 'nope'")
    assert run("logs").code == 0
    assert run("logs", "nope", "--follow").code == 0


def test_usage_in_all_adds_up_by_who_and_what_and_tells_the_parts(mesh: Any, run: Run) -> None:
    rows = [
        usage_pb2.UsageRow(
            tenant="acme", model="iris", shape="local-1cpu", instance_seconds=30, requests=2, currency="USD",
            cost_micros=150, network_micros=20, storage_micros=0, cache_micros=0, management_micros=30,
        ),
        usage_pb2.UsageRow(
            tenant="acme", model="iris", shape="local-1cpu", instance_seconds=12.5, requests=1, currency="USD",
            cost_micros=50,
        ),
        usage_pb2.UsageRow(
            tenant="acme", model="iris", currency="USD", cost_micros=7, storage_micros=4, cache_micros=3,
        ),
    ]  # fmt: skip
    mesh.on(methods.GET_USAGE, usage_pb2.GetUsageResponse(rows=rows))
    hours, in_all = run("usage").out.split("in all\n")
    assert [line.split() for line in hours.splitlines()[1:] if line.strip()] == [
        ["-", "acme", "iris", "42.5", "0.0", "3", "0", "0.000207", "USD"]
    ], "by the hour, one line is one model's, whatever it ran on"
    lines = in_all.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["acme", "acme", "(total)"]
    assert "42.5" in lines[2]
    assert lines[2].split()[-7:] == ["0.00015", "0.00002", "0.00", "0.00", "0.00003", "0.0002", "USD"]
    assert lines[3].split()[-7:] == ["0.00015", "0.00002", "0.000004", "0.000003", "0.00003", "0.000207", "USD"]
    [first, _, last] = json.loads(run("usage", "--json").out)
    assert (first["instance_cost"], first["network_cost"], first["management_cost"]) == ("0.0001", "0.00002", "0.00003")
    assert (last["storage_cost"], last["cache_cost"], last["cost"]) == ("0.000004", "0.000003", "0.000007")


def test_budgets_are_shown_where_people_look(mesh: Any, run: Run) -> None:
    standing = tenants_pb2.BudgetStanding(
        tenant="acme",
        period=tenants_pb2.BUDGET_PERIOD_HOUR,
        budget_micros=1_500_000,
        spent_micros=1_250_000,
        status=tenants_pb2.BUDGET_STATUS_WARNED,
        currency="USD",
    )
    standing.returns_at.FromJsonString("2026-11-21T15:00:00Z")
    of_model = tenants_pb2.BudgetStanding()
    of_model.CopyFrom(standing)
    of_model.model = "ocr"
    line = "1.25 of 1.50 USD per hour spent: warned; whole again at 2026-11-21T15:00:00Z"
    spec = tenants_pb2.TenantSpec(name="acme", budget_action=tenants_pb2.BUDGET_ACTION_QUEUE)
    tenant = tenants_pb2.Tenant(name="acme", spec=spec, budgets=[standing, of_model])
    mesh.on(methods.GET_TENANT, tenants_pb2.GetTenantResponse(tenant=tenant))
    described = run("tenant", "describe", "acme").out.splitlines()
    assert [each.split(": ", 1)[1].strip() for each in described if each.startswith("this hour")] == [line, line]
    assert any(each.split() == ["at", "budget:", "queue"] for each in described)
    assert json.loads(run("tenant", "describe", "acme", "--json").out)["budgets"][0]["spent"] == "1.25"
    mesh.on(methods.GET_STATUS, mesh_pb2.GetStatusResponse(budgets=[standing, of_model]))
    shown = run("status").out
    assert f"acme: {line}" in shown
    assert f"acme/ocr: {line}" in shown


@pytest.mark.parametrize(
    ("action", "sent"),
    [("refuse", tenants_pb2.BUDGET_ACTION_REFUSE), ("queue", tenants_pb2.BUDGET_ACTION_QUEUE), ("", 0)],
)
def test_what_happens_at_a_spent_budget_is_the_tenants_choice(mesh: Any, run: Run, action: str, sent: int) -> None:
    mesh.on(methods.SET_TENANT, tenants_pb2.SetTenantResponse())
    flags = ("--at-budget", action) if action else ()
    assert run("tenant", "set", "acme", "--budget", "1/h", *flags).code == 0
    [request] = mesh.requests(methods.SET_TENANT)
    assert request.tenant.budget_action == sent


def test_hours_are_whole_minutes_for_people(mesh: Any, run: Run) -> None:
    hour = datetime(2026, 11, 21, 23, tzinfo=UTC)
    row = usage_pb2.UsageRow(tenant="acme", model="iris", currency="USD")
    row.hour.FromDatetime(hour)
    mesh.on(methods.GET_USAGE, usage_pb2.GetUsageResponse(rows=[row]))
    assert run("usage").out.splitlines()[1].startswith("2026-11-21 23:00  acme")
    assert json.loads(run("usage", "--json").out)[0]["hour"] == "2026-11-21T23:00:00Z"


def test_a_narrow_terminal_keeps_the_hour_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.cli.printing import print_rows

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys, "stdout", Terminal())
    keys = ("hour", "tenant", "model", "instance_seconds", "cost")
    print_rows([dict.fromkeys(keys, "a-long-name-of-something") | {"hour": "2026-11-21 23:00"}], keys, whole=("hour",))
    assert "2026-11-21 23:00" in sys.stdout.getvalue()


def test_grpc_says_nothing_of_its_own(mesh: Any) -> None:
    done = headrace("list", HEADRACE_URL=mesh.url.replace("http", "https"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("headrace: cannot reach the mesh at https://")
