"""Stages that take no time and know no science: they write, sleep, fail, are killed, take checkpoints."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.graph import CellSpec, Graph
from orchestrator.signature import sign
from orchestrator.stages import Stage
from tasks.contract import Artefact, Cell, Context, Result, Stopped, TaskError

STAGES = {
    stage.name: stage
    for stage in (
        Stage("source", "fake_stages:run", "writes a file"),
        Stage("base", "fake_stages:run_training", "counts to `steps`", training=True),
        Stage("arm", "fake_stages:run_training", "counts on", training=True),
        Stage("latents", "fake_stages:run", "writes what it read"),
        Stage("flow", "fake_stages:run_training", "counts", training=True),
        Stage("level", "fake_stages:run", "one of many", grouped_by=("variant",), cells_per_task=4),
        Stage("nap", "fake_stages:run", "one task each"),
        Stage("group", "fake_stages:run", "all that are there", aggregate=True),
    )
}


def cell(
    stage: str, name: str, parents: Mapping[str, Any] | None = None, variant: str = "v", **config: Any
) -> CellSpec:
    """A planned cell; `parents` are specs, or lists of specs, by role."""
    inputs = {
        role: value.signature if isinstance(value, CellSpec) else tuple(spec.signature for spec in value)
        for role, value in (parents or {}).items()
    }
    config = {"name": name, **config}
    return CellSpec(stage, name, config, inputs, sign(stage, 1, config, inputs), {"variant": variant})


def graph(*specs: CellSpec) -> Graph:
    return Graph({spec.signature: spec for spec in specs})


def text_of(inputs: Mapping[str, Any]) -> str:
    """Contents of all inputs' files, so that a result depends on what it read."""
    found: list[Artefact] = []
    for value in inputs.values():
        found += [value] if isinstance(value, Artefact) else list(value)
    return "".join(f"({artefact.read_bytes('out.txt').decode()})" for artefact in found)


def run(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    for done, one in enumerate(cells):
        config = one.config
        time.sleep(float(config.get("sleep_s", 0)))
        _hold(config)
        _misbehave(config)
        if "fails" in config:
            yield Result(one.signature, failure=str(config["fails"]))
            continue
        (one.out_dir / "out.txt").write_text(f"{config['name']}{text_of(one.inputs)}")
        context.progress(done + 1, len(cells), {})
        told = {key: config[key] for key in ("skipped", "n_skipped") if key in config}
        yield Result(one.signature, metrics={"threads": _threads(), "thread": threading.current_thread().name, **told})


def _misbehave(config: Mapping[str, Any]) -> None:
    if "raises" in config:
        raise ValueError(config["raises"])
    if "no_space" in config:
        room = Path(str(config["no_space"]))
        if not room.exists():
            raise RuntimeError("could not be written") from OSError(28, "No space left on device")
    if "task_error" in config:
        raise TaskError(str(config["task_error"]))
    marker = config.get("dies_unless")
    if marker is not None and not Path(marker).exists():
        Path(marker).write_text("died")
        os.kill(os.getpid(), signal.SIGKILL)
    if config.get("always_dies"):
        os.kill(os.getpid(), signal.SIGKILL)


def _hold(config: Mapping[str, Any]) -> None:
    """Wait for the file `until`."""
    while "until" in config and not Path(str(config["until"])).exists():
        time.sleep(0.1)


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", "0"))


def run_training(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Counts to `steps`, one every `step_s`, with a checkpoint every `every` steps; its result names where it began."""
    (one,) = cells
    config, checkpoints = one.config, context.checkpoints(one.signature)
    _misbehave({key: value for key, value in config.items() if key != "dies_unless"})
    steps, every = int(config.get("steps", 2)), int(config.get("every", 1))
    latest = checkpoints.latest()
    first = int((latest[1] / "count.txt").read_text()) if latest else 0
    for step in range(first + 1, steps + 1):
        time.sleep(float(config.get("step_s", 0.01)))
        if step % every == 0:
            checkpoints.save(step, lambda folder, step=step: (folder / "count.txt").write_text(str(step)))
        context.progress(step, steps, {"loss": 1.0 / step})
        if step > steps / 2:
            _hold(config)
            _misbehave({key: value for key, value in config.items() if key == "dies_unless"})
        if context.should_stop():
            checkpoints.save(step, lambda folder, step=step: (folder / "count.txt").write_text(str(step)))
            raise Stopped
    (one.out_dir / "out.txt").write_text(f"{config['name']}:{steps}{text_of(one.inputs)}")
    rows = [f"{step},{1.0 / step}\n" for step in range(1, steps + 1)]
    (one.out_dir / "curve.csv").write_text("".join(["step,loss\n", *rows]))
    yield Result(one.signature, metrics={"began_at": first, "steps": steps, "pid": os.getpid(), "at": time.time()})
