"""The full calibration: every generator of null data, every test and every null distribution, as a table and a picture.

Run by `make calibrate`, or alone: `python tests/statistics/calibrate.py [--data-sets N] [--out FOLDER]`. The last lines
are one JSON object per cell; the same lines go to FOLDER/benchmarks/results, the table and the picture to
FOLDER/docs/results (FOLDER: the repository). Exit status 1 where a cell doesn't do what it must.
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
from calibration_report import draw, page
from null_data import GENERATORS
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-sets", type=int, default=1000, help="per generator (default: 1000)")
    parser.add_argument("--out", type=Path, default=ROOT, help="where benchmarks/ and docs/ are (default: here)")
    arguments = parser.parse_args()
    if arguments.data_sets < 10:
        parser.error(f"--data-sets: {arguments.data_sets} says nothing about rates; 10 or more are needed")
    started = time.perf_counter()
    cells = calibrate(arguments.data_sets)
    lines = [json.dumps({**asdict(cell), "rate": cell.rate, "ok": cell.ok}) for cell in cells]
    results, docs = arguments.out / "benchmarks/results", arguments.out / "docs/results"
    for folder in (results, docs / "calibration"):
        folder.mkdir(parents=True, exist_ok=True)
    (results / f"{date.today()}-calibration.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (docs / "calibration.md").write_text(page(cells, time.perf_counter() - started), encoding="utf-8")
    draw(cells).savefig(docs / "calibration/rates.png", dpi=110)
    print("\n".join(lines))
    failed = [cell for cell in cells if not cell.ok]
    for cell in failed:
        print(f"not as it must be: {cell.generator}, {cell.null}, {cell.test}: rate {cell.rate:.3f}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
