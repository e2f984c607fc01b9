"""Where a subject's real EEG comes from: CND files, or raw files with a table of events."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tasks.audio.recording import recordings
from tasks.config import Config
from tasks.contract import Artefact, OpenFile, TaskError
from tasks.eeg.cnd import read_subject
from tasks.eeg.raw import RawFiles, read_raw_subject
from tasks.eeg.trials import Skipped, Subject, Trial, union_s

NO_POSITIONS = Skipped(
    "-", "no positions of its channels are known: there is no scalp map, and bad channels are removed, not interpolated"
)


class CndFiles(Config):
    """One subject's file, its data set's stimulus file, and the table of trials; versions name their content."""

    file: str
    size: int | None = None
    version: str | None = None
    stimulus_file: str | None = None
    stimulus_version: str | None = None
    trials_file: str | None = None
    trials_version: str | None = None


def _need_all_stimuli(corpus: Artefact) -> None:
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
    corpus: Artefact, subject: str, cnd: CndFiles | None, raw: RawFiles | None, open_file: OpenFile
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
    if raw is not None:
        try:
            found = read_raw_subject(raw, stimuli, whole, open_file)
        except TaskError as error:
            raise TaskError(f"{subject}: {error}") from None
    else:
        assert cnd is not None
        if cnd.trials_file is None:
            _need_all_stimuli(corpus)
        found = read_subject(cnd.file, cnd.stimulus_file, cnd.trials_file, stimuli, whole, open_file)
    if found.sensors.positions is None:
        found.skipped.append(NO_POSITIONS)
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
