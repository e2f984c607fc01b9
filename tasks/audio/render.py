"""A small additive synthesiser: melodies to audio, deterministic, with onsets exact to the sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.audio.config import SAMPLE_RATE_HZ, RenderConfig
from tasks.contract import TaskError

TimeUnit = Literal["quarter", "second"]
Note = tuple[float, float, int]
"""Onset, duration (in quarter notes or seconds), MIDI pitch."""

StruckNote = tuple[float, float, int, int]
"""A note with its MIDI velocity, 1 to 127."""

MAX_VELOCITY = 127

PEAK = 0.5
TAIL_S = 0.25
ATTACK_S = 0.005
RELEASE_S = 0.02
HARMONIC_DAMPING = 0.3
"""Harmonic k decays 1 + HARMONIC_DAMPING * (k - 1) times as fast as the fundamental."""

_BLOCK = 256


def render(
    notes: Sequence[Note | StruckNote],
    config: RenderConfig,
    rng: np.random.Generator,
    time_unit: TimeUnit,
    excerpt_s: float | None = None,
) -> tuple[NDArray[np.float32], list[Note]]:
    """Play a melody.

    Each note is a sum of decaying harmonics below the Nyquist frequency, with a raised-cosine attack of 5 ms at its
    onset and a release that ends with the note. Tempo, slope and decay are drawn once, the level of each note anew; a
    note with a velocity has the level of that instead.

    Parameters
    ----------
    notes : sequence of (onset, duration, pitch) or (onset, duration, pitch, velocity)
        In `time_unit`; pitch is a MIDI number (69 is 440 Hz), velocity 1 to 127.
    config : RenderConfig
        Ranges to draw from.
    rng : numpy.random.Generator
        The stream of this rendering.
    time_unit : {"quarter", "second"}
        Quarter notes are played at the drawn tempo, seconds as they stand.
    excerpt_s : float, optional
        Keep only the notes that end by this time.

    Returns
    -------
    audio : numpy.ndarray of float32, shape (n_samples,)
        At 44 100 Hz, peak 0.5; the last note is followed by 0.25 s of silence.
    notes : list of (onset_s, duration_s, pitch)
        What was played: times are whole samples, in seconds.

    Raises
    ------
    TaskError
        When no note is left to play, or a note starts before 0.
    """
    tempo, slope = rng.uniform(*config.tempo_bpm), rng.uniform(*config.spectral_slope_db_per_octave)
    decay_s = rng.uniform(*config.decay_s)
    drawn_db = rng.uniform(*config.velocity_db, size=len(notes))
    levels_db = [_level_db(note, db, config.velocity_db) for note, db in zip(notes, drawn_db, strict=True)]
    levels = 10 ** (np.array(levels_db) / 20)
    bpm = tempo if config.vary_tempo else sum(config.tempo_bpm) / 2
    unit_s = 60 / bpm if time_unit == "quarter" else 1.0
    limit = np.inf if excerpt_s is None else excerpt_s * SAMPLE_RATE_HZ
    gridded = [(*_on_grid(note, unit_s), level) for note, level in zip(notes, levels, strict=True)]
    played = [note for note in gridded if note[1] <= limit]
    if not played:
        raise TaskError(f"no note ends within {excerpt_s} s: use a longer excerpt_s" if notes else "it has no notes")
    if min(note[0] for note in played) < 0:
        raise TaskError("a note starts before time 0")
    audio = np.zeros(max(note[1] for note in played) + round(TAIL_S * SAMPLE_RATE_HZ), dtype=np.float32)
    amplitudes = 10 ** (slope * np.log2(np.arange(1, config.harmonics + 1)) / 20)
    for start, end, pitch, level in played:
        audio[start:end] += _tone(pitch, end - start, level * amplitudes, decay_s)
    audio *= np.float32(PEAK / np.abs(audio).max())
    return audio, [(start / SAMPLE_RATE_HZ, (end - start) / SAMPLE_RATE_HZ, pitch) for start, end, pitch, _ in played]


def _level_db(note: Note | StruckNote, drawn_db: float, range_db: tuple[float, float]) -> float:
    """The drawn level, or that of the note's velocity: the upper end of the range at 127, never below the lower end."""
    if len(note) == 3:
        return drawn_db
    return max(range_db[0], range_db[1] + 20 * math.log10(note[3] / MAX_VELOCITY))


def _on_grid(note: Note | StruckNote, unit_s: float) -> tuple[int, int, int]:
    """First sample, sample after the last, and pitch of a note; it lasts at least one sample."""
    onset, duration, pitch = note[:3]
    start = round(onset * unit_s * SAMPLE_RATE_HZ)
    return start, max(start + 1, round((onset + duration) * unit_s * SAMPLE_RATE_HZ)), pitch


def _tone(pitch: int, n_samples: int, amplitudes: NDArray[np.float64], decay_s: float) -> NDArray[np.float32]:
    """One note: Im(sum of a_k z^k) under the envelope that all harmonics share, where z turns and decays by sample."""
    frequency = 440.0 * 2 ** ((pitch - 69) / 12)
    audible = amplitudes[: max(int(np.ceil(SAMPLE_RATE_HZ / 2 / frequency)) - 1, 0)]
    rate = 1 / (decay_s * SAMPLE_RATE_HZ)
    turn = np.exp(-HARMONIC_DAMPING * rate + 2j * np.pi * frequency / SAMPLE_RATE_HZ)
    z = _powers(turn, n_samples)
    total = np.zeros(n_samples, dtype=np.complex64)
    for amplitude in audible[::-1]:
        total += np.float32(amplitude)
        total *= z
    tone = total.imag * _powers(np.exp((HARMONIC_DAMPING - 1) * rate), n_samples).real
    return _ramped(tone.astype(np.float32))


def _powers(ratio: complex, n: int) -> NDArray[np.complex64]:
    """``ratio ** [0, 1, ..., n - 1]`` as an outer product of two short series."""
    fine = ratio ** np.arange(_BLOCK)
    coarse = (ratio**_BLOCK) ** np.arange(-(-n // _BLOCK))
    return np.multiply.outer(coarse.astype(np.complex64), fine.astype(np.complex64)).reshape(-1)[:n]


def _ramped(tone: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fade the tone in and out, each over at most half of it."""
    attack = min(round(ATTACK_S * SAMPLE_RATE_HZ), len(tone) // 2)
    release = min(round(RELEASE_S * SAMPLE_RATE_HZ), len(tone) // 2)
    tone[:attack] *= _rise(attack)
    tone[len(tone) - release :] *= _rise(release)[::-1]
    return tone


def _rise(n: int) -> NDArray[np.float32]:
    ramp: NDArray[np.float64] = 0.5 - 0.5 * np.cos(np.pi * (np.arange(n) + 0.5) / max(n, 1))
    return ramp.astype(np.float32)
