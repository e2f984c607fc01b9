"""The methods paragraph: what was done with what, in words that a paper can take over."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from orchestrator.report.results import Results

PACKAGES = ("torch", "numpy", "scipy", "mne", "ray", "music21")


def methods(results: Results) -> list[str]:
    """Sentences by topic; topics that the study doesn't have are left out."""
    parts = (
        _models(results),
        _surprisal(results),
        _pitch(results),
        _eeg(results),
        _tests(results),
        _provenance(results),
    )
    return [part for part in parts if part]


def _values(results: Results, stage: str, *keys: str) -> list[Any]:
    """All values of a nested config key over the cells of a stage, in order, each once."""
    found: list[Any] = []
    for config in results.configs.get(stage, ()):
        value: Any = config
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None and value not in found:
            found.append(value)
    return found


def _list(values: list[Any]) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


def _models(results: Results) -> str:
    seeds = sorted({*_values(results, "autoencoder", "seed"), *_values(results, "flow", "seed")})
    if not results.arms:
        return ""
    steps = (
        _values(results, "autoencoder_base", "training", "steps"),
        _values(results, "autoencoder", "training", "steps"),
    )
    arms = sorted({str(value) for value in _values(results, "autoencoder", "latent_noise", "applied_to")})
    text = f"Music autoencoders of size {_list(_values(results, 'autoencoder', 'size'))} with bottleneck "
    text += f"{_list(_values(results, 'autoencoder', 'bottleneck'))} were trained for {_list(steps[0])} steps without "
    text += (
        f"latent noise; each arm (latent noise: {', '.join(arms)}) went on from that base for {_list(steps[1])} steps, "
    )
    text += "and a rectified-flow model of its latents was trained for "
    text += f"{_list(_values(results, 'flow', 'flow', 'steps'))} steps. "
    if len(seeds) == 1:
        return (
            text
            + f"Seed {seeds[0]}: one model each, so differences between variants are not claims about their settings."
        )
    return text + f"Seeds {_list(seeds)}."


def _surprisal(results: Results) -> str:
    levels = sorted(float(value) for value in _values(results, "surprisal", "noise_level"))
    if not levels:
        return ""
    solver, steps = _list(_values(results, "surprisal", "solver")), _list(_values(results, "surprisal", "n_steps"))
    text = "Information content (IC, nats per frame of 4096 samples at 44.1 kHz) was computed at noise levels "
    text += f"s = {_list(levels)} "
    text += f"({_list(_values(results, 'surprisal', 'definition'))}; {solver}, {steps} steps, "
    text += f"{_list(_values(results, 'surprisal', 'n_probes'))} probes)."
    if any(results.degenerate(variant, 0.0) for variant in results.variants) and 0.0 in levels:
        text += " At s = 0 latents behind a layer norm lie on a sphere: their density is degenerate, and is marked so."
    return text


def _pitch(results: Results) -> str:
    if not results.pitch:
        return ""
    pieces = max(int(score.metrics.get("n_pieces") or 0) for score in results.pitch)
    return (
        f"IC at note onsets was correlated (Spearman) with the surprisal of a variable-order Markov model of pitch on "
        f"{pieces} held-out pieces; the size of the melodic interval alone serves as baseline."
    )


def _eeg(results: Results) -> str:
    group = results.tested or next(iter(results.groups), None)
    if group is None:
        return ""
    who = "simulated listeners (SIMULATED: they answer to planted pitch surprisal, never to a variant's IC)"
    text = f"EEG of {group.n_subjects} {who if results.simulated else 'subjects'}"
    band = next(iter(_values(results, "eeg", "preprocessing", "band_hz")), None)
    rate = next(iter(_values(results, "eeg", "preprocessing", "sample_rate_hz")), None)
    if band and rate:
        text += f", {float(band[0]):g}-{float(band[1]):g} Hz at {rate} Hz,"
    trf: Any = next(iter(_values(results, "trf", "trf")), {})
    text += " was modelled by ridge TRFs"
    if "lag_min_s" in trf:
        text += f" with lags {1000 * float(trf['lag_min_s']):g}..{1000 * float(trf['lag_max_s']):g} ms"
    text += ", cross-validated by piece; Δr is the gain of the full model (with IC) over the reduced one, median over "
    text += "channels of the mean over pieces. "
    return text + "Δr against the envelope alone is the paper's definition, not evidence of prediction."


def _tests(results: Results) -> str:
    group = results.tested
    if group is None:
        return ""
    return (
        f"Claims rest on {group.model} alone: residual circular shifts ({group.n_permutations} permutations) test over "
        "stimuli, sign flips over subjects; both are corrected by the maximum over channels, levels and variants, at "
        f"α = {group.alpha:g}. "
        "Excess Δr is Δr minus its own null mean."
    )


def _provenance(results: Results) -> str:
    facts = results.provenance
    text = "Computed with Python " + ", ".join(facts.get("python", ("unknown",)))
    versions = (f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if _installed(name))
    text += f" ({', '.join(versions)} where this report was drawn)"
    text += f", commit {', '.join(value[:12] for value in facts.get('commit', ('unknown',)))}"
    if facts.get("cpu"):
        text += f", on {', '.join(facts['cpu'])}"
    mixed = len(facts.get("lock", ())) > 1
    return text + ("; MIXED: its cells come from different locked environments." if mixed else ".")


def _installed(name: str) -> bool:
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False
