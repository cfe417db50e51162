"""Books for tests: a sink that keeps postings as the store does, and a model that is served for money."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from headrace_autoscaler.domain import (
    ModelFile,
    ModelSpec,
    Posting,
    Revision,
    RevisionState,
    Tenant,
    Usage,
    UsageKey,
)

World = Any
OpenWorld = Callable[..., Awaitable[World]]


class Vault:
    """A sink that keeps postings as the store does.

    Attributes:
        refusals: so many postings are not written.
        lost_answers: so many are, and nobody is told.
        meanwhile: what happens while one is written.
    """

    def __init__(self) -> None:
        self.usage: dict[UsageKey, Usage] = {}
        self.last: tuple[int, int] | None = None
        self.booked_until_us: int | None = None
        self.lost_answers = 0
        self.refusals = 0
        self.meanwhile: Callable[[], None] = lambda: None

    async def __call__(self, posting: Posting) -> None:
        self.meanwhile()
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError("the database is away")
        if self.last != (posting.epoch, posting.serial):
            self.last = (posting.epoch, posting.serial)
            self.booked_until_us = posting.booked_until_us
            for key, more in posting.increments.items():
                held = self.usage.get(key, Usage())
                self.usage[key] = Usage(
                    **{name: getattr(held, name) + getattr(more, name) for name in Usage.__dataclass_fields__}
                )
        if self.lost_answers:
            self.lost_answers -= 1
            raise ConnectionError("the answer was lost")

    def seconds(self, model: str) -> float:
        return sum(usage.instance_seconds for key, usage in self.usage.items() if key.model == model)


def revision_of(model: str) -> Revision:
    files = (ModelFile("model.onnx", "a" * 64, 1 << 20),)
    return Revision(model, 1, "1", RevisionState.SERVING, "artifact", files, "model.onnx", "fake")


async def serving(open_world: OpenWorld, tenant: Tenant, **settings: object) -> World:
    """A world where `m` of this tenant has one instance and somebody asks."""
    world = await open_world(**{"standby": 1, "decision_period_s": 0.01, **settings})
    world.catalogue.tenant_list.append(tenant)
    world.catalogue.put(ModelSpec("m", tenant=tenant.name), revision_of("m"))
    world.demand("m", queued=1, tenant=tenant.name)
    await world.until(lambda: world.instances("m"))
    return world
