"""Audio files to mono samples at 44 100 Hz: soundfile reads, a polyphase filter resamples."""

from __future__ import annotations

import hashlib
from math import gcd
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import firwin, resample_poly

from tasks.audio.config import SAMPLE_RATE_HZ
from tasks.contract import TaskError

Samples = NDArray[np.float32]

SILENT_RMS = 0.001
MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 400_000
_BLOCK = 1 << 20
_FILTER_PERIODS = 32
_CUTOFF = 0.96
_KAISER_BETA = 12.0


def probe(stream: BinaryIO) -> tuple[int, int]:
    """Sampling rate in Hz and number of samples per channel of an audio file, without decoding it.

    Raises
    ------
    TaskError
        When libsndfile doesn't know the format, the file is damaged, or its sampling rate is outside 4 to 400 kHz.
    """
    with _sound_file(stream) as sound:
        if not MIN_RATE_HZ <= sound.samplerate <= MAX_RATE_HZ:
            raise TaskError(f"sampling rate {sound.samplerate} Hz: {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz are allowed")
        return int(sound.samplerate), int(sound.frames)


def decode(stream: BinaryIO, start_sample: int = 0, n_samples: int | None = None) -> Samples:
    """Read a part of an audio file and average its channels.

    Parameters
    ----------
    stream : binary stream
        wav, flac, ogg, mp3, or whatever else libsndfile reads.
    start_sample, n_samples : int
        The part, in samples at the file's own rate; all to the end by default.

    Returns
    -------
    numpy.ndarray of float32, shape (n_samples,)
        At the file's own rate.

    Raises
    ------
    TaskError
        When the file is damaged, or ends before the part does.
    """
    with _sound_file(stream) as sound:
        wanted = sound.frames - start_sample if n_samples is None else n_samples
        try:
            mono = (
                _read_mp3(sound, start_sample, wanted) if sound.format == "MP3" else _read(sound, start_sample, wanted)
            )
        except (soundfile.SoundFileError, RuntimeError, ValueError, MemoryError) as error:
            raise TaskError(f"damaged audio ({error})") from error
    if len(mono) != wanted:
        raise TaskError(f"damaged audio: its header promises {wanted} samples here, {len(mono)} can be decoded")
    return mono


def _read(sound: soundfile.SoundFile, start_sample: int, n_samples: int) -> Samples:
    """Decode in blocks, so that no more than one block is held in stereo."""
    sound.seek(start_sample)
    parts = [np.zeros(0, dtype=np.float32)]
    while n_samples > 0:
        block = sound.read(min(n_samples, _BLOCK), dtype="float32", always_2d=True)
        if not len(block):
            break
        n_samples -= len(block)
        parts.append(block.mean(axis=1, dtype=np.float32))
    return np.concatenate(parts)


def _read_mp3(sound: soundfile.SoundFile, start_sample: int, n_samples: int) -> Samples:
    """Decode from the start in one call: seeks in mp3 can be samples off, and soundfile seeks in each call."""
    block = sound.read(start_sample + n_samples, dtype="float32", always_2d=True)
    mono: Samples = block[start_sample:].mean(axis=1, dtype=np.float32)
    return mono


def _sound_file(stream: BinaryIO) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(stream)
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        raise TaskError("not readable as audio: wav, flac, ogg and mp3 are") from error


def usable(mono: Samples) -> Samples:
    """Return `mono` when there is something to hear in it.

    Raises
    ------
    TaskError
        When it is empty, not finite, or silent: an RMS below 0.001 of full scale without its mean.
    """
    if not len(mono):
        raise TaskError("no samples")
    if not np.isfinite(mono).all():
        raise TaskError("holds samples that are not finite")
    rms = float(np.std(mono, dtype=np.float64))
    if rms < SILENT_RMS:
        raise TaskError(f"silent: RMS {rms:.2g} of full scale after the mix to mono, at least {SILENT_RMS} is needed")
    return mono


def resample(mono: Samples, rate_hz: int) -> Samples:
    """Bring samples to 44 100 Hz with a linear-phase polyphase filter (Kaiser window, beta 12).

    Parameters
    ----------
    mono : numpy.ndarray of float32, shape (n_samples,)
    rate_hz : int
        Their sampling rate.

    Returns
    -------
    numpy.ndarray of float32, shape (ceil(n_samples * 44100 / rate_hz),)
        Sample k lies at k / 44 100 s, as sample 0 of the input lies at 0 s.
    """
    if rate_hz == SAMPLE_RATE_HZ:
        return mono
    common = gcd(SAMPLE_RATE_HZ, rate_hz)
    up, down = SAMPLE_RATE_HZ // common, rate_hz // common
    slower = max(up, down)
    taps = firwin(2 * _FILTER_PERIODS * slower + 1, _CUTOFF / slower, window=("kaiser", _KAISER_BETA))
    resampled: Samples = resample_poly(mono, up, down, window=taps.astype(np.float32)).astype(np.float32)
    return resampled


def fingerprint(audio: Samples) -> str:
    """128 bits of mono audio at 44 100 Hz, hexadecimal: equal for equal sound at 16 bits, whatever the file format."""
    pcm = np.clip(np.round(audio * np.float32(32768)), -32768, 32767).astype("<i2")
    return hashlib.blake2b(pcm.tobytes(), digest_size=16).hexdigest()
