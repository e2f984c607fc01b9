"""Whose files a BIDS data set has, for the manifest: subjects with their recordings, and who has none."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterable
from typing import Any

from tasks.eeg.bids_layout import recordings_of, subjects_of, tasks_of
from tasks.eeg.source_config import BidsConfig

File = dict[str, Any]
BidsSubjects = dict[str, tuple[File, ...]]
"""Recordings by subject: ``{"name", "events", "files": [{"path", "place", "size", "version"}]}``."""


def bids_key(bids: BidsConfig) -> str:
    """What decides which files of which data set a study means."""
    return json.dumps([bids.path, bids.task, bids.session, bids.run, bids.sensor_type])


def bids_subjects(bids: BidsConfig, names: Iterable[str], describe: Callable[[str], File]) -> BidsSubjects:
    """The subjects who have a recording of what `bids` asks for; `describe` fingerprints a file of the data set."""
    layout = recordings_of(names, bids.task, bids.session, bids.run, bids.sensor_type)
    return {
        subject: tuple(
            {
                "name": one.name,
                "events": one.events,
                "files": [{**describe(file.path), "place": file.place} for file in one.files],
            }
            for one in recordings
        )
        for subject, recordings in layout.items()
        if recordings
    }


def without_recording(names: Iterable[str], found: Collection[str], participants: bytes) -> list[str]:
    """Who has a folder or is listed in participants.tsv, and isn't among `found`."""
    rows = csv.DictReader(participants.decode("utf-8-sig", errors="replace").splitlines(), delimiter="\t")
    listed = [name for row in rows if (name := (row.get("participant_id") or "").strip())]
    return [name for name in dict.fromkeys((*subjects_of(names), *listed)) if name not in found]


def nothing_there(bids: BidsConfig, names: Iterable[str]) -> str:
    """Why a folder that has files has nobody in it."""
    listed = list(names)
    if not subjects_of(listed):
        return "no BIDS data set there (it needs folders sub-...)"
    asked = [f"{key} {label}" for key, label in (("session", bids.session), ("run", bids.run)) if label is not None]
    there = ", ".join(tasks_of(listed)) or "none"
    wanted = ", ".join([f"task {bids.task}", *asked])
    return f"no {bids.sensor_type} recording of {wanted} in it (tasks there: {there})"


def declared(bids: BidsConfig) -> BidsSubjects:
    """The subjects of a data set that isn't there yet."""
    n_subjects = bids.expect.subjects if bids.expect is not None else 1
    return {f"sub-{number:02d}": () for number in range(1, n_subjects + 1)}
