"""Which recordings and subjects there are: the only looking-around that planning does."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

from orchestrator.experiment import Experiment, Science
from orchestrator.manifest_bids import bids_key, bids_subjects, declared, nothing_there, without_recording
from orchestrator.outside import OutsideFile, list_files, open_outside
from orchestrator.paths import local_folder
from orchestrator.redaction import redact
from orchestrator.roles import ROLES
from orchestrator.storage import Storage
from orchestrator.trouble import described
from tasks.contract import TaskError
from tasks.eeg.config import CndConfig, ParticipantsConfig, RawConfig
from tasks.eeg.events import Presentation, belongs_to, read_events
from tasks.eeg.participants import read_participants
from tasks.eeg.source_config import BidsConfig

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
MIDI_SUFFIXES = (".mid", ".midi")
SUFFIXES = {"audio": AUDIO_SUFFIXES, "midi": MIDI_SUFFIXES}
FINGERPRINTS = "fingerprints.json"
Row = TypeVar("Row")

File = dict[str, Any]
"""``{"path", "size", "version"}``: the version is the content's SHA-256 for local files, the store's ETag elsewhere."""


@dataclass(frozen=True)
class Subject:
    """One subject's EEG file, or its place in a data set that is declared but not there."""

    name: str
    file: File | None


@dataclass(frozen=True)
class RawSet:
    """Presentations by subject, and the files that they name: ``{"name", "path", "size", "version", "companions"}``."""

    presentations: Mapping[str, tuple[Presentation, ...]]
    files: Mapping[str, File]


@dataclass
class Manifest:
    """What was found. `missing` has a sentence for each source that is not there; `options` reach remote ones."""

    files: dict[tuple[str, str], tuple[File, ...]] = field(default_factory=dict)
    subjects: dict[str, tuple[Subject, ...]] = field(default_factory=dict)
    companions: dict[str, File] = field(default_factory=dict)
    raw: dict[tuple[str, str], RawSet] = field(default_factory=dict)
    participants: dict[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)
    bids: dict[str, Mapping[str, tuple[File, ...]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    options: Mapping[str, Any] = field(default_factory=dict)


def resolve(experiment: Experiment, ledger: Storage) -> Manifest:
    """List and fingerprint every file that the experiment's variants name. Missing data is noted, never an error."""
    manifest = Manifest(options=ledger.options)
    resolve_also(manifest, experiment.variants().values(), ledger)
    return manifest


def resolve_also(manifest: Manifest, variants: Iterable[Science], ledger: Storage) -> None:
    """Add to `manifest` whatever these variants name that is not in it yet."""
    fingerprints = Fingerprints(ledger)
    for science in variants:
        for source, path in _folders(science):
            if (source, path) not in manifest.files:
                _resolve_folder(manifest, fingerprints, source, path)
        cnd = science.eeg.cnd if science.eeg is not None else None
        if cnd is not None and cnd.path not in manifest.subjects:
            _resolve_cnd(manifest, fingerprints, cnd)
        for path in _own_features(science):
            if ("features", path) not in manifest.files:
                _resolve_features(manifest, fingerprints, path)
        raw = science.eeg.raw if science.eeg is not None else None
        if raw is not None and (raw.path, raw.events) not in manifest.raw:
            _resolve_raw(manifest, fingerprints, raw)
        table = science.eeg.participants if science.eeg is not None else None
        if table is not None and (table.path, table.column) not in manifest.participants:
            manifest.participants[table.path, table.column] = _participants(manifest, table)
        bids = science.eeg.bids if science.eeg is not None else None
        if bids is not None and bids_key(bids) not in manifest.bids:
            _resolve_bids(manifest, fingerprints, bids)
    fingerprints.keep()


def _folders(science: Science) -> Iterator[tuple[str, str]]:
    for role in ROLES:
        dataset = science.data.of(role)
        if dataset is not None and dataset.path is not None:
            yield dataset.source, dataset.path


def _resolve_folder(manifest: Manifest, fingerprints: Fingerprints, source: str, path: str) -> None:
    found = _listed(manifest, path, SUFFIXES[source], "no such folder")
    if not found:
        wanted = ", ".join(suffix.removeprefix(".") for suffix in SUFFIXES[source])
        manifest.missing.setdefault(path, f"{path}: no {source} files in it (looked for {wanted})")
    described = (_described(manifest, fingerprints, file, path) for file in found)
    manifest.files[source, path] = tuple(file for file in described if file is not None)
    if found and not manifest.files[source, path]:
        manifest.missing.setdefault(path, f"{path}: none of its {len(found)} {source} files can be read")


def _own_features(science: Science) -> list[str]:
    """Where features of one's own lie that a model asks for."""
    trf = science.eeg.trf if science.eeg is not None else None
    wanted = {name for model in trf.models for name in model.parts} if trf is not None else set()
    return [own.path for name, own in trf.features.items() if name in wanted] if trf is not None else []


def _resolve_features(manifest: Manifest, fingerprints: Fingerprints, path: str) -> None:
    one = path.lower().endswith(".npz")
    listed = _listed(manifest, path, (".npz",) if one else (".csv",), "no such file or folder (eeg.trf.features)")
    found = listed if one else [file for file in listed if _directly_in(file.path, path)]
    described = (_described(manifest, fingerprints, file, path) for file in found)
    manifest.files["features", path] = tuple(file for file in described if file is not None)
    if not manifest.files["features", path]:
        manifest.missing.setdefault(
            path, f"{path}: no csv files in it (eeg.trf.features; one .npz file is allowed too)"
        )


def _resolve_cnd(manifest: Manifest, fingerprints: Fingerprints, cnd: CndConfig) -> None:
    listed = _listed(manifest, cnd.path, (".mat",))
    found = {Path(file.path).name: file for file in listed if _directly_in(file.path, cnd.path)}
    names = sorted((name for name in found if re.fullmatch(r"dataSub\d+\.mat", name)), key=_number)
    described = [_described(manifest, fingerprints, found[name], cnd.path) for name in names]
    subjects = [Subject(name.removesuffix(".mat"), file) for name, file in zip(names, described, strict=True)]
    if "dataStim.mat" in found:
        stimuli = _described(manifest, fingerprints, found["dataStim.mat"], cnd.path)
        manifest.companions |= {f"{cnd.path}/dataStim.mat": stimuli} if stimuli is not None else {}
    if not subjects or "dataStim.mat" not in found:
        lacking = "dataStim.mat" if subjects else "dataSub1.mat, dataSub2.mat ..."
        lacking = lacking if found else "dataStim.mat and dataSub1.mat, dataSub2.mat ..."
        manifest.missing.setdefault(cnd.path, f"{cnd.path}: no CND data set there (it needs {lacking})")
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
    found = [file for file in _listed(manifest, path, ("",)) if Path(file.path).name == Path(path).name]
    table = _described(manifest, fingerprints, found[0], path) if len(found) == 1 else None
    if table is not None:
        manifest.companions[path] = {**table, "path": path}
    else:
        manifest.missing.setdefault(path, f"{path}: no such table of trials (eeg.cnd.trials)")


def _resolve_raw(manifest: Manifest, fingerprints: Fingerprints, raw: RawConfig) -> None:
    """The table of events decides who the subjects are; a file that isn't there is told where it is read."""
    events = _events(manifest, raw)
    listed = (
        {} if not events else _by_name(_listed(manifest, raw.path, ("",), "no such folder (eeg.raw.path)"), raw.path)
    )
    files: dict[str, File] = {}
    for name in dict.fromkeys(row.file for rows in events.values() for row in rows):
        parts = [name, *sorted(other for other in listed if belongs_to(other, name))]
        found = {part: _described(manifest, fingerprints, listed[part], raw.path) for part in parts if part in listed}
        first = found.get(name) or {"path": f"{raw.path.rstrip('/')}/{name}", "size": 0, "version": "missing"}
        others = [file for part, file in found.items() if part != name and file is not None]
        files[name] = {**first, "name": name, "companions": others}
    if events and raw.path not in manifest.missing and not any(name in listed for name in files):
        manifest.missing[raw.events] = f"{raw.path}: none of the files that {raw.events} names is there"
    if not events:
        declared = raw.expect.subjects if raw.expect is not None else 1
        events = {f"subject{number}": () for number in range(1, declared + 1)}
    elif raw.expect is not None and len(events) != raw.expect.subjects:
        manifest.notes.append(
            f"{raw.events}: {len(events)} subjects found, {raw.expect.subjects} expected (eeg.raw.expect)"
        )
    manifest.raw[raw.path, raw.events] = RawSet(events, files)


def _events(manifest: Manifest, raw: RawConfig) -> Mapping[str, tuple[Presentation, ...]]:
    def read(content: bytes) -> Mapping[str, tuple[Presentation, ...]]:
        return read_events(raw.events, content)

    return _table(manifest, raw.events, "table of events (eeg.raw.events)", read)


def _participants(manifest: Manifest, table: ParticipantsConfig) -> Mapping[str, str]:
    """The column's values, by the table's names of subjects."""

    def read(content: bytes) -> Mapping[str, str]:
        return read_participants(table.path, content, table.column)

    return _table(manifest, table.path, "table of participants (eeg.participants.path)", read)


def _table(manifest: Manifest, path: str, what: str, read: Callable[[bytes], Mapping[str, Row]]) -> Mapping[str, Row]:
    """What `read` finds in a file; nothing where it can't be read, and `manifest` is told why."""
    try:
        with open_outside(path, options=manifest.options) as stream:
            return read(stream.read())
    except TaskError as error:
        manifest.missing[path] = str(error)
    except FileNotFoundError:
        manifest.missing[path] = f"{path}: no such {what}"
    except Exception as error:  # fsspec and the stores behind it raise whatever they met
        manifest.missing[path] = f"{redact(path)}: can't be read: {described(error)}"
    return {}


def _resolve_bids(manifest: Manifest, fingerprints: Fingerprints, bids: BidsConfig) -> None:
    listed = _by_name(_listed(manifest, bids.path, ("",), "no such folder (eeg.bids.path)"), bids.path)
    described: dict[str, File] = {}

    def describe(name: str) -> File:
        if name not in described:
            unread = {"path": f"{bids.path.rstrip('/')}/{name}", "size": 0, "version": "missing"}
            described[name] = _described(manifest, fingerprints, listed[name], bids.path) or unread
        return described[name]

    found = bids_subjects(bids, listed, describe)
    left_out = without_recording(listed, found, _content(manifest, bids.path, listed.get("participants.tsv")))
    if found and left_out:
        manifest.notes.append(f"{bids.path}: no recording of task {bids.task}, so left out: {', '.join(left_out)}")
    if not found:
        if listed:
            manifest.missing.setdefault(bids.path, f"{bids.path}: {nothing_there(bids, listed)}")
        found = declared(bids)
    elif bids.expect is not None and len(found) != bids.expect.subjects:
        manifest.notes.append(
            f"{bids.path}: {len(found)} subjects found, {bids.expect.subjects} expected (eeg.bids.expect)"
        )
    manifest.bids[bids_key(bids)] = found


def _content(manifest: Manifest, folder: str, file: OutsideFile | None) -> bytes:
    if file is None:
        return b""
    try:
        with open_outside(file.path, options=manifest.options) as stream:
            return stream.read()
    except Exception as error:  # as above
        manifest.notes.append(f"{redact(folder)}: {Path(file.path).name} can't be read: {described(error)}")
        return b""


def _by_name(files: Iterable[OutsideFile], folder: str) -> dict[str, OutsideFile]:
    """Files by their path within `folder`."""
    local = local_folder(folder)
    base = str(local) if local is not None else folder.rstrip("/")
    return {file.path.removeprefix(base).strip("/"): file for file in files}


def _listed(manifest: Manifest, path: str, suffixes: tuple[str, ...], absent: str | None = None) -> list[OutsideFile]:
    """The files at `path`; where there are none to be had, `manifest` is told why."""
    try:
        return list_files(path, suffixes, manifest.options)
    except FileNotFoundError:
        if absent is not None:
            manifest.missing[path] = f"{path}: {absent}"
    except Exception as error:  # fsspec and the stores behind it raise whatever they met
        manifest.missing[path] = f"{redact(path)}: can't be listed: {described(error)}"
    return []


def _described(manifest: Manifest, fingerprints: Fingerprints, file: OutsideFile, folder: str) -> File | None:
    """A file with its fingerprint; None, and a note, when it can't be read."""
    try:
        return fingerprints.of(file, folder)
    except OSError as error:
        manifest.notes.append(f"{file.path}: can't be read ({error.strerror or error}), so it is left out")
        return None


def _directly_in(path: str, folder: str) -> bool:
    local = local_folder(folder)
    base = str(local) if local is not None else folder.rstrip("/")
    return "/" not in path.removeprefix(base).strip("/")


def _as_given(found: str, folder: str) -> str:
    """The path of a file found in `folder`, beginning as `folder` was written."""
    if "://" in folder or folder.startswith("~") or Path(folder).is_absolute():
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

    @cached_property
    def _known(self) -> dict[str, str]:
        try:
            return cast(dict[str, str], json.loads(self._ledger.read(FINGERPRINTS)))
        except (FileNotFoundError, ValueError):
            return {}

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
