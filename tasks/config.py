"""The base of every config, and the configs of the stages that are one file: surprisal, reconstruction, pitch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

T = TypeVar("T")


def distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    """Refuse an empty list, and one that holds a value twice."""
    if not values:
        raise ValueError("at least one value is needed")
    twice = next((value for place, value in enumerate(values) if value in values[:place]), None)
    if twice is not None:
        raise ValueError(f"{twice} is given twice; each value is allowed once")
    return values


Distinct = AfterValidator(distinct)
Level = Annotated[float, Field(ge=0, le=1), AfterValidator(abs)]
"""A noise level; -0.0 is 0.0."""


class Config(BaseModel):
    """Frozen; a key that it doesn't know is an error, and so are NaN, infinity (where not allowed) and true for 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        items = value if isinstance(value, list | tuple) else (value,)
        field = cls.model_fields.get(info.field_name or "")
        flag = next((item for item in items if isinstance(item, bool)), None)
        if flag is not None and field is not None and not _allows_flags(field.annotation):
            raise ValueError(f"{str(flag).lower()} is not allowed here; quote it where a word is meant")
        return value


def _allows_flags(annotation: Any) -> bool:
    return annotation in (bool, Any) or any(_allows_flags(part) for part in get_args(annotation))


class SurprisalConfig(Config):
    """Information content at noise levels.

    `noise_levels` are s in [0, 1]: 0 is the clean latent, 1 is all noise. `definition` says which quantity is computed:
    ``expectation`` is the IC of the mean noised frame, with the whole sequence, context included, scaled by 1 - s.
    """

    noise_levels: Annotated[tuple[Level, ...], Distinct] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    definition: Literal["expectation"] = "expectation"
    solver: Literal["euler"] = "euler"
    n_steps: int = Field(100, ge=1)
    n_probes: int = Field(4, ge=1)


class ReconstructionConfig(Config):
    """What survives latent noise. `snr` are power ratios; ``inf`` is the clean latent."""

    snr: Annotated[tuple[Annotated[float, Field(gt=0, allow_inf_nan=True)], ...], Distinct] = (float("inf"), 4.0, 1.0)
    metrics: Annotated[tuple[Literal["si_sdr", "log_spectral_distance"], ...], Distinct] = (
        "si_sdr",
        "log_spectral_distance",
    )
    excerpt_s: float = Field(5.0, gt=0)
    n_excerpts: int = Field(60, ge=2)
    n_draws: int = Field(4, ge=1)


class PitchConfig(Config):
    """Pitch surprisal from a variable-order Markov model (interpolated PPM), and IC aligned with notes.

    `order_max` bounds the contexts of the model (None: unbounded). `ic_frames` says which frames of IC a note gets: the
    frame of its onset, or the mean of that one and the next.
    """

    order_max: Annotated[int, Field(ge=0)] | None = 4
    escape: Literal["C"] = "C"
    ic_frames: Literal["onset", "onset_and_next"] = "onset_and_next"
