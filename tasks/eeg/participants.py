"""The table of participants: which value of one of its columns each subject has. Light: planning reads it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping

from tasks.contract import TaskError
from tasks.eeg.lacking import listed

NAMES = ("participant_id", "subject")
"""What the column with the subjects' names may be called; BIDS calls it participant_id."""

_NO_VALUE = ("", "n/a", "na", "nan")
_BIDS = "sub-"


class NotCompared(Exception):
    """Why two groups are not compared."""


def read_participants(path: str, content: bytes, column: str) -> dict[str, str]:
    """The value of a column by subject, as the table names subjects; those without a value are left out.

    Parameters
    ----------
    path : str
        What the table is called in messages.
    content : bytes
        csv or tsv in UTF-8 with a row per subject and the column participant_id (or subject).
    column : str
        The column that is wanted.

    Raises
    ------
    TaskError
        In one line, if the table is not such a one, lacks the column, or gives a subject two values.
    """
    try:
        text = content.decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text), delimiter="\t" if "\t" in text.partition("\n")[0] else ",")
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise TaskError(f"{path}: not a csv or tsv file in UTF-8 ({error}); check eeg.participants.path") from None
    columns = [str(name).strip() for name in reader.fieldnames or ()]
    name = next((name for name in NAMES if name in columns), None)
    if name is None or not rows:
        found = f"columns {', '.join(columns)}" if columns else "nothing"
        raise TaskError(
            f"{path}: a column {' or '.join(NAMES)} is needed, with a row per subject; "
            f"found: {found} and {len(rows)} row(s)"
        )
    if column not in columns or column == name:
        allowed = ", ".join(other for other in columns if other != name) or "none: the table has no other column"
        raise TaskError(f"{path}: no column {column!r} to compare (eeg.participants.column); allowed: {allowed}")
    values: dict[str, str] = {}
    for place, row in enumerate(rows, 1):
        cells = {str(key).strip(): (value or "").strip() for key, value in row.items() if isinstance(value, str | None)}
        subject, value = cells.get(name, ""), cells.get(column, "")
        if not subject:
            raise TaskError(f"{path}: row {place} names no subject in the column {name}")
        if value.lower() in _NO_VALUE:
            continue
        if values.setdefault(subject, value) != value:
            raise TaskError(
                f"{path}: row {place} gives {subject} the {column} {value}, another row {values[subject]}; "
                "keep one row per subject"
            )
    return values


def of_subjects(subjects: Iterable[str], values: Mapping[str, str]) -> dict[str, str]:
    """Values of a study's subjects, by its own names: ``sub-01`` of the table is ``01`` or ``sub-01`` of the study."""
    plain = {name.removeprefix(_BIDS): value for name, value in values.items()}
    found = {name: values.get(name, plain.get(name.removeprefix(_BIDS))) for name in subjects}
    return {name: value for name, value in found.items() if value is not None}


def two_values(column: str, values: Mapping[str, str]) -> tuple[str, str]:
    """The two values that a column has, in alphabetical order.

    Raises
    ------
    NotCompared
        If it has another number of values.
    """
    found = sorted(set(values.values()))
    if len(found) != 2:
        named = f"{len(found)} values ({listed(found)})" if found else "no value"
        raise NotCompared(
            f"the column {column} has {named} among the study's subjects, and exactly 2 are compared; choose another "
            "column, or leave the other values empty (n/a)"
        )
    return found[0], found[1]
