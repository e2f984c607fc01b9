"""What is understood of a BIDS data set before any study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.manifest_bids import without_recording
from orchestrator.outside import OutsideFile, open_outside
from orchestrator.reading import UsageError
from tasks.contract import TaskError
from tasks.eeg.bids_layout import BidsRecording, recordings_of, subjects_of, tasks_of
from tasks.eeg.source_config import SensorType

if TYPE_CHECKING:
    from tasks.eeg.bids import BidsFiles
    from tasks.eeg.overview import SubjectFacts


def bids_facts(
    path: str, files: Mapping[str, OutsideFile], task: str | None, kind: SensorType | None
) -> tuple[list[SubjectFacts], list[str], str]:
    """Facts by subject, what is missing of the data set, and what it is in a few words.

    Without `kind`, EEG is looked for, and magnetometers where there is nothing in a folder eeg.
    """
    from tasks.eeg.overview import bids_subject

    found, kind = _layout(path, files, task, kind)
    subjects = [bids_subject(name, _read(files, parts, kind), open_outside) for name, parts in found.items() if parts]
    participants = b""
    if "participants.tsv" in files:
        with open_outside(files["participants.tsv"].path) as stream:
            participants = stream.read()
    lacking = without_recording(files, [facts.name for facts in subjects], participants)
    missing = [f"{name}: has no recording here" for name in lacking]
    missing += [] if participants else ["participants.tsv: who the subjects are isn't said"]
    return subjects, missing, f"BIDS, task {task or ', '.join(tasks_of(files))}, {kind}"


def heard_in(path: str, files: Mapping[str, OutsideFile], task: str | None) -> dict[str, list[float]]:
    """What the events of all subjects name as heard, with the durations that they give in seconds.

    Raises
    ------
    UsageError
        If they name nothing.
    """
    from tasks.eeg.bids import heard

    found, kind = _layout(path, files, task, None)
    lasted_s: dict[str, list[float]] = {}
    reasons = []
    for parts in found.values():
        read = _read(files, parts, kind)
        for recording in read.recordings:
            try:
                rows, _ = heard(recording, read.stimulus_column, (), open_outside)
            except TaskError as error:
                reasons.append(f"{recording.name}: {error}")
                continue
            for row in rows:
                lasted_s.setdefault(row.recording, []).extend([] if row.duration_s is None else [row.duration_s])
    if not lasted_s:
        raise UsageError(f"{path}: nothing was heard: {'; '.join(reasons[:3]) or 'there is no recording'}")
    return lasted_s


def _layout(
    path: str, files: Mapping[str, OutsideFile], task: str | None, kind: SensorType | None
) -> tuple[Mapping[str, Sequence[BidsRecording]], SensorType]:
    kind = kind or ("eeg" if any("/eeg/" in name for name in files) else "mag")
    found = recordings_of(files, task, sensor_type=kind)
    if not any(found.values()):
        there = ", ".join(tasks_of(files)) or "none"
        asked = "" if task is None else f" of task {task}"
        whose = (
            f"no {kind} recording{asked} (tasks there: {there})" if subjects_of(files) else "no folder sub-... in it"
        )
        raise UsageError(f"{path}: {whose}")
    return found, kind


def _read(files: Mapping[str, OutsideFile], parts: Sequence[BidsRecording], kind: SensorType) -> BidsFiles:
    from tasks.eeg.bids import BidsFile, BidsFiles, BidsRecordingFiles

    return BidsFiles(
        recordings=tuple(
            BidsRecordingFiles(
                name=part.name,
                events=part.events,
                files=tuple(BidsFile(path=files[file.path].path, place=file.place) for file in part.files),
            )
            for part in parts
        ),
        sensor_type=kind,
    )
