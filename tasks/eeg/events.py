"""The table of events: which subject heard which recording when, in which file. Light: planning reads it."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping

from tasks.config import Config
from tasks.contract import TaskError

NEEDED = ("subject", "file", "recording", "onset_s")
_NO_VALUE = ("", "n/a", "nan")
_COMPANIONS = {".vhdr": (".eeg", ".dat", ".vmrk"), ".ahdr": (".eeg", ".dat", ".amrk"), ".set": (".fdt",)}
_COMPANIONS |= {".lay": (".dat",)}


class Presentation(Config):
    """One row: `recording` began `onset_s` after the first sample of `file`; `repetition` counts from 0."""

    file: str
    recording: str
    onset_s: float
    duration_s: float | None = None
    repetition: int | None = None


def read_events(path: str, content: bytes) -> dict[str, tuple[Presentation, ...]]:
    """Presentations by subject, in the table's order.

    Parameters
    ----------
    path : str
        What the table is called in messages.
    content : bytes
        csv or tsv in UTF-8 with the columns subject, file, recording, onset_s and, if known, duration_s, repetition.

    Raises
    ------
    TaskError
        In one line that names the row, if the table is not such a one.
    """
    try:
        text = content.decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text), delimiter="\t" if "\t" in text.partition("\n")[0] else ",")
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise TaskError(f"{path}: not a csv or tsv file in UTF-8 ({error}); check eeg.raw.events") from None
    columns = [str(name) for name in reader.fieldnames or ()]
    if not rows or not set(NEEDED) <= set(columns):
        found = f"columns {', '.join(columns)}" if columns else "nothing"
        raise TaskError(
            f"{path}: the columns must be {', '.join(NEEDED)} (and may be duration_s, repetition), separated by "
            f"a comma or a tab, with a row per presentation; found: {found} and {len(rows)} row(s)"
        )
    events: dict[str, list[Presentation]] = {}
    for place, row in enumerate(rows, 1):
        subject, presentation = _row(f"{path}: row {place}", row)
        events.setdefault(subject, []).append(presentation)
    return {subject: tuple(listed) for subject, listed in events.items()}


def _row(where: str, row: Mapping[str, str | None]) -> tuple[str, Presentation]:
    cells = {name: (value or "").strip() for name, value in row.items() if isinstance(value, str | None)}
    subject, file, recording = (cells.get(name, "") for name in ("subject", "file", "recording"))
    if not re.fullmatch(r"\w[\w.-]*", subject) or subject.startswith("canary"):
        raise TaskError(
            f"{where}: subject {subject!r} must be letters, digits, '.', '_' or '-', and not begin with canary"
        )
    if not file or file.startswith(("/", "~")) or "\\" in file or "://" in file or ".." in file.split("/"):
        raise TaskError(f"{where}: file {file!r} must be a path within eeg.raw.path, with / between folders")
    if recording.lower() in _NO_VALUE:
        raise TaskError(f"{where}: recording is empty; give the file name of the stimulus that was heard")
    onset_s = _number(where, "onset_s", cells)
    if onset_s is None or onset_s < 0:
        raise TaskError(
            f"{where}: onset_s {cells['onset_s']!r} must be 0 or more: seconds from the file's first sample"
        )
    duration_s = _number(where, "duration_s", cells)
    if duration_s is not None and duration_s <= 0:
        raise TaskError(f"{where}: duration_s {cells['duration_s']!r} must be above 0, or empty")
    repetition = cells.get("repetition", "")
    if repetition.lower() in _NO_VALUE:
        return subject, Presentation(file=file, recording=recording, onset_s=onset_s, duration_s=duration_s)
    if not repetition.isascii() or not repetition.isdigit() or int(repetition) < 1:
        raise TaskError(f"{where}: repetition {repetition!r} must be 1, 2, ..., or empty")
    number = int(repetition) - 1
    return subject, Presentation(
        file=file, recording=recording, onset_s=onset_s, duration_s=duration_s, repetition=number
    )


def _number(where: str, name: str, cells: Mapping[str, str]) -> float | None:
    text = cells.get(name, "")
    if text.lower() in _NO_VALUE:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise TaskError(f"{where}: {name} {text!r} must be a number (seconds, with a point)")
    return value


def belongs_to(name: str, file: str) -> bool:
    """Whether the file `name` is a part of the recording `file`: same folder, a name that its format prescribes.

    BrainVision's header has its data and markers beside it, EEGLAB's .set its .fdt, a split FIF its further parts.
    """
    stem, suffix = _split(file)
    other_stem, other_suffix = _split(name)
    if suffix.lower() == ".fif":
        further = re.escape(stem) + r"-\d+"
        if part := re.fullmatch(r"(.*_split-)\d+(_[^/]*)?", stem):
            further = re.escape(part[1]) + r"\d+" + re.escape(part[2] or "")
        return other_suffix == suffix and name != file and re.fullmatch(further, other_stem) is not None
    return other_stem == stem and other_suffix.lower() in _COMPANIONS.get(suffix.lower(), ())


def _split(name: str) -> tuple[str, str]:
    stem, dot, suffix = name.rpartition(".")
    return (stem, dot + suffix) if dot else (name, "")
