"""Opens any recording that MNE reads, and says which of its channels are wanted, where they sit, what is marked bad."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import mne
import numpy as np

from tasks.config import Config
from tasks.contract import OpenFile, TaskError
from tasks.eeg.matlab import is_self_contained
from tasks.eeg.montage import on_sphere, standard_positions
from tasks.eeg.source_config import SensorType
from tasks.eeg.trials import Floats

Read = Callable[[Path], Any]
"""Makes an MNE Raw, its data not loaded, of a file in a folder of its own."""

BIOSEMI_EXTERNAL = ("EXG", "GSR", "Erg", "Resp", "Plet", "Temp")
"""Names of BioSemi's channels that no scalp electrode has; MNE calls them EEG."""


class RawPart(Config):
    """A file as the manifest found it; the version names its content."""

    path: str
    size: int | None = None
    version: str | None = None


class RawFile(RawPart):
    """A recording by its name in the table of events, with the files beside it that its format prescribes."""

    name: str
    companions: tuple[RawPart, ...] = ()


@dataclass(frozen=True)
class Opened:
    """A file's header.

    Attributes
    ----------
    raw : mne.io.BaseRaw
        The recording, its data not loaded.
    names : tuple of str
        The channels that are wanted: EEG, or MEG of one type.
    positions : ndarray of float64, shape (C, 3), or None
        In metres. Electrodes lie on a sphere of 95 mm around the origin, from the file or by standard names; MEG is in
        head coordinates.
    other : dict of str to tuple of str
        The other channels by type; ``mastoid`` are those asked for.
    """

    raw: Any
    names: tuple[str, ...]
    positions: Floats | None
    other: dict[str, tuple[str, ...]]

    @property
    def eog(self) -> tuple[str, ...]:
        """Channels of eye movements: by type, and by name those that are only known to be no EEG."""
        unnamed = [name for name in self.other.get("not EEG", ()) if "eog" in name.lower()]
        return (*self.other.get("eog", ()), *unnamed)

    @property
    def rate_hz(self) -> float:
        return float(self.raw.info["sfreq"])


def plainly(path: Path) -> Any:
    """A file by itself, with the types that EDF and BDF have in their channels' names."""
    options = {"infer_types": True} if path.suffix.lower() in (".edf", ".bdf") else {}
    return mne.io.read_raw(path, preload=False, verbose="ERROR", **options)


def open_raw(
    path: Path,
    mastoids: Sequence[str] = (),
    not_eeg: Sequence[str] = (),
    sensor_type: SensorType = "eeg",
    read: Read = plainly,
) -> Opened:
    """Open a file in a folder of its own and sort its channels.

    Raises
    ------
    TaskError
        If MNE can't read it, it shows the contents of files elsewhere, or it has no channel of the wanted type.
    """
    if not is_self_contained(path):
        raise TaskError("it shows contents of other files; a recording holds its data itself")
    try:
        raw = read(path)
    except TaskError:
        raise
    except Exception as error:  # readers raise whatever the broken bytes lead them to
        reason = " ".join(str(error).replace(f"{path.parent}/", "").split())[:200]
        raise TaskError(f"truncated, damaged, or no file that MNE reads ({type(error).__name__}: {reason})") from None
    home = path.parent.resolve()
    if any(name is not None and home not in Path(name).resolve().parents for name in raw.filenames):
        raise TaskError("its data are in a file elsewhere; they must lie beside it, under the same name")
    external = BIOSEMI_EXTERNAL if path.suffix.lower() == ".bdf" else ()
    names: list[str] = []
    other: dict[str, list[str]] = {}
    for name, kind in zip(raw.ch_names, raw.get_channel_types(), strict=True):
        if name in mastoids:
            other.setdefault("mastoid", []).append(name)
        elif name in not_eeg or (kind == "eeg" and name.startswith(external) and external):
            other.setdefault("not EEG", []).append(name)
        elif kind == sensor_type:
            names.append(name)
        else:
            other.setdefault(kind, []).append(name)
    listed = {kind: tuple(found) for kind, found in other.items()}
    if not names:
        has = ", ".join(f"{len(found)} {kind}" for kind, found in listed.items()) or "nothing"
        wanted = "EEG" if sensor_type == "eeg" else sensor_type
        raise TaskError(f"it has no {wanted} channels (it has: {has})")
    positions = _positions(raw, names) if sensor_type == "eeg" else _in_head(raw, names)
    return Opened(raw, tuple(names), positions, listed)


def _positions(raw: Any, names: Sequence[str]) -> Floats | None:
    positions = _located(raw, names)
    return standard_positions(tuple(names)) if positions is None else on_sphere(positions)


def _located(raw: Any, names: Sequence[str]) -> Floats | None:
    places = {channel["ch_name"]: np.array(channel["loc"][:3], dtype=np.float64) for channel in raw.info["chs"]}
    positions = np.array([places[name] for name in names])
    return positions if np.isfinite(positions).all() and (np.linalg.norm(positions, axis=1) > 0).all() else None


def _in_head(raw: Any, names: Sequence[str]) -> Floats | None:
    """Sensors of MEG in head coordinates; None where the file doesn't say how the head lay in the device."""
    positions, transform = _located(raw, names), raw.info["dev_head_t"]
    if positions is None or transform is None:
        return None
    return np.asarray(mne.transforms.apply_trans(transform, positions), dtype=np.float64)


def copy_here(file: RawFile, folder: Path, open_file: OpenFile) -> Path:
    """Copy a recording and its companions into an empty folder: readers want paths.

    Raises
    ------
    TaskError
        If one of them can't be opened.
    """
    for part in (file, *file.companions):
        try:
            with open_file(part.path) as stream, (folder / PurePosixPath(part.path).name).open("wb") as copy:
                shutil.copyfileobj(stream, copy, 1 << 20)
        except FileNotFoundError:
            raise TaskError(f"{_which(part, file)}there is no such file in eeg.raw.path") from None
        except OSError as error:
            raise TaskError(f"{_which(part, file)}can't be opened ({error.strerror or error})") from None
    return folder / PurePosixPath(file.path).name


def _which(part: RawPart, file: RawFile) -> str:
    return "" if part is file else f"its part {PurePosixPath(part.path).name}: "


def bad_spans(raw: Any, from_s: float, to_s: float) -> tuple[tuple[float, float, str], ...]:
    """What annotations that begin with BAD (in any case) cover of a part of a file, in seconds of that part.

    An annotation of some channels only names them in its description.
    """
    found = []
    onsets_s = np.asarray(raw.annotations.onset, dtype=np.float64) - raw.first_time
    for note, onset_s in zip(raw.annotations, onsets_s, strict=True):
        start, stop = max(onset_s, from_s), min(onset_s + note["duration"], to_s)
        if note["description"].lower().startswith("bad") and start < stop:
            channels = f" ({', '.join(note['ch_names'])})" if note.get("ch_names") else ""
            found.append((float(start - from_s), float(stop - from_s), note["description"] + channels))
    return tuple(sorted(found))
