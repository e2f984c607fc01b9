"""The sentence under a group's results: it claims no more than the tests do, and says first what wasn't found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.eeg.lacking import of_known


def verdict(result: Mapping[str, Any]) -> str:
    """One sentence about the content of ``group.json``."""
    if not result["tested"]:
        text = f"Not tested: delta_r of IC over {_features(result)} in {_people(result)} is described without a claim"
    elif result["refused"] is not None:
        text = f"Nothing is claimed: {result['refused']}"
    else:
        text = _judged(result)
    if result["simulated"]:
        recovers = any(condition.get("claimed") for condition in result["conditions"])
        text += "; SIMULATED: " + ("recovers a planted response; " if recovers else "") + "says nothing about brains"
    return text + "."


def _features(result: Mapping[str, Any]) -> str:
    words = {"acoustic_plus": "the listed acoustic features", "envelope": "the envelope"}
    words |= {"ic_null": "IC without context", "latent_step": "the step of the latents"}
    names = [result["model"]["reduced"], *result["model"].get("plus", ())]
    *rest, last = [words.get(name, name) for name in names]
    return f"{', '.join(rest)} and {last}" if rest else last


def _people(result: Mapping[str, Any]) -> str:
    n = result["n"]
    people = f"{of_known(n['subjects'], n['subjects_known'])} subject{'s' if n['subjects_known'] != 1 else ''}"
    fewest, most = n["pieces"]
    return (
        people
        if fewest == n["pieces_known"]
        else f"{people} with {_range(fewest, most)} of {n['pieces_known']} pieces each"
    )


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def _judged(result: Mapping[str, Any]) -> str:
    conditions = result["conditions"]
    claimed = [condition for condition in conditions if condition["claimed"]]
    plural = "s" if len(conditions) > 1 else ""
    channels = of_known(result["n"]["channels"], result["n"]["channels_known"])
    searched = f"{len(conditions)} condition{plural} and {channels} channels"
    if not claimed:
        least = min(condition["p"] for condition in conditions)
        return (
            f"Nothing is significant: in {_people(result)} IC adds nothing detectable to {_features(result)} "
            f"(smallest p = {least:.3g}, corrected over {searched})"
        )
    above = [row["arm"] for row in result.get("intermediate", ()) if row["best"]]
    extra = f"; intermediate levels are above s = 0 and s = 0.9 in {', '.join(above)}" if above else ""
    best = min(claimed, key=lambda condition: (condition["p"], -condition["excess_delta_r_mean"]))
    return (
        f"IC adds to {_features(result)} in {len(claimed)} of {len(conditions)} condition{plural} ({_people(result)}; "
        f"best: {best['variant']} at noise level {best['noise_level']:g}, excess delta_r "
        f"{best['excess_delta_r_mean']:.2g}, p = {best['p']:.3g}, corrected over {searched}){extra}"
    )
