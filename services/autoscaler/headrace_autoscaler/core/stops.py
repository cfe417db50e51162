"""Which instances and jobs go, before anything starts: what is unwanted, too much, or over a limit."""

from __future__ import annotations

from headrace_autoscaler.core.booking import Booking, makes_room
from headrace_autoscaler.core.plans import Holding, Want
from headrace_autoscaler.core.quota import Limit, Refusal
from headrace_autoscaler.core.room import MACHINE, Room


def drain_unwanted(run: Booking) -> None:
    known = {want.key for want in run.snapshot.wants} | run.snapshot.protected
    for key, holdings in run.live.items():
        if key not in known:
            for holding in holdings:
                run.drain(holding, "the model or this revision of it is gone")


def drain_surplus(run: Booking) -> None:
    for want in run.snapshot.wants:
        if want.key in run.snapshot.protected:
            continue
        if want.spent:
            for holding in run.live.get(want.key, ()):
                if holding.ready:  # One that loads would be taken for one that cannot.
                    run.drain(holding, want.held_back)
            continue
        # One that loads is left to finish: its start is paid for, and demand may be back. Nor does it
        # stand in for one that is ready: until it is, that one answers.
        ready = [each for each in run.live.get(want.key, ()) if each.ready and not each.leaving]
        for holding in sorted(ready, key=lambda each: _going_order(want, each))[: max(0, len(ready) - want.desired)]:
            slow = "slower than its peers: " if holding.slow else ""
            run.drain(holding, f"{slow}{len(ready)} ready, {want.desired} wanted")
        if want.at_once or len(ready) >= want.desired:
            _drain_leaving(run, want)


def _drain_leaving(run: Booking, want: Want) -> None:
    for holding in run.live.get(want.key, ()):
        if holding.leaving and holding.ready:
            run.drain(holding, f"resized: {want.start_reason}")


def admit_verified(run: Booking) -> None:
    """What was verified outside the limits stays only inside them. What goes soon does not count against it:
    a redeploy at the limit works."""
    wants = {want.key: want for want in run.snapshot.wants}
    passing = {key for key, want in wants.items() if want.retiring} | run.snapshot.protected
    staying = [each for key in wants if key not in passing for each in run.live.get(key, ())]
    newcomers = [each for each in staying if each.id in run.outside and each.id not in run.drained]
    if not newcomers:
        return
    kept = run.new_room()
    for holding in staying:
        if holding.id not in run.outside and holding.id not in run.drained:
            kept.add(holding)
    # Those that somebody asks for first; the oldest among equals.
    for holding in sorted(newcomers, key=lambda each: (wants[each.key].spare, each.started_at)):
        _admit(run, wants[holding.key], holding, kept)


def _admit(run: Booking, want: Want, holding: Holding, kept: Room) -> None:
    run.jobs_give_way(want, kept)
    taken = run.make_room(want, kept, spares=True, claims=True)
    if isinstance(taken, str):
        run.drain(holding, f"its first load was beyond the limits: {taken}")
        run.live[want.key] = [each for each in run.live[want.key] if each.id != holding.id]
        return
    for spare in taken:
        kept.remove(spare)
        run.drain(spare, makes_room(spare, want))
    kept.add(holding)
    run.outside.discard(holding.id)
    run.admitted.append(holding.id)


def stop_over_limit(run: Booking) -> None:
    """A job goes at once where its tenant is over its limit, before any instance does."""
    if not run.jobs:
        return
    staying, going_on = run.room_that_stays(), []
    for job in reversed(run.jobs):
        staying.remove(job)
        refusal = staying.refusal(Want(job.model, 0, job.tenant, job.resources, 1))
        if refusal is not None and refusal.tenant != MACHINE and _is_over(refusal):
            run.stop_job(job, f"tenant '{job.tenant}' is over its limit")
        else:
            staying.add(job)
            going_on.append(job)
    run.jobs = going_on[::-1]


def drain_over_limit(run: Booking) -> None:
    """What nobody needs goes at once where its tenant is over its limit."""
    if not run.spares:
        return
    wants = {want.key: want for want in run.snapshot.wants}
    staying = run.room_that_stays()
    for holding in reversed(run.spares):
        if not staying.holds(holding):
            continue
        staying.remove(holding)
        refusal = staying.refusal(wants[holding.key])
        if refusal is not None and refusal.tenant != MACHINE and _is_over(refusal):
            run.drain(holding, f"tenant '{holding.tenant}' is over its limit")
        else:
            staying.add(holding)


def _going_order(want: Want, holding: Holding) -> tuple[bool, bool, float]:
    """Of what is too much: what is slow, then what nobody would start like that any more, then the newest."""
    return (not holding.slow, holding.resources == want.resources, -holding.started_at)


def _is_over(refusal: Refusal) -> bool:
    """The tenant, or its cohort by what the tenant borrows, is over a limit."""
    return any(binding.kind not in (Limit.MODEL, Limit.BORROWED) for binding in refusal.bindings)
