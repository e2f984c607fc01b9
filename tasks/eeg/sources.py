"""Where a subject's real EEG comes from: CND files, raw files with a table of events, or a BIDS data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from tasks.audio.recording import recordings
from tasks.config import Config
from tasks.contract import Artefact, OpenFile, TaskError
from tasks.eeg.bids import BidsFiles, read_bids_subject
from tasks.eeg.cnd import read_subject
from tasks.eeg.raw import RawFiles, read_raw_subject
from tasks.eeg.trials import Skipped, Subject, Trial, union_s

NO_POSITIONS = Skipped(
    "-", "no positions of its channels are known: there is no scalp map, and bad channels are removed, not interpolated"
)

SHARED_PLACES = Skipped("-", "planar gradiometers lie in pairs at one place: there is no scalp map of them")


class CndFiles(Config):
    """One subject's file, its data set's stimulus file, and the table of trials; versions name their content.

    `external` says how the reference's mastoids are found: by what the external channels are called (None once meant
    the first two of them).
    """

    file: str
    size: int | None = None
    version: str | None = None
    stimulus_file: str | None = None
    stimulus_version: str | None = None
    trials_file: str | None = None
    trials_version: str | None = None
    external: Literal["described"] | None = Field(None, json_schema_extra={"neutral": None})


def need_all_stimuli(corpus: Artefact) -> None:
    """Trials are paired with recordings by counting only when no recording of the data set is missing."""
    dataset = corpus.config.get("dataset") or {}
    chosen = dataset.get("split", "all") != "all" and dataset.get("split_by") != "within_recording"
    lost = [part["file"] for part in json.loads(corpus.read_bytes("corpus.json"))["skipped"]]
    if chosen or lost or dataset.get("pieces") is not None:
        why = f"{', '.join(lost[:3])} can't be read" if lost else "data.stimuli has split or pieces"
        raise TaskError(
            f"which trial heard which recording is unknown, because some stimuli are left out ({why}): give "
            "cnd.trials, a csv with the columns trial and recording"
        )


def read_source(
    corpus: Artefact,
    subject: str,
    cnd: CndFiles | None,
    raw: RawFiles | None,
    bids: BidsFiles | None,
    open_file: OpenFile,
) -> Subject:
    """One subject's trials from whichever source is given, paired with the recordings of a corpus.

    Raises
    ------
    TaskError
        If no trial can be used, or which trial heard which recording is unknown.
    """
    dataset = corpus.config.get("dataset") or {}
    whole = dataset.get("excerpt_s") is None and dataset.get("split_by") != "within_recording"
    stimuli = recordings(corpus)
    if cnd is None:
        try:
            if raw is not None:
                found = read_raw_subject(raw, stimuli, whole, open_file)
            else:
                assert bids is not None
                found = read_bids_subject(bids, stimuli, whole, open_file)
        except TaskError as error:
            raise TaskError(f"{subject}: {error}") from None
    else:
        if cnd.trials_file is None:
            need_all_stimuli(corpus)
        found = read_subject(cnd.file, cnd.stimulus_file, cnd.trials_file, stimuli, whole, open_file)
    positions = found.sensors.positions
    if positions is None:
        found.skipped.append(NO_POSITIONS)
    elif len(np.unique(positions, axis=0)) < len(positions) and found.sensors.kind == "grad":
        found.skipped.append(SHARED_PLACES)
        found = replace(found, sensors=replace(found.sensors, positions=None))
    return found


def marked(trials: Sequence[Trial]) -> list[Skipped]:
    """What annotations call bad, which the models leave out."""
    found = []
    for trial in trials:
        if trial.bad_spans:
            kinds = ", ".join(dict.fromkeys(description for _, _, description in trial.bad_spans))
            reason = f"{union_s(trial.bad_spans):.2f} of {trial.duration_s:.2f} s are marked {kinds}; they are left out"
            found.append(Skipped(trial.name, reason, trial.recording))
    return found
