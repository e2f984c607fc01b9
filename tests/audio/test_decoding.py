from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tasks.audio.decoding import decode, fingerprint, probe, resample, usable
from tasks.contract import TaskError

REAL = Path(__file__).parents[3] / "shared/data/audio/solo_trumpet.ogg"


def encoded(samples: np.ndarray, rate: int = 44_100, form: str = "FLAC", subtype: str | None = None) -> bytes:
    stream = BytesIO()
    soundfile.write(stream, samples, rate, format=form, subtype=subtype)
    return stream.getvalue()


def noise(n: int, channels: int = 2) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal((n, channels)).clip(-5, 5)


def tone(seconds: float, rate: int, frequency: float = 440.0) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize(("form", "tolerance"), [("FLAC", 1e-4), ("WAV", 1e-4), ("OGG", 0.2), ("MP3", 0.2)])
def test_formats_are_decoded_and_averaged_to_mono(form: str, tolerance: float) -> None:
    samples = np.stack([tone(1, 44_100), 0.5 * tone(1, 44_100)], axis=1)
    content = encoded(samples, form=form)
    assert probe(BytesIO(content)) == (44_100, 44_100)
    mono = decode(BytesIO(content))
    assert mono.dtype == np.float32
    assert np.abs(mono - samples.mean(axis=1)).max() < tolerance


@pytest.mark.parametrize("form", ["FLAC", "WAV", "OGG", "MP3"])
def test_a_part_is_that_part_of_the_whole(form: str) -> None:
    content = encoded(np.stack([tone(5, 44_100)] * 2, axis=1), form=form)
    whole = decode(BytesIO(content))
    part = decode(BytesIO(content), 123_457, 50_000)
    np.testing.assert_array_equal(part, whole[123_457:173_457])


def test_a_recording_longer_than_a_block_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.audio.decoding._BLOCK", 1000)
    samples = noise(2500)
    mono = decode(BytesIO(encoded(samples, form="WAV", subtype="FLOAT")))
    np.testing.assert_allclose(mono, samples.mean(axis=1), atol=1e-7)


@pytest.mark.skipif(not REAL.exists(), reason="the real recordings are not on this machine")
def test_a_real_recording_is_decoded() -> None:
    with REAL.open("rb") as stream:
        assert probe(stream) == (44_100, 235_201)
    with REAL.open("rb") as stream:
        assert len(usable(decode(stream))) == 235_201


@pytest.mark.parametrize("content", [b"", b"not audio" * 100, encoded(noise(44_100), form="MP3")[:100]])
def test_what_is_no_audio_is_refused(content: bytes) -> None:
    with pytest.raises(TaskError, match="not readable as audio"):
        probe(BytesIO(content))


@pytest.mark.parametrize("form", ["FLAC", "MP3"])
def test_truncated_audio_is_refused(form: str) -> None:
    content = encoded(noise(200_000), form=form)
    with pytest.raises(TaskError, match="damaged audio"):
        decode(BytesIO(content[: len(content) // 2]))


def test_what_cannot_be_heard_is_refused() -> None:
    with pytest.raises(TaskError, match="no samples"):
        usable(np.zeros(0, dtype=np.float32))
    with pytest.raises(TaskError, match="silent"):
        usable(np.full(1000, 0.3, dtype=np.float32))
    with pytest.raises(TaskError, match="not finite"):
        usable(np.array([0.1, np.nan, -0.1], dtype=np.float32))
    quiet = (0.0012 * np.sign(noise(1000, 1)[:, 0])).astype(np.float32)
    assert usable(quiet) is quiet


@pytest.mark.parametrize("rate", [8_000, 22_050, 32_000, 44_056, 48_000, 96_000])
def test_resampling_keeps_time_and_level(rate: int) -> None:
    resampled = resample(tone(2, rate).astype(np.float32), rate)
    assert resampled.dtype == np.float32
    assert len(resampled) == -(-2 * rate * 44_100 // rate)
    expected = tone(2, 44_100)[: len(resampled)]
    assert np.abs(resampled - expected)[2000:-2000].max() < 1e-5


def test_resampling_does_not_alias() -> None:
    above = resample(tone(1, 96_000, 30_000).astype(np.float32), 96_000)
    assert np.abs(above[1000:-1000]).max() < 1e-4


def test_44100_is_left_alone() -> None:
    samples = noise(100, 1)[:, 0].astype(np.float32)
    assert resample(samples, 44_100) is samples


def test_fingerprints_are_of_sound_and_not_of_files() -> None:
    pcm = np.round(noise(10_000) * 32768).astype(np.int16)
    wav, flac = (decode(BytesIO(encoded(pcm, form=form, subtype="PCM_16"))) for form in ("WAV", "FLAC"))
    assert fingerprint(wav) == fingerprint(flac)
    changed = wav.copy()
    changed[5000] += 1 / 32768
    assert fingerprint(changed) != fingerprint(wav)
    assert fingerprint(wav[:-1]) != fingerprint(wav)
    assert len(fingerprint(wav)) == 32


@pytest.mark.parametrize("rate", [1, 3_999, 400_001, 2_000_000_000])
def test_impossible_sampling_rates_are_refused(rate: int) -> None:
    with pytest.raises(TaskError, match=f"sampling rate {rate} Hz: 4000 to 400000 Hz are allowed"):
        probe(BytesIO(encoded(noise(100), rate=rate, form="WAV")))
