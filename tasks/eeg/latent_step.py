"""How far a variant's latents move from frame to frame: what IC says of change alone, without any prediction."""

from __future__ import annotations

import json

import numpy as np
from safetensors.numpy import load

from tasks.contract import Artefact, TaskError
from tasks.ic import IcSeries


def read_latent_step(latents: Artefact) -> dict[str, IcSeries]:
    """Euclidean distance ``|x_t - x_(t-1)|`` of successive clean latents, by recording, one value per latent frame.

    Parameters
    ----------
    latents : Artefact
        Of the stage `latents`: standardised latents, shape (T, channels).

    Returns
    -------
    dict of str to IcSeries
        `values` have the latents' unit (SD) instead of nats, and the time base that IC has; NaN in frame 0. Recordings
        of a single frame are left out, as they have no IC.

    Raises
    ------
    TaskError
        If a recording's latents aren't finite.
    """
    about = json.loads(latents.read_bytes("latents.json"))
    arrays = load(latents.read_bytes("latents.safetensors"))
    found = {}
    for key in sorted(arrays):
        frames = arrays[key].astype(np.float64)
        bad = np.flatnonzero(~np.isfinite(frames).all(axis=1))
        if bad.size:
            raise TaskError(
                f"{key}: {bad.size} of {len(frames)} latent frames aren't finite (the first is frame {bad[0]}), so "
                "latent_step is unknown there; leave the recording out, or train the autoencoder again"
            )
        if len(frames) > 1:
            steps = np.linalg.norm(np.diff(frames, axis=0), axis=1)
            span = about[key]
            values = np.concatenate([[np.nan], steps])
            found[key] = IcSeries(values, int(span["lead_samples"]), int(span["trail_samples"]))
    return found
