"""IC as the stages after ``surprisal`` read it, and its tables. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Literal, TextIO

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from tasks.contract import Artefact, TaskError

SAMPLE_RATE_HZ = 44_100
FRAME_SAMPLES = 4096
STAMP = "start of the frame"
"""What the time of a frame is."""

Stamp = Literal["start", "end", "published"]
"""Which time a row of a table has; `tabulate` says what they mean."""


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


@dataclass(frozen=True)
class Table:
    """IC of one recording in rows.

    Attributes
    ----------
    time_samples : (N,) int64 array
        What each row is stamped with, in samples at 44 100 Hz from the start of the recording.
    columns : mapping
        ``IC_<level>`` to ``(N,)`` float64 nats; NaN where there is no IC.
    """

    time_samples: NDArray[np.int64]
    columns: Mapping[str, NDArray[np.float64]]

    @property
    def time_s(self) -> NDArray[np.float64]:
        """The stamps in seconds."""
        seconds: NDArray[np.float64] = self.time_samples / SAMPLE_RATE_HZ
        return seconds


def tabulate(series: Mapping[float | str, IcSeries], stamp: Stamp = "start") -> Table:
    """Put the IC of one recording at several noise levels into rows, columns in the order of `series`.

    Silence gets NaN rows on the frames' grid: floor(lead_samples / 4096) before the first frame and
    ceil(trail_samples / 4096) after the last.

    Parameters
    ----------
    series : mapping
        Noise level, as it is to be written, to the IC there.
    stamp : {"start", "end", "published"}
        With ``start`` frame j has the time of its first sample, lead_samples + 4096 j, and with ``end`` that of the
        first sample after it; frame 0, which has no context, has a NaN row. With ``published`` rows and stamps are
        those of CPJKU/pa-audioic: no row for frame 0, and row k (from 0, silence included) at 4096 (k + 1) samples,
        which is the start of the frame it describes when no silence leads, and up to one frame before it otherwise.

    Raises
    ------
    TaskError
        The levels differ in their number of frames or in their silence: they aren't of one recording.
    """
    shapes = {(len(one.values), one.lead_samples, one.trail_samples) for one in series.values()}
    if len(shapes) != 1:
        raise TaskError(
            "A table of IC needs levels of one recording, at least one; got (frames, leading samples, trailing "
            f"samples) {sorted(shapes)}. Give the series of one recording id."
        )
    n_frames, lead_samples, trail_samples = shapes.pop()
    before, after = lead_samples // FRAME_SAMPLES, -(-trail_samples // FRAME_SAMPLES)
    first = 1 if stamp == "published" else 0
    n_rows = before + max(n_frames - first, 0) + after
    if stamp == "published":
        start = FRAME_SAMPLES
    else:
        start = lead_samples - FRAME_SAMPLES * before + (FRAME_SAMPLES if stamp == "end" else 0)
    columns = {
        f"IC_{level}": np.pad(one.values[first:], (before, after), constant_values=np.nan)
        for level, one in series.items()
    }
    return Table(start + FRAME_SAMPLES * np.arange(n_rows, dtype=np.int64), columns)


def write_csv(stream: TextIO, table: Table) -> None:
    """Write ``Time,IC_<level>,...``: seconds and nats, as many digits as bring the same float64 back."""
    stream.write(",".join(["Time", *table.columns]) + "\n")
    for row in zip(table.time_s.tolist(), *(column.tolist() for column in table.columns.values()), strict=True):
        stream.write(",".join(map(repr, row)) + "\n")


def write_parquet(stream: BinaryIO, table: Table) -> None:
    """Write the same columns as parquet, float64."""
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"Time": table.time_s, **table.columns}), stream)
