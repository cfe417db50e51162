"""That nobody has more of one limit than there is while an operator changes it, whatever is late, lost or dead."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from headrace_autoscaler.core.promises import promised_to_model
from headrace_autoscaler.domain import Limits, ModelSpec
from tests.autoscaler.lease_mesh import REPLACED, TTL_S, LeaseMesh

KEY = "acme/ocr"
small = st.integers(0, 24)
NEAR_A_STEP = (1, 2, 3, 5, 6, 7, 8, 11, 12, 17, 18)
"""Of floors, of two or three routers."""


def limits_of(units: int) -> Limits:
    return Limits(concurrency=units, requests_per_second=units / 1000, queue_length=units, queue_bytes=units)


class ChangingMesh(LeaseMesh):
    """A model's own limits: nobody lends or borrows, so that what there is, is known to the unit."""

    @initialize(processes=st.integers(1, 3), units=small)
    def begin(self, processes: int, units: int) -> None:
        self.set_up(processes, {KEY: limits_of(units)})
        self.was: list[tuple[float, Limits]] = []

    @precondition(lambda self: hasattr(self, "limits"))
    @rule(units=small)
    def the_limit_is_changed(self, units: int) -> None:
        old, new = self.limits[KEY], limits_of(units)
        self.was.append((self.now, old))
        self.changed(KEY)
        self.promise(KEY, promised_to_model(ModelSpec("ocr", limits=old), ModelSpec("ocr", limits=new)))
        self.limits = {KEY: new}
        self.book.set_limits(self.limits)

    @precondition(lambda self: hasattr(self, "limits"))
    @rule(busy=LeaseMesh.names, units=st.sampled_from(NEAR_A_STEP), change=st.sampled_from([1, -1, -7]),
          when=st.sampled_from(REPLACED), seconds=st.sampled_from([0.1, 11.0]), in_vain=st.booleans())  # fmt: skip
    def it_changes_a_little_and_others_hear_than_who_has_most(
        self, busy: str, units: int, change: int, when: str, seconds: float, in_vain: bool
    ) -> None:
        """And the autoscaler may be replaced, or write to the other what it never reads."""
        self.the_limit_is_changed(units)
        self.all_goes_well_for_a_while(busy, 0)
        self.time_passes(TTL_S)
        self.all_goes_well_for_a_while(busy, 0)
        if when == "before":
            self.the_autoscaler_is_replaced()
        self.the_limit_is_changed(max(0, units + change))
        if when == "after":
            self.the_autoscaler_is_replaced()
        for _ in range(2 if in_vain else 0):
            self.the_autoscaler_writes(busy)
            self.time_passes(seconds)
        self.time_passes(seconds)
        for name in self.book.routers:
            if name != busy:
                self.demand_is_reported(name, 0, 100.0, 40.0)
                self.catches_up(name)
                self.nobody_has_more_than_there_is()

    def most(self, keys: object, name: str) -> float:
        """What was lent under a larger limit runs out, but for floors: what of them is over falls as they hear."""
        recent = [limits for at, limits in self.was if self.now < at + TTL_S]
        shares = [router.leases[KEY][0] for router in self.routers.values() if KEY in router.leases]
        floors = sum(getattr(share.floor, name) or 0 for share in shares)
        return max(floors, *(getattr(each, name) for each in (self.limits[KEY], *recent)))


TestChangingMesh = ChangingMesh.TestCase
TestChangingMesh.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("when", REPLACED)
@pytest.mark.parametrize("processes", [2, 3])
def test_what_a_change_makes_a_floor_is_nobodys_while_another_may_have_it(processes: int, when: str) -> None:
    names = [f"router-{number}" for number in range(processes)]
    waits = ((0.1, False), (11.0, False), (11.0, True))
    for units, change, (seconds, in_vain), busy in product(NEAR_A_STEP, (1, -1, -7), waits, names):
        mesh = ChangingMesh()
        mesh.begin(processes, units)
        mesh.it_changes_a_little_and_others_hear_than_who_has_most(busy, units, change, when, seconds, in_vain)
        mesh.nobody_has_more_than_there_is()
        mesh.who_is_over_is_sent_floors_only()
