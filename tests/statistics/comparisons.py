"""Data with several conditions, in which comparisons have nothing to find, and what stage `group` says of them.

IC differs between conditions. It tells listeners nothing at all, or as much in every condition: then contrasts must
keep their level though every condition is rightly claimed. Where conditions truly differ the tests must say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, Literal

import numpy as np
from fits import LAGS, Fitted, fit
from null_data import (
    N_CHANNELS,
    N_LAGS,
    RATE,
    DataSet,
    acoustic_plus,
    acoustics,
    add_response,
    noise,
    onset_counts,
    regressor,
    respond,
    smooth,
    sound,
)

from tasks.eeg.config import ModelConfig
from tasks.eeg.contrasts import INTERMEDIATE
from tasks.eeg.evidence import Fit
from tasks.eeg.group import summary
from tasks.eeg.montage import positions_for
from tasks.eeg.regressors import standardised
from tasks.eeg.table import ArmEntry, ConditionEntry, GroupConfig, Participants, Table
from tasks.seeds import numpy_stream

Array = np.ndarray[Any, Any]
ALPHA = 0.05
N_LISTENERS = 8
"""Two-sided sign-flips of six could not come near .05 from below: 1/32 is followed by 2/32."""

PIECES, N_SAMPLES = tuple("abcdefgh"), 168
"""As many pieces for the same reason, together as long as those of the other generators."""

PER_GROUP = 6

SCALP = ("F3", "Fz", "F4", "C3", "Cz", "C4", "P3", "Pz", "P4")
SPREAD_M = 0.05
"""Over which channels see the same sources."""

Truth = Literal["nothing", "equal", "one signal", "different"]


@dataclass(frozen=True)
class Design:
    """Conditions: every arm with every seed at every noise level. Without names of channels they have no positions."""

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    levels: tuple[float, ...]
    channels: tuple[str, ...] = ()

    @property
    def conditions(self) -> list[tuple[str, int, float]]:
        return list(product(self.arms, self.seeds, self.levels))


LEVELS = Design(("a",), (0,), (0.0, *INTERMEDIATE, 0.9))
ARMS = Design(("a", "b"), (0, 1, 2), (0.0, 0.5))
PAIR = Design(("a",), (0,), (0.0, 0.5))
MAPS = Design(("a",), (0,), (0.0, 0.5), SCALP)


@dataclass(frozen=True)
class Case:
    """A generator of data with several conditions.

    Attributes
    ----------
    words : str
        What is true, for tables.
    design : Design
    truth : str
        What EEG responds to beside acoustics. ``equal``: to what each condition's IC has for itself, by kernels drawn
        anew for each listener and condition, so that on these very stimuli all conditions gain alike. ``one signal``:
        to what all conditions' IC has in common; what else IC has are chance correlations with it, so conditions gain
        alike over many stimuli alone. ``different``: to what the intermediate levels, or the later arm, have for
        themselves.
    shared : float
        Standard deviation of activity that a piece evokes in all listeners alike, unrelated to sound and IC.
    groups : bool
        Whether two groups of listeners are compared. Then the second alone shares activity, and where the truth is
        ``different`` it alone follows IC, of all conditions.
    """

    words: str
    design: Design
    truth: Truth
    shared: float = 0.0
    groups: bool = False

    @property
    def n_listeners(self) -> int:
        return 2 * PER_GROUP if self.groups else N_LISTENERS


SHARED_WORDS = "pieces evoke activity in all listeners that nothing explains"
CASES = {
    "levels, nothing": Case("IC of six levels tells listeners nothing", LEVELS, "nothing"),
    "levels, equal": Case("IC of six levels tells listeners equally much", LEVELS, "equal"),
    "levels, one signal": Case(
        "IC of six levels follows one signal that listeners follow, each with its own errors", LEVELS, "one signal"
    ),
    "levels, shared activity": Case(
        f"IC of six levels tells nothing, and {SHARED_WORDS}", LEVELS, "nothing", shared=1.0
    ),
    "levels, different": Case("IC of the intermediate levels alone tells listeners something", LEVELS, "different"),
    "arms, nothing": Case("IC of two arms with three seeds tells listeners nothing", ARMS, "nothing"),
    "arms, equal": Case("IC of two arms with three seeds tells listeners equally much", ARMS, "equal"),
    "arms, different": Case("IC of one of two arms alone tells listeners something", ARMS, "different"),
    "maps, nothing": Case("nine channels with neighbours, IC tells listeners nothing", MAPS, "nothing"),
    "maps, different": Case(
        "nine channels with neighbours, IC of one level tells listeners something", MAPS, "different"
    ),
    "groups, equal": Case("IC tells two groups of listeners equally much", PAIR, "equal", groups=True),
    "groups, shared activity": Case(
        "IC tells two groups nothing, and pieces evoke activity in all of one that nothing explains",
        *(PAIR, "nothing", 1.0),
        groups=True,
    ),
    "groups, different": Case(
        "IC tells something to one of two groups of listeners alone", PAIR, "different", groups=True
    ),
}


def conditions_data(name: str, number: int) -> DataSet:
    """Data set `number` of a case."""
    case = CASES[name]
    random, count = numpy_stream("calibration", name, number), len(case.design.conditions)
    n_channels = len(case.design.channels) or N_CHANNELS
    sounds = {piece: sound(random, N_SAMPLES) for piece in PIECES}
    signal = {piece: smooth(random.normal(size=N_SAMPLES)) for piece in PIECES}
    own = {piece: smooth(random.normal(size=(count, N_SAMPLES))).T for piece in PIECES}
    follows = {piece: heard.flux / heard.flux.std() + signal[piece] for piece, heard in sounds.items()}
    regressors = tuple(
        regressor({piece: follows[piece] + own[piece][:, condition] for piece in PIECES}) for condition in range(count)
    )
    driving = standardised({piece: np.column_stack(acoustics(heard)) for piece, heard in sounds.items()})
    reduced = standardised({piece: np.column_stack(acoustic_plus(heard)) for piece, heard in sounds.items()})
    common = {piece: case.shared * noise(random, N_SAMPLES, n_channels) for piece in PIECES}
    mixing = _mixing(case.design.channels)
    eeg = []
    alone = {piece: np.zeros_like(values) for piece, values in common.items()}
    for number_of_listener in range(case.n_listeners):
        first = case.groups and number_of_listener < PER_GROUP
        listener = respond(random, driving, alone if first else common, n_channels=n_channels)
        size = (N_LAGS, count, n_channels)
        kernels, columns = _driven(case, random.normal(size=size)), signal if case.truth == "one signal" else own
        if first and case.truth == "different":
            kernels = None
        for (trial,), piece in zip(listener, PIECES, strict=True):
            if kernels is not None:
                add_response(trial, columns[piece].reshape(N_SAMPLES, -1), kernels)
            trial[:] = trial @ mixing
        eeg.append(listener)
    return DataSet(reduced, onset_counts(sounds), regressors, eeg)


def _driven(case: Case, chance: Array) -> Array | None:
    """Kernels (lags, columns, C) by which a listener answers to IC, from chance (lags, conditions, C)."""
    if case.truth == "nothing":
        return None
    if case.truth == "equal":
        return np.asarray(0.4 * chance)
    if case.truth == "one signal":
        return np.asarray(0.1 * (1 + 0.5 * chance[:, :1]))
    design = case.design
    if case.groups:
        return np.asarray(0.2 * (1 + 0.5 * chance))
    there = [arm == design.arms[-1] and 0 < level < 0.9 for arm, _, level in design.conditions]
    return np.asarray(0.2 * (1 + 0.5 * chance) * np.array(there)[:, None])


def _mixing(channels: tuple[str, ...]) -> Array:
    """What each channel sees of each channel's sources, shape (C, C)."""
    if not channels:
        return np.eye(N_CHANNELS)
    positions = positions_for(channels)
    assert positions is not None
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    return np.asarray(np.exp(-apart / SPREAD_M))


def group_result(name: str, fitted: Fitted) -> dict[str, Any]:
    """What stage `group` writes of a case's data set."""
    case = CASES[name]
    design = case.design
    names = tuple(f"s{number}" for number in range(len(fitted.r_full)))
    channels = design.channels or tuple(f"c{number}" for number in range(N_CHANNELS))
    rest = np.zeros((LAGS.size, len(channels))), LAGS / RATE, channels, PIECES
    fits = tuple(
        tuple(Fit(full, reduced, *rest) for full in own)
        for own, reduced in zip(fitted.r_full, fitted.r_reduced, strict=True)
    )
    arms = tuple(
        ArmEntry(variant=f"{arm}{seed}", arm=arm, seed=seed) for arm, seed in product(design.arms, design.seeds)
    )
    conditions = tuple(
        ConditionEntry(variant=f"{arm}{seed}", noise_level=level, subjects=()) for arm, seed, level in design.conditions
    )
    model = ModelConfig(reduced="acoustic_plus", regressor="hold", tested=True)
    values = {own: "first" if number < PER_GROUP else "second" for number, own in enumerate(names)}
    participants = Participants(column="group", values=values) if case.groups else None
    config = GroupConfig(model=model, alpha=ALPHA, conditions=conditions, arms=arms, participants=participants)
    table = Table(names, (), channels, fits, fitted.gain, fitted.null["residual_shift"])
    positions = _positions(design.channels)
    described = {"channels": list(channels), "positions": positions, "simulated": True, "removed": []}
    return summary(config, table, {name: {"subject": name, **described} for name in names})


@lru_cache
def _positions(channels: tuple[str, ...]) -> list[list[float]] | None:
    found = positions_for(channels) if channels else None
    return None if found is None else [[float(value) for value in row] for row in found]


def _least(rows: Sequence[Mapping[str, Any]], key: str = "p") -> float:
    """The smallest p of rows; 1 where there are none."""
    return min((1.0 if row[key] is None else float(row[key]) for row in rows), default=1.0)


Reader = Callable[[Mapping[str, Any]], float]


def _family(family: str, key: str = "p", claimed: bool = False) -> Reader:
    return lambda result: _least(
        [row for row in result["contrasts"] if row["family"] == family and (row["claimed"] or not claimed)], key
    )


def _groups(key: str = "p", claimed: bool = False) -> Reader:
    return lambda result: _least(
        [row for row in result.get("between", {"conditions": ()})["conditions"] if row["claimed"] or not claimed], key
    )


READERS: dict[str, Reader] = {
    "stimuli": lambda result: _least(result["conditions"], "p_stimulus"),
    "subjects": lambda result: _least(result["conditions"], "p_subject"),
    "both": lambda result: _least(result["conditions"]),
    "levels subjects": _family("levels", "p_subject"),
    "levels pieces": _family("levels", "p_piece"),
    "levels claimed": _family("levels", claimed=True),
    "arms subjects": _family("arms", "p_subject"),
    "arms pieces": _family("arms", "p_piece"),
    "arms claimed": _family("arms", claimed=True),
    "ends subjects": _family("intermediate", "p_subject"),
    "ends pieces": _family("intermediate", "p_piece"),
    "ends claimed": _family("intermediate", claimed=True),
    "intermediate": lambda result: _least(result["intermediate"]),
    "best claimed": lambda result: _least([row for row in result["intermediate"] if row["best"]]),
    "choice": lambda result: _least(result["chosen_level"]),
    "clusters": lambda result: _least(result["clusters"]),
    "groups stimuli": _groups("p_stimulus"),
    "groups subjects": _groups("p_subject"),
    "groups claimed": _groups(claimed=True),
}
"""The smallest p of each test in what `group` writes, as the test corrects it: a new test of conditions or of groups of
listeners gets a line here, what is asked of it in `rates.ASKED`, and its step in `rates.STEPS` where p is uniform."""


def comparison_p(name: str, number: int) -> dict[str, float]:
    """Smallest p of every test on data set `number` of a case; 1 where a design doesn't ask for it."""
    result = group_result(name, fit(conditions_data(name, number), ("residual_shift",), number))
    return {test: read(result) for test, read in READERS.items()}
