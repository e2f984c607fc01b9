"""Which recordings and subjects there are: the only looking-around that planning does."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.experiment import ROLES, Experiment, Science
from orchestrator.storage import OutsideFile, Storage, list_files
from tasks.eeg.config import CndConfig

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
MIDI_SUFFIXES = (".mid", ".midi")
SUFFIXES = {"audio": AUDIO_SUFFIXES, "midi": MIDI_SUFFIXES}
FINGERPRINTS = "fingerprints.json"

File = dict[str, Any]
"""``{"path", "size", "version"}``: the version is the content's SHA-256 for local files, the store's ETag elsewhere."""


@dataclass(frozen=True)
class Subject:
    """One subject's EEG file, or its place in a data set that is declared but not there."""

    name: str
    file: File | None


@dataclass
class Manifest:
    """What was found. `missing` has a sentence for each source that is not there."""

    files: dict[tuple[str, str], tuple[File, ...]] = field(default_factory=dict)
    subjects: dict[str, tuple[Subject, ...]] = field(default_factory=dict)
    companions: dict[str, File] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def resolve(experiment: Experiment, ledger: Storage) -> Manifest:
    """List and fingerprint every file that the experiment's variants name. Missing data is noted, never an error."""
    manifest = Manifest()
    fingerprints = Fingerprints(ledger)
    for science in experiment.variants().values():
        for source, path in _folders(science):
            if (source, path) not in manifest.files:
                _resolve_folder(manifest, fingerprints, source, path)
        cnd = science.eeg.cnd if science.eeg is not None else None
        if cnd is not None and cnd.path not in manifest.subjects:
            _resolve_cnd(manifest, fingerprints, cnd)
    fingerprints.keep()
    return manifest


def _folders(science: Science) -> Iterator[tuple[str, str]]:
    for role in ROLES:
        dataset = science.data.of(role)
        if dataset is not None and dataset.path is not None:
            yield dataset.source, dataset.path


def _resolve_folder(manifest: Manifest, fingerprints: Fingerprints, source: str, path: str) -> None:
    try:
        found = list_files(path, SUFFIXES[source])
    except FileNotFoundError:
        found = []
        manifest.missing[path] = f"{path}: no such folder"
    if not found:
        wanted = ", ".join(suffix.removeprefix(".") for suffix in SUFFIXES[source])
        manifest.missing.setdefault(path, f"{path}: no {source} files in it (looked for {wanted})")
    manifest.files[source, path] = tuple(fingerprints.of(file, path) for file in found)


def _resolve_cnd(manifest: Manifest, fingerprints: Fingerprints, cnd: CndConfig) -> None:
    try:
        found = {Path(file.path).name: file for file in list_files(cnd.path, (".mat",))}
    except FileNotFoundError:
        found = {}
    names = sorted((name for name in found if re.fullmatch(r"dataSub\d+\.mat", name)), key=_number)
    subjects = [Subject(name.removesuffix(".mat"), fingerprints.of(found[name], cnd.path)) for name in names]
    if "dataStim.mat" in found:
        manifest.companions[f"{cnd.path}/dataStim.mat"] = fingerprints.of(found["dataStim.mat"], cnd.path)
    if not subjects or "dataStim.mat" not in found:
        manifest.missing[cnd.path] = (
            f"{cnd.path}: no CND data set there (dataStim.mat and dataSub1.mat, dataSub2.mat ...)"
        )
        declared = cnd.expect.subjects if cnd.expect is not None else 1
        subjects = [Subject(f"dataSub{number}", None) for number in range(1, declared + 1)]
    elif cnd.expect is not None and len(subjects) != cnd.expect.subjects:
        manifest.notes.append(
            f"{cnd.path}: {len(subjects)} subjects found, {cnd.expect.subjects} expected (eeg.cnd.expect)"
        )
    manifest.subjects[cnd.path] = tuple(subjects)
    if cnd.trials is not None:
        _resolve_trials(manifest, fingerprints, cnd.trials)


def _resolve_trials(manifest: Manifest, fingerprints: Fingerprints, path: str) -> None:
    folder, _, name = path.rpartition("/")
    try:
        found = [file for file in list_files(folder or ".", (Path(name).suffix,)) if Path(file.path).name == name]
    except FileNotFoundError:
        found = []
    if found:
        manifest.companions[path] = {**fingerprints.of(found[0], folder or "."), "path": path}
    else:
        manifest.missing[path] = f"{path}: no such table of trials (eeg.cnd.trials)"


def _as_given(found: str, folder: str) -> str:
    """The path of a file found in `folder`, beginning as `folder` was written."""
    if "://" in folder or Path(folder).is_absolute():
        return found
    given = Path(folder)
    if given.is_file():
        return folder
    return str(given / Path(found).relative_to(given.absolute()))


def _number(name: str) -> int:
    return int(re.sub(r"\D", "", name))


class Fingerprints:
    """Content hashes of local files, remembered in the ledger by path, size and modification time."""

    def __init__(self, ledger: Storage) -> None:
        self._ledger = ledger
        self._changed = False
        try:
            self._known: dict[str, str] = json.loads(ledger.read(FINGERPRINTS))
        except (FileNotFoundError, ValueError):
            self._known = {}

    def of(self, file: OutsideFile, folder: str) -> File:
        """Describe a file found in `folder`; its path stays relative where the folder's is: a study can move."""
        path = _as_given(file.path, folder)
        local = Path(file.path)
        if not local.is_file():
            return {"path": path, "size": file.size, "version": file.version}
        key = f"{local.resolve()}|{file.size}|{file.version}"
        if key not in self._known:
            with local.open("rb") as stream:
                self._known[key] = f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
            self._changed = True
        return {"path": path, "size": file.size, "version": self._known[key]}

    def keep(self) -> None:
        if self._changed:
            self._ledger.write(FINGERPRINTS, json.dumps(self._known, sort_keys=True, indent=1).encode())
