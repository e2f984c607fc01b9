"""Cells that are fitted together: what they share is computed once, and never changes their bits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load

from tasks.audio.recording import recordings
from tasks.config import Config
from tasks.contract import Artefact, Cell, TaskError
from tasks.eeg import masks
from tasks.eeg.choosing import Choosing
from tasks.eeg.config import TrfConfig
from tasks.eeg.folds import Folds, Heard, make_folds, prepare
from tasks.eeg.lags import Lagged, lag_samples
from tasks.eeg.masks import Spans
from tasks.eeg.reduced import inputs_of, read_parts
from tasks.eeg.regressors import FitModel, Regressor, read_regressor
from tasks.eeg.sufficient import Layout, Part, reduced_sums, response_sums

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]


class FitConfig(Config):
    """The config of a `trf` cell.

    A subject's channels choose one lambda together; listeners of one channel each (`lambda_per` channel) choose alone.
    """

    trf: TrfConfig
    model: FitModel
    sample_rate_hz: int
    lambda_per: Literal["subject", "channel"] = "subject"

    @property
    def choosing(self) -> Choosing:
        """How lambda is chosen."""
        own = self.trf
        alone = "channel" in (self.lambda_per, own.lambda_per)
        return Choosing(alone, own.criterion, own.lambda_ic or (), own.lambda_full, own.precision)


@dataclass(frozen=True)
class Subject:
    """One subject's usable trials: `trials[piece][part]` lists arrays of shape (T of the part, C), as they are stored.

    `Bench.heard` forgets them once they are summed: they are most of the memory that a group of subjects takes.
    `skipped` says what isn't used, and why.
    """

    name: str
    channels: tuple[str, ...]
    layout: Layout
    trials: tuple[tuple[tuple[Floats | Singles, ...], ...], ...]
    skipped: tuple[str, ...] = ()


NO_GAPS: Mapping[str, Spans] = {}


def read_subject(
    eeg: Artefact,
    pieces: Mapping[str, str],
    lengths: Mapping[str, int],
    rate: int,
    n_lags: int = 1,
    gaps: Mapping[str, Spans] = NO_GAPS,
) -> Subject:
    """Trials of a subject, grouped by piece, in an order of their own whatever the source's.

    Bad segments and `gaps` are masks of a trial. A trial of which fewer samples than the lag window has are left is
    skipped.

    Parameters
    ----------
    eeg : Artefact
        Of the stage `eeg`.
    pieces : mapping of recording to piece
        The unit of cross-validation: all trials of all recordings of a piece share a fold.
    lengths : mapping of recording to int
        Samples of the stimuli that have features and IC. Trials of others are left out; longer trials are cut.
    rate : int
        Samples per second that the EEG must have.
    n_lags : int
        Lags of the TRF.
    gaps : mapping of recording to Spans
        Rows that lack IC at some lag.

    Raises
    ------
    TaskError
        If the EEG has another rate.
    """
    described = json.loads(eeg.read_bytes("eeg.json"))
    if described["sample_rate_hz"] != rate:
        raise TaskError(f"{described['subject']}: EEG at {described['sample_rate_hz']} Hz, the TRF wants {rate} Hz")
    arrays = load(eeg.read_bytes("eeg.safetensors"))
    heard: dict[str, dict[tuple[str, int, Spans], list[Floats | Singles]]] = {}
    skipped = []
    for trial in sorted(described["trials"], key=lambda entry: (entry["recording"], entry["repetition"])):
        recording = trial["recording"]
        if recording in lengths:
            data = arrays[trial["key"]][: lengths[recording]]
            masked = masks.merged((*trial.get("masks", ()), *gaps.get(recording, ())), len(data))
            if (reason := _too_little(len(data), masks.count(masked), n_lags)) is not None:
                named = f"{described['subject']}, {pieces[recording]}"
                skipped.append(f"{named}: trial {trial['key']} is left out, {reason}")
                continue
            heard.setdefault(pieces[recording], {}).setdefault((recording, len(data), masked), []).append(data)
    for recording in sorted({key[0] for parts in heard.values() for key in parts} & gaps.keys()):
        lost_s = masks.count(gaps[recording]) / rate
        named = f"{described['subject']}, {pieces[recording]}"
        skipped.append(f"{named}: gaps in IC leave {lost_s:.2f} of {lengths[recording] / rate:.2f} s out")
    names = tuple(sorted(heard))
    parts = tuple(
        tuple(Part(*key[:2], len(heard[piece][key]), key[2]) for key in sorted(heard[piece])) for piece in names
    )
    trials = tuple(tuple(tuple(heard[piece][key]) for key in sorted(heard[piece])) for piece in names)
    layout = Layout(names, parts)
    return Subject(described["subject"], tuple(described["channels"]), layout, trials, tuple(skipped))


def _too_little(n_samples: int, n_masked: int, n_lags: int) -> str | None:
    """Why a trial can't be used; None where it can."""
    if n_samples < n_lags:
        return f"it has {n_samples} samples and the lag window {n_lags}; give longer trials or a shorter window"
    if n_samples - n_masked < n_lags:
        return (
            f"bad segments and gaps in IC leave {n_samples - n_masked} of its {n_samples} samples, and the lag window "
            f"has {n_lags}"
        )
    return None


class Bench:
    """Stimuli, folds and subjects of one (reduced model with its inputs, TRF setting); each is prepared once."""

    def __init__(self, cell: Cell, config: FitConfig) -> None:
        rate, trf = config.sample_rate_hz, config.trf
        self.config = config
        self.lags = lag_samples(trf.lag_min_s, trf.lag_max_s, rate)
        self.recordings = {recording.id: recording for recording in recordings(cell.input("corpus"))}
        parts = read_parts(cell, config.model, self.recordings, rate)
        self.reduced, self.n_beside, self._missing = parts.values, parts.n_beside, parts.missing
        self.lengths = {key: len(values) for key, values in self.reduced.items()}
        self.design = {key: Lagged(self.reduced[key], self.lags) for key in self.lengths}
        self._folds: dict[Layout, Folds] = {}
        self._heard: dict[tuple[str, Layout], Heard] = {}
        self._subjects: dict[tuple[str, tuple[str, ...], tuple[tuple[str, Spans], ...]], Subject] = {}

    def regressor(self, source: Artefact) -> Regressor:
        """IC of one noise level, or the true driver; it has a gap wherever the reduced model has one.

        So what isn't looked at is regressed on nothing, and isn't shifted or shuffled to where it would be.
        """
        config = self.config
        found = read_regressor(source, self.recordings, self.lengths, config.model, config.sample_rate_hz)
        present, missing = dict(found.present), dict(found.missing)
        for key in found.values.keys() & self._missing.keys():
            missing[key] = masks.merged((*missing.get(key, ()), *self._missing[key]), self.lengths[key])
            present[key] = present[key].copy()
            present[key][masks.indices(missing[key])] = False
        return replace(found, present=present, missing=missing)

    def subject(self, eeg: Artefact, regressor: Regressor) -> Subject:
        """A subject's trials of the stimuli that have IC."""
        usable = tuple(sorted(regressor.values))
        key = (eeg.signature, usable, tuple(sorted(regressor.missing.items())))
        if key not in self._subjects:
            pieces = {recording: self.recordings[recording].piece for recording in usable}
            lengths = {recording: self.lengths[recording] for recording in usable}
            gaps = {name: self._gaps(regressor, name) for name in usable if self._gaps(regressor, name)}
            self._subjects[key] = read_subject(eeg, pieces, lengths, self.config.sample_rate_hz, self.lags.size, gaps)
        return self._subjects[key]

    def _gaps(self, regressor: Regressor, name: str) -> Spans:
        """Rows of a recording with a lagged copy of a sample at which IC, or what stands in for it, has no value."""
        return masks.touched(regressor.missing.get(name, ()), self.lags, self.lengths[name])

    def folds(self, subject: Subject) -> Folds:
        """Training sets of the subject's layout."""
        layout = subject.layout
        if layout not in self._folds:
            lambdas = self.config.trf.lambdas
            choosing = self.config.choosing
            needed = 3 if max(len(lambdas), len(choosing.lambdas_ic)) > 1 else 2
            if len(layout.pieces) < needed:
                raise TaskError(
                    f"{subject.name}: {len(layout.pieces)} piece(s) with EEG, features and IC "
                    f"({', '.join(layout.pieces) or 'none'}); at least {needed} are needed"
                    + (" (one held out, two to choose lambda with)" if needed == 3 else " (one is held out)")
                    + "".join(f"; {reason}" for reason in subject.skipped[:3])
                )
            self._folds[layout] = make_folds(reduced_sums(layout, self.design), lambdas, choosing=choosing)
        return self._folds[layout]

    def heard(self, eeg: Artefact, subject: Subject) -> Heard:
        """The subject's sums in the basis of every fold."""
        key = (eeg.signature, subject.layout)
        if key not in self._heard:
            folds = self.folds(subject)
            self._heard[key] = prepare(folds, response_sums(subject.layout, self.design, subject.trials))
            known = next(name for name, own in self._subjects.items() if own is subject)
            self._subjects[known] = replace(subject, trials=())
        return self._heard[key]


def _identity(cell: Cell, config: Mapping[str, Any]) -> str:
    roles = inputs_of(FitModel.of_signed(config["model"]))
    inputs = [[found.signature for found in cell.collection(role)] for role in roles]
    return json.dumps([inputs, config], sort_keys=True)


def by_bench(cells: Sequence[Cell]) -> Iterator[list[Cell]]:
    """Cells that share config, corpus and all that the reduced model is read from, in the order in which they came.

    With ``ic_null`` each variant and noise level is by itself, with ``latent_step`` each variant.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(_identity(cell, cell.config), []).append(cell)
    yield from groups.values()


def by_level(cells: Sequence[Cell], bench: Bench) -> Iterator[tuple[Artefact, list[Cell]]]:
    """Cells that share IC (or the true driver), with the artefact that it is read from."""
    groups: dict[str, tuple[Artefact, list[Cell]]] = {}
    for cell in cells:
        source = cell.input(bench.config.model.source)
        groups.setdefault(source.signature, (source, []))[1].append(cell)
    yield from groups.values()


@dataclass(frozen=True)
class Listening:
    """A cell with its subject, ready to be fitted."""

    cell: Cell
    subject: Subject
    heard: Heard


def by_layout(
    bench: Bench, regressor: Regressor, cells: Sequence[Cell], failed: dict[str, str]
) -> Iterator[tuple[Folds, list[Listening]]]:
    """Subjects with the same pieces, trials and lengths; `failed` gets the reason of each cell that can't be fitted."""
    groups: dict[Layout, list[Listening]] = {}
    for cell in cells:
        try:
            eeg = cell.input("eeg")
            heard = bench.heard(eeg, bench.subject(eeg, regressor))
            subject = bench.subject(eeg, regressor)
            groups.setdefault(subject.layout, []).append(Listening(cell, subject, heard))
        except TaskError as error:
            failed[cell.signature] = str(error)
    for group in groups.values():
        yield bench.folds(group[0].subject), group
