"""How the permutations of one regressor are drawn, for each null distribution that a study may choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.contract import TaskError
from tasks.eeg import nulls
from tasks.eeg.config import Null
from tasks.eeg.regressors import Regressor
from tasks.eeg.residual import Counts, Split, check_reach, correlation_time_s, moved
from tasks.eeg.shift_sums import Shifted, Stretches
from tasks.eeg.stretches import Stretch, stretches

Floats = npt.NDArray[np.float64]

SHIFTS = ("residual_shift", "circular_shift")
SHUFFLES = {
    "across_pieces": nulls.across_pieces,
    "sample_shuffle": nulls.sample_shuffle,
    "phase_scramble": nulls.phase_scramble,
}


@dataclass(frozen=True)
class Source:
    """What the permutations of one regressor are drawn from.

    Attributes
    ----------
    null : str
        Name of the null distribution.
    regressor : Regressor
    split : Split, optional
        Of `regressor`, by `OnsetExplainer` for ``onset_values``; the diagnostics need none.
    counts : mapping of recording to ndarray of int64, shape (T,)
        Notes that begin at each sample, for ``onset_values`` alone.
    seed : int
    shift_min_s : float
        Smallest shift.
    n_lags : int
        Of the TRF.
    sample_rate_hz : float
    """

    null: Null
    regressor: Regressor
    split: Split | None
    counts: Mapping[str, Counts]
    seed: int
    shift_min_s: float
    n_lags: int
    sample_rate_hz: float

    def __call__(self, numbers: Sequence[int]) -> dict[str, Floats]:
        """The permuted regressors `numbers`, shape (len(numbers), T) for each recording."""
        values, present = self.regressor.values, self.regressor.present
        if self.shifts:
            return {key: own.series() for key, own in self.moved(numbers).items()}
        if self.null == "onset_values":
            assert self.split is not None
            return nulls.among_onsets(self.split.fit, self.split.residual, self.counts, self.seed, numbers)
        return SHUFFLES[self.null](values, present, self.seed, numbers)

    @property
    def shifts(self) -> bool:
        """Whether permutations are circular shifts, of which `moved` is all that the sums need."""
        return self.null in SHIFTS

    def moved(self, numbers: Sequence[int]) -> dict[str, Shifted | Stretches]:
        """The permuted regressors `numbers` of a null that shifts, not yet as series."""
        values, present = self.regressor.values, self.regressor.present
        split = self.split or Split({key: np.zeros(own.size) for key, own in values.items()}, values, present)
        return moved(split, self.seed, numbers, self.n_lags, self.shift_min_s, self.sample_rate_hz)

    def stretches(self) -> list[Stretch]:
        """What is shifted by itself, of all recordings."""
        present, window = self.regressor.present, (self.n_lags, self.shift_min_s, self.sample_rate_hz)
        return [own for key, flags in present.items() for own in stretches(flags, *window, key)]

    @property
    def in_place_share(self) -> float:
        """Share of IC that no permutation shifts: in stretches between gaps that are too short."""
        found = self.stretches() if self.shifts else []
        still = sum(own.stop - own.first for own in found if not own.n_shifts)
        return still / max(1, sum(own.stop - own.first for own in found))

    def check(self) -> float | None:
        """Refuse shifts that are too few or too short; seconds over which a shifted residual is correlated with itself.

        Raises
        ------
        TaskError
            If a piece is too short, or shifts don't reach far enough, or the null can't be drawn of IC with gaps.
        """
        if self.null == "across_pieces" and self.regressor.missing:
            raise TaskError(
                f"{', '.join(self.regressor.missing)}: IC has gaps, and permutations.null across_pieces moves whole "
                "series; use residual_shift, or leave the piece or the noise level out"
            )
        if self.shifts:
            self.stretches()
        if self.null != "residual_shift":
            return None
        assert self.split is not None
        seconds = correlation_time_s(self.split, self.sample_rate_hz)
        check_reach(self.shift_min_s, self.n_lags, seconds, self.sample_rate_hz)
        return seconds
