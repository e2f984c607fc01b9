"""Where on the scalp: clusters of neighbouring channels by their mass, against sign-flips over subjects.

A cluster says that something is there and roughly how far it extends; it says nothing of any one of its channels
(Maris & Oostenveld 2007, doi 10.1016/j.jneumeth.2007.03.024). So it is described, and carries no claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.spatial import QhullError
from scipy.stats import t as student

from tasks.eeg.maxima import FEWEST_SUBJECTS, TIE
from tasks.seeds import numpy_stream

Floats = npt.NDArray[np.float64]

N_FLIPS = 4096
"""All flips of up to 12 subjects; as many are drawn where there are more."""

FORMING_P = 0.05
"""Channels whose one-sided Student's t reaches this p form clusters."""

FEWEST_CHANNELS = 4


class NoNeighbours(Exception):
    """Why there are no clusters."""


def neighbours(channels: Sequence[str], positions: Sequence[Sequence[float]] | None) -> sparse.csr_array:
    """Which channels are neighbours: MNE's Delaunay triangulation of the positions projected on a plane.

    Parameters
    ----------
    channels : sequence of str, length C
    positions : sequence of (x, y, z), length C, or None
        In metres: x right, y front, z up.

    Returns
    -------
    sparse array, shape (C, C)

    Raises
    ------
    NoNeighbours
        If there are no positions, too few, or none that span a head.
    """
    import mne

    if positions is None:
        raise NoNeighbours("the channels have no positions")
    if len(channels) < FEWEST_CHANNELS:
        raise NoNeighbours(f"{len(channels)} channels are too few to have neighbours; at least {FEWEST_CHANNELS}")
    spots = np.asarray(positions, dtype=np.float64)
    if len(np.unique(spots, axis=0)) < len(spots) or np.linalg.matrix_rank(spots - spots.mean(axis=0)) < 2:
        raise NoNeighbours("the channels' positions coincide or lie on a line")
    info = mne.create_info(list(channels), 100.0, "eeg", verbose="error")
    montage = mne.channels.make_dig_montage(dict(zip(channels, spots, strict=True)), coord_frame="head")
    info.set_montage(montage, verbose="error")
    try:
        with mne.utils.use_log_level("error"):
            found, _ = mne.channels.find_ch_adjacency(info, "eeg")
    except (QhullError, RuntimeError, ValueError) as error:
        raise NoNeighbours(f"the channels' positions don't span a head ({str(error).splitlines()[0]})") from error
    return sparse.csr_array(found)


def _student(values: Floats, *_: Any) -> Floats:
    """t of every test over subjects; 0 where the values don't differ."""
    spread = values.std(axis=0, ddof=1)
    flat = spread <= 1e-12 * np.abs(values).max(axis=0)
    t: Floats = np.where(flat, 0.0, values.mean(axis=0) / np.where(flat, 1.0, spread / np.sqrt(len(values))))
    return t


def _masses(values: Floats, adjacency: sparse.coo_array, n_flips: int) -> tuple[Floats, list[Any], Floats]:
    """t, clusters, and the largest mass of every flip, by MNE."""
    import mne

    t, found, _, maxima = mne.stats.permutation_cluster_1samp_test(
        values.copy(),
        threshold=float(student.isf(FORMING_P, len(values) - 1)),
        n_permutations=n_flips,
        tail=1,
        stat_fun=_student,
        adjacency=adjacency,
        out_type="indices",
        buffer_size=None,
        rng=numpy_stream("group", "cluster flips", len(values)),
        verbose="error",
    )
    return t, list(found), np.array(maxima, dtype=np.float64)


def clusters(excess: Floats, adjacency: sparse.csr_array) -> list[dict[str, Any]]:
    """Clusters of channels with excess delta_r above 0, their mass corrected over all conditions and channels.

    Parameters
    ----------
    excess : ndarray, shape (S, conditions, C)
        At least 5 subjects.
    adjacency : sparse array, shape (C, C)
        Neighbours; channels of different conditions aren't.

    Returns
    -------
    list of dict
        `condition` (its number), `channels` (their numbers), `mass` (sum of t) and `p`; the smallest p first.

    Notes
    -----
    Where all flips are taken, MNE 1.13 counts the observed signs twice and leaves their opposite out, so that p can't
    be below 2 / 2^n; here the opposite is put in the place of one of them.
    """
    n_subjects, n_conditions, n_channels = excess.shape
    assert n_subjects >= FEWEST_SUBJECTS
    blocks = sparse.coo_array(sparse.kron(sparse.eye_array(n_conditions), adjacency))
    values = np.ascontiguousarray(excess.reshape(n_subjects, -1))
    t, found, maxima = _masses(values, blocks, N_FLIPS)
    if found and 2**n_subjects <= N_FLIPS:
        observed = max(float(t[places].sum()) for (places,) in found)
        opposite_t, opposite, _ = _masses(-values, blocks, 1)
        largest = max((float(opposite_t[places].sum()) for (places,) in opposite), default=0.0)
        maxima[np.argmin(np.abs(maxima - observed))] = largest
    rows = []
    for (places,) in found:
        members = np.sort(places)
        mass = float(t[members].sum())
        rows.append(
            {
                "condition": int(members[0] // n_channels),
                "channels": [int(member) for member in members % n_channels],
                "mass": mass,
                "p": float(np.mean(maxima >= mass * (1 - TIE))),
            }
        )
    return sorted(rows, key=lambda row: (row["p"], -row["mass"]))
