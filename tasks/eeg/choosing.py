"""How the ridge penalties of a fit are chosen, and how exactly the scores that decide it are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Criterion = Literal["correlation", "mse"]
Full = Literal["own", "reduced"]
Precision = Literal["mixed", "float64", "float32"]
Floats = npt.NDArray[np.float64]

FLAT = 1e-18
"""A prediction whose variance is below this share of the response's is constant: its correlation is 0."""


@dataclass(frozen=True)
class Choosing:
    """What `tasks.eeg.config.TrfConfig` says about the choice of lambda.

    Attributes
    ----------
    per_channel : bool
        Each channel chooses for itself, instead of all of a subject's together.
    criterion : str
        Of the inner folds: the mean r, or the smallest mean squared error.
    lambdas_ic : tuple of float
        Penalties of the regressor's columns, each tried with each of the reduced columns' (banded ridge); none: they
        have that of the reduced columns.
    full : str
        ``own``: the full model chooses for itself; ``reduced``: in each outer fold it has the reduced model's lambda.
    precision : str
        ``mixed``: outer folds in double precision; inner ones, which only rank lambdas, in single once their sums are
        centred and rotated in double (r then errs by about 1e-6). ``float64``: all in double. ``float32``: all in
        single once sums are centred.
    """

    per_channel: bool = False
    criterion: Criterion = "correlation"
    lambdas_ic: tuple[float, ...] = ()
    full: Full = "own"
    precision: Precision = "mixed"

    def dtypes(self, outer: bool) -> tuple[npt.DTypeLike, npt.DTypeLike]:
        """Precision of the scores, and of the rotation into the training set's basis."""
        if self.precision == "float32":
            return np.float32, np.float32
        return (np.float64 if outer or self.precision == "float64" else np.float32), np.float64

    def pairs(self, lambdas: tuple[float, ...]) -> Floats:
        """Penalty of the regressor's columns by that of the reduced ones, shape (lambdas, M)."""
        if not self.lambdas_ic:
            return np.array(lambdas)[:, None]
        return np.tile(np.array(self.lambdas_ic), (len(lambdas), 1))

    def score(self, covariance: Floats, variance: Floats, square: Floats, n_samples: Floats) -> Floats:
        """What the inner folds maximise, from the centred sums of a held-out piece.

        Parameters
        ----------
        covariance, variance : ndarray, shape (..., C)
            Of the prediction with the EEG, and of the prediction.
        square : ndarray, shape (..., C)
            Of the EEG.
        n_samples : ndarray, broadcast with them
            Of the held-out piece.

        Returns
        -------
        ndarray, shape (..., C) or (..., 1)
            r, or the mean squared error about the piece's own means (a constant error counts as little as in r) with
            its sign changed; for each channel, or the channels' mean.
        """
        if self.criterion == "correlation":
            found = correlation(covariance, variance, square)
        else:
            found = (2 * covariance - variance - square) / n_samples
        return found if self.per_channel else found.mean(axis=-1, keepdims=True)


OWN = Choosing()
"""The default."""


def correlation(covariance: Floats, variance: Floats, square: Floats) -> Floats:
    """r from centred sums; a constant prediction and a flat channel have r = 0."""
    usable = (variance > FLAT * square) & (square > 0)
    scale = np.sqrt(np.where(usable, variance * square, 1.0))
    return np.clip(np.where(usable, covariance / scale, 0.0), -1.0, 1.0)
