"""Who lacks what: subjects, channels and pieces that are not in a group's tests, named in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

MOST = 6


def listed(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    every = list(names)
    return ", ".join(every[:MOST]) + (f" and {len(every) - MOST} more" if len(every) > MOST else "")


def by_subject(entries: Iterable[Mapping[str, Any]], what: str) -> dict[str, list[str]]:
    """What each subject lacks, from entries that name `what` and its ``subject`` or ``subjects``."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        for name in entry.get("subjects") or [entry["subject"]]:
            found.setdefault(str(name), []).append(str(entry[what]))
    return found


def sentences(result: Mapping[str, Any], removed: Mapping[str, Iterable[str]]) -> list[str]:
    """One for each subject that lacks channels or pieces.

    Parameters
    ----------
    result : mapping
        Content of ``group.json``: ``channels``, ``channels_missing``, ``pieces``, ``pieces_missing``.
    removed : mapping of subject to channels
        Channels that were bad and could not be repaired, by subject.
    """
    left, lost = len(result["channels"]), len(result["channels_missing"])
    found = []
    for name, channels in by_subject(result["channels_missing"], "channel").items():
        bad = set(removed.get(name, ()))
        why = " (bad, and not repaired)" if bad.issuperset(channels) else ""
        found.append(
            f"{name} lacks {listed(channels)}{why}: in no test, which are over {left} of {left + lost} channels"
        )
    everywhere = len({piece for pieces in result["pieces"].values() for piece in pieces})
    for name, pieces in by_subject(result["pieces_missing"], "piece").items():
        found.append(
            f"{name} lacks {listed(pieces)}: its means are over {everywhere - len(pieces)} of {everywhere} pieces"
        )
    return found


def n_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """How many subjects, channels and pieces every test of the group is over, and how many there are.

    A subject counts among ``subjects_known`` once, however many of its conditions are missing. ``pieces`` are the least
    and the most that a subject has.
    """
    gone = {str(entry["subject"]).split(" (", 1)[0] for entry in result["missing"]} - set(result["subjects"])
    counts = [len(pieces) for pieces in result["pieces"].values()]
    return {
        "subjects": len(result["subjects"]),
        "subjects_known": len(result["subjects"]) + len(gone),
        "channels": len(result["channels"]),
        "channels_known": len(result["channels"]) + len(result["channels_missing"]),
        "pieces": [min(counts), max(counts)],
        "pieces_known": len({piece for pieces in result["pieces"].values() for piece in pieces}),
    }


def of_known(n: int, known: int) -> str:
    """``5 of 6`` where some are missing, else ``6``."""
    return str(n) if n == known else f"{n} of {known}"
