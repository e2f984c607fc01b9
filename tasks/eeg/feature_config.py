"""Features of one's own: where their values lie, and how they are brought to the EEG's rate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tasks.config import Config, distinct

ACOUSTICS = ("acoustic_plus", "envelope")
"""Features that every study has."""

OF_LATENTS = ("ic_null", "latent_step")
"""Regressors of a variant: IC without context, and how far its latents move from frame to frame."""

Form = Literal["hold", "resample", "impulses"]


def _sorted_once(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(distinct(names))) if names else ()


Names = Annotated[tuple[str, ...], AfterValidator(_sorted_once)]
"""Names without an order; each once."""


class FeatureConfig(Config):
    """A feature of one's own, one or more series per stimulus.

    `path` is a folder with a csv per stimulus (its id or file name), with a column time_s of seconds from the
    recording's start and a column for each series; or one .npz file with an array per stimulus, of shape (T,) or
    (T, series), and sample_rate_hz, the rate of all of them. `columns` are the columns of the csv (empty: all of them).

    `form` says how values get the EEG's rate: with ``hold`` a sample has the last value at or before it; ``resample``
    is band-limited and needs equal steps of time, at least as many per second as the EEG has; ``impulses`` puts each
    value at the sample nearest to its time, and 0 elsewhere.
    """

    path: str = Field(min_length=1)
    columns: Names = ()
    form: Form = "hold"


class FeatureFile(Config):
    """A file, known by its content (its SHA-256; elsewhere the store's ETag)."""

    name: str
    version: str


class OwnFeature(Config):
    """What a cell holds of a feature of one's own. Where its files lie decides nothing: the cell's places say it."""

    name: str
    columns: tuple[str, ...] = ()
    form: Form
    files: tuple[FeatureFile, ...]


class ReducedModel(Config):
    """What a comparison is against: the reduced model by the names of its parts."""

    reduced: str
    tested: bool = False
    plus: Names = Field((), json_schema_extra={"neutral": []})

    @property
    def parts(self) -> tuple[str, ...]:
        """All of the reduced model by name."""
        return (self.reduced, *self.plus)
