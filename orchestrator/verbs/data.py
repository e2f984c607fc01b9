"""EEG data sets before any study: what is in them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from orchestrator.outside import OutsideFile, list_files, open_outside
from orchestrator.paths import local_folder
from orchestrator.reading import UsageError
from orchestrator.report.tables import aligned
from orchestrator.trouble import described
from orchestrator.verbs.data_bids import bids_facts
from tasks.contract import TaskError
from tasks.eeg.source_config import SensorType

if TYPE_CHECKING:
    from tasks.eeg.overview import SubjectFacts
    from tasks.eeg.shipped import Shipped

DESCRIPTION = "dataset_description.json"
RAW_SUFFIXES = (".fif", ".fif.gz", ".bdf", ".edf", ".gdf", ".vhdr", ".ahdr", ".set", ".cnt", ".nxe", ".lay")


def inspect(
    path: str, events: str | None, task: str | None, sensor_type: str | None, out: str | None, as_json: bool
) -> int:
    """Print what a data set has, subject by subject, and what is missing; draw its montage at `out`.

    Raises
    ------
    UsageError
        If there is no data set at `path`, or the picture can't be written.
    """
    files = listed(path)
    kind = wanted(sensor_type)
    shipped = None
    if task is not None and DESCRIPTION not in files:
        raise UsageError(f"--task: {path} is no BIDS data set (no {DESCRIPTION}); leave the option out")
    if DESCRIPTION in files:
        if events is not None:
            raise UsageError("--events: a BIDS data set has its events in its own files; leave the option out")
        subjects, missing, layout = bids_facts(path, files, task, kind)
    elif any(re.fullmatch(r"data(Sub\d+|Stim)\.mat", name) for name in files):
        if events is not None:
            raise UsageError("--events: a CND data set has its trials in its own files; leave the option out")
        shipped, subjects, missing = _cnd(files)
        layout = "CND"
    else:
        subjects, missing = _raw(path, files, events, kind or "eeg")
        layout = "raw files" + ("" if events else " without a table of events (--events)")
    drawn = _drawn(subjects, out)
    if as_json:
        stimuli = None if shipped is None else _stimuli_json(shipped)
        about = [_subject_json(facts) for facts in subjects]
        print(json.dumps({"layout": layout, "stimuli": stimuli, "subjects": about, "missing": missing}, indent=1))
        return 0
    print(f"{path}: {layout}, {len(subjects)} subject{'' if len(subjects) == 1 else 's'}")
    if shipped is not None:
        print(_stimuli_line(shipped))
    print("\n".join(["", *_table(subjects), ""]))
    print("\n".join(_channel_lines(subjects)))
    sentences = [*missing, *(f"{facts.name}: {sentence}" for facts in subjects for sentence in facts.missing)]
    print(
        "\n".join(["missing:", *(f"  {sentence}" for sentence in sentences)] if sentences else ["nothing is missing"])
    )
    if drawn:
        print(drawn)
    return 0


def wanted(sensor_type: str | None) -> SensorType | None:
    """The option of that name, or None where it isn't given."""
    if sensor_type is not None and sensor_type not in get_args(SensorType):
        raise UsageError(f"--sensor-type {sensor_type!r}: allowed is {', '.join(get_args(SensorType))}")
    return cast("SensorType | None", sensor_type)


def listed(path: str) -> dict[str, OutsideFile]:
    """Every file below a folder, by its path in it."""
    try:
        found = list_files(path, ("",))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such folder") from None
    except Exception as error:  # fsspec and the stores behind it raise whatever they met
        raise UsageError(f"{path}: can't be listed: {described(error)}") from None
    local = local_folder(path)
    if local is not None and local.is_file():
        raise UsageError(f"{path}: is a file; give the folder of the data set")
    base = str(local) if local is not None else path.rstrip("/")
    return {file.path.removeprefix(base).strip("/"): file for file in found}


def _cnd(files: dict[str, OutsideFile]) -> tuple[Shipped | None, list[SubjectFacts], list[str]]:
    from tasks.eeg.overview import cnd_subject
    from tasks.eeg.shipped import read_shipped

    missing: list[str] = []
    shipped = None
    if "dataStim.mat" in files:
        try:
            shipped = read_shipped(files["dataStim.mat"].path, open_outside)
        except TaskError as error:
            missing.append(str(error))
    else:
        missing.append("dataStim.mat: the stimuli's features and the order of trials are unknown")
    numbers = sorted(int(found[1]) for name in files if (found := re.fullmatch(r"dataSub(\d+)\.mat", name)))
    missing += [f"dataSub{n}.mat" for n in range(1, max(numbers, default=1)) if n not in numbers]
    names = [f"dataSub{number}" for number in numbers]
    return shipped, [cnd_subject(n, files[f"{n}.mat"].path, shipped, open_outside) for n in names], missing


def _raw(
    path: str, files: dict[str, OutsideFile], events: str | None, kind: SensorType
) -> tuple[list[SubjectFacts], list[str]]:
    from tasks.eeg.events import belongs_to, read_events
    from tasks.eeg.overview import raw_subject
    from tasks.eeg.raw_file import RawFile, RawPart

    def described_file(name: str) -> RawFile:
        beside = [RawPart(path=files[other].path) for other in sorted(files) if belongs_to(other, name)]
        return RawFile(name=name, path=files[name].path, companions=tuple(beside))

    if events is None:
        parts = {other for name in files for other in files if belongs_to(other, name)}
        names = [name for name in sorted(files) if name.lower().endswith(RAW_SUFFIXES) and name not in parts]
        if not names:
            raise UsageError(f"{path}: no data set there: no dataSub1.mat, and no {', '.join(RAW_SUFFIXES)}")
        return [raw_subject(n, (), {n: described_file(n)}, open_outside, kind) for n in names], []
    try:
        with open_outside(events) as stream:
            rows = read_events(events, stream.read())
    except TaskError as error:
        raise UsageError(str(error).replace("eeg.raw.events", "--events")) from None
    except OSError as error:
        raise UsageError(f"--events {events}: can't be opened ({error.strerror or error})") from None
    named = {row.file for listed in rows.values() for row in listed}
    unnamed = [name for name in sorted(files) if name.lower().endswith(RAW_SUFFIXES) and name not in named]
    unnamed = [name for name in unnamed if not any(belongs_to(name, other) for other in named)]
    subjects = [
        raw_subject(subject, listed, {n: described_file(n) for n in named if n in files}, open_outside, kind)
        for subject, listed in rows.items()
    ]
    return subjects, [f"{name}: the table of events doesn't name it" for name in unnamed]


def _drawn(subjects: Sequence[SubjectFacts], out: str | None) -> str:
    placed = [facts for facts in subjects if facts.positions is not None]
    if out is None:
        return "" if not placed else "a picture of the montage: --out FILE.png"
    if not placed:
        return f"no positions of channels are known, so there is no picture of the montage ({out} is not written)"
    from orchestrator.verbs.data_picture import draw

    try:
        draw(placed, Path(out))
    except (OSError, ValueError) as error:
        raise UsageError(f"--out {out}: can't be written ({error})") from None
    return f"montage: {out}"


_HEADER = ("subject", "trials", "pieces", "repetitions", "seconds", "rate (Hz)", "channels", "placed", "order")


def _table(subjects: Sequence[SubjectFacts]) -> list[str]:
    return aligned(_HEADER, [_row(facts) for facts in subjects])


def _row(facts: SubjectFacts) -> list[str]:
    return [
        facts.name,
        str(facts.n_trials),
        str(len(facts.pieces) or "?"),
        _range(facts.pieces.values(), "d") or "?",
        _range(facts.durations_s, ".1f") or "?",
        ", ".join(f"{rate:g}" for rate in facts.rates_hz) or "?",
        str(len(facts.channels)),
        "no" if facts.positions is None else "yes",
        "?" if facts.original_order is None else ("as listed" if _rising(facts.original_order) else "shuffled"),
    ]


def _rising(order: Sequence[int]) -> bool:
    return list(order) == sorted(order)


def _range(values: Iterable[float], form: str) -> str:
    known = sorted(values)
    if not known:
        return ""
    low, high = format(known[0], form), format(known[-1], form)
    return low if low == high else f"{low}-{high}"


def _channel_lines(subjects: Sequence[SubjectFacts]) -> Iterator[str]:
    """Channels once for all who have the same, then the other channels likewise."""
    sets = Counter(facts.channels for facts in subjects if facts.channels)
    for names, count in sets.most_common():
        yield f"channels ({_of(count, subjects)}): {' '.join(names)}"
    others = Counter((kind, names) for facts in subjects for kind, names in facts.other.items())
    for (kind, names), count in others.most_common():
        yield f"other channels ({_of(count, subjects)}): {kind}: {' '.join(names)}"
    for facts in subjects:
        if facts.bads:
            yield f"marked bad ({facts.name}): {' '.join(facts.bads)}"
    paddings = {f"{facts.padding_s:g} s" for facts in subjects if facts.padding_s is not None}
    if paddings:
        yield f"start padding: {', '.join(sorted(paddings))}"


def _of(count: int, subjects: Sequence[SubjectFacts]) -> str:
    return "all subjects" if count == len(subjects) else f"{count} of {len(subjects)} subjects"


def _stimuli_line(shipped: Shipped) -> str:
    n_pieces = len(set(shipped.same_as()))
    return (
        f"stimuli: {shipped.n_trials} trials of {n_pieces} pieces, {', '.join(shipped.names)} at {shipped.rate_hz:g} Hz"
    )


def _stimuli_json(shipped: Shipped) -> dict[str, Any]:
    seconds = [len(values) / shipped.rate_hz if values.ndim else 0.0 for values in shipped.data[shipped.envelope]]
    pieces = {first: k + 1 for k, first in enumerate(dict.fromkeys(shipped.same_as()))}
    trials = [pieces[first] for first in shipped.same_as()]
    return {"rate_hz": shipped.rate_hz, "features": list(shipped.names), "piece_of_trial": trials, "seconds": seconds}


def _subject_json(facts: SubjectFacts) -> dict[str, Any]:
    positions = None if facts.positions is None else facts.positions.tolist()
    return {**vars(facts), "positions": positions}
