import pytest

from headrace.mesh.draining import in_flight
from headrace.mesh.readiness import find_missing
from headrace.v1 import mesh_pb2


def status(*routers: str, standby: str | None = "standby") -> mesh_pb2.GetStatusResponse:
    return mesh_pb2.GetStatusResponse(
        routers=[{"id": router} for router in routers], standby=[{"state": standby}] if standby else []
    )


@pytest.mark.parametrize(
    ("seen", "front", "standby", "routers", "blamed"),
    [
        (None, True, 1, 1, "autoscaler"),
        (status(), True, 1, 1, "router-0"),
        (status("router-0"), True, 1, 2, "router-1"),
        (status("router-0"), False, 1, 1, "router-0"),
        (status("router-0", standby=None), True, 1, 1, "autoscaler"),
        (status("router-0", standby="starting"), True, 1, 1, "autoscaler"),
        (status("router-0", standby=None), True, 0, 1, None),
        (status("router-0", "router-1"), True, 4, 2, None),
    ],
    ids=[
        "no autoscaler",
        "no router connected",
        "one of two connected",
        "the front not ready",
        "no standby runner",
        "a standby runner that starts",
        "none wanted",
        "all there",
    ],
)
def test_what_is_missing(
    seen: mesh_pb2.GetStatusResponse | None, front: bool, standby: int, routers: int, blamed: str | None
) -> None:
    missing = find_missing(seen, front, standby, routers)
    assert (missing.process if missing else None) == blamed


def test_envoys_admin_does_not_count_as_in_flight() -> None:
    stats = ["http.admin.downstream_rq_active: 1", "http.front.downstream_rq_active: 2", "", "junk", "x: y"]
    assert in_flight(stats) == 2
    assert in_flight(["http.front.downstream_cx_tx_bytes_buffered: 7"]) == 7
