"""The full calibration: every generator of null data, every test and every null distribution, as a table and a picture.

Run by `make calibrate`, or alone: `python tests/statistics/calibrate.py [--data-sets N] [--power-data-sets N]
[--channels C] [--permutations B] [--melodies FOLDER] [--out FOLDER]`; without the Bach melodies random ones are used,
and said so. The last lines are one JSON object per cell and per effect size. The same lines go to
FOLDER/benchmarks/results, the tables and the picture to FOLDER/docs/results (FOLDER: the repository). Exit status 1
where a cell doesn't do what it must, or power falls short.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any, get_args

import numpy as np
from calibration_report import draw, page, power_section
from null_data import GENERATORS
from power import BACH, Power, melodies, notes, power, strong_enough
from rates import Cell, judge, offered, p_values

from tasks.eeg.config import Null
from tasks.eeg.nulls import CALIBRATED

Array = np.ndarray[Any, Any]
ROOT = Path(__file__).parents[2]
DIAGNOSTICS: tuple[Null, ...] = tuple(null for null in get_args(Null) if null not in CALIBRATED)


def calibrate(n_data_sets: int) -> list[Cell]:
    """All cells; says on stderr how far it is."""
    found: dict[str, dict[tuple[str, str], Array]] = {}
    for name in GENERATORS:
        started = time.perf_counter()
        found[name] = p_values(name, (*offered(name), *DIAGNOSTICS), range(n_data_sets))
        print(f"{name}: {n_data_sets} data sets in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return judge(found)


def measure(folder: Path, n_data_sets: int, n_channels: int, n_permutations: int) -> tuple[str, list[Power]]:
    """What the melodies are, and the power at each effect size; nothing where no data sets are asked for."""
    if n_data_sets == 0:
        return "no melodies", []
    started = time.perf_counter()
    words, tunes = notes(folder)
    found = power(melodies(tunes), n_data_sets, n_channels, n_permutations)
    print(f"power: {n_data_sets} data sets each in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return words, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-sets", type=int, default=1000, help="per generator (default: 1000)")
    parser.add_argument("--power-data-sets", type=int, default=20, help="per effect size, 0 for none (default: 20)")
    parser.add_argument("--channels", type=int, default=64, help="of a listener in the study of power (default: 64)")
    parser.add_argument("--permutations", type=int, default=1000, help="in the study of power (default: 1000)")
    parser.add_argument(
        "--melodies", type=Path, default=BACH, help="folder of MIDI files (default: ../shared/data/...)"
    )
    parser.add_argument("--out", type=Path, default=ROOT, help="where benchmarks/ and docs/ are (default: here)")
    arguments = parser.parse_args()
    if arguments.data_sets < 10:
        parser.error(f"--data-sets: {arguments.data_sets} says nothing about rates; 10 or more are needed")
    started = time.perf_counter()
    cells = calibrate(arguments.data_sets)
    words, found = measure(arguments.melodies, arguments.power_data_sets, arguments.channels, arguments.permutations)
    lines = [json.dumps({**asdict(cell), "rate": cell.rate, "ok": cell.ok}) for cell in cells]
    sizes = {"material": words, "channels": arguments.channels, "permutations": arguments.permutations}
    lines += [json.dumps({**asdict(own), **sizes, "power": own.power}) for own in found]
    results, docs = arguments.out / "benchmarks/results", arguments.out / "docs/results"
    for folder in (results, docs / "calibration"):
        folder.mkdir(parents=True, exist_ok=True)
    (results / f"{date.today()}-calibration.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = page(cells, time.perf_counter() - started) + power_section(found, **sizes)
    (docs / "calibration.md").write_text(text, encoding="utf-8")
    draw(cells).savefig(docs / "calibration/rates.png", dpi=110)
    print("\n".join(lines))
    failed = [cell for cell in cells if not cell.ok]
    for cell in failed:
        print(f"not as it must be: {cell.generator}, {cell.null}, {cell.test}: rate {cell.rate:.3f}", file=sys.stderr)
    return 1 if failed or not strong_enough(found) else 0


if __name__ == "__main__":
    sys.exit(main())
