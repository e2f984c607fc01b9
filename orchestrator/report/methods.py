"""The methods paragraph: what was done with what, in words that a paper can take over."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from orchestrator.report.quality import cleaning
from orchestrator.report.results import Group, Results
from orchestrator.report.solver import precisions
from tasks.eeg.nulls import WORDS

PACKAGES = ("torch", "numpy", "scipy", "mne", "ray", "music21")


def methods(results: Results) -> list[str]:
    """Sentences by topic; topics that the study doesn't have are left out."""
    parts = (
        _models(results),
        _surprisal(results),
        _audit(results),
        _solver_audit(results),
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
    text += f"{_list(_values(results, 'flow', 'flow', 'steps'))} steps{_projected(results)}. "
    if len(seeds) == 1:
        return (
            text
            + f"Seed {seeds[0]}: one model each, so differences between variants are not claims about their settings."
        )
    return text + f"Seeds {_list(seeds)}."


def _projected(results: Results) -> str:
    """Which flows model coordinates in a hyperplane, whose IC is that of a dimension less."""
    flows = [config.get("flow", {}).get("project", False) for config in results.configs.get("flow", ())]
    if not any(flows):
        return ""
    which = "" if all(flows) else "some of them "
    return f", {which}on coordinates in the hyperplane of zero mean over channels (a dimension less)"


def _surprisal(results: Results) -> str:
    levels = sorted(float(value) for value in _values(results, "surprisal", "noise_level"))
    if not levels:
        return ""
    solver = _list(_values(results, "surprisal", "solver"))
    sizes = [
        f"{_list(found)} {what}"
        for key, what in (("n_steps", "steps"), ("n_nodes", "nodes"), ("n_probes", "probes"), ("n_draws", "draws"))
        if (found := _values(results, "surprisal", key))
    ]
    sizes += ["products with probes in bfloat16"] if "bfloat16" in _values(results, "surprisal", "precision") else []
    text = "Information content (IC, nats per frame of 4096 samples at 44.1 kHz) was computed at noise levels "
    text += f"s = {_list(levels)} "
    parts = [_list(_values(results, "surprisal", "definition")), *_contexts(results)]
    text += f"({'; '.join([*parts, ', '.join([f'solver {solver}', *sizes, *_probes(results)])])})."
    text += _solver_errors(results)
    if any(results.degenerate(variant, 0.0) for variant in results.variants) and 0.0 in levels:
        text += " At s = 0 latents behind a layer norm lie on a sphere: their density is degenerate, and is marked so."
    return text


def _contexts(results: Results) -> list[str]:
    """What precedes a frame, unless it is always transformed as the frame itself is."""
    found: dict[str, None] = {}
    for config in results.configs["surprisal"]:
        implied = "clean" if config.get("definition") == "probability_flow" else "transformed"
        found[str(config.get("context", implied))] = None
    return [] if list(found) == ["transformed"] else [f"context {', '.join(found)}"]


def _probes(results: Results) -> list[str]:
    """Probes that were not drawn: none, as the divergence was exact, or those of a file."""
    return [
        f"probes given in a file (sha256 {str(found['sha256'])[:12]})"
        if isinstance(found, Mapping)
        else f"{found} divergence"
        for found in _values(results, "surprisal", "probes")
        if found != "drawn"
    ]


def _solver_errors(results: Results) -> str:
    """The range of the errors that the solver states, in nats and as a share of IC's SD."""
    found = precisions(results)
    errors = [item.solver_error_nats for item in found if item.solver_error_nats is not None]
    shares = [item.error_over_sd for item in found if item.error_over_sd is not None]
    if not errors:
        return ""
    text = f" By its own estimate the solver is {_range(errors)} nats off the exact IC of a frame (RMS)"
    return text + (f": {_range(shares)} of IC's SD at the same noise level." if shares else ".")


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.2g}", f"{max(values):.2g}"
    return low if low == high else f"{low} to {high}"


def _audit(results: Results) -> str:
    if not results.audit:
        return ""
    frames = max(int(score.metrics.get("n_frames") or 0) for score in results.audit)
    return (
        f"Causality audit: for up to {frames} frames per recording set and level, the last 24 latents of the context "
        "were encoded again from audio cut at the predicted frame's first sample, and the IC that followed was "
        "compared with the ordinary IC."
    )


def _solver_audit(results: Results) -> str:
    if not results.solver_audit:
        return ""
    frames = max(int(score.metrics.get("n_frames") or 0) for score in results.solver_audit)
    text = (
        f"Solver audit: for up to {frames} frames per recording set and level, IC was computed with two other seeds "
        "(their rank correlation within recordings is its reliability), with the exact divergence and more nodes (the "
        "difference is the solver's error), and with twice the nodes or steps"
    )
    return text + (", and by each of its four definitions." if results.definitions else ".")


MODELS = {
    "ppm": "an interpolated PPM model",
    "ltm": "a long-term PPM* model as IDyOM's",
    "ltm+": "a long-term PPM* model as IDyOM's that learns while it listens",
    "stm": "a short-term PPM* model as IDyOM's",
    "both": "long-term and short-term PPM* models as IDyOM's",
    "both+": "long-term and short-term PPM* models as IDyOM's, both learning while they listen",
}
"""The models of pitch by their names in a study."""


def _pitch(results: Results) -> str:
    if not results.pitch:
        return ""
    pieces = max(int(score.metrics.get("n_pieces") or 0) for score in results.pitch)
    settings = results.configs.get("pitch_surprisal", ({},))[0]
    model = f"{MODELS[settings.get('model', 'ppm')]} (viewpoint {settings.get('viewpoint', 'cpitch')})"
    return (
        f"IC at note onsets was correlated (Spearman, per piece) with the surprisal of {model} on {pieces} held-out "
        "pieces, also given the size of the melodic interval, inter-onset interval, level and the onset's phase in its "
        "frame (partial Spearman). Intervals are bootstrapped over clusters of related tunes, crossed with seeds. "
        "Baselines: the melodic interval's size, the pitch's rarity, repeated notes."
    ) + _choice(results)


def _choice(results: Results) -> str:
    """How noise levels were chosen and judged, where they were."""
    found = results.judgement
    if found is None:
        return ""
    tunes = max((row.estimate.n_pieces for row in found.dev), default=0)
    return (
        f" Each arm's noise level is the one with the largest mean Spearman correlation over {tunes} other tunes (dev) "
        "and seeds; on the held-out pieces it was compared with s = 0 and s = 0.9, and with the other arms' own "
        "levels, by paired differences."
    )


def _eeg(results: Results) -> str:
    group = results.tested or next(iter(results.groups), None)
    if group is None:
        return ""
    who = "simulated listeners (SIMULATED: they answer to planted pitch surprisal, never to a variant's IC)"
    text = f"EEG of {group.n_subjects} {who if results.simulated else 'subjects'}"
    bands = [f"{float(low):g}-{float(high):g}" for low, high in _values(results, "eeg", "preprocessing", "band_hz")]
    rate = next(iter(_values(results, "eeg", "preprocessing", "sample_rate_hz")), None)
    if bands and rate:
        text += f", {' and '.join(bands)} Hz at {rate} Hz,"
    trf: Any = next(iter(_values(results, "trf", "trf")), {})
    text += " was modelled by ridge TRFs"
    if "lag_min_s" in trf:
        text += f" with lags {1000 * float(trf['lag_min_s']):g}..{1000 * float(trf['lag_max_s']):g} ms"
    text += ", cross-validated by piece; Δr is the gain of the full model (with IC) over the reduced one, median over "
    text += "channels of the mean over pieces. " + cleaning(results.configs.get("eeg", ()))
    return text + "Δr against the envelope alone is the paper's definition, not evidence of prediction."


def _tests(results: Results) -> str:
    group = results.tested
    if group is None:
        return ""
    start = f"Claims rest on {group.model} alone: " if group.calibrated else f"{group.model}, without a claim: "
    return (
        start
        + (
            f"{WORDS.get(group.null, group.null)} ({group.n_permutations} permutations) test over "
            "stimuli, sign flips over subjects; both are corrected by the maximum over channels, levels and variants, "
            f"at α = {group.alpha:g}. "
            "Excess Δr is Δr minus its own null mean. Intervals are bootstrapped over subjects."
        )
        + _comparisons(group)
    )


def _comparisons(group: Group) -> str:
    """How conditions were compared, where they were."""
    text = ""
    if group.contrasts:
        text += (
            " Noise levels and arms were compared by two tests of paired differences of excess Δr, sign-flips over "
            "subjects and sign-flips over pieces, each corrected by the maximum over contrasts and channels within "
            "each family (levels, arms, intermediate). A difference is claimed at channels where both reach α, and "
            "where IC is claimed to add to the reduced model. The test over pieces takes differences to be symmetric "
            "about 0 where there is none; models tested on two pieces share most of their training data."
        )
    if group.chosen_level:
        text += (
            " Each arm's noise level was chosen for every piece on the others, and its excess Δr tested once, the "
            "choice repeated in every flip."
        )
    if group.clusters:
        text += (
            " Clusters of neighbouring channels (MNE; forming threshold p = 0.05, one-sided) were tested by their "
            "mass over all conditions."
        )
    if group.between is not None and group.between.groups:
        sizes = ", ".join(f"{members.n} {members.value}" for members in group.between.groups)
        text += (
            f" Groups of subjects ({group.between.column}: {sizes}) were compared by the difference of their mean "
            f"excess Δr, against {group.between.n_relabelings} assignments of labels to subjects and against the same "
            "permutations over stimuli; both two-sided, corrected by the maximum over channels, levels and variants."
        )
    if group.ceiling is not None and group.ceiling.mean is not None:
        text += (
            " The noise ceiling is the square root of the reliability of single presentations: the mean covariance "
            "between repetitions of a piece over their mean variance."
        )
    if group.exploratory is not None:
        text += " False discovery rates (Benjamini-Hochberg) are exploratory and enter no claim."
    return text


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
