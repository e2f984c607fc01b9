"""Acoustic features of recordings at the EEG's sample rate: what any listener to sound would follow.

Sample k of every feature describes the instant ``k / rate`` of the recording, exactly: windows are centred there, so
no feature lags behind another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field
from safetensors.numpy import save_file
from scipy import fft, signal

from tasks.alignment import impulses
from tasks.audio.config import SAMPLE_RATE_HZ
from tasks.audio.recording import Recording, load_audio, recordings
from tasks.config import Config
from tasks.contract import Artefact, Cell, Context, OpenFile, Result, TaskError
from tasks.eeg.feature_config import OwnFeature
from tasks.eeg.own_features import read_own
from tasks.eeg.source_config import ShippedFiles

Floats = npt.NDArray[np.float64]

N_BANDS = 8
BAND_EDGES_HZ = (50.0, 8000.0)
EXPONENT = 0.3
"""Compression of magnitudes: loudness grows about with this power of sound pressure's envelope."""

ONSET_GAP_S = 0.06
_BLOCK = 1024


class FeaturesConfig(Config):
    """The config of the stage `features`: the EEG's rate in Hz; `own` is a feature of one's own instead.

    `shipped` is where onsets come from, if not from us.
    """

    sample_rate_hz: int
    own: OwnFeature | None = Field(None, json_schema_extra={"neutral": None})
    shipped: ShippedFiles | None = Field(None, json_schema_extra={"neutral": None})


def n_eeg_samples(n_audio_samples: int, rate: int) -> int:
    """Samples at `rate` whose instants lie within `n_audio_samples` of 44.1 kHz audio."""
    return n_audio_samples * rate // SAMPLE_RATE_HZ


def mel_weights(n_fft: int) -> Floats:
    """Triangular filters, equally wide on the mel scale 2595 log10(1 + f / 700).

    Returns
    -------
    ndarray of float64, shape (n_fft // 2 + 1, N_BANDS)
        Weights of the power spectrum's bins.
    """
    low, high = (2595 * np.log10(1 + edge / 700) for edge in BAND_EDGES_HZ)
    corners = 700 * (10 ** (np.linspace(low, high, N_BANDS + 2) / 2595) - 1)
    bins = np.arange(n_fft // 2 + 1)[:, None] * (SAMPLE_RATE_HZ / n_fft)
    rising = (bins - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - bins) / (corners[2:] - corners[1:-1])
    weights: Floats = np.clip(np.minimum(rising, falling), 0, None)
    return weights


def spectrogram(audio: npt.NDArray[np.floating], rate: int) -> Floats:
    """Eight-band mel spectrogram: magnitudes (roots of band powers) to the power 0.3.

    Parameters
    ----------
    audio : ndarray, shape (n,)
        Mono at 44.1 kHz.
    rate : int
        Samples per second of the result.

    Returns
    -------
    ndarray of float64, shape (n * rate // 44100, 8)
        Hann windows of two sample periods, centred at ``k / rate``; silence beyond the audio's ends.
    """
    window = 2 * round(SAMPLE_RATE_HZ / rate)
    n_fft = 1 << (window - 1).bit_length()
    taper = signal.windows.hann(window, sym=False) / window
    weights = mel_weights(n_fft)
    n_samples = n_eeg_samples(audio.size, rate)
    starts = (np.arange(n_samples) * SAMPLE_RATE_HZ + rate // 2) // rate
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(audio.astype(np.float64), window // 2), window)
    result = np.empty((n_samples, N_BANDS))
    for first in range(0, n_samples, _BLOCK):
        block = frames[starts[first : first + _BLOCK]] * taper
        power = np.abs(fft.rfft(block, n_fft, axis=1)) ** 2
        result[first : first + _BLOCK] = (power @ weights) ** (EXPONENT / 2)
    return result


def envelope(audio: npt.NDArray[np.floating], rate: int) -> Floats:
    """Broadband envelope: magnitude of the analytic signal, low-passed (zero phase), sampled at `rate`.

    Parameters
    ----------
    audio : ndarray, shape (n,)
        Mono at 44.1 kHz.
    rate : int
        Samples per second of the result.

    Returns
    -------
    ndarray of float64, shape (n * rate // 44100,)
        Linear (not compressed), never negative.
    """
    n = audio.size
    if n_eeg_samples(n, rate) == 0:
        return np.zeros(0)
    length = fft.next_fast_len(n)
    spectrum = fft.fft(audio.astype(np.float64), length)
    spectrum[1 : (length + 1) // 2] *= 2
    spectrum[length // 2 + 1 :] = 0
    magnitude = np.abs(fft.ifft(spectrum)[:n])
    low_pass = signal.butter(4, 0.4 * rate, fs=SAMPLE_RATE_HZ, output="sos")
    smooth = signal.sosfiltfilt(low_pass, magnitude, padlen=min(n - 1, 4 * SAMPLE_RATE_HZ // rate))
    instants = np.arange(n_eeg_samples(n, rate)) * (SAMPLE_RATE_HZ / rate)
    sampled: Floats = np.interp(instants, np.arange(n), smooth)
    return np.maximum(sampled, 0.0)


def derivative(values: Floats) -> Floats:
    """Half-wave rectified difference along time: rises only; the first sample is 0."""
    return np.maximum(np.diff(values, axis=0, prepend=values[:1]), 0.0)


def detected_onsets(rises: Floats, rate: int) -> Floats:
    """Onsets of a recording without notes: peaks of the summed rises, at least 60 ms apart.

    Parameters
    ----------
    rises : ndarray, shape (T, bands)
        Half-wave rectified derivative of a compressed spectrogram.
    rate : int
        Samples per second.

    Returns
    -------
    ndarray of float64, shape (T,)
        1 at peaks above the mean plus one standard deviation of the flux, else 0.
    """
    flux = rises.sum(axis=1)
    found = np.zeros(flux.size)
    if flux.size > 2 and np.ptp(flux) > 0:
        peaks, _ = signal.find_peaks(flux, height=flux.mean() + flux.std(), distance=max(1, round(ONSET_GAP_S * rate)))
        found[peaks] = 1.0
    return found


def onsets(recording: Recording, audio: npt.NDArray[np.floating], rate: int) -> Floats:
    """Impulses of height 1 at the onsets of the recording's notes, or at detected ones where it has none.

    Returns
    -------
    ndarray of float64, shape (n * rate // 44100,)
    """
    if recording.notes is None:
        return detected_onsets(derivative(spectrogram(audio, rate)), rate)
    times = [note[0] for note in recording.notes]
    return impulses(times, np.ones(len(times)), rate, n_eeg_samples(audio.size, rate))


def onset_source(
    corpus: Artefact, files: ShippedFiles | None, open_file: OpenFile
) -> Callable[[Recording, npt.NDArray[np.floating], int], Floats]:
    """`onsets`, or where `files` name a CND data set the onsets that it ships: a function of the same arguments.

    Raises
    ------
    TaskError
        If that data set has no onsets, or which trial heard which recording is unknown.
    """
    if files is None:
        return onsets
    from tasks.eeg.shipped_onsets import ShippedOnsets  # which needs the envelope of this module

    return ShippedOnsets(corpus, files, open_file).of


def _features(
    corpus: Artefact, rate: int, files: ShippedFiles | None, open_file: OpenFile
) -> tuple[dict[str, Floats], dict[str, int]]:
    onsets_of = onset_source(corpus, files, open_file)
    arrays: dict[str, Floats] = {}
    lengths: dict[str, int] = {}
    for recording in recordings(corpus):
        audio = load_audio(recording, corpus, open_file)
        bands = spectrogram(audio, rate)
        arrays[f"{recording.id}/spectrogram"] = bands
        arrays[f"{recording.id}/derivative"] = derivative(bands)
        arrays[f"{recording.id}/onsets"] = onsets_of(recording, audio, rate)[:, None]
        arrays[f"{recording.id}/envelope"] = envelope(audio, rate)[:, None]
        lengths[recording.id] = bands.shape[0]
    if not lengths:
        raise TaskError("the stimuli have no recording: features need at least one")
    return arrays, lengths


def run(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Stage `features`: spectrogram, its rises, onsets and envelope of every stimulus at the EEG's rate.

    Writes ``features.safetensors`` ("<id>/spectrogram" (T, 8), "<id>/derivative" (T, 8), "<id>/onsets" (T, 1),
    "<id>/envelope" (T, 1), float64) and ``features.json``. A cell of a feature of one's own has "<id>/<name>" (T, F)
    instead, and its name in the table.

    Parameters
    ----------
    cells : sequence of Cell
        Config as `FeaturesConfig`; input ``corpus`` (the stimuli); places of the files of a feature of one's own.
    context : Context
        Opens recordings and other files that lie outside the ledger.

    Yields
    ------
    Result
        Metrics n_recordings, seconds (of all recordings together) and, of a feature of one's own, skipped (files that
        belong to no stimulus).
    """
    for done, cell in enumerate(cells):
        config = FeaturesConfig.of_signed(cell.config)
        rate, about, metrics = config.sample_rate_hz, {}, {}
        try:
            if config.own is None:
                arrays, lengths = _features(cell.input("corpus"), rate, config.shipped, context.open_file)
            else:
                arrays, lengths, unused = _own(cell, config.own, rate, context.open_file)
                about, metrics = {"own": config.own.name}, {"skipped": unused[:20]}
        except TaskError as error:
            yield Result(cell.signature, failure=str(error))
            continue
        save_file(
            {key: np.ascontiguousarray(arrays[key]) for key in sorted(arrays)}, cell.out_dir / "features.safetensors"
        )
        table = {"sample_rate_hz": rate, "recordings": {name: {"n_samples": n} for name, n in lengths.items()}, **about}
        (cell.out_dir / "features.json").write_text(json.dumps(table, sort_keys=True), encoding="utf-8")
        context.progress(done + 1, len(cells), {})
        seconds = sum(lengths.values()) / rate
        yield Result(cell.signature, metrics={"n_recordings": len(lengths), "seconds": seconds, **metrics})


def _own(
    cell: Cell, own: OwnFeature, rate: int, open_file: OpenFile
) -> tuple[dict[str, Floats], dict[str, int], list[str]]:
    stimuli = recordings(cell.input("corpus"))
    if not stimuli:
        raise TaskError("the stimuli have no recording: features need at least one")
    found, unused = read_own(own, cell.places, stimuli, rate, open_file)
    lengths = {key: len(values) for key, values in found.items()}
    return {f"{key}/{own.name}": values for key, values in found.items()}, lengths, unused
