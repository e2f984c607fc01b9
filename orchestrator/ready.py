"""Waiting cells by group, and the tasks that those of them that are ready form."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from operator import itemgetter

from orchestrator.graph import CellSpec
from orchestrator.reasons import Reason
from orchestrator.stages import Stage

Group = tuple[str, ...]
Kind = tuple[bool, int, bool]
Ranked = tuple[tuple[bool, int, int], "Task"]


class Phase(StrEnum):
    """Where a cell stands while the study runs."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"


@dataclass(frozen=True)
class Task:
    """Cells of one stage that are ready and go to one process; `whole` when no more of their group is to come."""

    stage: Stage
    cells: tuple[CellSpec, ...]
    reasons: Mapping[str, Reason]
    whole: bool = True


@dataclass
class Entry:
    """One cell while the study runs; `unsettled` and `lost` count its inputs by what became of them."""

    spec: CellSpec
    order: int
    phase: Phase
    reason: Reason
    sentence: str = ""
    losses: int = 0
    pauses: int = 0
    troubled_since: float | None = None
    recomputations: int = 0
    step: int = 0
    unsettled: int = 0
    lost: int = 0
    group: Group | None = None


@dataclass
class _Members:
    coming: int = 0
    ready: dict[int, Entry] = field(default_factory=dict)
    tasks: list[Ranked] = field(default_factory=list)


class ReadyTasks:
    """Tasks in order of priority; only groups that changed are cut anew."""

    def __init__(self, stages: Mapping[str, Stage]) -> None:
        self._stages = stages
        self._rank = {name: rank for rank, name in enumerate(stages)}
        self._groups: dict[Group, _Members] = {}
        self._changed: set[Group] = set()
        self._kinds: dict[Kind, list[Ranked]] = {}

    def put(self, entry: Entry, ready: bool) -> None:
        """Take a waiting cell in, as one of its group that is ready or that is to come."""
        self.remove(entry)
        entry.group = self._group_of(entry)
        members = self._groups.setdefault(entry.group, _Members())
        if ready:
            members.ready[entry.order] = entry
        else:
            members.coming += 1
        if ready or members.coming == 1:
            self._changed.add(entry.group)

    def remove(self, entry: Entry) -> None:
        """Forget a cell; nothing happens when it isn't here."""
        if entry.group is None:
            return
        members = self._groups[entry.group]
        was_ready = members.ready.pop(entry.order, None) is not None
        if not was_ready:
            members.coming -= 1
        if was_ready or members.coming == 0:
            self._changed.add(entry.group)
        entry.group = None

    def tasks(self) -> list[Task]:
        """All tasks that could start now: trainings first, then in the order of the stages and of the graph."""
        return [task for _, task in sorted((one for kind in self._ranked() for one in kind), key=itemgetter(0))]

    def by_kind(self) -> Iterator[Iterator[Task]]:
        """The same, those of one stage that are equally whole together: where one has no room, none of them has."""
        for ranked in self._ranked():
            yield (task for _, task in ranked)

    def _ranked(self) -> list[list[Ranked]]:
        changed = [self._groups[group] for group in self._changed]
        self._changed.clear()
        for members in changed:  # all first: a cell may have moved from one of these groups to another
            for priority, task in members.tasks:
                kind = self._kinds[self._kind_of(task)]
                del kind[bisect_left(kind, priority, key=itemgetter(0))]
        for members in changed:
            members.tasks = list(self._cut(members))
            for ranked in members.tasks:
                insort(self._kinds.setdefault(self._kind_of(ranked[1]), []), ranked, key=itemgetter(0))
        return [self._kinds[kind] for kind in sorted(self._kinds)]

    def _kind_of(self, task: Task) -> Kind:
        return (not task.stage.training, self._rank[task.stage.name], not task.whole)

    def _group_of(self, entry: Entry) -> Group:
        stage = self._stages[entry.spec.stage]
        if stage.training or not stage.grouped_by or entry.losses > 1:
            return (stage.name, entry.spec.signature)
        return (stage.name, *(entry.spec.labels.get(label, "") for label in stage.grouped_by))

    def _cut(self, members: _Members) -> Iterator[Ranked]:
        entries = [members.ready[order] for order in sorted(members.ready)]
        if not entries:
            return
        stage = self._stages[entries[0].spec.stage]
        size = 1 if stage.training else stage.cells_per_task
        for first in range(0, len(entries), size):
            part = entries[first : first + size]
            reasons = {entry.spec.signature: entry.reason for entry in part}
            whole = members.coming == 0 or len(part) == size
            priority = (not stage.training, self._rank[stage.name], part[0].order)
            yield priority, Task(stage, tuple(entry.spec for entry in part), reasons, whole)
