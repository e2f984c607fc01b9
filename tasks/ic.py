"""IC as the stages after ``surprisal`` read it, and its CSV. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

import numpy as np
from safetensors.numpy import load

from tasks.contract import Artefact, TaskError

SAMPLE_RATE_HZ = 44_100
FRAME_SAMPLES = 4096
STAMP = "start of the frame"
"""What the time of a frame is."""


@dataclass(frozen=True)
class IcSeries:
    """IC of one recording, one value per latent frame.

    Attributes
    ----------
    values : (T,) float64 array
        Nats; NaN for frame 0, which has no context.
    lead_samples, trail_samples : int
        Silence left out before the first frame and at the end, in samples at 44 100 Hz.
    """

    values: np.ndarray
    lead_samples: int = 0
    trail_samples: int = 0

    @property
    def start_s(self) -> np.ndarray:
        """Start of each frame, ``(T,)`` seconds from the start of the recording."""
        return (self.lead_samples + FRAME_SAMPLES * np.arange(len(self.values))) / SAMPLE_RATE_HZ


def read_ic(surprisal: Artefact) -> dict[str, IcSeries]:
    """IC by recording id of a finished cell.

    Raises
    ------
    TaskError
        Its frames have another length, or are stamped elsewhere, than here.
    """
    table = json.loads(surprisal.read_bytes("ic.json"))
    for key, known in (("sample_rate_hz", SAMPLE_RATE_HZ), ("frame_samples", FRAME_SAMPLES), ("stamp", STAMP)):
        if table.get(key) != known:
            raise TaskError(
                f"IC of {surprisal.signature}: {key} is {table.get(key)!r} in ic.json, and only {known!r} can be put "
                "in time here. Compute the IC with this version"
            )
    about = table["recordings"]
    values = load(surprisal.read_bytes("ic.safetensors"))
    return {
        name: IcSeries(values[name], int(about[name]["lead_samples"]), int(about[name]["trail_samples"]))
        for name in sorted(values)
    }


def write_csv(stream: TextIO, series: Mapping[float, IcSeries]) -> None:
    """Write the IC of one recording at several noise levels: ``Time,IC_<level>,...``, levels in rising order.

    ``Time`` is the start of the frame in seconds: row k of the frames is at (lead_samples + 4096 k) / 44100. Silence at
    the start and at the end gets ``nan`` rows on the same grid: floor(lead_samples / 4096) before the first frame and
    ceil(trail_samples / 4096) after the last. Frame 0 is ``nan`` too, having no context.

    Raises
    ------
    TaskError
        The levels differ in their number of frames or in their silence: they aren't of one recording.
    """
    levels = sorted(series)
    shapes = {(len(one.values), one.lead_samples, one.trail_samples) for one in series.values()}
    if len(shapes) != 1:
        raise TaskError(
            "A CSV of IC needs levels of one recording, at least one; got (frames, leading samples, trailing samples) "
            f"{sorted(shapes)}. Give the series of one recording id."
        )
    n_frames, lead_samples, trail_samples = shapes.pop()
    before, after = lead_samples // FRAME_SAMPLES, -(-trail_samples // FRAME_SAMPLES)
    stream.write(",".join(["Time", *(f"IC_{level}" for level in levels)]) + "\n")
    for row in range(-before, n_frames + after):
        inside = 0 <= row < n_frames
        cells = [float(series[level].values[row]) if inside else float("nan") for level in levels]
        start_s = (lead_samples + FRAME_SAMPLES * row) / SAMPLE_RATE_HZ
        stream.write(",".join(map(repr, [start_s, *cells])) + "\n")
