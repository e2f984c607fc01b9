"""A recording of a corpus: what is known of it, how to load it, and which ones two corpora have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.audio.clusters import related
from tasks.audio.config import CorpusConfig
from tasks.audio.decoding import decode, fingerprint, resample
from tasks.contract import Artefact, OpenFile, TaskError


@dataclass(frozen=True)
class Recording:
    """One part of one audio file.

    Attributes
    ----------
    id : str
        Unique in its corpus, fit for file names, the same in every role.
    piece : str
        The unit of cross-validation.
    cluster : int or None
        The family of related tunes it belongs to; None for audio that isn't rendered from notes.
    file : str or None
        Name in the corpus's own ``out`` folder, when the recording was rendered.
    path : str or None
        Path or URL outside, when it wasn't.
    sample_rate_hz, start_sample, n_samples : int
        The part, in samples at the file's own rate.
    pcm_fingerprint : str
        Hash of its mono samples at 44 100 Hz and 16 bits.
    within_recording : bool
        Whether another part of the same file is held out for (or from) it.
    notes : tuple of (onset_s, duration_s, midi_pitch), or None
        What is played, when it is known.
    """

    id: str
    piece: str
    cluster: int | None
    file: str | None
    path: str | None
    sample_rate_hz: int
    start_sample: int
    n_samples: int
    pcm_fingerprint: str
    within_recording: bool
    notes: tuple[tuple[float, float, int], ...] | None

    @property
    def duration_s(self) -> float:
        """How long the part lasts, in seconds."""
        return self.n_samples / self.sample_rate_hz


def recordings(corpus: Artefact) -> list[Recording]:
    """All recordings of a finished corpus, in its order."""
    listed = json.loads(corpus.read_bytes("corpus.json"))["recordings"]
    return [Recording(**{**entry, "notes": _notes(entry["notes"])}) for entry in listed]


def _notes(listed: Sequence[Sequence[float]] | None) -> tuple[tuple[float, float, int], ...] | None:
    return None if listed is None else tuple((onset, duration, int(pitch)) for onset, duration, pitch in listed)


def load_audio(recording: Recording, corpus: Artefact, open_file: OpenFile) -> NDArray[np.float32]:
    """Decode the part of a file that `recording` names.

    Parameters
    ----------
    recording : Recording
        One of ``recordings(corpus)``.
    corpus : Artefact
        The corpus it belongs to.
    open_file : callable
        Opens files of the outside world.

    Returns
    -------
    numpy.ndarray of float32, shape (n_samples,)
        Mono, at 44 100 Hz.

    Raises
    ------
    TaskError
        When the file can't be decoded (any more), or a file outside no longer holds what it held when the corpus was
        made.
    """
    if recording.file is not None:
        with corpus.open(recording.file) as stream:
            mono = decode(stream, recording.start_sample, recording.n_samples)
        return resample(mono, recording.sample_rate_hz)
    assert recording.path is not None, f"{recording.id}: neither file nor path"
    with open_file(recording.path) as stream:
        mono = decode(stream, recording.start_sample, recording.n_samples)
    audio = resample(mono, recording.sample_rate_hz)
    if fingerprint(audio) != recording.pcm_fingerprint:
        raise TaskError(
            f"{recording.path}: its audio changed since the corpus was made (or is decoded otherwise on this machine). "
            "Restore it, or plan and run again"
        )
    return audio


def check_disjoint(corpora: Mapping[str, Artefact], known: str = "train") -> list[str]:
    """Say what the corpus `known` has in common with every other role.

    Compared are: decoded audio, overlapping parts of one file, clusters of tunes (where both corpora come from the same
    tunes), and the melodies themselves (where they don't, by the n-grams and overlap of the other role's split). Two
    parts of one recording that don't overlap have nothing in common.

    Parameters
    ----------
    corpora : mapping of str to Artefact
        Corpora by role; one of them is `known`.
    known : str
        The role that the others are compared with.

    Returns
    -------
    list of str
        One sentence for each recording of another role that is in `known`; empty when there is none.
    """
    first = corpora[known]
    heard = recordings(first)
    return [
        f"{role}: {recording.id} {reason}"
        for role, corpus in corpora.items()
        if role != known
        for recording, reason in _shared(recordings(corpus), corpus, heard, first, known)
    ]


def _shared(
    others: Sequence[Recording], corpus: Artefact, heard: Sequence[Recording], first: Artefact, role: str
) -> list[tuple[Recording, str]]:
    """The recordings among `others` that are in `heard` in any way, with the first way found."""
    audio = {known.pcm_fingerprint: known.id for known in heard}
    related_to = _clusters(heard, others) if _tunes(first) == _tunes(corpus) else _melodies(heard, others, corpus)
    by_path: dict[str | None, list[Recording]] = {}
    for known in heard:
        by_path.setdefault(known.path, []).append(known)
    found = []
    for other in others:
        twin = next((known.id for known in by_path.get(other.path, []) if _overlap(known, other)), None)
        if other.pcm_fingerprint in audio:
            found.append((other, f"has the same audio as {audio[other.pcm_fingerprint]} in {role}"))
        elif twin is not None:
            found.append((other, f"is a part of the file of {twin} that {role} holds too"))
        elif other.id in related_to:
            found.append((other, f"has a melody related to that of {related_to[other.id]} in {role}"))
    return found


def _overlap(one: Recording, other: Recording) -> bool:
    """Whether two parts of one file outside share samples."""
    return (
        one.path is not None
        and one.start_sample < other.start_sample + other.n_samples
        and other.start_sample < one.start_sample + one.n_samples
    )


def _tunes(corpus: Artefact) -> tuple[object, ...]:
    """What decides the numbers of clusters: they compare only between corpora of the same tunes."""
    config = CorpusConfig.model_validate(corpus.config)
    return config.dataset.source, config.dataset.path, config.split.ngram, config.split.overlap


def _clusters(heard: Sequence[Recording], others: Sequence[Recording]) -> dict[str, str]:
    """The ids of `others` whose cluster is in `heard`, with an id from there."""
    known = {recording.cluster: recording.id for recording in heard if recording.cluster is not None}
    return {other.id: known[other.cluster] for other in others if other.cluster in known}


def _melodies(heard: Sequence[Recording], others: Sequence[Recording], corpus: Artefact) -> dict[str, str]:
    """The ids of `others` whose melody is related to one of `heard`, with its id."""
    split = CorpusConfig.model_validate(corpus.config).split
    first = [recording for recording in heard if recording.notes]
    both = [*first, *(recording for recording in others if recording.notes)]
    if len(first) in (0, len(both)):
        return {}
    melodies = [[pitch for _, _, pitch in recording.notes or ()] for recording in both]
    pairs = related(melodies, split.ngram, split.overlap)
    return {both[b].id: both[a].id for a, b in pairs[::-1] if a < len(first) <= b}
