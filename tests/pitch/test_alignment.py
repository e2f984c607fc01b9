"""IC frames on notes and on samples, at the boundaries where an off-by-one would hide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.alignment import FRAME_S, hold, impulses, note_ic


@dataclass(frozen=True)
class Series:
    values: np.ndarray
    start_s: np.ndarray


def series(lead_samples: int = 0, values: tuple[float, ...] = (np.nan, 1.0, 3.0, 9.0)) -> Series:
    return Series(np.array(values), (lead_samples + 4096 * np.arange(len(values))) / 44100)


def test_a_note_gets_the_frame_that_contains_its_onset() -> None:
    starts = series().start_s
    notes = [(0.0, 1, 60), (starts[1], 1, 60), (starts[2] - 1e-4, 1, 60), (starts[2], 1, 60), (starts[3] + 0.09, 1, 60)]
    np.testing.assert_array_equal(note_ic(series(), notes, "onset"), [np.nan, 1, 1, 3, 9])
    np.testing.assert_array_equal(note_ic(series(), notes, "onset_and_next"), [np.nan, 2, 2, 6, np.nan])
    np.testing.assert_array_equal(note_ic(series(), notes, "maximum"), [np.nan, 3, 3, 9, np.nan])


def test_notes_outside_of_all_frames_have_no_ic() -> None:
    late = series(lead_samples=4096)
    notes = [(0.01, 1, 60), (late.start_s[-1] + FRAME_S, 1, 60), (late.start_s[1], 1, 60)]
    np.testing.assert_array_equal(note_ic(late, notes, "onset"), [np.nan, np.nan, 1])
    assert np.isnan(note_ic(series(values=()), notes, "onset")).all()


def test_hold_takes_each_frame_from_its_start() -> None:
    lead = 44100 // 2
    held = hold(series(lead), 64, 64)
    times = np.arange(64) / 64
    expected = np.full(64, np.nan)
    for start, value in zip(series(lead).start_s, series().values, strict=True):
        expected[(times >= start) & (times < start + FRAME_S)] = value
    np.testing.assert_array_equal(held, expected)
    assert np.isfinite(held).sum() == np.sum((times >= 0.5 + FRAME_S) & (times < 0.5 + 4 * FRAME_S))


def test_impulses_go_to_the_nearest_sample_and_add_up() -> None:
    found = impulses([0.0, 0.49 / 64, 0.51 / 64, 5 / 64, 99.0, -1.0, 3 / 64], [1, 2, 4, 8, 16, 32, np.nan], 64, 6)
    np.testing.assert_array_equal(found, [3, 4, 0, 0, 0, 8])
