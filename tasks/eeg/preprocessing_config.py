"""How EEG is cleaned: the keys under ``eeg.preprocessing``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from tasks.config import Config, distinct

Positive = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(min_length=1)]
REFERENCES = ("average", "mastoids", "none")
Names = Annotated[tuple[Name, ...], AfterValidator(distinct)]


class BadChannelsConfig(Config):
    """What a channel's standard deviation is compared with, and over how much of the subject's EEG.

    `against` ``all`` is the median of all usable channels, ``neighbours`` that of the `n_neighbours` nearest ones (as
    Di Liberto et al. 2020 compare; positions must be known). `per` ``trial`` looks at every trial by itself,
    ``subject`` at all of them together: a channel is then noisy or quiet in all or in none. What is flat, not numbers,
    saturated or marked is bad in its own trial either way.
    """

    against: Literal["all", "neighbours"] = Field("all", json_schema_extra={"neutral": "all"})
    per: Literal["trial", "subject"] = Field("trial", json_schema_extra={"neutral": "trial"})
    n_neighbours: int = Field(6, ge=3, json_schema_extra={"neutral": 6})


class IcaConfig(Config):
    """Independent components that go with the eyes are taken out (MNE; fitted per subject on all trials).

    A component is taken out when its correlation with an EOG channel exceeds `threshold` in absolute value. `eog` are
    EEG channels that stand for EOG channels; without it what was recorded as EOG is used, or else those there are of
    Fp1, Fpz, Fp2, AF7, AF8. Without `n_components` there are 20, or as many as the channels allow. Below 1 Hz the
    components are applied, but not fitted.
    """

    method: Literal["fastica", "infomax"] = "infomax"
    n_components: Annotated[int, Field(ge=2)] | None = None
    eog: Names | None = None
    threshold: float = Field(0.7, gt=0, lt=1)


class PreprocessingConfig(Config):
    """Gaps, band-pass (zero-phase Butterworth), resampling, bad channels, ICA, reference, choice of channels.

    The defaults are those of Di Liberto et al. 2020 (eLife 51784), with the average reference instead of the mastoids.
    `order` is that of each side's filter, which runs forwards and backwards. `filters` ``before_resampling`` is
    high-pass, low-pass, resampling; ``around_resampling`` low-pass, resampling, high-pass at the new rate, as the CNSP
    script has it (with `order` 4). Stretches of up to `gap_max_s` that aren't numbers are bridged by straight lines; a
    channel with a longer one is bad in that trial.

    A channel is bad when its standard deviation is more than `bad_channel_std_ratio` times the channels' median, or
    less than the median over it (`bad_channels` says of which channels); so is one that the file marks, and one that is
    saturated: more than `saturated_share` of its samples lie in stretches of 5 or more at its largest or smallest value
    (None: not asked). Bad channels are interpolated by spherical splines, eyes taken out (`ica`), the reference
    subtracted (the mean of all channels, of the mastoids, or of named channels), and then the rest of `channels` left
    out (None: all are kept).
    """

    band_hz: tuple[Positive, Positive] = (1.0, 8.0)
    order: int = Field(2, ge=1, le=8, json_schema_extra={"neutral": 2})
    filters: Literal["before_resampling", "around_resampling"] = Field(
        "before_resampling", json_schema_extra={"neutral": "before_resampling"}
    )
    sample_rate_hz: int = Field(64, ge=2)
    reference: Literal["average", "mastoids", "none"] | Names = "average"
    gap_max_s: float = Field(0.0, ge=0, le=1, json_schema_extra={"neutral": 0.0})
    bad_channel_std_ratio: float = Field(3.0, gt=1)
    bad_channels: BadChannelsConfig = Field(BadChannelsConfig(), json_schema_extra={"neutral": {}})
    saturated_share: Annotated[float, Field(gt=0, lt=1)] | None = Field(0.01, json_schema_extra={"neutral": None})
    ica: IcaConfig | None = Field(None, json_schema_extra={"neutral": None})
    channels: Names | None = Field(None, json_schema_extra={"neutral": None})

    @field_validator("reference", mode="before")
    @classmethod
    def _reference_is_known(cls, value: object) -> object:
        """One sentence instead of one for each form that it might have had."""
        if isinstance(value, str) and value not in REFERENCES:
            raise ValueError(f"allowed are {', '.join(REFERENCES)}, or a list of channels")
        return distinct(tuple(value)) if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _band_fits(self) -> PreprocessingConfig:
        low, high = self.band_hz
        if not low < high <= self.sample_rate_hz / 2:
            raise ValueError(f"band_hz: {low:g}-{high:g} Hz must rise and end at or below half of sample_rate_hz")
        return self

    @model_validator(mode="after")
    def _something_is_kept(self) -> PreprocessingConfig:
        if self.channels is not None and len(self.channels) == 1 and self.channels == self.reference:
            raise ValueError(f"channels: nothing is left of {self.channels[0]} when it is the reference; name others")
        return self

    def kept(self, names: Sequence[str]) -> list[int]:
        """Places of the channels that are kept: those asked for, less the one that alone is the reference."""
        gone = self.reference if isinstance(self.reference, tuple) and len(self.reference) == 1 else ()
        wanted = names if self.channels is None else self.channels
        return [place for place, name in enumerate(names) if name in wanted and name not in gone]

    def among(self, names: Sequence[str]) -> PreprocessingConfig:
        """The same for another cap: channels that it lacks aren't named; where none is left, the average, or all."""

        def there(wanted: Sequence[str] | None) -> tuple[str, ...] | None:
            return tuple(name for name in wanted or () if name in names) or None

        changes: dict[str, object] = {"channels": there(self.channels)}
        if isinstance(self.reference, tuple):
            changes["reference"] = there(self.reference) or "average"
        if self.ica is not None:
            n = self.ica.n_components
            fewer = None if n is None else min(n, len(names))
            changes["ica"] = self.ica.model_copy(update={"eog": there(self.ica.eog), "n_components": fewer})
        found = self.model_copy(update=changes)
        return found if found.kept(names) else found.model_copy(update={"channels": None})
