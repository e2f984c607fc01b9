"""What the ledger remembers of a search: one small file per trial. Everything else follows from them and the cells."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from orchestrator.paths import check_name
from orchestrator.redaction import redact
from orchestrator.signature import canonical_json
from orchestrator.status import dump
from orchestrator.storage import Storage

FOLDER = "search"
ABOUT = "search.json"


class TrialState(StrEnum):
    """Where a trial stands; `RUNNING` also is one whose driver was interrupted: it is taken up again first."""

    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"


@dataclass(frozen=True)
class Trial:
    """One setting that was asked for: the cells whose numbers judge it, its score and how it got there.

    `intermediate` holds scores at shares of a training, in per cent. `sentence` says why there is no score.
    """

    number: int
    settings: Mapping[str, Any]
    cells: tuple[str, ...] = ()
    state: TrialState = TrialState.RUNNING
    value: float | None = None
    intermediate: Mapping[int, float] = field(default_factory=dict)
    exploratory: bool = False
    sentence: str = ""

    @property
    def finished(self) -> bool:
        return self.state is not TrialState.RUNNING

    def completed(self, value: float) -> Trial:
        return replace(self, state=TrialState.COMPLETE, value=value, sentence="")

    def failed(self, sentence: str) -> Trial:
        return replace(self, state=TrialState.FAILED, value=None, sentence=redact(sentence))

    def pruned(self) -> Trial:
        """Stopped early: its last score before that stands for it."""
        last = self.intermediate[max(self.intermediate)] if self.intermediate else None
        return replace(self, state=TrialState.PRUNED, value=last)


@dataclass(frozen=True)
class Records:
    """The trials of one search below ``search/<signature>/``."""

    storage: Storage
    signature: str

    def trials(self) -> dict[int, Trial]:
        """All trials by number; a record that can't be read counts as none, and is asked for again."""
        names = [name for name in self.storage.names(self._at()) if name.removesuffix(".json").isdecimal()]
        found = {}
        for path, data in sorted(self.storage.read_many(self._at(name) for name in names).items()):
            trial = _parsed(data)
            if trial is not None and path == self._at(f"{trial.number:05d}.json"):
                found[trial.number] = trial
        return found

    def put(self, trial: Trial) -> None:
        content = asdict(trial)
        content["intermediate"] = {str(share): value for share, value in sorted(trial.intermediate.items())}
        self.storage.write(self._at(f"{trial.number:05d}.json"), dump(content))

    def place(self, trial: Trial) -> Trial:
        """Write down a trial that was just asked for: under the next free number where its own holds other settings.

        Where another driver wrote the same settings down, its record stands.
        """
        number = trial.number
        while (there := self._read(number)) is not None:
            if canonical_json(there.settings) == canonical_json(trial.settings):
                return there
            number += 1
        placed = replace(trial, number=number)
        self.put(placed)
        return placed

    def _read(self, number: int) -> Trial | None:
        data = self.storage.read_many([self._at(f"{number:05d}.json")])
        trial = next((_parsed(content) for content in data.values()), None)
        return trial if trial is not None and trial.number == number else None

    def describe(self, about: Mapping[str, Any]) -> None:
        """Say once, for people and for later reports, what was searched."""
        if not self.storage.exists(self._at(ABOUT)):
            self.storage.write(self._at(ABOUT), dump(dict(about)))

    def _at(self, name: str = "") -> str:
        return "/".join(part for part in (FOLDER, check_name(self.signature), name) if part)


def _parsed(data: bytes) -> Trial | None:
    try:
        content = json.loads(data)
        content["state"] = TrialState(content["state"])
        content["cells"] = tuple(content["cells"])
        content["intermediate"] = {int(share): float(value) for share, value in content["intermediate"].items()}
        content["value"] = None if content["value"] is None else float(content["value"])
        return Trial(**content)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


@dataclass(frozen=True)
class Peek:
    """A study that tests some of the conditions among which a search chose by the same EEG."""

    search: str
    tested: int
    looked_at: int


def peeked(storage: Storage, tested: set[str]) -> Peek | None:
    """The exploratory search that looked at more conditions than `tested`, the TRF cells of a study, and at all these.

    A study that tests every condition that was looked at corrects for all of them: nothing was chosen for it.
    """
    for signature in storage.names(FOLDER) if tested else ():
        records = Records(storage, signature)
        trials = [trial for trial in records.trials().values() if trial.exploratory]
        seen = {cell for trial in trials for cell in trial.cells}
        chosen = [trial for trial in trials if tested.intersection(trial.cells)]
        if tested <= seen and len(chosen) < len(trials):
            return Peek(signature, len(chosen), len(trials))
    return None
