"""What a plan is made from and what it says.

Rates are requests per second, of one row each; money is integer micro-units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace_autoscaler.core.allocator.catalog import CapacityClass
from headrace_autoscaler.core.quota import Bounds, TenantQuota
from headrace_autoscaler.domain import Resources

Key = tuple[str, int]
"""Model and revision."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What nodes are alike in: the shape, and how it is paid for.

    Attributes:
        micros_per_hour: of the whole node.
        gpus: devices; an instance's share is on one of them.
    """

    shape: str
    capacity_class: CapacityClass
    capacity: Resources
    micros_per_hour: int
    gpus: int = 0
    architecture: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """Attributes:
    domain: what fails together: a rack, a zone.
    ending: not empty: nothing starts here any more and what runs here goes, for this reason (a spot node's notice).
    """

    id: str
    kind: Kind
    domain: str = ""
    ending: str = ""


@dataclass(frozen=True, slots=True)
class Variant:
    """A form of a model that should answer as the original does: in another precision, pruned, compiled for a GPU.

    Attributes:
        name: unique within the model.
        engine: what executes it; empty: what executes the model as it is.
        architectures: of GPUs that it was built for; empty: whatever its engine supports.
        outside: why it must not answer, by what was measured of its accuracy; empty: it is inside its floor.
    """

    name: str
    engine: str = ""
    architectures: tuple[str, ...] = ()
    outside: str = ""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run a model, with what was measured of it.

    Attributes:
        name: "2 threads", "int8 on a T4"; unique within the model.
        resources: what one instance holds.
        profile_us: rows per batch -> microseconds, ascending; empty: not measured.
        shape: the only shape for which the measurement holds; empty: every one.
        variant: what is run; None: the model as it is. One variant may have several ways.
    """

    name: str
    resources: Resources
    profile_us: tuple[tuple[int, int], ...] = ()
    shape: str = ""
    architecture: str = ""
    variant: Variant | None = None


@dataclass(frozen=True, slots=True)
class Demand:
    """What one revision needs.

    Attributes:
        rate: to be served; with the head-room that the decider wants (its instances times what one of them sustains).
        ways: at least one, of one variant or of several, of which a plan takes what is cheapest. What is not measured
            counts as one instance, whatever the rate.
        minimum, maximum: instances; None: no upper bound.
        spread: failure domains that its instances should be in, as far as there are instances and room.
        architectures: of GPUs that the engine was built for; empty: whatever the engine supports.
        cold_start_s: what moving an instance costs.
    """

    model: str
    tenant: str
    rate: float
    ways: tuple[Way, ...]
    revision: int = 1
    slo_s: float | None = None
    minimum: int = 0
    maximum: int | None = None
    tolerates_spot: bool = False
    spread: int = 1
    engine: str = ""
    architectures: tuple[str, ...] = ()
    cold_start_s: float = 0.0

    @property
    def key(self) -> Key:
        return (self.model, self.revision)


@dataclass(frozen=True, slots=True)
class Instance:
    """One that is.

    Attributes:
        device: of the node's GPUs; None: it holds none.
        draining: on its way out: it holds what it holds, and answers nothing new.
        in_flight: requests it has in hand; the fewer, the sooner it goes where somebody must.
    """

    id: str
    model: str
    tenant: str
    way: str
    node: str
    resources: Resources
    revision: int = 1
    device: int | None = None
    draining: bool = False
    in_flight: int = 0
    started_at: float = 0.0

    @property
    def key(self) -> Key:
        return (self.model, self.revision)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a plan depends on.

    Attributes:
        tenants: their quotas. One that is not named has none.
        model_limits: models' own.
    """

    demands: tuple[Demand, ...]
    instances: tuple[Instance, ...]
    nodes: tuple[Node, ...]
    tenants: tuple[TenantQuota, ...] = ()
    model_limits: Mapping[str, Bounds] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance is to be, and as what.

    Attributes:
        micros_per_hour: its part of the node's price.
    """

    model: str
    revision: int
    tenant: str
    way: str
    node: str
    device: int | None
    resources: Resources
    micros_per_hour: int


@dataclass(frozen=True, slots=True)
class Start:
    """Attributes:
    after: instances that must be gone first; empty: at once.
    """

    place: Place
    reason: str
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stop:
    """Drain, then stop."""

    instance: str
    reason: str


@dataclass(frozen=True, slots=True)
class Move:
    """The same elsewhere: start it at `place`, then drain `instance`; the other way round where `after` names it."""

    instance: str
    place: Place
    reason: str
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resize:
    """As `Move`, in another way: more threads, another variant, another share of a GPU."""

    instance: str
    place: Place
    reason: str
    after: tuple[str, ...] = ()


Action = Start | Stop | Move | Resize


@dataclass(frozen=True, slots=True)
class Refused:
    """Demand that gets less than it needs.

    Attributes:
        lacking: requests per second that nothing serves; 0: instances of its minimum are missing.
    """

    model: str
    revision: int
    tenant: str
    lacking: float
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Attributes:
    actions: in the order to begin them.
    micros_per_hour: of all instances once it is done.
    idle_nodes: nothing is on them once it is done; they could be given back.
    """

    actions: tuple[Action, ...]
    refused: tuple[Refused, ...]
    micros_per_hour: int
    idle_nodes: tuple[str, ...]
