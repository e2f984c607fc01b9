"""The calibration as a page and a picture."""

from __future__ import annotations

from datetime import date

import numpy as np
from matplotlib.figure import Figure
from null_data import GENERATORS
from power import N_SUBJECTS, Power
from rates import ALPHA, CONFIDENCE, N_PERMUTATIONS, TESTS, Cell
from scipy.stats import binom

from tasks.eeg.nulls import CALIBRATED

COLOURS = {"kept": "#1a6e8e", "broken": "#b5472f", "described": "#8a8a8a"}
MEANINGS = {"kept": "must keep its level", "broken": "must exceed .5", "described": "described alone"}


def page(cells: list[Cell], seconds: float) -> str:
    """``docs/results/calibration.md``."""
    count = cells[0].count
    failed = [cell for cell in cells if not cell.ok]
    careful = [cell for cell in cells if cell.role == "kept" and cell.conservative]
    kept = [cell for cell in cells if cell.role == "kept"]
    words = (
        "Every cell does what is asked of it" if not failed else f"**{len(failed)} cells do not: {_listed(failed)}**"
    )
    return f"""# Do the EEG tests keep their level?

`tests/statistics/calibrate.py`, {date.today()}: {count} data sets per row in which IC tells listeners nothing,
{seconds / 60:.0f} min on one core. {words}. With so many data sets a cell fails from a rate of
{_least(count, len(kept)):.3f} on.

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
  see a test that doesn't keep its level.
- The rest is described. Where listeners share activity that nothing explains, the test over subjects alone says nothing
  about other stimuli: that is why a claim needs the test over stimuli too.

## The null distributions that may claim

{_table([cell for cell in cells if cell.null in CALIBRATED])}
Conservative beyond doubt: {_listed(careful) or "none"}.

## Diagnostics, not calibrated

The popular null distributions, and the sign-flip of delta_r without a null. None can carry a claim.

{_table([cell for cell in cells if cell.null not in CALIBRATED])}
## How it was run

`python tests/statistics/calibrate.py --data-sets {count}`; the quick version, with fewer data sets and the cells that
matter most, is part of `make test`. All numbers with their bounds and adjusted p:
benchmarks/results/{date.today()}-calibration.jsonl.
"""


def _least(count: int, n_cells: int) -> float:
    """The smallest rate at which the first of `n_cells` cells fails: smaller excesses go unseen."""
    rejections = np.arange(count + 1)
    return float(np.argmax(binom.sf(rejections - 1, count, ALPHA) < (1 - CONFIDENCE) / n_cells) / count)


def power_section(found: list[Power], material: str, channels: int, permutations: int) -> str:
    """What is added to the page about power; empty where it was not measured."""
    if not found:
        return ""
    text = f"""
## Power

{N_SUBJECTS} simulated listeners of {channels} channels to {material}, {permutations} permutations, {found[0].count}
data sets per effect. Listeners answer to a compressed envelope, to onsets, and to IC at the onsets; the planted effect
is what r would gain from a perfectly known response. A claim needs both tests on one channel. Measured with
`--power-data-sets {found[0].count} --channels {channels} --permutations {permutations}`;
`make calibrate` takes 20, 64 and 1000.

| planted | mean excess delta_r | claims | power [99 % bounds] | over stimuli | over subjects |
|---|---|---|---|---|---|
"""
    for own in found:
        low, high = own.bounds
        text += f"| {own.effect:g} | {own.excess:.5f} | {own.claims} of {own.count} | {own.power:.2f} "
        text += f"[{low:.2f}, {high:.2f}] | {own.stimuli / own.count:.2f} | {own.subjects / own.count:.2f} |\n"
    return text


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
    return f"{text} (broken{'' if cell.ok else ', FAILS'})" if cell.role == "broken" else text


def draw(cells: list[Cell]) -> Figure:
    """Rates with their bounds: over stimuli and over subjects a panel each, coloured by what is asked of them."""
    rows = list(dict.fromkeys((cell.generator, cell.null) for cell in cells))
    place = {row: index for index, row in enumerate(rows)}
    shaded = list(dict.fromkeys(generator for generator, _ in rows))[::2]
    figure = Figure(figsize=(12, 1.4 + 0.17 * len(rows)))
    axes = figure.subplots(1, len(TESTS), sharey=True)
    for axis, test in zip(axes, TESTS, strict=True):
        for (generator, _), y in place.items():
            if generator in shaded:
                axis.axhspan(y - 0.5, y + 0.5, color="#f2f2f2", lw=0)
        for cell in (cell for cell in cells if cell.test == test):
            y, colour = place[cell.generator, cell.null], COLOURS[cell.role]
            axis.plot([cell.low, cell.high], [y, y], color=colour, lw=1.2)
            axis.plot(cell.rate, y, "o" if cell.ok else "X", color=colour, ms=4 if cell.ok else 8)
        axis.axvline(ALPHA, color="black", lw=0.7, ls=":")
        axis.set_xscale("symlog", linthresh=0.1)
        axis.set_xlim(0, 1)
        axis.set_xticks([0, 0.05, 0.1, 0.2, 0.5, 1], ["0", ".05", ".1", ".2", ".5", "1"])
        axis.set_title("both: the claim" if test == "both" else f"over {test}", fontsize=9)
        axis.set_xlabel("rate of p ≤ .05", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(axis="x", lw=0.3)
    axes[0].set_yticks(range(len(rows)), [f"{generator} · {null}" for generator, null in rows], fontsize=6.5)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    handles = [axes[0].plot([], [], "o-", color=COLOURS[role], label=MEANINGS[role])[0] for role in COLOURS]
    figure.legend(handles=handles, loc="lower center", ncols=3, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.35 / figure.get_figheight(), 1, 1))
    return figure
