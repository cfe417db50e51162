"""Replaced revisions: when nothing of them is left, anywhere, they are forgotten."""

from __future__ import annotations

from headrace_autoscaler.core.plans import Key
from headrace_autoscaler.fleet.announcements import Announcements
from headrace_autoscaler.fleet.observation import Judged
from headrace_autoscaler.fleet.tasks import TaskSet
from headrace_autoscaler.ports import Catalogue


class Retirement:
    """A retiring revision is silent once every router has applied that it retires and has reported
    after that that nothing of it waits or executes."""

    def __init__(self, catalogue: Catalogue, announcements: Announcements, tasks: TaskSet) -> None:
        self._catalogue = catalogue
        self._announcements = announcements
        self._tasks = tasks
        self._marks: dict[Key, int] = {}
        self._finishing: set[Key] = set()

    def silent(self, key: Key) -> bool:
        mark = self._marks.get(key)
        return mark is not None and self._announcements.heard_since(mark)

    def follow(self, judged: list[Judged], mark: int) -> None:
        """Args:
        mark: of the state that has just been announced, in which these retire.
        """
        retiring = {each.key: each for each in judged if each.status.retiring}
        self._marks = {key: self._marks.get(key, mark) for key in retiring}
        for key, each in retiring.items():
            gone = each.status.instances == 0 and each.draining == 0
            if each.settled and gone and key not in self._finishing:
                self._finishing.add(key)
                self._tasks.start(self._finish(key), f"finish {key[0]} revision {key[1]}")

    async def _finish(self, key: Key) -> None:
        try:
            await self._catalogue.finish_retiring(*key)
        finally:
            self._finishing.discard(key)
