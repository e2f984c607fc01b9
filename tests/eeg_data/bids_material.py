"""BIDS data sets of made-up recordings, written by mne-bids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mne
import mne_bids
import numpy as np
from raw_material import FS, NAMES, microvolts, raw_of

from tasks.eeg.bids_layout import recordings_of
from tasks.seeds import numpy_stream

ROWS = ((3.0, 12.0, "tunes/audio1.wav"), (18.5, 10.0, "tunes/audio2.wav"), (31.0, None, "tunes/audio10.wav"))
"""Onset and duration in seconds, and what was heard: as `microvolts` has it."""


def eeg_raw(seed: str) -> Any:
    """Ten electrodes and an EOG channel; Pz is marked bad, and a second of the first stimulus is."""
    eyes = 100 * numpy_stream("eyes", seed).normal(size=(1, round(45 * FS)))
    raw = raw_of(np.concatenate([microvolts(seed), eyes]), (*NAMES, "VEOG"), placed=False)
    raw.set_channel_types({"VEOG": "eog"}, verbose="ERROR")
    raw.set_montage("biosemi64", on_missing="ignore", verbose="ERROR")
    raw.info["bads"] = ["Pz"]
    raw.set_annotations(mne.Annotations([5.0, 10.0], [1.0, 0.5], ["BAD_moved", "blink"]))
    return raw


def meg_raw() -> Any:
    """Two magnetometers and four planar gradiometers, the head 4 cm below the device's middle, in tesla (per metre)."""
    names = ("MEG0111", "MEG0112", "MEG0113", "MEG0121", "MEG0122", "MEG0123")
    kinds = ["mag", "grad", "grad"] * 2
    info = mne.create_info(list(names), FS, kinds, verbose="ERROR")
    for place, channel in enumerate(info["chs"]):
        channel["loc"][:3] = (-0.05, 0.06, 0.09) if place < 3 else (0.05, 0.06, 0.09)
        channel["loc"][3:] = np.eye(3).ravel()
    transform = np.eye(4)
    transform[2, 3] = 0.04
    info["dev_head_t"] = mne.transforms.Transform("meg", "head", transform)
    scale = np.array([1e-13 if kind == "mag" else 1e-12 for kind in kinds])[:, None]
    raw = mne.io.RawArray(microvolts("meg", n=6) * scale, info, first_samp=500, verbose="ERROR")
    raw.info["bads"] = ["MEG0122"]
    raw.set_annotations(mne.Annotations([4.0], [2.0], ["BAD_jump"]))
    return raw


def write_bids(root: Path, raw: Any, subject: str, run: str | None = None, session: str | None = None) -> Any:
    kind = "meg" if "meg" in raw else "eeg"
    path = mne_bids.BIDSPath(subject=subject, session=session, run=run, task="listen", root=root, datatype=kind)
    form = {"format": "BrainVision"} if kind == "eeg" else {}
    return mne_bids.write_raw_bids(raw, path, allow_preload=True, verbose="ERROR", **{"format": "FIF", **form})


def write_events(path: Any, rows: tuple[tuple[Any, ...], ...] = ROWS, head: str = "stim_file") -> Path:
    """Append presentations to what mne-bids made of the annotations."""
    table = Path(path.copy().update(suffix="events", extension=".tsv").fpath)
    kept = [line.split("\t")[:3] for line in table.read_text(encoding="utf-8-sig").splitlines()[1:]]
    lines = [f"onset\tduration\ttrial_type\t{head}", *("\t".join([*row, "n/a"]) for row in kept)]
    lines += [f"{onset}\t{'n/a' if lasted is None else lasted}\tstimulus\t{name}" for onset, lasted, name in rows]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def bids_config(root: Path, subject: str, sensor_type: str = "eeg", **more: Any) -> dict[str, Any]:
    """The cell's config as the planner writes it."""
    paths = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    recordings = recordings_of(paths, "listen", sensor_type=sensor_type)[subject]
    listed = [
        {
            "name": one.name,
            "events": one.events,
            "files": [{"path": str(root / file.path), "place": file.place} for file in one.files],
        }
        for one in recordings
    ]
    return {
        "subject": subject,
        "bids": {"recordings": listed, "sensor_type": sensor_type, **more},
        "preprocessing": {"saturated_share": 0.01},
    }
