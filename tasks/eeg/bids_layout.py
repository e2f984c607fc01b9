"""Which files of a BIDS data set are whose: recordings by subject, each with what it inherits. Light, for planning.

A file's name is ``<key>-<label>_ ... _<suffix><extension>``. What describes a recording (channels.tsv, events.tsv ...)
lies beside it or in a folder above it, and belongs to every recording that has all of its labels (BIDS's principle of
inheritance); of several the nearest counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from tasks.eeg.events import belongs_to
from tasks.eeg.source_config import SensorType

FORMATS = {"eeg": (".vhdr", ".edf", ".bdf", ".set"), "meg": (".fif", ".ds", ".con", ".sqd")}
"""Extensions of recordings by the folder that they lie in."""

DESCRIBING = (("events", ".tsv"), ("channels", ".tsv"), ("electrodes", ".tsv"), ("coordsystem", ".json"))
DESCRIPTION = "dataset_description.json"
_NAME = re.compile(r"((?:[a-z]+-[A-Za-z0-9+]+_)*)([A-Za-z0-9]+)(\.[A-Za-z0-9.]+)")


@dataclass(frozen=True)
class Named:
    """What a file's name says: labels by key, suffix, extension."""

    labels: Mapping[str, str]
    suffix: str
    extension: str


@dataclass(frozen=True)
class Placed:
    """A file by its path in the data set, and the path that it gets in a copy of one recording."""

    path: str
    place: str


@dataclass(frozen=True)
class BidsRecording:
    """One recording: `files` are its own, the first one named `name`, and what describes it; `events` is a place."""

    name: str
    labels: Mapping[str, str]
    events: str | None
    files: tuple[Placed, ...]


def named(name: str) -> Named | None:
    """What the name of a file (without folders) says, or None where it is no name of BIDS."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    labels = dict(part.split("-", 1) for part in found[1].split("_") if part)
    return Named(labels, found[2], found[3])


def subjects_of(paths: Iterable[str]) -> list[str]:
    """All subjects (sub-...) that have a folder, in order."""
    return sorted({top for path in paths if re.fullmatch(r"sub-[A-Za-z0-9+]+", top := path.split("/", 1)[0])})


def tasks_of(paths: Iterable[str]) -> list[str]:
    """The tasks of which there is a recording."""
    mains = [_mains([path], kind, {}) for path in paths for kind in FORMATS]
    return sorted({label for found in mains for about in found.values() if (label := about.labels.get("task"))})


def recordings_of(
    paths: Iterable[str],
    task: str | None = None,
    session: str | None = None,
    run: str | None = None,
    sensor_type: SensorType = "eeg",
) -> dict[str, tuple[BidsRecording, ...]]:
    """Recordings by subject, those of a session and run together in their order; a subject may have none.

    Parameters
    ----------
    paths : iterable of str
        All files of the data set, by their path in it.
    task, session, run : str or None
        Labels; None takes all. Runs are compared as numbers where they are.
    sensor_type : {"eeg", "mag", "grad"}
        MEG lies in folders meg; EEG in folders eeg, or in folders meg where a subject has no folder eeg.
    """
    listed = sorted(paths)
    wanted = {"task": task, "ses": session, "run": run}
    found: dict[str, tuple[BidsRecording, ...]] = {}
    for subject in subjects_of(listed):
        own = [path for path in listed if path.startswith(f"{subject}/")]
        kinds = ("meg",) if sensor_type != "eeg" else ("eeg", "meg")
        mains = next((mains for kind in kinds if (mains := _mains(own, kind, wanted))), {})
        shared = [path for path in listed if "/" not in path]
        parts = [_recording(name, about, own, shared) for name, about in mains.items()]
        found[subject] = tuple(sorted(parts, key=lambda part: _in_order(part)))
    return found


def _in_order(part: BidsRecording) -> tuple[object, ...]:
    run = part.labels.get("run", "0")
    return part.labels.get("ses", ""), int(run) if run.isdigit() else 0, part.name


def _mains(own: Iterable[str], kind: str, wanted: Mapping[str, str | None]) -> dict[str, Named]:
    """The first file of each recording in folders `kind` (or the folder that is one), with what its name says."""
    found: dict[str, Named] = {}
    for path in own:
        folders, name = _beneath(path, kind)
        about = named(name) if name else None
        if about is None or about.suffix != kind or about.extension.lower() not in FORMATS[kind]:
            continue
        if about.labels.get("split", "01").lstrip("0") == "1" and all(
            label is None or _same(about.labels.get(key), label) for key, label in wanted.items()
        ):
            found[f"{folders}/{name}"] = about
    return found


def _beneath(path: str, kind: str) -> tuple[str, str]:
    """The folder `kind` that a file lies in, and what lies directly in it on the way to the file."""
    parts = path.split("/")
    place = next((k for k in (1, 2) if k < len(parts) - 1 and parts[k] == kind), None)
    return ("", "") if place is None else ("/".join(parts[: place + 1]), parts[place + 1])


def _same(has: str | None, label: str) -> bool:
    if has is not None and has.isdigit() and label.isdigit():
        return int(has) == int(label)
    return has == label


def _recording(name: str, about: Named, own: Iterable[str], shared: Iterable[str]) -> BidsRecording:
    folder = name.rpartition("/")[0]
    files = [Placed(name, name)] if about.extension != ".ds" else []
    files += [Placed(path, path) for path in own if path.startswith(f"{name}/") or belongs_to(path, name)]
    stem = "_".join(f"{key}-{label}" for key, label in about.labels.items() if key != "split")
    above = [path for path in own if name.startswith(path.rpartition("/")[0] + "/")]
    events = None
    space: str | None = None
    for suffix, extension in (*DESCRIBING, (about.suffix, ".json")):
        nearest = _nearest(about, suffix, extension, (*above, *shared), space if suffix == "coordsystem" else None)
        if nearest is None:
            continue
        label = named(PurePosixPath(nearest).name)
        assert label is not None
        space = label.labels.get("space")
        between = f"_space-{space}" if space is not None and suffix in ("electrodes", "coordsystem") else ""
        place = f"{folder}/{stem}{between}_{suffix}{extension}"
        files.append(Placed(nearest, place))
        events = place if suffix == "events" else events
    return BidsRecording(name, about.labels, events, tuple(files))


def _nearest(about: Named, suffix: str, extension: str, candidates: Iterable[str], space: str | None) -> str | None:
    """The file of this kind that counts for a recording: the deepest, then the one with most labels in common.

    Of electrodes in several spaces those in MNE's own (CapTrak) count, with their own coordinate system.
    """
    fitting = []
    for path in candidates:
        name = PurePosixPath(path).name
        other = named(name)
        if other is None or (other.suffix, other.extension) != (suffix, extension):
            continue
        labels = {key: label for key, label in other.labels.items() if key != "space"}
        if all(about.labels.get(key) == label for key, label in labels.items()):
            preferred = other.labels.get("space") == (space if suffix == "coordsystem" else "CapTrak")
            fitting.append((path.count("/"), preferred, len(labels), path))
    return max(fitting)[3] if fitting else None
