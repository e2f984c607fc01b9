"""The calibration as a page."""

from __future__ import annotations

from datetime import date

import numpy as np
from comparisons import ALPHA, CASES, N_LISTENERS, N_SAMPLES, PER_GROUP, PIECES
from fits import N_PERMUTATIONS
from made import TESTS
from null_data import GENERATORS, RATE
from power import N_SUBJECTS
from rates import CONFIDENCE, Cell
from scipy.stats import binom
from strength import ASKED_EXCESS, LEAST_POWER, Power, asked_effect, strong_enough

from tasks.eeg.nulls import CALIBRATED

FULL = 1000
"""Data sets per row of `make calibrate`."""

TEST_WORDS = {
    "stimuli": "any condition, over stimuli",
    "subjects": "any condition, over subjects",
    "levels subjects": "contrasts of noise levels, over subjects",
    "levels pieces": "contrasts of noise levels, over pieces",
    "arms subjects": "contrasts of arms, over subjects",
    "arms pieces": "contrasts of arms, over pieces",
    "ends subjects": "intermediate levels against an end, over subjects",
    "ends pieces": "intermediate levels against an end, over pieces",
    "intermediate": "intermediate is best",
    "choice": "the chosen level",
    "clusters": "clusters of channels",
    "groups stimuli": "two groups of listeners, over stimuli",
    "groups subjects": "two groups of listeners, over subjects",
}
ASKS = (
    ("stimuli", "both"),
    ("subjects", ""),
    ("levels subjects", ""),
    ("levels pieces", "levels claimed"),
    ("arms subjects", ""),
    ("arms pieces", "arms claimed"),
    ("ends subjects", ""),
    ("ends pieces", "ends claimed"),
    ("intermediate", "best claimed"),
    ("choice", ""),
    ("clusters", ""),
    ("groups stimuli", ""),
    ("groups subjects", "groups claimed"),
)
"""Tests of conditions, and beside the second of two the claim that needs both; a choice of a level and clusters carry
none."""


def page(cells: list[Cell], seconds: float, code: str) -> str:
    """``docs/results/calibration.md``; `code` is the digest of the sources that made the p-values."""
    count = max(cell.count for cell in cells)
    failed = [cell for cell in cells if not cell.ok]
    careful = [cell for cell in cells if cell.role == "kept" and cell.conservative]
    kept = [cell for cell in cells if cell.role == "kept"]
    shown = [cell for cell in cells if cell.role == "found"]
    words = "Every cell does what is asked of it" if not failed else f"**Not as it must be: {_listed(failed)}**"
    single = [cell for cell in cells if cell.generator not in CASES]
    return f"""# Do the EEG tests keep their level?

`tests/statistics/calibrate.py`, {date.today()}: {count} data sets per row in which there is nothing to find,
{seconds / 60:.0f} min of one core{_so_far(count)}. {words}. With so many data sets a cell fails
from a rate of {_least(count, len(kept)):.3f} on.

![Rates of false positives with 99 % bounds, a row per generator and null distribution](calibration/rates.png)

## What must hold

A data set has 4 pieces of 20 s at 16 Hz (unless said), 6 subjects of 2 channels, {N_PERMUTATIONS} permutations, lags of
0-250 ms and two lambdas; one seed derives from each generator's name and number. A test rejects at p <= {ALPHA:g},
corrected over channels.

- The {len(kept)} cells in bold must keep their level. They fail when the lower 99 % Clopper-Pearson bound of their
  rate, Holm-adjusted over them, exceeds .05, or when small p-values come too often anywhere (one-sided
  Kolmogorov-Smirnov test of the randomised p, adjusted likewise). A rate below .05 is no failure: it is marked *low*
  where its upper bound is below .05. A claim needs both tests on one channel, so it is always conservative.
- The two known-bad cases (*broken*) must reject more than half of the time, in both tests: they show that the suite can
  see a test that doesn't keep its level. So must tests of conditions where something is *there*
  ({shown[0].count if shown else 0} data sets), or a test that never rejects would pass.
- The rest is described. Where listeners share activity that nothing explains, the test over subjects alone says nothing
  about other stimuli: that is why a claim needs the test over stimuli too.

## The null distributions that may claim

{_table([cell for cell in single if cell.null in CALIBRATED])}
Conservative beyond doubt: {_listed(careful) or "none"}.
{_comparisons(cells)}
## Diagnostics, not calibrated

The popular null distributions, and the sign-flip of delta_r without a null. None can carry a claim.

{_table([cell for cell in single if cell.null not in CALIBRATED])}
## How it was run

`make calibrate`, or `python tests/statistics/calibrate.py --data-sets {count}`, which keeps what it has in
`.calibration` under a digest of the sources of tests and engine (here {code}) and goes on there after a kill; the
quick version, with fewer data sets and the cells that matter most, is part of `make test`. All numbers with their
bounds and adjusted p: benchmarks/results/{date.today()}-calibration.jsonl.
"""


def _so_far(count: int) -> str:
    return "" if count >= FULL else f" (the full calibration has {FULL})"


def _comparisons(cells: list[Cell]) -> str:
    """The section about several conditions."""
    by_place = {(cell.generator, cell.test): cell for cell in cells if cell.generator in CASES}
    if not by_place:
        return ""
    text = f"""
## Comparisons of conditions

What stage `group` writes of {N_LISTENERS} listeners in several conditions ({2 * PER_GROUP} where two groups are
compared) and {len(PIECES)} pieces of {N_SAMPLES / RATE:g} s, under `residual_shift`.

**What was found and mended.** Contrasts used to be tested by sign-flips over subjects alone. That says nothing of other
stimuli: where IC of all levels follows one signal and each has errors of its own, some level's errors go with the
signal by chance, on these stimuli and for all listeners (*levels, one signal*:
{_told(by_place, "levels subjects")}). A first remedy, to claim a contrast only at channels where IC is
claimed to add something at all, helps where IC tells nothing (*levels, shared activity*), and not there: with 4 pieces
of 20 s a contrast of levels was still claimed in 42 of 160 data sets. Permutations of IC are no help, as they take away
what both levels know of listeners too. Now sign-flips over **pieces** must agree on the same channel:
{_told(by_place, "levels claimed")} in *levels, one signal*, and what is there is still found
(*levels, different*: {_told(by_place, "levels claimed", "levels, different")}).

The test over pieces alone says nothing of other listeners: where each condition's IC tells each of these listeners
something else, conditions do differ for these ones (*equal*). Its pieces aren't quite independent, as models tested on
two pieces share most of their training data; its rates say what that costs. With fewer than 6 pieces no contrast can be
claimed (5 for "intermediate is best"). The choice of a level and clusters are tested over subjects alone, and claim
nothing.

![Rates with 99 % bounds, a row per case and question](calibration/comparisons.png)

| what is true | what is asked | the test | claimed |
|---|---|---|---|
"""
    for name, case in CASES.items():
        for test, claim in ASKS:
            own = by_place.get((name, test)), by_place.get((name, claim))
            if any(own):
                text += f"| {name}: {case.words} | {TEST_WORDS[test]} | {_value(own[0])} | {_value(own[1])} |\n"
    return text


def _told(by_place: dict[tuple[str, str], Cell], test: str, name: str = "levels, one signal") -> str:
    """How often a test rejects, or a claim is made."""
    cell, what = by_place.get((name, test)), "claimed" if test.endswith("claimed") else "significant"
    return "not measured" if cell is None else f"{what} in {cell.rejections} of {cell.count} data sets"


def _least(count: int, n_cells: int) -> float:
    """The smallest rate at which the first of `n_cells` cells fails: smaller excesses go unseen."""
    rejections = np.arange(count + 1)
    return float(np.argmax(binom.sf(rejections - 1, count, ALPHA) < (1 - CONFIDENCE) / n_cells) / count)


def power_section(found: list[Power], material: str, channels: int, permutations: int, made_at: str = "") -> str:
    """What is added to the page about power; empty where it was not measured. `made_at`: the commit, if another."""
    if not found:
        return ""
    text = f"""
## Power

{N_SUBJECTS} simulated listeners of {channels} channels to {material}, {permutations} permutations, {_counts(found)}
data sets per effect. Listeners answer to a compressed envelope, to onsets, and to IC at the onsets; the planted effect
is what r would gain from a perfectly known response. A claim needs both tests on one channel.
{_judged(found)}
Measured with `--power-data-sets {found[0].count} --channels {channels} --permutations {permutations}`
{_made_at(made_at)}; `make calibrate` takes 20, 64 and 1000.

| planted | mean excess delta_r | claims | power [99 % bounds] | over stimuli | over subjects |
|---|---|---|---|---|---|
"""
    for own in found:
        low, high = own.bounds
        text += f"| {own.effect:g} | {own.excess:.5f} | {own.claims} of {own.count} | {own.power:.2f} "
        text += f"[{low:.2f}, {high:.2f}] | {own.stimuli / own.count:.2f} | {own.subjects / own.count:.2f} |\n"
    return text


def _made_at(commit: str) -> str:
    return f"at commit {commit}, whose engine gives the same numbers but for rounding" if commit else "at this commit"


def _counts(found: list[Power]) -> str:
    """Data sets per effect, where a study that isn't complete has more at one than at another too."""
    fewest, most = min(own.count for own in found), max(own.count for own in found)
    return str(fewest) if fewest == most else f"{fewest} to {most}"


def _judged(found: list[Power]) -> str:
    """Whether power rises, and suffices at the excess that is asked."""
    there = asked_effect(found)
    if there is None:
        return f"No effect has a mean excess delta_r of about {ASKED_EXCESS:g}, so power isn't judged."
    word = "holds" if strong_enough(found) else "**does not hold**"
    return (
        f"Power must rise with the effect, and be {LEAST_POWER:g} or more at a mean excess delta_r of about "
        f"{ASKED_EXCESS:g} (here {there.excess:.5f}: power {there.power:.2f}): that {word}."
    )


def _listed(cells: list[Cell]) -> str:
    return "; ".join(f"{cell.generator} ({cell.null}, {cell.test}: {cell.rate:.3f})" for cell in cells)


def _table(cells: list[Cell]) -> str:
    """A row per generator and null, a column per test."""
    text = "| null hypothesis true, and ... | null distribution | " + " | ".join(f"over {test}" for test in TESTS[:2])
    text += " | both: the claim |\n|---|---|---|---|---|\n"
    by_place = {(cell.generator, cell.null, cell.test): cell for cell in cells}
    for generator, null in dict.fromkeys((cell.generator, cell.null) for cell in cells):
        values = " | ".join(_value(by_place.get((generator, null, test))) for test in TESTS)
        text += f"| {generator}: {GENERATORS[generator].words} | `{null}` | {values} |\n"
    return text


def _value(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    text = f"{cell.rate:.3f}"
    if cell.role == "kept":
        return f"**{text}**" + (" low" if cell.conservative else "") + ("" if cell.ok else " FAILS")
    if cell.role == "described":
        return text
    return f"{text} ({'broken' if cell.role == 'broken' else 'there'}{'' if cell.ok else ', FAILS'})"
