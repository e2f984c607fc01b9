# ruff: noqa: E501
"""A made-up study: a small graph and finished cells with invented numbers, for tests of the report and of tracking."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np

from orchestrator.graph import CellSpec, Graph
from orchestrator.ledger import Ledger
from orchestrator.reasons import Reason, State
from orchestrator.signature import sign
from tasks.contract import Artefact

ARMS = {"none": ("none", 0.0), "D m=0.0": ("decoder", 0.0), "E+D m=0.0": ("encoder+decoder", 0.0)}
LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8)
MODELS = ("acoustic_plus/onset", "acoustic_plus/hold", "envelope/hold")
CHANNELS = tuple(f"E{i}" for i in range(32))


def positions() -> list[list[float]]:
    """A spiral over the upper half of a head of 9.5 cm."""
    places = []
    for i in range(len(CHANNELS)):
        up = 0.05 + 0.93 * i / len(CHANNELS)
        angle, ring = 2.399963 * i, math.sqrt(1 - up**2)
        places.append([0.095 * ring * math.cos(angle), 0.095 * ring * math.sin(angle), 0.095 * up])
    return places


@dataclass
class FakeLedger:
    """What the report and tracking ask of a ledger, in memory."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    statuses: dict[str, Any] = field(default_factory=dict)
    alive: set[str] = field(default_factory=set)

    def finish(self, cell: CellSpec, files: Mapping[str, bytes], metrics: Mapping[str, Any]) -> Any:
        self.files[cell.signature] = dict(files)
        status = self._put(cell, "done", dict(metrics), None)
        status.files = {name: {} for name in files}
        return status

    def fail(self, cell: CellSpec, sentence: str) -> Any:
        return self._put(cell, "failed", {}, sentence)

    def _put(self, cell: CellSpec, state: str, metrics: dict[str, Any], failure: str | None) -> Any:
        attempt = SimpleNamespace(id="20260101T000000-a", reason=Reason.NEW, outcome=state)
        self.statuses[cell.signature] = SimpleNamespace(
            stage=cell.stage, signature=cell.signature, name=cell.name, state=state, attempt=attempt.id, files={},
            metrics=metrics, failure=failure, reason=Reason.DONE if failure is None else Reason.ERROR, seconds=1.0,
            attempts=[attempt], provenance={"host": "here", "python": "3.11.7", "commit": "abc", "started": "now"},
        )  # fmt: skip
        return self.statuses[cell.signature]

    def survey(self, cells: Iterable[CellSpec], full: bool) -> dict[str, tuple[State, Reason, Any]]:
        found = {}
        for cell in cells:
            status = self.statuses.get(cell.signature)
            state = (State.TO_DO, Reason.NEW) if status is None else (State.CACHED, Reason.DONE)
            if status is not None and status.state == "failed":
                state = (State.FAILED, Reason.FAILED_BEFORE)
            found[cell.signature] = (*state, status)
        return found

    def artefact(self, stage: str, signature: str, cache: Any) -> Artefact:
        def open_file(name: str) -> BinaryIO:
            if name not in self.files[signature]:
                raise FileNotFoundError(name)
            return io.BytesIO(self.files[signature][name])

        return Artefact(signature, stage, {}, self.statuses[signature].metrics, open_file)

    def alive_drivers(self, max_age_s: float) -> set[str]:
        return self.alive


class RealLedger(Ledger):
    """A ledger in a folder, with results put into it."""

    def finish(self, cell: CellSpec, files: Mapping[str, bytes], metrics: Mapping[str, Any]) -> Any:
        attempt = self.begin(cell, Reason.NEW, "driver")
        for name, content in files.items():
            (attempt.out_dir / name).write_bytes(content)
        return self.publish(attempt, attempt.out_dir, metrics, 1.0)

    def fail(self, cell: Any, *sentence: Any) -> Any:
        if isinstance(cell, CellSpec):
            return super().fail(self.begin(cell, Reason.NEW, "driver"), Reason.ERROR, str(sentence[0]), 1.0)
        return super().fail(cell, *sentence)


class Study:
    """Builds the graph cell by cell."""

    def __init__(self) -> None:
        self.cells: dict[str, CellSpec] = {}

    def add(self, stage: str, name: str, config: Mapping[str, Any], inputs: Any = None, **labels: str) -> CellSpec:
        inputs = inputs or {}
        cell = CellSpec(stage, name, config, inputs, sign(stage, 1, {**config, "name": name}, inputs), labels)
        self.cells[cell.signature] = cell
        return cell

    def graph(self) -> Graph:
        return Graph(self.cells)


def make(
    bottlenecks: tuple[str, ...] = ("layernorm", "tanh"),
    arms: Mapping[str, tuple[str, float]] = ARMS,
    n_subjects: int = 6,
    effect: float = 1.0,
    simulated: bool = True,
    red: bool = False,
    eeg: bool = True,
    notes: bool = True,
    missing: tuple[str, ...] = (),
    ledger: Any = None,
    audited: tuple[float, ...] = (),
) -> tuple[Graph, Any]:
    """Graph and ledger of a finished study. `effect` scales what is significant; 0 leaves nothing to claim.

    At the levels `audited` the solver of IC is audited.
    """
    study, ledger, rng = Study(), ledger or FakeLedger(), np.random.default_rng(1)
    corpus = study.add("corpus", "corpus train", {"role": "train"}, role="train")
    ledger.finish(corpus, {}, {"n_recordings": 12, "skipped": ["broken.wav: it ends after 0.1 s"]})
    variants = {f"{b} {a}": (b, *arms[a]) for b in bottlenecks for a in arms}
    for bottleneck in bottlenecks:
        config = {"seed": 0, "size": "tiny", "bottleneck": bottleneck, "training": {"steps": 40}}
        base = study.add("autoencoder_base", f"base {bottleneck}", config, {"train": corpus.signature})
        _train(ledger, base, 40)
        for variant in (v for v in variants if v.startswith(bottleneck)):
            _variant(study, ledger, rng, variant, base, variants[variant], notes, audited)
    if eeg:
        _eeg(study, ledger, rng, list(variants), n_subjects, effect, simulated, red, missing)
    return study.graph(), ledger


def _train(ledger: Any, cell: CellSpec, steps: int) -> None:
    rows = [f"{step},{math.exp(-step / 20)!r},{math.exp(-step / 25)!r}" for step in range(1, steps + 1)]
    curve = "\n".join(["step,train_loss,validation_loss", *rows, ""]).encode()
    ledger.finish(cell, {"curve.csv": curve}, {"train_loss": 0.1, "validation_loss": 0.2, "steps": steps})


def _variant(
    study: Study,
    ledger: Any,
    rng: Any,
    variant: str,
    base: CellSpec,
    setting: tuple[str, str, float],
    notes: bool,
    audited: tuple[float, ...],
) -> None:
    bottleneck, applied_to, mean = setting
    noise = {"applied_to": applied_to, **({} if applied_to == "none" else {"logit_mean": mean, "logit_std": 1.0})}
    config = {"seed": 0, "size": "tiny", "bottleneck": bottleneck, "latent_noise": noise, "training": {"steps": 40}}
    codec = study.add("autoencoder", f"ae {variant}", config, {"base": base.signature}, variant=variant)
    flow = study.add(
        "flow", f"flow {variant}", {"seed": 0, "flow": {"steps": 40}}, {"train": codec.signature}, variant=variant
    )
    _train(ledger, codec, 40)
    _train(ledger, flow, 40)
    gain = {"none": 0.0, "decoder": 0.4, "encoder+decoder": 1.0}[applied_to]
    for snr, clean in (("inf", 1.0), ("4", 0.6), ("1", 0.3)):
        cell = study.add("reconstruction", f"{variant} snr {snr}", {"snr": snr}, {"autoencoder": codec.signature}, variant=variant, snr=snr)  # fmt: skip
        lsd, sdr = 7 - 4 * clean - gain * (1 - clean) * 3, -8 + 16 * clean + gain * (1 - clean) * 6
        rows = [f"r{i},0,{i},{lsd + rng.normal()!r},9.5,{sdr + rng.normal()!r},-18.0" for i in range(3)]
        head = "recording,cluster,excerpt,log_spectral_distance,log_spectral_distance_floor,si_sdr,si_sdr_floor"
        metrics = {
            "log_spectral_distance_mean": lsd, "log_spectral_distance_se": 0.12, "log_spectral_distance_floor_mean": 9.5 - gain,
            "si_sdr_mean": sdr, "si_sdr_se": 0.5, "si_sdr_floor_mean": -18.0 + gain, "n_excerpts": 60,
        }  # fmt: skip
        ledger.finish(cell, {"scores.csv": "\n".join([head, *rows, ""]).encode()}, metrics)
    for level in LEVELS if notes else ():
        config = {
            "noise_level": level,
            "definition": "expectation",
            "solver": "quadrature",
            "n_nodes": 12,
            "n_probes": 2,
        }
        cell = study.add("surprisal", f"IC {variant} melodies s={level}", config, {"flow": flow.signature}, variant=variant, role="melodies", noise_level=repr(level))  # fmt: skip
        ledger.finish(cell, {}, {"ic_mean": 80.0 - 10 * level, "ic_sd": 10.0 * (1 - level), "solver_error_nats": 0.4 + level, "n_frames": 900, "n_recordings": 4})  # fmt: skip
        cell = study.add("causal_audit", f"audit {variant} s={level}", {"level": level}, {"flow": flow.signature}, variant=variant, role="melodies", noise_level=repr(level))  # fmt: skip
        rows = [f"melodies,p{i},16,{0.9 + 0.02 * i!r},1.5,1.0,0.01,6.0" for i in range(3)]
        head = "role,recording,n_frames,spearman,change_mean,control_spearman,control_change_mean,ic_sd"
        metrics = {"spearman_mean": 0.92, "spearman_se": 0.01, "change_mean": 1.5, "change_se": 0.1, "control_spearman_mean": 0.99, "control_change_mean": 0.01, "ic_sd": 6.0, "n_frames": 48, "n_recordings": 3}  # fmt: skip
        ledger.finish(cell, {"audit.csv": "\n".join([head, *rows, ""]).encode()}, metrics)
        if level in audited:
            _solver_audit(study, ledger, flow, variant, level)
        cell = study.add("pitch", f"{variant} s={level}", {"level": level}, {"surprisal": flow.signature}, variant=variant, noise_level=repr(level))  # fmt: skip
        rho = 0.12 + 0.25 * (0.4 + 0.6 * gain) * math.exp(-(((level - 0.45) / 0.25) ** 2))
        rows = [f"p{i},p{i},{i // 2},40,{rho + 0.1 * rng.normal()!r},{rho!r},{0.8 * rho!r},0.2" for i in range(4)]
        head = "piece,recording,cluster,n_notes,spearman,pearson,spearman_partial,spearman_interval"
        metrics = {"spearman_mean": rho, "spearman_se": 0.02, "pearson_mean": rho, "pearson_se": 0.02, "n_pieces": 65, "baseline_interval_spearman": 0.17, "baseline_unigram_spearman": 0.2}  # fmt: skip
        ledger.finish(cell, {"correlation.csv": "\n".join([head, *rows, ""]).encode()}, metrics)


def _solver_audit(study: Study, ledger: Any, flow: CellSpec, variant: str, level: float) -> None:
    config = {"level": level, "definitions": {"expectation": {}, "expected": {}}}
    cell = study.add("solver_audit", f"solver audit {variant} s={level}", config, {"flow": flow.signature}, variant=variant, role="melodies", noise_level=repr(level))  # fmt: skip
    head = "role,recording,n_frames,reliability,reliability_pearson,rmse_nats,bias_nats,doubling_nats,doubling_mean_nats,ic_sd"
    rows = [f"melodies,p{i},8,{0.9 + 0.02 * i!r},0.95,0.8,-0.1,0.5,0.05,6.0" for i in range(3)]
    pairs = ["role,definition_a,definition_b,spearman,spearman_pooled", "melodies,expectation,expected,0.87,0.89", ""]
    metrics = {
        "reliability_mean": 0.92, "reliability_se": 0.01, "reliability_pooled": 0.94, "reliability_pearson_mean": 0.95, "reliability_pearson_pooled": 0.96,
        "rmse_nats": 0.8 + level, "bias_nats": -0.1, "rmse_over_sd": 0.08 + level / 2, "doubling_nats": 0.5, "doubling_mean_nats": 0.05, "rule_constant_nats": 1.25, "rule_constant_se_nats": 0.06, "ic_sd": 6.0,
        "spearman_expected": 0.87, "n_frames": 24, "n_recordings": 3, "n_skipped": 0, "skipped": [],
    }  # fmt: skip
    files = {"audit.csv": "\n".join([head, *rows, ""]).encode(), "definitions.csv": "\n".join(pairs).encode()}
    ledger.finish(cell, files, metrics)


def _eeg(
    study: Study, ledger: Any, rng: Any, variants: list[str], n: int, effect: float, simulated: bool, red: bool,
    missing: tuple[str, ...],
) -> None:  # fmt: skip
    subjects = [f"S{i + 1:02d}" for i in range(n)]
    recordings = {}
    for subject in subjects:
        config = {"seed": 0, "subject": subject, "kind": "listener"} if simulated else {"subject": subject, "cnd": {}}
        recordings[subject] = study.add("eeg", f"eeg {subject}", config, subject=subject)
        if subject in missing:
            ledger.fail(recordings[subject], f"subject {subject}: no trial could be read")
        else:
            ledger.finish(recordings[subject], {}, {"n_trials": 10, "simulated": simulated, "skipped": []})
    present = [subject for subject in subjects if subject not in missing]
    for model in MODELS:
        conditions = []
        for variant in variants:
            gain = 0.4 + 0.6 * ("E+D" in variant)
            for level in LEVELS:
                mean = 0.004 * gain * effect * math.exp(-(((level - 0.45) / 0.25) ** 2))
                by_subject = {s: mean + 0.0012 * float(rng.normal()) for s in present}
                for s in present:
                    cell = study.add("trf", f"{variant} s={level} {s} {model}", {"model": model}, {"eeg": recordings[s].signature}, variant=variant, noise_level=repr(level), subject=s, model=model)  # fmt: skip
                    ledger.finish(cell, {}, {"delta_r": by_subject[s], "delta_r_max": 2 * by_subject[s], "r_full": 0.06, "r_reduced": 0.05, "n_pieces": 10, "n_channels": 32})  # fmt: skip
                conditions.append(_condition(variant, level, mean, by_subject, model == MODELS[0], rng))
        content = {
            "model": model, "tested": model == MODELS[0], "alpha": 0.05, "n_subjects": len(present), "subjects": present,
            "missing": [{"subject": s, "reason": f"subject {s}: no trial could be read"} for s in missing],
            "n_permutations": 1000 if model == MODELS[0] else 0, "simulated": simulated, "channels": list(CHANNELS),
            "positions": positions(), "conditions": conditions, "verdict": "A verdict.", "kernels": _kernels(conditions),
        }  # fmt: skip
        cell = study.add(
            "group", f"group {model}", {"model": model}, model=model, tested=str(model == MODELS[0]).lower()
        )
        ledger.finish(cell, {"group.json": json.dumps(content, sort_keys=True).encode()}, {"n_subjects": n})
    content = {"verdict": "red" if red else "green", "sentence": "Noise canary: 8 of 200 channels rejected, at most 21 allowed.",
               "listeners": [{"kind": "noise", "rejections": 8, "channels": 200, "bound": 21}, {"kind": "acoustic", "rejections": 3, "channels": 40, "bound": 7}, {"kind": "positive", "p": 0.001, "kernel_r": 0.97}]}  # fmt: skip
    cell = study.add("canaries", "canaries", {})
    ledger.finish(cell, {"canaries.json": json.dumps(content).encode()}, {"verdict": content["verdict"]})


def _kernels(conditions: list[dict[str, Any]]) -> dict[str, Any]:
    lags = [-0.05 + 0.0125 * step for step in range(33)]
    rows = []
    for row in conditions:
        size = 8 * row["delta_r_mean"] * math.exp(-abs(row["noise_level"] - 0.4))
        mean = [
            size * (math.exp(-(((lag - 0.2) / 0.05) ** 2)) - 0.6 * math.exp(-(((lag - 0.1) / 0.03) ** 2)))
            for lag in lags
        ]
        curve = {"mean": mean, "low": [value - 0.004 for value in mean], "high": [value + 0.005 for value in mean]}
        rows.append({"variant": row["variant"], "noise_level": row["noise_level"], "curves": [curve]})
    return {"channels": ["E31"], "lags_s": lags, "conditions": rows}


def _condition(
    variant: str, level: float, mean: float, by_subject: dict[str, float], tested: bool, rng: Any
) -> dict[str, Any]:
    values = np.array(list(by_subject.values()))
    places = np.array(positions())
    shape = np.exp(-((places[:, 0] ** 2 + (places[:, 1] - 0.03) ** 2) / 0.05**2))
    channel = 2 * mean * shape + 0.0003 * rng.normal(size=len(CHANNELS))
    se = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    row = {
        "variant": variant, "noise_level": level, "delta_r_mean": float(values.mean()), "delta_r_se": se,
        "delta_r_max_mean": 2 * mean, "r_reduced_mean": 0.05, "r_full_mean": 0.05 + mean, "by_subject": by_subject,
        "by_channel": channel.tolist(), "delta_r_ci": [values.mean() - 1.9 * se, values.mean() + 1.8 * se] if se else None,
    }  # fmt: skip
    if tested:
        claimed = mean > 0.002 and len(values) >= 5
        p = 0.004 if mean > 0.002 else 0.41
        names = [name for name, value in zip(CHANNELS, channel, strict=True) if claimed and value > 0.0025]
        row |= {
            "excess_delta_r_ci": [end - 0.0002 for end in row["delta_r_ci"]] if se else None,
            "excess_by_subject": {name: value - 0.0002 for name, value in by_subject.items()},
            "excess_delta_r_mean": float(values.mean()) - 0.0002, "excess_delta_r_se": se, "excess_by_channel": channel.tolist(),
            "p_stimulus": p, "p_stimulus_ci": [0.5 * p, 2 * p], "p_subject": p if len(values) >= 5 else None, "p": p,
            "claimed": claimed, "p_by_channel": [p] * len(CHANNELS), "significant_channels": names,
        }  # fmt: skip
    return row
