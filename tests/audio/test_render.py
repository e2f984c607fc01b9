import numpy as np
import pytest

from tasks.audio.config import RenderConfig
from tasks.audio.render import render
from tasks.contract import TaskError
from tasks.seeds import numpy_stream

PLAIN = RenderConfig(tempo_bpm=(60, 60), velocity_db=(0, 0), decay_s=(0.5, 0.5), spectral_slope_db_per_octave=(-6, -6))


def play(notes, config=PLAIN, name="a", unit="second", **options):
    return render(notes, config, numpy_stream("test", name), unit, **options)


def test_onsets_are_exact_to_the_sample() -> None:
    notes = [(0.0, 0.3, 60), (0.5003, 0.2, 72), (1.25, 0.25, 55)]
    audio, played = play(notes)
    for (onset, duration, pitch), (start, length, same) in zip(notes, played, strict=True):
        sample = round(onset * 44_100)
        assert start == sample / 44_100
        assert abs(length - duration) <= 1 / 44_100
        assert same == pitch
        assert np.abs(audio[max(sample - 200, 0) : sample]).max(initial=0) == 0
        assert np.abs(audio[sample : sample + 3]).max() > 0
    assert len(audio) == round(1.5 * 44_100) + round(0.25 * 44_100)
    assert not audio[round(1.5 * 44_100) :].any()


def test_peak_type_and_pitch() -> None:
    audio, _ = play([(0.0, 1.0, 69)])
    assert audio.dtype == np.float32
    assert np.abs(audio).max() == pytest.approx(0.5, abs=1e-6)
    spectrum = np.abs(np.fft.rfft(audio[:44_100] * np.hanning(44_100)))
    assert spectrum.argmax() == 440
    levels = 20 * np.log10(spectrum[[440, 880, 1760]] / spectrum[440])
    assert -9 < levels[1] < -6  # -6 dB per octave, and the second harmonic decays faster
    assert -20 < levels[2] < -12


def test_nothing_lies_above_the_last_harmonic_below_nyquist() -> None:
    audio, _ = play([(0.0, 1.0, 108)], RenderConfig(harmonics=32, velocity_db=(0, 0)))  # 4186 Hz: five harmonics
    spectrum = np.abs(np.fft.rfft(audio[:44_100] * np.hanning(44_100)))
    near = np.abs(np.arange(len(spectrum))[:, None] - 4186.009 * np.arange(1, 6)).min(axis=1) < 600
    assert spectrum[~near].max() < 1e-3 * spectrum.max()


def test_a_pitch_above_nyquist_is_silent_beside_others() -> None:
    audio, played = play([(0.0, 0.5, 60), (0.5, 0.5, 140)])
    assert len(played) == 2
    assert not audio[22_050:].any()


def test_same_stream_same_bytes_other_stream_other_sound() -> None:
    notes = [(0.0, 1.0, 60), (1.0, 1.0, 64)]
    config = RenderConfig()
    first, played = play(notes, config, "a", "quarter")
    again, _ = play(notes, config, "a", "quarter")
    other, other_played = play(notes, config, "b", "quarter")
    assert first.tobytes() == again.tobytes()
    assert other_played != played
    assert len(first) != len(other)


def test_tempo_varies_only_for_quarter_notes_and_only_when_asked() -> None:
    notes = [(0.0, 1.0, 60), (1.0, 1.0, 64)]
    ranges = RenderConfig(tempo_bpm=(60, 180))
    assert play(notes, ranges, unit="second")[1][1][0] == 1.0
    assert 1 / 3 < play(notes, ranges, unit="quarter")[1][1][0] < 1.0
    fixed = ranges.model_copy(update={"vary_tempo": False})
    assert play(notes, fixed, "a", "quarter")[1][1][0] == play(notes, fixed, "b", "quarter")[1][1][0] == 0.5


def test_velocities_stay_in_their_range() -> None:
    notes = [(0.5 * i, 0.5, 60) for i in range(40)]
    audio, _ = play(notes, PLAIN.model_copy(update={"velocity_db": (-12.0, -6.0)}))
    peaks = np.abs(audio[: 40 * 22_050].reshape(40, -1)).max(axis=1)
    assert 3 < 20 * np.log10(peaks.max() / peaks.min()) <= 6.001


def test_an_excerpt_keeps_the_notes_that_end_in_it() -> None:
    notes = [(0.0, 1.0, 60), (1.0, 1.0, 64), (2.0, 1.0, 67)]
    audio, played = play(notes, excerpt_s=2.5)
    assert [pitch for _, _, pitch in played] == [60, 64]
    assert len(audio) == round(2.25 * 44_100)
    with pytest.raises(TaskError, match="longer excerpt_s"):
        play(notes, excerpt_s=0.5)


def test_nothing_to_play_is_said() -> None:
    with pytest.raises(TaskError, match="no notes"):
        play([])
    with pytest.raises(TaskError, match="before time 0"):
        play([(-0.5, 1.0, 60)])


def test_a_very_short_note_is_played() -> None:
    audio, played = play([(0.0, 1e-6, 60), (0.1, 0.2, 62)])
    assert played[0][1] == 1 / 44_100
    assert np.isfinite(audio).all()


def test_a_velocity_sets_the_level_within_the_range_and_draws_stay_those_of_the_stream() -> None:
    levels = PLAIN.model_copy(update={"velocity_db": (-12.0, -3.0)})
    struck = [(0.5 * i, 0.5, 60, velocity) for i, velocity in enumerate([127, 100, 60, 20, 1])]
    audio, played = play(struck, levels)
    peaks = np.abs(audio[: 5 * 22_050].reshape(5, -1)).max(axis=1)
    assert 20 * np.log10(peaks / peaks[0]) == pytest.approx([0, -2.076, -6.513, -9, -9], abs=0.01)
    assert played == [(0.5 * i, 0.5, 60) for i in range(5)]
    again, _ = play(struck, levels, "another stream")
    assert audio.tobytes() == again.tobytes()
