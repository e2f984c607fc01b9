"""Which trial of an EEG recording heard which recording of the stimuli."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import PurePosixPath

from tasks.audio.recording import Recording
from tasks.contract import OpenFile, TaskError
from tasks.eeg.trials import Skipped


def _natural(text: str) -> list[tuple[int, int | str]]:
    """Sorting key in which audio2 comes before audio10."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts if part]


def read_trial_table(path: str, open_file: OpenFile) -> dict[int, str]:
    """Trial number (from 1) -> name of the recording, from a csv with the columns trial and recording."""
    try:
        with open_file(path) as stream:
            reader = csv.DictReader(io.StringIO(stream.read().decode("utf-8-sig")))
            rows = list(reader)
    except OSError as error:
        raise TaskError(f"{path}: can't be opened ({error.strerror or error}); check cnd.trials") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise TaskError(f"{path}: not a csv file in UTF-8 ({error}); check cnd.trials") from None
    columns = [str(name) for name in reader.fieldnames or ()]
    if not rows or not {"trial", "recording"} <= set(columns):
        found = f"columns {', '.join(columns)}" if columns else "nothing"
        raise TaskError(
            f"{path}: the columns must be trial and recording, separated by a comma, with a row per trial; "
            f"found: {found} and {len(rows)} row(s)"
        )
    table: dict[int, str] = {}
    for place, row in enumerate(rows, 1):
        number = (row["trial"] or "").strip()
        if not number.isdecimal() or int(number) < 1 or int(number) in table:
            raise TaskError(f"{path}: row {place}: trial {number!r} must be a whole number from 1 that occurs once")
        table[int(number)] = (row["recording"] or "").strip()
    return table


def aliases_of(stimuli: Sequence[Recording]) -> dict[str, Recording]:
    """Recordings by everything that a table may call them: id, file name, file name without suffix."""
    found: dict[str, Recording] = {}
    for stimulus in stimuli:
        for place in (stimulus.file, stimulus.path):
            if place:
                name = PurePosixPath(place.replace("\\", "/"))
                found |= {name.name: stimulus, name.stem: stimulus}
    return found | {stimulus.piece: stimulus for stimulus in stimuli} | {stimulus.id: stimulus for stimulus in stimuli}


def heard_by_name(name: str, aliases: Mapping[str, Recording]) -> Recording | None:
    """The recording that a table means by `name`: its id, piece or file name, with any suffix or none."""
    return aliases.get(name, aliases.get(PurePosixPath(name).stem))


def by_path(name: str, stimuli: Sequence[Recording]) -> Recording | str | None:
    """The stimulus that is meant by a path or file name, or a sentence where several fit equally well; None for none.

    Those fit best whose path ends as the name does; then those with the same file name, with any suffix or none.
    """
    wanted = PurePosixPath(name.replace("\\", "/"))
    places = {
        stimulus.id: PurePosixPath((stimulus.path or stimulus.file or "").replace("\\", "/")) for stimulus in stimuli
    }
    n_parts = len(wanted.parts)
    for fits in (
        [s for s in stimuli if places[s.id].parts[-n_parts:] == wanted.parts],
        [s for s in stimuli if places[s.id].name == wanted.name],
        [s for s in stimuli if places[s.id].stem == wanted.stem],
    ):
        if len({places[stimulus.id] for stimulus in fits}) > 1:
            some = ", ".join(str(places[stimulus.id]) for stimulus in fits[:3])
            return f"{name} may be any of {some}; file names of stimuli must differ, or events name their folders"
        if fits:
            return fits[-1]
    return heard_by_name(name, aliases_of(stimuli))


def not_among(name: str, aliases: Mapping[str, Recording]) -> str:
    """The sentence for a name that is no stimulus, with the nearest one that is."""
    near = get_close_matches(name, aliases, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"heard {name}, which is not among the stimuli{hint}"


def pair_trials(
    n_trials: int, stimuli: Sequence[Recording], table: Mapping[int, str] | None
) -> tuple[dict[int, Recording], list[Skipped]]:
    """Which recording each trial (from 1) heard, and what has no counterpart.

    Without a table, trial k heard stimulus ``(k - 1) % n`` of the n stimuli in natural order of their ids (audio2
    before audio10), so that trials k, k + n, k + 2n ... are the repetitions of piece k.

    Raises
    ------
    TaskError
        If there is no table and `n_trials` is not a multiple of the number of stimuli.
    """
    ordered = sorted(stimuli, key=lambda stimulus: _natural(stimulus.id))
    if table is None:
        if not ordered or n_trials % len(ordered):
            raise TaskError(
                f"{n_trials} trials are not a multiple of {len(ordered)} stimuli, so which trial heard which recording "
                "is unknown: give cnd.trials, a csv with the columns trial and recording"
            )
        return {number: ordered[(number - 1) % len(ordered)] for number in range(1, n_trials + 1)}, []
    aliases = aliases_of(stimuli)
    pairs: dict[int, Recording] = {}
    skipped: list[Skipped] = []
    for number in range(1, n_trials + 1):
        name = table.get(number)
        stimulus = heard_by_name(name, aliases) if name else None
        if stimulus is not None:
            pairs[number] = stimulus
        elif name:
            skipped.append(Skipped(str(number), not_among(name, aliases)))
        else:
            skipped.append(Skipped(str(number), "has no row in the table of trials"))
    beyond = sorted(number for number in table if number > n_trials)
    skipped += [Skipped(str(number), f"is in the table, but the file has {n_trials} trials") for number in beyond]
    heard = {stimulus.id for stimulus in pairs.values()}
    silent = [stimulus.id for stimulus in ordered if stimulus.id not in heard]
    skipped += [Skipped("-", f"the stimulus {name} has no trial") for name in silent]
    return pairs, skipped
