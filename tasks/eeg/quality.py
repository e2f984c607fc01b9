"""How good a subject's recordings were: a row per trial, what is bad in it and why, and how much is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.eeg.filtering import whole_samples
from tasks.eeg.preprocessing import Clean
from tasks.eeg.trials import Skipped, Trial, union_s


def quality(
    trials: Sequence[Trial], done: Mapping[str, Clean], unclean: Sequence[Skipped], sample_rate_hz: int
) -> list[dict[str, Any]]:
    """A row per trial that was read, in their order, as JSON values.

    Parameters
    ----------
    trials : sequence of Trial
        As recorded.
    done : mapping of str to Clean
        Those that could be cleaned, by key.
    unclean : sequence of Skipped
        The others, and why.
    sample_rate_hz : int
        Of the cleaned trials.

    Returns
    -------
    list of dict
        ``kept_s`` are the seconds that the cleaned trial has, of the recording's ``heard_s``; ``cut_samples`` those at
        its end that the EEG lacks; ``marked_s`` what annotations call bad. ``bad`` says why, by channel;
        ``not_numbers`` how many samples weren't numbers, by channel (counted at the rate of the recording), and
        ``bridged`` in which channels they were bridged. ``interpolated`` is the share of all channels that are made of
        the others. ``skipped`` is why the trial isn't used (None: it is).
    """
    reasons = {(part.trial, part.piece): part.reason for part in unclean}
    return [_row(trial, done.get(trial.key), reasons, sample_rate_hz) for trial in trials]


def _row(
    trial: Trial, found: Clean | None, reasons: Mapping[tuple[str, str | None], str], sample_rate_hz: int
) -> dict[str, Any]:
    n_samples = 0 if found is None else len(found.data)
    mended = 0 if found is None else len(set(found.bads) - set(found.unrepaired))
    return {
        "trial": trial.name,
        "recording": trial.recording,
        "repetition": trial.repetition,
        "heard_s": round(trial.duration_s, 3),
        "kept_s": round(n_samples / sample_rate_hz, 3),
        "cut_samples": 0 if found is None else whole_samples(trial.duration_s, sample_rate_hz) - n_samples,
        "marked_s": round(union_s(trial.bad_spans), 3),
        "n_channels": len(trial.data),
        "bad": {} if found is None else found.why,
        "not_numbers": {} if found is None else found.not_numbers,
        "bridged": [] if found is None else list(found.bridged),
        "interpolated": round(mended / len(trial.data), 4),
        "skipped": None if found is not None else reasons.get((trial.name, trial.recording), "it can't be used"),
    }


def gaps(trials: Sequence[Trial], done: Mapping[str, Clean]) -> list[Skipped]:
    """Samples that aren't numbers, by trial, piece and channel, and what stands for them; references in part."""
    found = []
    for trial in trials:
        clean = done[trial.key]
        for name, count in clean.not_numbers.items():
            samples = "1 sample is not a number" if count == 1 else f"{count} samples are not numbers"
            instead = (
                "bridged by straight lines"
                if name in clean.bridged
                else "the channel can't be used"
                if name in clean.unrepaired
                else "in this trial the channel is interpolated from the others"
            )
            found.append(Skipped(trial.name, f"channel {name}: {samples}; {instead}", trial.recording))
        if clean.one_sided is not None:
            found.append(Skipped(trial.name, f"the reference is one-sided: {clean.one_sided}", trial.recording))
    return found
