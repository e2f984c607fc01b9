"""Figure 4's judgement: each arm's noise level s*, chosen on dev tunes, and what test tunes then say of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.report.pitch_arms import BASELINES, ArmEstimate, estimate_of, estimates, value_of
from orchestrator.report.pitch_contrasts import PRIMARY, SHOWN, Contrast, Setting, Tables, difference, interval
from orchestrator.report.results import Results, Score
from tasks.cluster_bootstrap import Estimate

CLEAN, NOISY = 0.0, 0.9
"""The levels that an intermediate one has to exceed."""
LEAST_SEEDS, LEAST_TUNES = 3, 65
REACH = 0.05
"""Smaller differences are out of reach: rho's SD per piece is about .18."""


@dataclass(frozen=True)
class Verdict:
    """Whether something is claimed, and the words for it; `judged` is False where the design does not allow a claim."""

    claimed: bool
    judged: bool
    words: str


@dataclass(frozen=True)
class ArmJudgement:
    """One arm: the level chosen on dev (None: none could be) and whether it exceeds both ends on test."""

    arm: str
    variants: tuple[str, ...]
    chosen: float | None
    contrasts: tuple[Contrast, ...]
    verdict: Verdict


@dataclass(frozen=True)
class Alignment:
    """Two arms, each at its own s*: `contrasts` by measure."""

    first: str
    second: str
    about_encoding: bool
    contrasts: tuple[Contrast, ...]
    verdict: Verdict


@dataclass(frozen=True)
class Judgement:
    """All of Figure 4: correlations by arm and level on both sets of tunes, and what they say."""

    dev: tuple[ArmEstimate, ...]
    test: tuple[ArmEstimate, ...]
    arms: tuple[ArmJudgement, ...]
    alignments: tuple[Alignment, ...]
    baselines: Mapping[str, Estimate] = field(default_factory=dict)

    def at(self, arm: str, level: float | None, measure: str = PRIMARY, dev: bool = False) -> Estimate | None:
        """Correlation of an arm at a level, on test or on dev."""
        rows = self.dev if dev else self.test
        return next((r.estimate for r in rows if (r.arm, r.noise_level, r.measure) == (arm, level, measure)), None)


def judge(results: Results) -> Judgement | None:
    """Choose and judge; None where the study has no correlations on tunes to choose by."""
    if not results.pitch_dev:
        return None
    dev, test = (tuple(estimates(results, SHOWN, scores)) for scores in (results.pitch_dev, results.pitch))
    tables = Tables(results)
    judged = tuple(_judge_arm(tables, arm, variants, dev, test) for arm, variants in tables.arms.items())
    most = max(results.pitch, key=lambda score: len(score.rows), default=None)
    found = {name: estimate_of([most], name) for name in BASELINES} if most is not None else {}
    baselines = {name: estimate for name, estimate in found.items() if estimate is not None}
    return Judgement(dev, test, judged, tuple(_alignments(tables, judged)), baselines)


def _judge_arm(
    tables: Tables, arm: str, variants: Sequence[str], dev: Sequence[ArmEstimate], test: Sequence[ArmEstimate]
) -> ArmJudgement:
    chosen, lacking = _choose(tables.results.pitch_dev, arm, variants, dev)
    if chosen is None:
        verdict = Verdict(False, False, "no level can be chosen: no level has a correlation on dev tunes in every seed")
        return ArmJudgement(arm, tuple(variants), None, (), verdict)
    ends = (
        CLEAN if CLEAN in tables.levels else tables.levels[0],
        NOISY if NOISY in tables.levels else tables.levels[-1],
    )
    found = [tables.contrasts(Setting(arm, chosen), Setting(arm, end)) for end in ends if end != chosen]
    verdict = _intermediate(tables, variants, chosen, lacking, [pair[0] for pair in found if pair])
    return ArmJudgement(arm, tuple(variants), chosen, tuple(c for pair in found for c in pair), verdict)


def _choose(
    scores: Sequence[Score], arm: str, variants: Sequence[str], dev: Sequence[ArmEstimate]
) -> tuple[float | None, list[float]]:
    """The level with the largest mean on dev (of equal ones the lower), and those that only some seeds have."""
    means: dict[float, float] = {}
    lacking = []
    for row in dev:
        if (row.arm, row.measure) != (arm, PRIMARY):
            continue
        there = {s.variant for s in scores if float(s.x) == row.noise_level and _has(s, PRIMARY)}
        if there.issuperset(variants):
            means[row.noise_level] = row.estimate.mean
        else:
            lacking.append(row.noise_level)
    return max(means, key=lambda level: (means[level], -level), default=None), lacking


def _has(score: Score, measure: str) -> bool:
    return any(value_of(row, measure) is not None for row in score.rows)


def _intermediate(
    tables: Tables, variants: Sequence[str], chosen: float, lacking: Sequence[float], contrasts: Sequence[Contrast]
) -> Verdict:
    absent = [f"{level:g}" for level in (CLEAN, NOISY) if level not in tables.levels]
    if absent:
        return _not_judged(f"the study has no s = {' and no s = '.join(absent)} to compare s = {chosen:g} with")
    if lacking:
        return _not_judged(f"not every seed has a result on dev tunes at s = {_listed(lacking)}")
    if not CLEAN < chosen < NOISY:
        return Verdict(False, True, f"not claimed: s = {chosen:g}, chosen on dev, is no intermediate level")
    refusal = _refusal(contrasts, 2, len(variants))
    if refusal:
        return _not_judged(refusal)
    short = [contrast for contrast in contrasts if not contrast.exceeds()]
    if short:
        return Verdict(False, True, f"not claimed: {'; '.join(map(_falls_short, short))}")
    clean, noisy = contrasts
    mark = " (degenerate here)" if clean.degenerate else ""
    words = (
        f"intermediate is best: s = {chosen:g} exceeds s = {CLEAN:g}{mark} by {interval(clean.estimate)} and "
        f"s = {NOISY:g} by {interval(noisy.estimate)}, in every seed"
    )
    return Verdict(True, True, words)


def _alignments(tables: Tables, judged: Sequence[ArmJudgement]) -> Iterator[Alignment]:
    """`encoder+decoder` minus `decoder`, which is about the encoding, and minus `none`."""
    for first in judged:
        if tables.noise(first.arm).get("applied_to") != "encoder+decoder":
            continue
        for kind in ("decoder", "none"):
            for second in judged:
                if tables.noise(second.arm).get("applied_to") == kind and _comparable(tables, first.arm, second.arm):
                    yield _align(tables, first, second, kind == "decoder")


def _comparable(tables: Tables, first: str, second: str) -> bool:
    """Whether two arms differ in what the noise was applied to alone (its strength is nothing to ask of `none`)."""
    noises = [{**tables.noise(arm), "applied_to": ""} for arm in (first, second)]
    plain = tables.noise(second).get("applied_to") == "none"
    rests = [[part for part in arm.split(" ") if part not in ("none", "D", "E+D")] for arm in (first, second)]
    strengths = [[part for part in rest if part.partition("=")[0] not in ("m", "logit_std")] for rest in rests]
    return strengths[0] == strengths[1] if plain else rests[0] == rests[1] and noises[0] == noises[1]


def _align(tables: Tables, first: ArmJudgement, second: ArmJudgement, about_encoding: bool) -> Alignment:
    if first.chosen is None or second.chosen is None:
        words = "no level can be chosen for one of both"
        return Alignment(first.arm, second.arm, about_encoding, (), _not_judged(words))
    found = tables.contrasts(Setting(first.arm, first.chosen), Setting(second.arm, second.chosen))
    n_seeds = len(set(tables.seeds(first.arm)) | set(tables.seeds(second.arm)))
    refusal = _refusal([c for c in found if c.measure == PRIMARY], 1, n_seeds)
    if refusal:
        return Alignment(first.arm, second.arm, about_encoding, tuple(found), _not_judged(refusal))
    return Alignment(first.arm, second.arm, about_encoding, tuple(found), _aligned(found[0], about_encoding))


def _aligned(contrast: Contrast, about_encoding: bool) -> Verdict:
    claim = "a claim about the encoding" if about_encoding else "no claim about the encoding alone"
    for sign, words in ((1, "more closely"), (-1, "less closely")):
        if contrast.exceeds(sign):
            text = f"IC follows pitch surprisal {words} in {contrast.first.arm} than in {contrast.second.arm}"
            return Verdict(True, True, f"{text}, {interval(contrast.estimate)} in ρ, in every seed ({claim})")
    return Verdict(False, True, f"no difference is claimed: {_falls_short(contrast)}")


def _not_judged(why: str) -> Verdict:
    return Verdict(False, False, f"not judged: {why}")


def _refusal(contrasts: Sequence[Contrast], n_contrasts: int, n_seeds: int) -> str:
    """Why the design carries no claim; empty where it does."""
    if len(contrasts) < n_contrasts:
        return "there is no result on test tunes for all that is compared"
    seeds = min(len(contrast.by_seed) for contrast in contrasts)
    if seeds == 1:
        return f"one model each, and a claim needs {LEAST_SEEDS} seeds"
    if seeds < LEAST_SEEDS:
        return f"{seeds} seeds, and a claim needs {LEAST_SEEDS}"
    if seeds < n_seeds:
        return f"{seeds} of {n_seeds} seeds have a result on test tunes"
    tunes = min(contrast.estimate.n_pieces for contrast in contrasts)
    return f"{tunes} test tunes, and a claim needs {LEAST_TUNES}" if tunes < LEAST_TUNES else ""


def _falls_short(contrast: Contrast) -> str:
    """Which condition of a claim a contrast does not meet."""
    name, found = difference(contrast), contrast.estimate
    if found.low is None or found.high is None:
        return f"{name} has no interval: all tunes are of one cluster"
    if found.low <= 0 <= found.high:
        return f"the interval of {name} holds 0: {interval(found)}"
    if len({value > 0 for value in contrast.by_seed.values()}) > 1 or 0 in contrast.by_seed.values():
        return f"{name} differs in sign between seeds: {interval(found)}"
    return f"{name} is below 0: {interval(found)}"


def _listed(levels: Sequence[float]) -> str:
    return ", ".join(f"{level:g}" for level in levels)
