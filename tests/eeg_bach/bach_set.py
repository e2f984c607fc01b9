"""A data set with the layout of the Bach set: 30 trials of ten pieces, 64 + 2 channels at 512 Hz, MIDI files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import mido
import numpy as np
import numpy.typing as npt
import scipy.io
from scipy.signal import fftconvolve, lfilter

from tasks.eeg.montage import biosemi_64

Floats = npt.NDArray[np.floating[Any]]
RATE_HZ, PADDING, STIM_RATE_HZ = 512, 512, 64
N_PIECES, N_REPETITIONS, N_CHANNELS, N_MASTOIDS = 10, 3, 64, 2
N_TRIALS = N_PIECES * N_REPETITIONS
PIECES = tuple(f"audio{number}" for number in range(1, N_PIECES + 1))
TICKS_PER_BEAT = 480


def write_melody(path: Path, seed: int, seconds: float) -> None:
    """A random walk over a scale with notes of two lengths, at 120 beats a minute."""
    random = np.random.default_rng(seed)
    track, pitch, beats = mido.MidiTrack(), 72, 0.0
    track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(120), time=0))
    while beats < 2 * seconds:
        length = float(random.choice([0.5, 1.0]))
        pitch = int(np.clip(pitch + random.choice([-5, -4, -2, -1, 1, 2, 3, 7]), 55, 88))
        velocity = int(random.integers(50, 110))
        track.append(mido.Message("note_on", note=pitch, velocity=velocity, time=0))
        track.append(mido.Message("note_off", note=pitch, time=round(length * TICKS_PER_BEAT)))
        beats += length
    mido.MidiFile(tracks=[track], ticks_per_beat=TICKS_PER_BEAT).save(path)


def seconds_of(piece: int) -> float:
    """Pieces differ in length."""
    return 9.0 + 0.5 * (piece % 4)


def response_kernel(latency_s: float) -> Floats:
    """A deflection of 100 ms at `latency_s`, between 0 and 400 ms."""
    t = np.arange(round(0.4 * RATE_HZ)) / RATE_HZ
    return np.asarray(np.exp(-0.5 * ((t - latency_s) / 0.04) ** 2))


def response(drivers: Mapping[float, Floats], weights: Mapping[float, float]) -> Floats:
    """What one channel answers to drivers at 512 Hz, given by latency in seconds; each with its weight."""
    parts = [
        weights[latency] * fftconvolve(own, response_kernel(latency))[: own.size] for latency, own in drivers.items()
    ]
    return np.asarray(sum(parts))


def trial_eeg(random: np.random.Generator, answer: Floats, topography: Floats, n_late: int) -> Floats:
    """One trial as recorded, shape (samples, 66) float32 in microvolts: offsets, coloured noise, the answer.

    The stimulus begins after the padding; the recording goes on for `n_late` samples after its end.
    """
    n = PADDING + answer.size + n_late
    lone = random.standard_normal((n, N_CHANNELS + N_MASTOIDS), dtype=np.float32)
    shared = random.standard_normal((n, 4), dtype=np.float32) @ random.normal(size=(4, 66)).astype(np.float32)
    noise = lfilter([1.0], [1.0, -0.95], lone + 0.5 * shared, axis=0)
    noise[PADDING : PADDING + answer.size] += answer[:, None] * topography
    return np.asarray(noise + random.normal(0, 2e3, 66), dtype=np.float32)


def trials_of(number: int, answers: Sequence[Floats], scale: float = 1.0) -> tuple[list[Floats], npt.NDArray[np.int64]]:
    """Trials of one subject in the stimuli's order, and the order in which they were presented (from 1)."""
    random = np.random.default_rng([7, number])
    topography = np.append(0.5 + random.random(N_CHANNELS), np.zeros(N_MASTOIDS)) * scale
    order = random.permutation(N_TRIALS) + 1
    trials = [
        trial_eeg(random, answers[trial % N_PIECES], topography, int(random.integers(0, RATE_HZ)))
        for trial in range(N_TRIALS)
    ]
    return trials, order


def _cells(items: Sequence[Any]) -> npt.NDArray[Any]:
    cell = np.empty((1, len(items)), dtype=object)
    cell[0, :] = items
    return cell


def _places() -> list[tuple[str, float, float, float]]:
    """Label, X, Y and Z of every channel as EEGLAB has them: X to the nose, Y to the left ear."""
    cap = biosemi_64()
    assert cap.positions is not None
    return [(name, y, -x, z) for name, (x, y, z) in zip(cap.names, cap.positions.tolist(), strict=True)]


def write_stimuli(folder: Path, envelopes: Sequence[Floats], onsets: Sequence[Floats]) -> None:
    """``dataStim.mat``: three features at 64 Hz, a cell per feature and trial."""
    data = np.empty((3, N_TRIALS), dtype=object)
    for trial in range(N_TRIALS):
        envelope, onset = (np.asarray(rows[trial % N_PIECES]).reshape(-1, 1) for rows in (envelopes, onsets))
        data[0, trial], data[1, trial], data[2, trial] = envelope, onset, 60 * onset
    names = _cells(["Envelope", "Note onsets", "Pitch"])
    scipy.io.savemat(folder / "dataStim.mat", {"stim": {"names": names, "fs": float(STIM_RATE_HZ), "data": data}})


def write_v5(folder: Path, number: int, trials: Sequence[Floats], order: npt.NDArray[np.int64]) -> None:
    """``dataSubN.mat`` as MATLAB writes it by default, with the positions of the cap."""
    external = {"description": "Mastoids", "data": _cells([trial[:, N_CHANNELS:] for trial in trials])}
    eeg = {
        "dataType": "EEG",
        "deviceName": "BioSemi",
        "fs": float(RATE_HZ),
        "data": _cells([trial[:, :N_CHANNELS] for trial in trials]),
        "chanlocs": np.array([_places()], dtype=[(key, object) for key in ("labels", "X", "Y", "Z")]),
        "extChan": _cells([external]),
        "origTrialPosition": order.astype(np.float64)[None],
        "paddingStartSample": float(PADDING),
    }
    scipy.io.savemat(folder / f"dataSub{number}.mat", {"eeg": eeg})


def write_v7_3(folder: Path, number: int, trials: Sequence[Floats], order: npt.NDArray[np.int64]) -> None:
    """The same as version 7.3, an HDF5 file whose cells are references, as MATLAB does above 2 GB."""
    path = folder / f"dataSub{number}.mat"
    with h5py.File(path, "w", userblock_size=512) as file:

        def marked(item: Any, kind: str) -> Any:
            item.attrs["MATLAB_class"] = np.bytes_(kind)
            return item

        def cell(group: Any, name: str, items: Sequence[Any]) -> None:
            references = marked(group.create_dataset(name, (len(items), 1), dtype=h5py.ref_dtype), "cell")
            for place, item in enumerate(items):
                references[place, 0] = item.ref

        def matrices(prefix: str, columns: slice) -> list[Any]:
            return [
                marked(file.create_dataset(f"#refs#/{prefix}{place}", data=trial[:, columns].T), "single")
                for place, trial in enumerate(trials)
            ]

        eeg = marked(file.create_group("eeg"), "struct")
        for name, value in (("fs", [[float(RATE_HZ)]]), ("paddingStartSample", [[float(PADDING)]])):
            marked(eeg.create_dataset(name, data=value), "double")
        marked(eeg.create_dataset("origTrialPosition", data=order.astype(np.float64)[:, None]), "double")
        cell(eeg, "data", matrices("eeg", slice(N_CHANNELS)))
        cap = marked(eeg.create_group("chanlocs"), "struct")
        names, *axes = zip(*_places(), strict=True)
        for key, values in zip("XYZ", axes, strict=True):
            stored = [file.create_dataset(f"#refs#/{key}{k}", data=[[value]]) for k, value in enumerate(values)]
            cell(cap, key, [marked(item, "double") for item in stored])
        letters = [[[ord(letter)] for letter in name] for name in names]
        stored = [file.create_dataset(f"#refs#/label{k}", data=np.uint16(text)) for k, text in enumerate(letters)]
        cell(cap, "labels", [marked(item, "char") for item in stored])
        external = marked(file.create_group("#refs#/external"), "struct")
        cell(external, "data", matrices("mastoids", slice(N_CHANNELS, None)))
        cell(eeg, "extChan", [external])
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


def write_set(
    folder: Path,
    envelopes: Sequence[Floats],
    onsets: Sequence[Floats],
    answers: Sequence[Floats],
) -> dict[str, list[int]]:
    """Two subjects, one in each version of the format; returns the order of presentation by subject."""
    folder.mkdir()
    write_stimuli(folder, envelopes, onsets)
    orders = {}
    writers: tuple[Callable[..., None], ...] = (write_v5, write_v7_3)
    for number, write in enumerate(writers, 1):
        trials, order = trials_of(number, answers)
        write(folder, number, trials, order)
        orders[f"dataSub{number}"] = [int(position) for position in order]
    return orders
