"""Features of one's own: their time base, and what is told where something is missing."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from eeg_material import DURATIONS_S, MakeCell
from safetensors.numpy import load_file

from tasks.audio.decoding import resample
from tasks.audio.recording import recordings
from tasks.contract import Artefact, Cell, Context
from tasks.eeg.features import n_eeg_samples, run
from tasks.eeg.own_features import n_samples

RATE = 64


@pytest.fixture
def make_own(tmp_path: Path, corpus: Artefact, make_cell: MakeCell) -> Callable[..., Cell]:
    """A cell of a feature called loud, whose files lie in a folder of the test's."""

    def make(form: str = "hold", columns: tuple[str, ...] = (), **texts: str | bytes) -> Cell:
        files, places = [], {}
        for key, text in texts.items():
            name = f"{key}.npz" if isinstance(text, bytes) else f"{key}.csv"
            content = text if isinstance(text, bytes) else text.encode()
            (tmp_path / name).write_bytes(content)
            files.append({"name": name, "version": f"sha256:{hashlib.sha256(content).hexdigest()}"})
            places[name] = str(tmp_path / name)
        own = {"name": "loud", "columns": list(columns), "form": form, "files": files}
        cell = make_cell(f"cell{len(list(tmp_path.rglob('cell*')))}", "features", {"sample_rate_hz": RATE, "own": own})
        return replace(cell, inputs={"corpus": corpus}, places=places)

    return make


def table(seconds: float, step: float, value: Callable[[float], float] = lambda t: t) -> str:
    rows = [f"{t:.6f},{float(value(t))!r}" for t in np.arange(round(seconds / step)) * step]
    return "\n".join(["time_s,loudness", *rows]) + "\n"


def tables(step: float, value: Callable[[float], float] = lambda t: t) -> dict[str, str | bytes]:
    return {name: table(seconds, step, value) for name, seconds in DURATIONS_S.items()}


def computed(cell: Cell) -> dict[str, np.ndarray]:
    [result] = run([cell], Context())
    assert result.failure is None, result.failure
    return load_file(cell.out_dir / "features.safetensors")


def failure(cell: Cell) -> str:
    [result] = run([cell], Context())
    assert result.failure is not None
    return result.failure


@pytest.mark.parametrize("step", [0.1, 1 / 64, 1 / 30])
def test_a_sample_holds_the_last_value_at_or_before_it(make_own: Callable[..., Cell], step: float) -> None:
    """Also where times are rounded to a ten-thousandth of a second; columns that weren't asked for aren't there."""
    numbered = {
        name: "\n".join(["Time,count,other", *(f"{k * step:.4f},{k},x" for k in range(round(seconds / step)))])
        for name, seconds in DURATIONS_S.items()
    }
    arrays = computed(make_own(columns=("count",), **numbered))
    for name, seconds in DURATIONS_S.items():
        n = int(seconds * 44100) * RATE // 44100
        expected = np.minimum(np.floor(np.arange(n) / RATE / step + 1e-6), round(seconds / step) - 1)
        assert np.array_equal(arrays[f"{name}/loud"], expected[:, None])


def test_series_are_resampled_without_a_shift(make_own: Callable[..., Cell]) -> None:
    arrays = computed(make_own("resample", **tables(1 / 200, lambda t: float(np.cos(2 * np.pi * 3 * t)))))
    for name in DURATIONS_S:
        found = arrays[f"{name}/loud"][:, 0]
        inner = np.arange(len(found))[32:-64]
        np.testing.assert_allclose(found[inner], np.cos(2 * np.pi * 3 * inner / RATE), atol=2e-3)
    assert "equal steps from 0 on, at least 64 a second: use hold" in failure(make_own("resample", **tables(0.1)))


def test_impulses_lie_at_the_nearest_sample(make_own: Callable[..., Cell]) -> None:
    events = dict.fromkeys(DURATIONS_S, "time_s,a,b\n0.5,1,2\n0.505,1,0\n9.99,3,4\n")
    found = computed(make_own("impulses", **events))["audio2/loud"]
    where = {32: (2.0, 2.0), 639: (3.0, 4.0)}
    assert {int(k): tuple(found[k]) for k in np.flatnonzero(found.any(axis=1))} == where
    late = {**events, "audio2": "time_s,a,b\n0.5,1,2\n10.9,1,0\n"}
    assert "audio2.csv (audio2): 10.90 s is outside of the recording, which lasts 10.00 s" in failure(
        make_own("impulses", **late)
    )


def test_arrays_have_one_rate(make_own: Callable[..., Cell], tmp_path: Path) -> None:
    arrays = {name: np.arange(2.0 * round(50 * s)).reshape(-1, 2) for name, s in DURATIONS_S.items()}

    def saved(**more: object) -> bytes:
        np.savez(tmp_path / "made.npz", **{**arrays, "sample_rate_hz": 50.0, **more})  # type: ignore[arg-type]
        return (tmp_path / "made.npz").read_bytes()

    found = computed(make_own(all=saved(elsewhere=np.ones(3))))["audio10/loud"]
    expected = np.minimum(np.arange(len(found)) * 50 // RATE, len(arrays["audio10"]) - 1)
    assert np.array_equal(found, arrays["audio10"][expected])
    holes = arrays["audio2"].copy()
    holes[100, 1] = np.nan
    assert "all.npz: audio2: 1 of 500 samples aren't finite (the first at 2.00 s)" in failure(
        make_own(all=saved(audio2=holes))
    )
    assert "needs one number above 0 called sample_rate_hz" in failure(make_own(all=saved(sample_rate_hz=np.zeros(2))))
    assert "not an .npz file of plain arrays" in failure(make_own(all=b"PK\x03\x04 cut off"))
    single = io.BytesIO()
    np.save(single, np.arange(500.0))
    assert "not an .npz file of plain arrays" in failure(make_own(all=single.getvalue()))
    assert "arrays have no names for their columns" in failure(make_own(columns=("a",), all=saved()))


def test_what_is_missing_is_named_by_file_and_stimulus(make_own: Callable[..., Cell], tmp_path: Path) -> None:
    good = tables(0.1)
    for change, words in (
        ({"audio10": None}, "loud: no values for audio10 in "),
        ({"audio2": "time_s,loudness\n0,1\n0.1,nan\n"}, "audio2.csv: row 2: loudness 'nan' must be a finite number"),
        ({"audio2": "time_s,loudness\n0,1\n0.1\n"}, "audio2.csv: row 2: loudness '' must be a finite number"),
        ({"audio2": "time_s,loudness\n0,1\n0,2\n"}, "audio2.csv: row 2: time_s 0 doesn't rise"),
        ({"audio2": "s,loudness\n0,1\n"}, "audio2.csv: needs a column time_s and at least one row"),
        ({"audio2": "time_s,loud\n0,1\n"}, "audio2.csv (audio2): columns loud, and"),
        (
            {"audio2": table(8.0, 0.1)},
            "audio2.csv (audio2): values from 0.00 to 8.00 s, and the recording lasts 10.00 s",
        ),
        ({name: table(s, 0.1, lambda t: 2.0) for name, s in DURATIONS_S.items()}, "loudness is constant over all"),
    ):
        texts = {name: text for name, text in {**good, **change}.items() if text is not None}
        assert words in failure(make_own(**texts))
    assert "audio1.csv: no column pitch; found time_s, loudness" in failure(make_own(columns=("pitch",), **good))
    cell = make_own(extra="time_s,loudness\n0,1\n", **good)
    [result] = run([cell], Context())
    assert result.metrics["skipped"] == [f"{tmp_path / 'extra.csv'}: extra is none of the stimuli, so it isn't used"]
    (tmp_path / "audio1.csv").write_text(table(12.0, 0.2))
    assert "audio1.csv: its content changed since the study was planned" in failure(cell)
    (tmp_path / "audio1.csv").unlink()
    assert "audio1.csv: can't be read" in failure(cell)


def test_lengths_are_those_of_the_acoustic_features(corpus: Artefact) -> None:
    (stimulus, *_) = recordings(corpus)
    for rate, n in ((48_000, 48_001), (22_050, 30_007), (44_100, 44_099)):
        audio = resample(np.zeros(n, dtype=np.float32), rate)
        for eeg_rate in (64, 100, 30):
            other = replace(stimulus, sample_rate_hz=rate, n_samples=n)
            assert n_samples(other, eeg_rate) == n_eeg_samples(audio.size, eeg_rate)
