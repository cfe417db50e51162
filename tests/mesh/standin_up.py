"""`headrace up` over the stand-ins: `python standin_up.py STATE READY_TIMEOUT_S ROUTERS STANDBY`."""

from __future__ import annotations

import sys
from pathlib import Path

from headrace.errors import HeadraceError
from headrace.mesh.plan import MeshPlan
from headrace.mesh.restart import RestartPolicy
from headrace.mesh.supervisor import run_mesh
from headrace_common.config import parse_mesh_config

STANDIN = Path(__file__).with_name("standin.py")


def main() -> int:
    state, ready_timeout_s, routers, standby = sys.argv[1:]
    mesh = parse_mesh_config(
        {
            "router": {"processes": int(routers), "drain_timeout_s": 20},
            "autoscaler": {"standby": int(standby)},
            "telemetry": {"metrics_listen": "127.0.0.1:0"},
        },
        "test",
    )
    plan = MeshPlan(
        listen="127.0.0.1:0",
        state_dir=Path(state),
        mesh=mesh,
        command=lambda process, context: [sys.executable, str(STANDIN), process, str(context)],
        ready_timeout_s=float(ready_timeout_s),
        guard_grace_s=1.0,
        restart=RestartPolicy(first_delay_s=0.05),
    )
    try:
        run_mesh(plan, lambda url: print(f"ready {url}", flush=True))
    except HeadraceError as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
