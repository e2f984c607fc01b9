from __future__ import annotations

import io
import math
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pyarrow import parquet

from tasks.contract import Artefact, Context, TaskError
from tasks.ic import IcSeries, Stamp, read_ic, tabulate, write_csv, write_parquet
from tasks.surprisal import run

if TYPE_CHECKING:
    from conftest import Inputs

LEAD_SAMPLES, TRAIL_SAMPLES = 10_000, 5_000


def rows(series: Any, stamp: Stamp = "start") -> tuple[str, list[list[float]]]:
    stream = io.StringIO()
    write_csv(stream, tabulate(series, stamp))
    header, *lines = stream.getvalue().splitlines()
    return header, [list(map(float, line.split(","))) for line in lines]


def series(n_frames: int, lead_samples: int = 0, trail_samples: int = 0) -> IcSeries:
    return IcSeries(np.array([np.nan, *range(1, n_frames)], dtype=float), lead_samples, trail_samples)


def test_the_csv_of_a_cell_has_its_header_its_rows_and_exact_stamps(tmp_path: Path, inputs: Inputs) -> None:
    cells = {level: inputs.cell(tmp_path / str(level), level) for level in (0.5, 0.0)}
    list(run(list(cells.values()), Context()))
    found = {
        level: read_ic(Artefact("ic", "surprisal", {}, {}, lambda name, own=cell: (own.out_dir / name).open("rb")))  # type: ignore[misc]
        for level, cell in cells.items()
    }
    header, lines = rows({level: found[level]["short"] for level in cells})
    assert header == "Time,IC_0.5,IC_0.0"
    assert len(lines) == LEAD_SAMPLES // 4096 + 12 + math.ceil(TRAIL_SAMPLES / 4096)
    assert [row[0] for row in lines] == [(LEAD_SAMPLES + 4096 * j) / 44100 for j in range(-2, 14)]
    assert [math.isnan(row[1]) for row in lines] == [True] * 3 + [False] * 11 + [True] * 2
    assert [row[2] for row in lines[3:14]] == found[0.0]["short"].values[1:].tolist()
    assert found[0.0]["short"].start_s.tolist() == [row[0] for row in lines[2:14]]


def test_without_silence_there_are_no_rows_around_the_frames() -> None:
    stream = io.StringIO()
    write_csv(stream, tabulate({0.3: IcSeries(np.array([np.nan, 1.5]))}))
    assert stream.getvalue() == "Time,IC_0.3\n0.0,nan\n0.09287981859410431,1.5\n"


@pytest.mark.parametrize(("lead", "before"), [(0, 0), (1, 0), (4095, 0), (4096, 1), (8191, 1), (8192, 2)])
@pytest.mark.parametrize(("trail", "after"), [(0, 0), (1, 1), (4096, 1), (4097, 2)])
def test_silence_is_counted_in_samples(lead: int, before: int, trail: int, after: int) -> None:
    header, lines = rows({"0.30": series(3, lead, trail)})
    assert header == "Time,IC_0.30"
    assert [math.isnan(row[1]) for row in lines] == [True] * (before + 1) + [False] * 2 + [True] * after
    assert lines[before][0] == lead / 44100
    assert 0 <= lines[0][0] < 4096 / 44100


def test_a_stamp_is_the_start_of_its_frame_its_end_or_the_published_tools() -> None:
    given = {"0": series(4, 10_000, 5_000)}
    starts, ends, published = (rows(given, stamp)[1] for stamp in ("start", "end", "published"))
    assert [row[0] for row in starts] == [float(Fraction(10_000 + 4096 * j, 44_100)) for j in range(-2, 6)]
    assert [row[0] for row in ends] == [float(Fraction(10_000 + 4096 * (j + 1), 44_100)) for j in range(-2, 6)]
    assert [row[0] for row in published] == [(k + 1) * 4096 / 44_100 for k in range(2 + 3 + 2)]
    assert [row[1] for row in published[2:5]] == [1, 2, 3]
    assert [row[1] for row in starts[3:6]] == [row[1] for row in ends[3:6]] == [1, 2, 3]
    assert all(math.isnan(row[1]) for row in [*published[:2], *published[5:]])


def test_without_silence_the_published_stamps_are_the_starts_of_the_frames() -> None:
    starts, published = rows({"0": series(5)})[1], rows({"0": series(5)}, "published")[1]
    assert published == starts[1:]


def test_parquet_holds_the_same_numbers(tmp_path: Path) -> None:
    table = tabulate({"0": series(4, 5000, 1), "0.60": series(4, 5000, 1)})
    with (tmp_path / "a.parquet").open("wb") as stream:
        write_parquet(stream, table)
    read = parquet.read_table(tmp_path / "a.parquet")
    assert read.column_names == ["Time", "IC_0", "IC_0.60"]
    assert read["Time"].to_pylist() == table.time_s.tolist()
    assert np.array_equal(read["IC_0.60"].to_numpy(), table.columns["IC_0.60"], equal_nan=True)


@pytest.mark.parametrize("given", [{}, {0.0: series(3), 0.5: series(4)}, {0.0: series(3), 0.5: series(3, 1)}])
def test_a_table_of_two_recordings_is_refused(given: dict[float, Any]) -> None:
    with pytest.raises(TaskError, match="levels of one recording"):
        tabulate(given)  # type: ignore[arg-type]
