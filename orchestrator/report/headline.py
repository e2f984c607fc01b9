"""The first sentences of a report: what may be said, and nothing more."""

from __future__ import annotations

import statistics

from orchestrator.planner_eeg import TRUE_DRIVER, TRUE_DRIVER_MODEL
from orchestrator.report import eeg_tables, group_tables, pitch_tables
from orchestrator.report.results import Condition, Group, Results
from tasks.eeg.maxima import least_subjects
from tasks.eeg.nulls import no_claim


def headline(results: Results) -> tuple[str, ...]:
    """Sentences in order of importance; the first says so when nothing is claimed."""
    first = (results.exploratory,) if results.exploratory else ()
    listeners, pitch = _of_listeners(results), pitch_tables.sentences(results)
    without_eeg = results.tested is None and not results.groups
    return (*first, *_of_search(results), *((*pitch, *listeners) if without_eeg else (*listeners, *pitch)))


def _of_search(results: Results) -> tuple[str, ...]:
    """The best of a search, and that it was chosen on what it was measured on."""
    search = results.search
    if search is None or search.best is None:
        return ("The search has no complete trial yet.",) if search is not None else ()
    return (
        f"Best of {sum(state == 'complete' for *_, state in search.points)} trials by {search.title}: {search.best}.",
        f"It was chosen on {search.material}, so its score there is too good: judge it on other material.",
    )


def _of_listeners(results: Results) -> tuple[str, ...]:
    group = results.tested
    if group is None:
        return _without_group(results)
    claimed = [condition for condition in group.conditions if condition.claimed]
    sentences = [_first(results, group, claimed)]
    if results.simulated:
        sentences.append(
            "The listeners are SIMULATED: whatever is recovered was planted; it says nothing about brains."
        )
        sentences += _true_driver(results)
    least = least_subjects(group.alpha)
    if group.n_subjects < least:
        sentences.append(f"{group.n_subjects} subjects: a test over subjects needs at least {least}.")
    if claimed and not results.red:
        sentences.append(_best(results, group, claimed))
    if not results.red:
        sentences += eeg_tables.intermediate_sentences(results, group)
        sentences += filter(None, [group_tables.between_sentence(results)])
    return (*sentences, *_canaries(results))


def _true_driver(results: Results) -> list[str]:
    """What the planted response is worth: where little of a large effect is found, the IC is poor, not the test."""
    by_band: dict[str, list[float]] = {}
    for score in results.subjects:
        gain = score.metrics.get("delta_r")
        if score.model == TRUE_DRIVER_MODEL and isinstance(gain, int | float):
            by_band.setdefault(score.variant.removeprefix(TRUE_DRIVER), []).append(float(gain))
    return [
        f"With the planted pitch surprisal in IC's place Δr is {statistics.mean(gains):+.4f} ± "
        f"{statistics.stdev(gains) / len(gains) ** 0.5:.4f}{f' at{band}' if band else ''}: the most there is to find."
        for band, gains in by_band.items()
        if len(gains) > 1
    ]


def _without_group(results: Results) -> tuple[str, ...]:
    if not any(stage in results.done for stage in ("eeg", "trf", "group")):
        if results.judgement is not None:
            return ("This study has no EEG: nothing is said about listeners.",)
        return ("This study has no EEG: no noise level is claimed, and nothing is said about listeners.",)
    if any(group.conditions for group in results.groups):
        why = "no model of this study may carry a claim (acoustic_plus with note onsets is needed)"
    else:
        why = "the tests over the group have no result yet"
    simulated = ("The listeners are SIMULATED: this says nothing about brains.",) if results.simulated else ()
    return (f"No noise level of any variant is claimed: {why}.", *simulated, *_canaries(results))


def _first(results: Results, group: Group, claimed: list[Condition]) -> str:
    if results.red:
        return "RED: the canaries failed, so nothing is claimed, whatever the tables below say."
    if not group.calibrated:
        return f"No noise level of any variant is claimed: {no_claim(group.null)}."
    if not claimed:
        lowest = min((c.p for c in group.conditions if c.p is not None), default=None)
        found = "" if lowest is None else f" (lowest corrected p = {lowest:.3g})"
        return f"No noise level of any variant is claimed{found}."
    what = f"IC adds to the listed acoustic features ({group.model})"
    if results.simulated:
        what = f"SIMULATED: IC recovers a planted response beyond the listed acoustic features ({group.model})"
    names: dict[str, list[str]] = {}
    for condition in claimed:
        names.setdefault(condition.variant, []).append(f"{condition.noise_level:g}")
    where = "; ".join(f"{variant} at s = {', '.join(levels)}" for variant, levels in names.items())
    worst = max(c.p for c in claimed if c.p is not None) if any(c.p is not None for c in claimed) else None
    p = "" if worst is None else f", corrected p ≤ {worst:.3g}"
    return f"{what}: {where} ({eeg_tables.people(results, group)}{p})."


def _best(results: Results, group: Group, claimed: list[Condition]) -> str:
    best = max(claimed, key=lambda condition: condition.excess_delta_r_mean or 0.0)
    where = f"{best.variant} at s = {best.noise_level:g} (excess Δr {best.excess_delta_r_mean or 0.0:+.4f})"
    if results.simulated:
        return f"The level at which IC best recovers a planted response: {where}."
    compared = "" if group.contrasts else "; levels were not compared with each other"
    return f"The largest excess Δr among the claimed: {where}{compared}."


def _canaries(results: Results) -> tuple[str, ...]:
    if results.canaries is None:
        return ("No canaries were judged.",) if results.groups else ()
    verdict, sentence = results.canaries.verdict.upper(), results.canaries.sentence
    return (f"Canaries {verdict}" + (f": {sentence}" if sentence else "."),)
