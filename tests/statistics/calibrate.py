"""The full calibration: every generator of null data, every test and every null distribution, as a table and a picture.

Run by `make calibrate`, or alone: `python tests/statistics/calibrate.py [--data-sets N] [--power-data-sets N]
[--channels C] [--permutations B] [--melodies FOLDER] [--jobs N] [--keep FOLDER] [--power-from FILE]
[--power-commit COMMIT] [--out FOLDER]`; without the Bach melodies random ones are used, and said so. Results are kept
in a folder as they come: a second call computes what is missing, with the same numbers whatever --jobs. The last lines
are one JSON object per cell and per effect size. The same lines go to FOLDER/benchmarks/results, the tables and the
picture to FOLDER/docs/results (FOLDER: the repository). Exit status 1 where a cell doesn't do what it must, or power
falls short.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from calibration_picture import draw, draw_comparisons
from calibration_report import page, power_section
from kept import HERE, ROOT, Kept, digest, say, worked
from made import NAMES, asked, p_of, together
from power import BACH, EFFECTS, Melody, Trial, melodies, notes, trial
from rates import Cell, judge, n_asked
from strength import Power, power_of, strong_enough

Array = np.ndarray[Any, Any]
Row = dict[str, Any]
AT_ONCE = 20
"""Data sets of one generator that are computed and kept together; then those of the next generator."""


def calibrate(
    n_data_sets: int, folder: Path, n_jobs: int = 1, names: tuple[str, ...] = NAMES
) -> tuple[list[Cell], float]:
    """All cells, and the seconds of one core that their data sets took; says on stderr what was kept, how far it is."""
    files = {name: Kept.of(folder, name, HERE / "made.py", name, asked(name)) for name in names}
    rows = {name: {row["number"]: row for row in files[name].read()} for name in names}
    wanted = {name: range(n_asked(name, n_data_sets)) for name in names}
    missing = [
        (name, [number for number in wanted[name][start : start + AT_ONCE] if number not in rows[name]])
        for start in range(0, n_data_sets, AT_ONCE)
        for name in names
    ]
    tasks = [(name, numbers) for name, numbers in missing if numbers]
    total, started = sum(len(own) for own in wanted.values()), time.perf_counter()
    done = total - sum(len(numbers) for _, numbers in tasks)
    say(f"{done} of {total} data sets of {len(names)} generators were kept in {folder}")
    for place, found in worked([(data_sets, task) for task in tasks], n_jobs):
        name, numbers = tasks[place]
        files[name].add(found)
        rows[name] |= {row["number"]: row for row in found}
        done += len(numbers)
        say(f"{name}: data sets to {numbers[-1] + 1}; {done} of {total} in {time.perf_counter() - started:.0f} s")
    found_p = {}
    for name, all_numbers in wanted.items():
        by_key = [rows[name][number]["p"] for number in all_numbers]
        found_p[name] = together([{(*key.split("|"),): p for key, p in own.items()} for own in by_key])
    return judge(found_p), sum(rows[name][number]["s"] for name, own in wanted.items() for number in own)


def data_sets(name: str, numbers: list[int]) -> list[Row]:
    """What is kept of each data set: every p by ``null|test``, and the seconds it took."""
    rows = []
    for number in numbers:
        started = time.process_time()
        p = {"|".join(key): value for key, value in p_of(name, number, asked(name)).items()}
        rows.append({"number": number, "p": p, "s": round(time.process_time() - started, 3)})
    return rows


@lru_cache(maxsize=1)
def _material(folder: Path) -> tuple[str, list[Melody], str]:
    """What the melodies are, they themselves, and their notes as text."""
    words, tunes = notes(folder)
    return words, melodies(tunes), repr([[tuple(note) for note in tune] for tune in tunes])


def one_trial(folder: Path, effect: float, number: int, n_channels: int, n_permutations: int) -> list[Row]:
    """What is kept of one data set at one effect."""
    words, material, _ = _material(folder)
    started = time.process_time()
    own = trial(material, effect, number, n_channels, n_permutations)
    return [{"words": words, **asdict(own), "s": round(time.process_time() - started, 1)}]


def trials(rows: list[Row]) -> tuple[str, list[Trial]]:
    """What the melodies are, and the trials of lines as `one_trial` gives them."""
    found = [Trial(row["effect"], row["number"], row["excess"], tuple(row["hits"])) for row in rows]
    return (rows[0]["words"] if rows else "no melodies"), found


def measure(melody_folder: Path, n_data_sets: int, sizes: tuple[int, int], folder: Path, n_jobs: int = 1) -> list[Row]:
    """Lines of the study of power; nothing where no data sets are asked for. `sizes`: channels and permutations."""
    if n_data_sets == 0:
        return []
    name = f"power of {sizes[0]} channels, {sizes[1]} permutations"
    file = Kept.of(folder, name, HERE / "power.py", *sizes, _material(melody_folder)[2])
    rows = {(row["number"], row["effect"]): row for row in file.read()}
    wanted = [(number, effect) for number in range(n_data_sets) for effect in EFFECTS]
    tasks = [key for key in wanted if key not in rows]
    say(f"{len(wanted) - len(tasks)} of {len(wanted)} data sets of the study of power were kept in {folder}")
    for place, found in worked(
        [(one_trial, (melody_folder, effect, number, *sizes)) for number, effect in tasks], n_jobs
    ):
        file.add(found)
        rows[tasks[place]] = found[0]
        say(f"power: data set {tasks[place][0] + 1} at {tasks[place][1]:g}")
    return [rows[key] for key in wanted]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-sets", type=int, default=1000, help="per generator (default: 1000)")
    parser.add_argument("--power-data-sets", type=int, default=20, help="per effect size, 0 for none (default: 20)")
    parser.add_argument("--channels", type=int, default=64, help="of a listener in the study of power (default: 64)")
    parser.add_argument("--permutations", type=int, default=1000, help="in the study of power (default: 1000)")
    parser.add_argument(
        "--melodies", type=Path, default=BACH, help="folder of MIDI files (default: ../shared/data/...)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1); results are the same")
    parser.add_argument(
        "--keep", type=Path, default=ROOT / ".calibration", help="where results are kept (default: .calibration)"
    )
    parser.add_argument(
        "--power-from", type=Path, help="lines of power measured elsewhere, with --channels and --permutations"
    )
    parser.add_argument("--power-commit", default="", help="the commit that made them, if it is another than this")
    parser.add_argument("--out", type=Path, default=ROOT, help="where benchmarks/ and docs/ are (default: here)")
    arguments = parser.parse_args()
    if arguments.data_sets < 10:
        parser.error(f"--data-sets: {arguments.data_sets} says nothing about rates; 10 or more are needed")
    if arguments.jobs < 1:
        parser.error(f"--jobs: {arguments.jobs} processes do nothing; give 1 or more")
    sizes = arguments.channels, arguments.permutations
    cells, seconds = calibrate(arguments.data_sets, arguments.keep, arguments.jobs)
    if arguments.power_from is None:
        lines_of_power = measure(arguments.melodies, arguments.power_data_sets, sizes, arguments.keep, arguments.jobs)
    else:
        lines_of_power = given(arguments.power_from, parser)
    words, own_trials = trials(lines_of_power)
    return publish(arguments.out, cells, seconds, power_of(own_trials), words, sizes, arguments.power_commit)


def given(path: Path, parser: argparse.ArgumentParser) -> list[Row]:
    """Lines of a file that has them as they are kept."""
    try:
        rows: list[Row] = Kept(path).read()
        trials(rows)
    except (OSError, KeyError, TypeError) as error:
        parser.error(f"--power-from: {path} has no lines as the study of power keeps them ({error!r})")
    if not rows:
        parser.error(f"--power-from: {path} is missing or has no lines; give a file that a study of power has kept")
    return rows


def publish(
    out: Path,
    cells: list[Cell],
    seconds: float,
    found: list[Power],
    words: str,
    sizes: tuple[int, int],
    power_commit: str = "",
) -> int:
    """Write lines, page and picture, print the lines; 1 where something isn't as it must be."""
    measured = {"material": words, "channels": sizes[0], "permutations": sizes[1]}
    lines = [json.dumps({**asdict(cell), "rate": cell.rate, "ok": cell.ok}) for cell in cells]
    lines += [json.dumps({**asdict(own), **measured, "power": own.power}) for own in found]
    results, docs = out / "benchmarks/results", out / "docs/results"
    for folder in (results, docs / "calibration"):
        folder.mkdir(parents=True, exist_ok=True)
    (results / f"{date.today()}-calibration.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = page(cells, seconds, digest(HERE / "made.py")) + power_section(found, words, *sizes, power_commit)
    (docs / "calibration.md").write_text(text, encoding="utf-8")
    draw(cells).savefig(docs / "calibration/rates.png", dpi=110)
    draw_comparisons(cells).savefig(docs / "calibration/comparisons.png", dpi=110)
    print("\n".join(lines))
    failed = [cell for cell in cells if not cell.ok]
    for cell in failed:
        print(f"not as it must be: {cell.generator}, {cell.null}, {cell.test}: rate {cell.rate:.3f}", file=sys.stderr)
    return 1 if failed or (found and not strong_enough(found)) else 0


if __name__ == "__main__":
    sys.exit(main())
