"""The study's real graph with made-up computation: scores that depend on what was searched, trainings that count."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from orchestrator.stages import STAGES as REAL
from tasks.contract import Cell, Context, Result, Stopped

BEST_LEVEL, TOO_NOISY = 0.3, -0.05
LOG_ENVIRONMENT = "FAKE_STUDY_LOG"

STAGES = {
    name: replace(stage, entry=f"fake_study:{'train' if stage.training else 'run'}") for name, stage in REAL.items()
}

EXPERIMENT: dict[str, Any] = {
    "name": "fake",
    "science": {
        "data": {
            "train": {"source": "chorales", "split": "train", "pieces": 4},
            "validation": {"source": "chorales", "split": "dev", "pieces": 2},
            "reconstruction": {"source": "chorales", "split": "test", "pieces": 2},
            "melodies": {"source": "chorales", "split": "dev", "pieces": 4},
        },
        "autoencoder": {"size": "tiny"},
        "flow": {"size": "tiny", "steps": 40, "checkpoint_every": 4},
    },
    "search": {
        "n_trials": 6,
        "space": {"surprisal.noise_levels": {"low": 0.0, "high": 0.9, "step": 0.1}},
    },
}

EEG = {
    "eeg.simulation": {"n_subjects": 2},
    "data.stimuli": {"source": "chorales", "split": "test", "pieces": 3},
}


def write(folder: Path, changes: Mapping[str, Any] | None = None) -> str:
    """An experiment file; `changes` are dotted keys of the experiment, or of its science."""
    content: dict[str, Any] = yaml.safe_load(yaml.safe_dump(EXPERIMENT))
    for key, value in (changes or {}).items():
        parts = (
            key.split(".") if key.split(".")[0] in ("search", "science", "execution") else ["science", *key.split(".")]
        )
        place = content
        for part in parts[:-1]:
            place = place.setdefault(part, {})
        place[parts[-1]] = value
    path = folder / "fake.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def note(cell: Cell) -> None:
    """Write down that a cell was computed, by which process."""
    if LOG_ENVIRONMENT in os.environ:
        with Path(os.environ[LOG_ENVIRONMENT]).open("a") as log:
            log.write(f"{cell.stage} {cell.signature}\n")


def run(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    for cell in cells:
        note(cell)
        (cell.out_dir / "out.txt").write_text(cell.stage)
        metrics = _metrics(cell)
        if metrics.get("spearman_mean", 0.0) < TOO_NOISY:
            yield Result(cell.signature, failure="too noisy to correlate")
        else:
            yield Result(cell.signature, metrics=metrics)


def _metrics(cell: Cell) -> dict[str, Any]:
    match cell.stage:
        case "pitch":
            level = float(cell.input("surprisal").config["noise_level"])
            return {"spearman_mean": 0.5 - abs(level - BEST_LEVEL), "spearman_se": 0.01, "n_pieces": 4}
        case "reconstruction":
            distance = 20.0 + (cell.input("autoencoder").config["bottleneck"] == "tanh")
            return {"log_spectral_distance_mean": distance, "log_spectral_distance_floor_mean": 23.0}
        case "trf":
            level = float(cell.input("surprisal").config["noise_level"])
            return {"delta_r": 0.02 - 0.01 * abs(level - BEST_LEVEL)}
    return {}


def train(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Steps with a validation loss that falls the faster the nearer log10(learning rate) is to -3; checkpoints."""
    (cell,) = cells
    note(cell)
    config = cell.config.get("flow") or cell.config["training"]
    steps, rate = min(int(config["steps"]), 40), float(config["learning_rate"])
    checkpoints = context.checkpoints(cell.signature)
    latest = checkpoints.latest()
    first = int((latest[1] / "count.txt").read_text()) if latest else 0
    pace_s = float(os.environ.get("FAKE_STEP_S", "0.002"))
    for step in range(first + 1, steps + 1):
        time.sleep(pace_s)
        loss = 1.0 + abs(math.log10(rate) + 3) + 1.0 / step
        metrics = {"validation_loss": loss} if step % 4 == 0 or step == steps else {}
        if step % 4 == 0:
            checkpoints.save(step, lambda folder, step=step: (folder / "count.txt").write_text(str(step)))
        context.progress(step, steps, metrics)
        _die_once(cell, step)
        if context.should_stop():
            checkpoints.save(step, lambda folder, step=step: (folder / "count.txt").write_text(str(step)))
            raise Stopped
    (cell.out_dir / "out.txt").write_text(f"{rate}")
    (cell.out_dir / "curve.csv").write_text(f"step,validation_loss\n{steps},{loss}\n")
    yield Result(cell.signature, metrics={"validation_loss": loss, "began_at": first, "steps": steps})


def _die_once(cell: Cell, step: int) -> None:
    """Kill the process in the midst of the first flow, once, where the environment names a file to remember it by."""
    marker = os.environ.get("FAKE_DIES_ONCE")
    if marker and cell.stage == "flow" and step == 22 and not Path(marker).exists():
        Path(marker).write_text(cell.signature)
        os.kill(os.getpid(), signal.SIGKILL)
