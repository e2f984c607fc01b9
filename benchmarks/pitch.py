"""How closely the pitch model agrees with IDyOM, note by note, on the soprano lines of the Bach chorales.

Run alone: `python benchmarks/pitch.py [--quick] [FOLDER]`. FOLDER (or IDYOM_DATA in the environment, or ../shared/data)
holds `idyom/chorale_sopranos_cpitch.csv.gz`: IDyOM 1.7's own output with its folds. `--quick` scores two of the ten
folds. The last lines are one JSON object per figure.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from tasks.ppm.reference import COLUMNS, MEMORIES, agreement, read_reference, score_fold

NAME = "idyom/chorale_sopranos_cpitch.csv.gz"
DEFAULT = Path(__file__).parents[1] / "../shared/data"


def main() -> None:
    """Score folds with each memory, and compare."""
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    path = Path(arguments[0] if arguments else os.environ.get("IDYOM_DATA") or DEFAULT) / NAME
    if not path.is_file():
        print(
            f"no data: {path.resolve()} is not there; give the folder that holds {NAME}, or set IDYOM_DATA",
            file=sys.stderr,
        )
        return
    reference = read_reference(path)
    folds = sorted({melody.fold for melody in reference})[: 2 if "--quick" in sys.argv else None]
    started = time.perf_counter()
    for column in COLUMNS:
        scored = [pair for fold in folds for pair in score_fold(reference, fold, MEMORIES[column])]
        r, ratio = agreement(scored, column)
        worst = max(float(np.abs(own.bits - melody.bits[column]).max()) for melody, own in scored)
        print(f"{column}: {len(scored)} melodies, largest difference of a note {worst:.2g} bits", file=sys.stderr)
        line = {"figure": f"idyom_r_{column}", "value": round(r, 6), "unit": "r", "goal": 0.99, "ok": r >= 0.99}
        print(json.dumps(line))
        near = abs(ratio - 1) <= 0.01
        line = {"figure": f"idyom_mean_ratio_{column}", "value": round(ratio, 6), "unit": "ratio", "goal": 1.0}
        print(json.dumps({**line, "ok": near}))
    took = time.perf_counter() - started
    print(json.dumps({"figure": "idyom_seconds", "value": round(took, 1), "unit": "s", "goal": 120, "ok": took <= 120}))


if __name__ == "__main__":
    main()
