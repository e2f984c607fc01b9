"""Stage ``causal_audit``: how much the IC of a frame owes to audio that comes after the frame has begun.

An encoder sees some frames ahead, so the latents before a frame know of that frame, and its IC is not that of a
listener who waits for it. The audit encodes the audio before a frame again, cut at the frame's first sample: the last
24 latents of its context change, and the IC that follows is compared with the ordinary one.

Re-encoding a stretch changes latents by itself, for the encoder's norms are taken over all that is encoded together.
So the same stretch is encoded without the cut as well, 16 frames further: the control, which should change nothing.
What the cut changes beyond it is a leak, or the edge that the cut leaves in the audio, and so bounds the leak.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from tasks.audio.corpus import load_audio, recordings
from tasks.audio.spectrum import LATENT_HOP_SAMPLES, OVERHANG_SAMPLES
from tasks.autoencoder.codec import load
from tasks.config import CausalAuditConfig, ProbeFile, SurprisalCell
from tasks.contract import Artefact, Cell, Context, Result, Stopped, TaskError
from tasks.flow.crops import read_latents
from tasks.flow.hyperplane import projected
from tasks.flow.information import InformationContent
from tasks.flow.network import default_device, read_flow
from tasks.flow.tails import Tail, contexts_after
from tasks.seeds import numpy_stream

TAIL_FRAMES = 24
"""Latents before a frame that are encoded again."""
MARGIN_FRAMES = 16
"""Latents on both sides of them that are encoded with them and left out (after them, only without the cut)."""
COLUMNS = (
    "role",
    "recording",
    "n_frames",
    "spearman",
    "change_mean",
    "control_spearman",
    "control_change_mean",
    "ic_sd",
)

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Encode = Callable[[Array], Array]
"""Mono audio at 44 100 Hz (N,) to standardised latents (T, D), T = floor((N - 1536) / 4096)."""


@dataclass(frozen=True)
class Audited:
    """The frames of a recording that are audited, and for each the latents before it, (<= 24, D), encoded again.

    `cut` is from audio that ends where the frame begins, `control` from audio that goes on.
    """

    latents: Array
    frames: tuple[int, ...]
    cut: tuple[Array, ...]
    control: tuple[Array, ...]


def encode_again(encode: Encode, audio: Array, frame: int, n_frames: int) -> tuple[Array, Array]:
    """The latents of the frames before `frame`, at most 24, from audio that ends at its first sample, and the control.

    The last latent before the cut reaches 1536 samples behind it: they are silence.

    Parameters
    ----------
    encode : callable
    audio : (N,) array
        What the recording's `n_frames` latents were made of: frame j starts at sample 4096 j.
    frame, n_frames : int

    Returns
    -------
    two (min(24, frame), D) arrays
        With the cut, and without it.
    """
    first, kept = max(frame - TAIL_FRAMES - MARGIN_FRAMES, 0), min(frame, TAIL_FRAMES)
    start, end = first * LATENT_HOP_SAMPLES, frame * LATENT_HOP_SAMPLES
    silent = np.concatenate([audio[start:end], np.zeros(OVERHANG_SAMPLES, dtype=np.float32)])
    beyond = min(frame + MARGIN_FRAMES, n_frames) * LATENT_HOP_SAMPLES + OVERHANG_SAMPLES
    stop = frame - first
    return encode(silent)[stop - kept : stop], encode(audio[start:beyond])[stop - kept : stop]


def run(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Audit every usable recording at the noise level of each cell; the cells of one recording set encode once.

    Inputs ``flow``, ``autoencoder``, ``latents`` and ``corpus``. Files: ``audit.csv``, a row per recording. Metrics:
    ``spearman_mean``, the rank correlation of IC with and without the cut within recordings, its ``spearman_se`` over
    recordings, ``change_mean``, IC with the cut minus ordinary IC in nats, its ``change_se`` over recordings,
    ``ic_sd``, ``control_spearman_mean``, ``control_change_mean``, ``n_frames``, ``n_recordings`` and ``skipped``. A
    rank correlation is None where IC doesn't vary (s = 1).

    Raises
    ------
    Stopped
        When the study was asked to stop.
    """
    audits: dict[str, Audit] = {}
    for done, cell in enumerate(cells):
        key = json.dumps([cell.input(role).signature for role in ("autoencoder", "corpus", "latents", "flow")])
        key += json.dumps([cell.config["seed"], cell.config["audit"]])
        try:
            if key not in audits:
                audits = {key: Audit(cell, context)}
            yield audits[key].judge(cell, context)
        except TaskError as problem:
            yield Result(cell.signature, failure=str(problem))
        context.progress(done + 1, len(cells), {})


class Audit:
    """One recording set of one variant: its flow, and the frames to audit with what was encoded again."""

    def __init__(self, cell: Cell, context: Context) -> None:
        self.device = default_device()
        model, self.window = read_flow(cell.input("flow"))
        self.flow = model.to(self.device)
        config = CausalAuditConfig.of_signed(cell.config["audit"])
        encode = load(cell.input("autoencoder")).encode
        project = self.flow.project
        as_read: Encode = (lambda audio: projected(encode(audio))) if project else encode
        self.audited, self.skipped = audited_frames(
            as_read, cell.input("latents"), cell.input("corpus"), config, int(cell.config["seed"]), context, project
        )

    @torch.inference_mode()
    def judge(self, cell: Cell, context: Context) -> Result:
        """Compare the IC at the level of one cell, and write the table."""
        role, config = str(cell.config["role"]), SurprisalCell.model_validate(cell.config["surprisal"])
        if (config.definition, config.context) != ("expectation", "transformed"):
            raise TaskError(
                "causal_audit: only IC of definition expectation in its transformed context is audited, not "
                f"{config.definition} in context {config.context}"
            )
        if isinstance(config.probes, ProbeFile):
            raise TaskError("causal_audit: given probes aren't audited; drawn and exact ones are")
        solver = InformationContent(self.flow, self.window, config, cell.signature)
        rows, every = [], []
        for name, audited in self.audited.items():
            if context.should_stop():
                raise Stopped
            values = self.ic(audited, name, solver)
            if np.isfinite(values).all():
                rows.append({"role": role, "recording": name, **compare(*values)})
                every.append(values)
        left_out = [f"{name}: IC isn't finite" for name in self.audited if name not in {r["recording"] for r in rows}]
        skipped = self.skipped + left_out
        if not rows:
            raise TaskError("No recording could be audited: " + ("; ".join(skipped[:5]) or "none given"))
        (cell.out_dir / "audit.csv").write_text(_table(rows), encoding="utf-8")
        summary = _summary(rows, float(np.concatenate([values[0] for values in every]).std()))
        return Result(cell.signature, {**summary, "n_skipped": len(skipped), "skipped": skipped[:20]})

    def ic(self, audited: Audited, name: str, solver: InformationContent) -> Floats:
        """Ordinary IC, that with the cut and that of the control, ``(3, n)`` nats, with the same probes."""
        tau = np.float32(solver.tau)
        own = [
            audited.latents[frame - len(tail) : frame] for frame, tail in zip(audited.frames, audited.cut, strict=True)
        ]
        tails = [
            Tail(frame, torch.from_numpy(latents * tau).to(self.device))
            for kind in (own, audited.cut, audited.control)
            for frame, latents in zip(audited.frames, kind, strict=True)
        ]
        frames = torch.from_numpy(audited.latents * tau).to(self.device)
        contexts = contexts_after(self.flow, frames, tails, self.window)
        chosen = list(audited.frames)
        return solver.given(name, len(frames), 3 * chosen, frames[3 * chosen], contexts).reshape(3, -1)


def audited_frames(
    encode: Encode,
    latents: Artefact,
    corpus: Artefact,
    config: CausalAuditConfig,
    seed: int,
    context: Context,
    project: bool = False,
) -> tuple[dict[str, Audited], list[str]]:
    """Frames drawn from every recording, encoded again; and sentences on the recordings left out.

    Which frames depends on the seed and the recording, so that all levels and variants of a study audit the same. With
    `project` the stored latents are read as coordinates in the hyperplane, which `encode` has to give too.
    """
    stored, skipped = read_latents(latents, project)
    about = json.loads(latents.read_bytes("latents.json"))
    found: dict[str, Audited] = {}
    for recording in recordings(corpus):
        if recording.id not in stored:
            continue
        if context.should_stop():
            raise Stopped
        frames, span = stored[recording.id], about[recording.id]
        random = numpy_stream("causal audit", seed, recording.id)
        count = min(config.frames_per_recording, len(frames) - 1)
        chosen = np.sort(random.choice(np.arange(1, len(frames)), size=count, replace=False))
        audio = load_audio(recording, corpus, context.open_file)
        audio = audio[span["lead_samples"] : span["n_samples"] - span["trail_samples"]]
        again = [encode_again(encode, audio, int(frame), len(frames)) for frame in chosen]
        cut, control = zip(*again, strict=True)
        found[recording.id] = Audited(frames, tuple(map(int, chosen)), cut, control)
    return found, skipped


def compare(ordinary: Floats, cut: Floats, control: Floats) -> dict[str, Any]:
    """How the IC of one recording's frames, (n,) nats each, changes with the cut, and in the control."""
    return {
        "n_frames": len(ordinary),
        "spearman": _rank_correlation(ordinary, cut),
        "change_mean": float((cut - ordinary).mean()),
        "control_spearman": _rank_correlation(ordinary, control),
        "control_change_mean": float((control - ordinary).mean()),
        "ic_sd": float(ordinary.std()),
    }


def _rank_correlation(first: Floats, second: Floats) -> float | None:
    """Spearman's, or None where one of the two does not vary."""
    if min(np.ptp(first), np.ptp(second)) <= 1e-9 * max(np.abs(first).max(), np.abs(second).max()):
        return None
    return float(stats.spearmanr(first, second).statistic)


def _summary(rows: Sequence[Mapping[str, Any]], ic_sd: float) -> dict[str, Any]:
    metrics: dict[str, Any] = {"ic_sd": ic_sd}
    for name in ("spearman", "change", "control_spearman", "control_change"):
        column = name if name.endswith("spearman") else f"{name}_mean"
        values = np.array([row[column] for row in rows if row[column] is not None], dtype=np.float64)
        metrics[f"{name}_mean"] = float(values.mean()) if len(values) else None
        if not name.startswith("control"):
            metrics[f"{name}_se"] = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return {**metrics, "n_frames": sum(row["n_frames"] for row in rows), "n_recordings": len(rows)}


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    return stream.getvalue()
