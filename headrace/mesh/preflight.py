"""What must hold before anything is started, and what is held while the mesh runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from headrace.errors import FailedPrecondition
from headrace.mesh.listening import HeldPort, ListenAddress, check_free, hold_port, parse_listen
from headrace.mesh.plan import MeshPlan
from headrace.mesh.state_directory import StateLock, lock_state_dir, prepare_state_dir
from headrace_common.extras import check_extras
from headrace_common.logs import get_logger


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a run of the mesh has for itself.

    Attributes:
        lock: on the state directory.
        front: where the routers listen.
        metrics: where /metrics listens; port 0: any.
    """

    lock: StateLock
    front: HeldPort
    metrics: ListenAddress


@contextmanager
def hold_what_is_needed(plan: MeshPlan) -> Iterator[Holdings]:
    """Checks, takes, and gives back at the end.

    Raises:
        InvalidArgument: an address is not one that the mesh may listen on.
        FailedPrecondition: state directory or port cannot be had, or a package that the configuration needs.
    """
    check_extras(plan.mesh)
    listen = parse_listen(plan.listen, "--listen")
    metrics = parse_listen(plan.mesh.telemetry.metrics_listen, "telemetry.metrics_listen")
    with ExitStack() as stack:
        if not plan.state_dir.exists():
            # A refusal then leaves no trace. Where there is a state, its last mesh may be about to leave the ports.
            _check_ports(listen, metrics, plan.metrics_required)
        prepare_state_dir(plan.state_dir)
        lock = stack.enter_context(closing(lock_state_dir(plan.state_dir)))
        front = stack.enter_context(closing(hold_port(listen, "--listen")))
        yield Holdings(lock, front, _metrics_address(metrics, plan.metrics_required))


def _check_ports(listen: ListenAddress, metrics: ListenAddress, metrics_required: bool) -> None:
    if listen.port:
        check_free(listen, "--listen")
    if metrics_required and metrics.port:
        check_free(metrics, "telemetry.metrics_listen")


def _metrics_address(wanted: ListenAddress, required: bool) -> ListenAddress:
    if wanted.port == 0:
        return wanted
    try:
        check_free(wanted, "telemetry.metrics_listen")
    except FailedPrecondition:
        if required:
            raise
        get_logger().warning("metrics port in use", wanted=str(wanted), reason="another process listens; taking any")
        return ListenAddress(wanted.host, 0)
    return wanted
