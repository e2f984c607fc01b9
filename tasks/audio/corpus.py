"""Stage ``corpus``: the recordings of one role, rendered from melodies or found in a folder of audio files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from tasks.audio.clusters import split_clusters
from tasks.audio.config import SAMPLE_RATE_HZ, CorpusConfig, DataSet, SourceFile, SplitConfig
from tasks.audio.decoding import Samples, decode, fingerprint, probe, resample, usable
from tasks.audio.recording import Recording, check_disjoint, load_audio, recordings
from tasks.audio.render import render
from tasks.audio.sources import file_name, identifiers, opened
from tasks.contract import Artefact, Cell, Context, Result, Stopped, TaskError
from tasks.seeds import numpy_stream

__all__ = ["Recording", "check_disjoint", "load_audio", "recordings", "run"]

MIN_PART_S = 1.0
"""Shorter recordings, or parts of them, hold too few latent frames to learn from or to judge."""

MAX_NAMED = 20


@dataclass
class _Corpus:
    """What has been collected so far. `limit` recordings are enough."""

    limit: int | None
    recordings: list[Recording] = field(default_factory=list)
    heard: dict[str, str] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return self.limit is not None and len(self.recordings) >= self.limit

    def add(self, recording: Recording) -> None:
        known = self.heard.setdefault(recording.pcm_fingerprint, recording.id)
        if known != recording.id:
            raise TaskError(f"the same audio as {known}")
        self.recordings.append(recording)

    def skip(self, file: str, reason: str) -> None:
        self.skipped.append({"file": file, "reason": reason})


def run(cells: Sequence[Cell], context: Context) -> Iterator[Result]:
    """Collect the recordings of each cell's role; write ``corpus.json`` and, for melodies, one flac per recording.

    A file that can't be used (damaged, silent, too short, heard before) is named in ``skipped``; the others go on. A
    cell without any usable recording fails, and so does one whose files changed since the study was planned.
    """
    for cell in cells:
        config = CorpusConfig.model_validate(cell.config)
        corpus = _Corpus(config.dataset.pieces)
        try:
            if config.dataset.source == "audio":
                _find(corpus, config, context)
            else:
                _render_all(corpus, config, cell.input("tunes"), cell.out_dir, context)
        except TaskError as error:
            yield Result(cell.signature, failure=str(error))
            continue
        named = [f"{entry['file']}: {entry['reason']}" for entry in corpus.skipped]
        if not corpus.recordings:
            yield Result(cell.signature, failure=_nothing_left(config, named))
            continue
        listing = {"recordings": [asdict(recording) for recording in corpus.recordings], "skipped": corpus.skipped}
        text = json.dumps(listing, sort_keys=True, allow_nan=False)
        (cell.out_dir / "corpus.json").write_text(text, encoding="utf-8")
        shared, judged = (_shared_with(role, cell, config) for role in ("train", "melodies"))
        if judged or (shared and not config.allow_overlap):
            yield Result(cell.signature, failure=_leaks(judged, "") if judged else _leaks(shared))
            continue
        seconds = sum(recording.duration_s for recording in corpus.recordings)
        yield Result(cell.signature, {
            "n_recordings": len(corpus.recordings),
            "seconds": seconds,
            "n_skipped": len(named),
            "skipped": named[:MAX_NAMED],
            "overlap": shared[:MAX_NAMED],
        })  # fmt: skip


def _shared_with(role: str, cell: Cell, config: CorpusConfig) -> list[str]:
    """What this corpus has in common with its input of that role, one sentence for each recording."""
    if role not in cell.inputs:
        return []
    made = Artefact(cell.signature, cell.stage, cell.config, {}, lambda name: (cell.out_dir / name).open("rb"))
    return check_disjoint({role: cell.input(role), config.role: made}, role)


def _leaks(shared: Sequence[str], remedy: str = ", or set data.allow_overlap: true") -> str:
    more = f" (and {len(shared) - 1} more)" if len(shared) > 1 else ""
    return f"{shared[0]}{more}. Choose other recordings or another split{remedy}"


def _nothing_left(config: CorpusConfig, named: Sequence[str]) -> str:
    where = config.dataset.path or "the chorales"
    what = f"no usable recording for {config.role} (split {config.dataset.split} of {where})"
    if not named:
        return f"{what}: no file falls in this split. Add recordings, or set split: all"
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    return f"{what}. {'; '.join(named[:3])}{more}"


def _report(corpus: _Corpus, context: Context, done: int, total: int) -> None:
    context.progress(done, total, {"n_recordings": float(len(corpus.recordings))})
    if context.should_stop():
        raise Stopped


# Melodies


def _render_all(corpus: _Corpus, config: CorpusConfig, tunes: Artefact, out_dir: Path, context: Context) -> None:
    """Play every tune of the role's split."""
    dataset = config.dataset
    listed = json.loads(tunes.read_bytes("tunes.json"))["tunes"]
    chosen = [tune for tune in listed if dataset.split in ("all", tune["split"])]
    if dataset.pieces is not None:
        chosen = _one_per_cluster_first(chosen)
    for number, tune in enumerate(chosen):
        if corpus.full:
            return
        _report(corpus, context, number, min(len(chosen), dataset.pieces or len(chosen)))
        try:
            corpus.add(_rendered(tune, config, out_dir))
        except TaskError as error:
            corpus.skip(tune["id"], str(error))


def _one_per_cluster_first(tunes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A few pieces should be different music: the first tune of each cluster, then the others."""
    firsts: dict[int, dict[str, Any]] = {}
    for tune in tunes:
        firsts.setdefault(tune["cluster"], tune)
    return [*firsts.values(), *(tune for tune in tunes if firsts[tune["cluster"]] is not tune)]


def _rendered(tune: dict[str, Any], config: CorpusConfig, out_dir: Path) -> Recording:
    """Render one tune from its own stream and keep it as 16-bit flac."""
    rng = numpy_stream("render", config.seed, config.role, tune["id"])
    dataset = config.dataset
    audio, notes = render(tune["notes"], dataset.render, rng, tune["time_unit"], dataset.excerpt_s)
    pcm = np.round(audio * 32768).astype(np.int16)
    name = f"{tune['id']}.flac"
    if Path(name).name != name or name.startswith("."):
        raise TaskError(f"{tune['id']!r} can't be the name of a file")
    soundfile.write(out_dir / name, pcm, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return Recording(
        id=tune["id"],
        piece=tune["id"],
        cluster=tune["cluster"],
        file=name,
        path=None,
        sample_rate_hz=SAMPLE_RATE_HZ,
        start_sample=0,
        n_samples=len(pcm),
        pcm_fingerprint=fingerprint(pcm.astype(np.float32) / np.float32(32768)),
        within_recording=False,
        notes=tuple(notes),
    )


# Audio files


def _find(corpus: _Corpus, config: CorpusConfig, context: Context) -> None:
    """Check every file of the role's split."""
    names = identifiers(config.files)
    files = {file.path: file for file in config.files}
    chosen = [files[path] for path in _of_split(names, config)]
    for number, file in enumerate(chosen):
        if corpus.full:
            return
        _report(corpus, context, number, min(len(chosen), config.dataset.pieces or len(chosen)))
        with opened(file, context.open_file) as stream:
            try:
                corpus.add(_recorded(file, names[file.path], config, stream))
            except TaskError as error:
                corpus.skip(file_name(file.path), str(error))


def _of_split(names: dict[str, str], config: CorpusConfig) -> list[str]:
    """The paths that the role's split holds: all of them when recordings are cut instead of dealt out."""
    dataset = config.dataset
    if dataset.split == "all" or dataset.split_by == "within_recording":
        return list(names)
    splits = split_clusters(list(names.values()), range(len(names)), config.split, config.seed)
    return [path for path, split in zip(names, splits, strict=True) if split == dataset.split]


def _recorded(file: SourceFile, name: str, config: CorpusConfig, stream: BinaryIO) -> Recording:
    """Decode the role's part of one file and describe it."""
    rate_hz, length = probe(stream)
    start, count = _part(length, rate_hz, config.dataset, config.split)
    stream.seek(0)
    audio: Samples = resample(usable(decode(stream, start, count)), rate_hz)
    return Recording(
        id=name,
        piece=name,
        cluster=None,
        file=None,
        path=file.path,
        sample_rate_hz=rate_hz,
        start_sample=start,
        n_samples=count,
        pcm_fingerprint=fingerprint(audio),
        within_recording=config.dataset.split_by == "within_recording" and config.dataset.split != "all",
        notes=None,
    )


def _part(length: int, rate_hz: int, dataset: DataSet, split: SplitConfig) -> tuple[int, int]:
    """First sample and number of samples of the role's part of a recording of `length` samples."""
    start, stop = 0, length
    if dataset.split_by == "within_recording" and dataset.split != "all":
        held_out = length - round(split.held_out_share * length)
        before_gap, middle = held_out - round(split.gap_s * rate_hz), (held_out + length) // 2
        if min(before_gap, middle - held_out) < MIN_PART_S * rate_hz:
            raise TaskError(_too_short(length / rate_hz, split))
        start, stop = {"train": (0, before_gap), "dev": (held_out, middle), "test": (middle, length)}[dataset.split]
    if stop - start < MIN_PART_S * rate_hz:
        raise TaskError(f"{(stop - start) / rate_hz:.2f} s long: at least {MIN_PART_S:g} s are needed")
    if dataset.excerpt_s is not None:
        stop = min(stop, start + round(dataset.excerpt_s * rate_hz))
    return start, stop - start


def _too_short(seconds: float, split: SplitConfig) -> str:
    return (
        f"{seconds:.1f} s are too short to hold out the last {split.held_out_share:g} after a gap of {split.gap_s:g} s "
        f"with {MIN_PART_S:g} s left for training, and as much for each half of what is held out (dev and test)"
    )
