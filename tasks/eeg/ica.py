"""Takes out of the EEG what goes with the eyes: independent components that correlate with an EOG."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import mne
import numpy as np
import numpy.typing as npt

from tasks.contract import TaskError
from tasks.eeg.bad_channels import Bools, dead
from tasks.eeg.preprocessing_config import IcaConfig
from tasks.eeg.trials import Floats

SEED = 20
"""Of the starting weights: the same data give the same components."""

N_COMPONENTS = 20
"""Where the config names no number and the channels allow it."""

FRONTAL = ("Fp1", "Fpz", "Fp2", "AF7", "AF8")
"""Stand for an EOG where none was recorded: nearest to the eyes."""

FIT_FROM_HZ = 1.0
"""Slower drifts spoil the fit (Winkler et al. 2015, doi 10.1109/EMBC.2015.7319296)."""

MAX_ITER = {"fastica": 1000, "infomax": 500}


def eyes_of(
    data: Sequence[Floats],
    recorded: Sequence[Floats | None],
    recorded_names: Sequence[str],
    names: Sequence[str],
    config: IcaConfig,
) -> tuple[list[str], list[Floats]]:
    """What stands for the EOG: named channels, what was recorded in all trials, or frontal channels.

    Parameters
    ----------
    data, recorded : sequences of ndarray, shapes (C, samples) and (k, samples)
        EEG and EOG of every trial, filtered alike.
    recorded_names : sequence of str
        What the k recorded ones are called; EOG1, EOG2 ... where that isn't known.
    names : sequence of str, length C
        The EEG's channels.
    config : IcaConfig
        Its `eog`.

    Returns
    -------
    names, courses : list of str and list of ndarray, shape (k, samples)
        Recorded ones that are flat or not numbers in some trial are left out.

    Raises
    ------
    TaskError
        If there is none, or a named channel isn't among the EEG's.
    """
    there = [part for part in recorded if part is not None]
    if config.eog is None and len(there) == len(data) and len({len(part) for part in there}) == 1:
        usable = ~np.logical_or.reduce([dead(part) for part in there])
        if usable.any():
            known = len(recorded_names) == len(usable)
            called = recorded_names if known else [f"EOG{place + 1}" for place in range(len(usable))]
            return [called[int(place)] for place in np.flatnonzero(usable)], [part[usable] for part in there]
    wanted = [name for name in FRONTAL if name in names] if config.eog is None else list(config.eog)
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise TaskError(
            f"preprocessing.ica.eog: {', '.join(unknown)} is not among the usable channels; allowed are "
            f"{', '.join(names)}"
        )
    if not wanted:
        raise TaskError(
            f"preprocessing.ica: no EOG was recorded, and none of {', '.join(FRONTAL)} is there; name channels near "
            "the eyes under preprocessing.ica.eog, or set preprocessing.ica to null"
        )
    places = [list(names).index(name) for name in wanted]
    return wanted, [part[places] for part in data]


def without_eyes(
    data: Sequence[Floats],
    fitted_on: Sequence[Floats],
    eog: tuple[Sequence[str], Sequence[Floats]],
    always_interpolated: Bools,
    rate: int,
    config: IcaConfig,
) -> tuple[list[Floats], dict[str, Any]]:
    """The EEG less the components that correlate with the EOG.

    Parameters
    ----------
    data, fitted_on : sequences of ndarray, each of shape (C, samples)
        One subject's trials, and the same above 1 Hz.
    eog : (names, courses)
        As `eyes_of` gives it, above 1 Hz.
    always_interpolated : ndarray of bool, shape (C,)
        Channels that are made of the others in every trial: they add no component.
    rate : int
        Samples per second.
    config : IcaConfig
        Method, number of components, threshold.

    Returns
    -------
    cleaned, told : list of ndarray and dict
        What was removed, with its correlations, as JSON values. Without a component over the threshold the data come
        back as they are.

    Raises
    ------
    TaskError
        If more components are asked for than there are independent channels.
    """
    most = len(data[0]) - int(always_interpolated.sum())
    n = min(N_COMPONENTS, most) if config.n_components is None else config.n_components
    if not 2 <= n <= most:
        raise TaskError(
            f"preprocessing.ica.n_components: {n} components from {most} independent channels; allowed are 2 to {most}"
        )
    kwargs = {"fit_params": {"extended": True}} if config.method == "infomax" else {}
    most_steps = MAX_ITER[config.method]
    ica = mne.preprocessing.ICA(
        n, method=config.method, random_state=SEED, max_iter=most_steps, verbose="ERROR", **kwargs
    )
    whole = _raw(np.concatenate(fitted_on, axis=1), rate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it hasn't converged is told below
        try:
            ica.fit(whole, verbose="ERROR")
        except (RuntimeError, ValueError, np.linalg.LinAlgError) as error:
            raise TaskError(
                f"preprocessing.ica: {n} components can't be fitted ({' '.join(str(error).split())[:200]}); ask for "
                "fewer (n_components), or set preprocessing.ica to null"
            ) from None
    related = _correlations(ica.get_sources(whole).get_data(), np.concatenate(eog[1], axis=1))
    strongest = np.abs(related).argmax(axis=1)
    r = related[np.arange(n), strongest]
    gone = [int(place) for place in np.flatnonzero(np.abs(r) > config.threshold)]
    told = {
        "method": config.method,
        "n_components": n,
        "n_steps": int(ica.n_iter_),
        "converged": bool(ica.n_iter_ < most_steps),
        "eog": list(eog[0]),
        "threshold": config.threshold,
        "removed": [
            {"component": place, "eog": eog[0][strongest[place]], "r": round(float(r[place]), 4)} for place in gone
        ],
        "next_r": round(float(np.abs(np.delete(r, gone)).max(initial=0.0)), 4),
    }
    if not gone:
        return list(data), told
    return [ica.apply(_raw(part.copy(), rate), exclude=gone, verbose="ERROR").get_data() for part in data], told


def _raw(data: Floats, rate: int) -> Any:
    names = [f"E{place + 1}" for place in range(len(data))]
    return mne.io.RawArray(data, mne.create_info(names, rate, "eeg", verbose="ERROR"), verbose="ERROR")


def _correlations(first: Floats, second: Floats) -> npt.NDArray[np.float64]:
    """Pearson correlation of every row of one with every row of the other; 0 where one is constant."""
    first, second = (part - part.mean(axis=1, keepdims=True) for part in (first, second))
    norms = np.outer(np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1))
    return np.asarray(np.divide(first @ second.T, norms, out=np.zeros_like(norms), where=norms > 0))
