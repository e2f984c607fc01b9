"""EEG: where recordings come from, how they are cleaned, which models are fitted, and which tests are run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.config import Config, Distinct
from tasks.eeg.feature_config import ACOUSTICS, OF_LATENTS, FeatureConfig, ReducedModel
from tasks.eeg.preprocessing_config import PreprocessingConfig as PreprocessingConfig
from tasks.eeg.source_config import BidsConfig, ExpectConfig, SensorType

Lag = Annotated[float, Field(ge=-5, le=5)]
MAX_BLOCKS = 1000
Null = Literal["residual_shift", "onset_values", "circular_shift", "across_pieces", "sample_shuffle", "phase_scramble"]
Positive = Annotated[float, Field(gt=0)]
FeatureName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class SimulationConfig(Config):
    """Simulated listeners: they answer to symbolic pitch surprisal, a compressive envelope and onsets.

    `snr_db` is the power of the whole response over the noise in 1-8 Hz, mean over channels; `surprisal_share` is the
    part of the response's power that follows pitch surprisal. `alpha_db` adds an occipital alpha rhythm whose power in
    8-13 Hz is that many dB over the noise's (mean over channels), with each listener's own frequency and strength; it
    doesn't count as noise in `snr_db`. With `vary_noise` the noise's slope over frequency and its covariance over the
    scalp differ between listeners.
    """

    n_subjects: int = Field(6, ge=1)
    sample_rate_hz: int = Field(128, ge=32)
    repetitions: int = Field(1, ge=1)
    snr_db: float = -12.0
    surprisal_share: float = Field(0.4, ge=0, le=1)
    alpha_db: float | None = Field(None, json_schema_extra={"neutral": None})
    vary_noise: bool = Field(False, json_schema_extra={"neutral": False})


class CndConfig(Config):
    """A folder in the CND layout (dataStim.mat, dataSubN.mat), and the table of which trial heard which recording.

    `trials` is a csv with the columns trial (1-based) and recording (a file name of the stimuli). Without it the number
    of trials must be a multiple of the number of stimuli, in the order k, k + n, k + 2n ... for piece k.
    `onsets` of the reduced model are ``own`` (of the notes, or detected) or ``shipped``: those of dataStim.mat, for
    audio that is aligned with it. `expect` lets a plan be drawn before the data are there.
    """

    path: str = Field(min_length=1)
    trials: Annotated[str, Field(min_length=1)] | None = None
    onsets: Literal["own", "shipped"] = Field("own", json_schema_extra={"neutral": "own"})
    expect: ExpectConfig | None = None


class RawConfig(Config):
    """A folder with files that MNE reads (FIF, BDF, EDF, BrainVision, EEGLAB ...), and a table of what was heard when.

    `events` is a csv or tsv with the columns subject, file (within `path`), recording (a file name of the stimuli) and
    onset_s (seconds from the file's first sample), and, if known, duration_s and repetition (1, 2, ...). `mastoids` are
    the channels for the reference of that name; `not_eeg` are channels that the file wrongly calls EEG. `sensor_type`
    are the channels that are taken: EEG, or MEG's magnetometers or gradiometers.
    """

    path: str = Field(min_length=1)
    events: str = Field(min_length=1)
    sensor_type: SensorType = Field("eeg", json_schema_extra={"neutral": "eeg"})
    mastoids: tuple[str, ...] = ()
    not_eeg: tuple[str, ...] = ()
    expect: ExpectConfig | None = None


class ModelConfig(ReducedModel):
    """A comparison: the reduced model, and the form in which IC joins it.

    `reduced` is ``acoustic_plus``, ``envelope`` or a feature of one's own (`TrfConfig.features`), and `plus` adds more
    of them, ``ic_null`` (IC without context) or ``latent_step`` (how far the latents move from frame to frame).

    Only a model with `tested` gets permutations, p-values and a place in the correction. Without ``acoustic_plus`` a
    model carries no claim: it leaves acoustics to IC. ``envelope`` alone is the paper's reduced model.
    """

    regressor: Literal["hold", "onset"]

    @property
    def name(self) -> str:
        """What tables and cells call the model."""
        return f"{'+'.join(self.parts)}/{self.regressor}"

    @model_validator(mode="after")
    def _parts_once(self) -> ModelConfig:
        if self.reduced in OF_LATENTS:
            raise ValueError(f"reduced: {self.reduced} joins acoustic features: name it in plus")
        if self.reduced in self.plus:
            raise ValueError(f"plus: {self.reduced} is the reduced model already; leave it out of plus")
        return self

    @model_validator(mode="after")
    def _claim_needs_acoustics(self) -> ModelConfig:
        if self.tested and "acoustic_plus" not in self.parts:
            raise ValueError(
                f"tested: a model against {' and '.join(self.parts)} alone carries no claim; allowed for acoustic_plus "
                "only"
            )
        return self


class TrfConfig(Config):
    """Forward ridge TRF: lags in seconds, lambda relative to the number of training samples, folds by piece.

    `features` are one's own, by the names that models call them by.

    `criterion` is what the inner folds choose lambda by: the mean r of the held-out pieces, or their mean squared error
    (of the EEG in its units, each piece about its mean). `lambda_per` ``channel`` lets each channel choose, ``subject``
    all of a subject's together. `lambda_ic` lists lambdas of IC's columns, each tried with each of `lambdas`, which are
    the acoustic features' then (None: IC has theirs). `lambda_full` ``reduced`` gives the full model the lambda that
    the reduced one chose in the same outer fold: no permutation has inner folds then, which is some 8 times faster,
    and lambda is the same with and without IC; ``own`` lets the full model and every permutation choose. `precision`
    ``mixed`` computes outer folds in double and inner ones, which only rank lambdas, in single precision; ``float64``
    all in double; ``float32`` all in single but the sums over time (r errs by about 1e-6).
    """

    lag_min_s: Lag = -0.05
    lag_max_s: Lag = 0.35
    lambdas: Annotated[tuple[Positive, ...], Distinct] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    lambda_ic: Annotated[tuple[Positive, ...], Distinct] | None = Field(None, json_schema_extra={"neutral": None})
    lambda_per: Literal["subject", "channel"] = Field("subject", json_schema_extra={"neutral": "subject"})
    lambda_full: Literal["own", "reduced"] = Field("own", json_schema_extra={"neutral": "own"})
    criterion: Literal["correlation", "mse"] = Field("correlation", json_schema_extra={"neutral": "correlation"})
    precision: Literal["mixed", "float64", "float32"] = Field("mixed", json_schema_extra={"neutral": "mixed"})
    models: Annotated[tuple[ModelConfig, ...], Field(min_length=1)] = (
        ModelConfig(reduced="acoustic_plus", regressor="onset", tested=True),
        ModelConfig(reduced="acoustic_plus", regressor="hold"),
        ModelConfig(reduced="envelope", regressor="hold"),
    )
    features: dict[FeatureName, FeatureConfig] = Field(default_factory=dict, json_schema_extra={"neutral": {}})

    @model_validator(mode="after")
    def _features_are_known(self) -> TrfConfig:
        taken = next((name for name in self.features if name in (*ACOUSTICS, *OF_LATENTS)), None)
        if taken is not None:
            raise ValueError(f"features.{taken}: that name is taken; give the feature another")
        for model in self.models:
            for key, names, allowed in (
                ("reduced", (model.reduced,), (*ACOUSTICS, *self.features)),
                ("plus", model.plus, (*ACOUSTICS, *OF_LATENTS, *self.features)),
            ):
                unknown = next((name for name in names if name not in allowed), None)
                if unknown is not None:
                    raise ValueError(
                        f"models: {key}: {unknown!r} is no feature; allowed: {', '.join(allowed)}, and what "
                        "eeg.trf.features names"
                    )
        return self

    @model_validator(mode="after")
    def _models_differ(self) -> TrfConfig:
        names = [f"{' and '.join(model.parts)} with {model.regressor}" for model in self.models]
        twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
        if twice is not None:
            raise ValueError(f"models: {twice} is given twice; each pair of reduced and regressor is allowed once")
        return self

    @model_validator(mode="after")
    def _one_lambda_of_ic(self) -> TrfConfig:
        if self.lambda_full == "reduced" and len(self.lambda_ic or ()) > 1:
            raise ValueError("lambda_ic: with lambda_full reduced nothing is chosen for IC; give one value, or none")
        return self

    @model_validator(mode="after")
    def _window_rises(self) -> TrfConfig:
        if self.lag_min_s >= self.lag_max_s:
            raise ValueError(f"lag_min_s: {self.lag_min_s:g} must be below lag_max_s ({self.lag_max_s:g})")
        return self


class PermutationsConfig(Config):
    """The null distribution: permutation k has its own seed, so 200 -> 400 computes only 200.

    `null` ``residual_shift`` shifts in time what acoustics leave over of IC; ``onset_values``, for models with IC at
    note onsets, shuffles it among a piece's onsets. The others are diagnostics: they are not calibrated, and nothing is
    claimed with them. `shift_min_s` is the smallest shift of ``residual_shift`` and ``circular_shift``.
    """

    null: Null = Field("residual_shift", json_schema_extra={"neutral": "residual_shift"})
    n: int = Field(1000, ge=1)
    block: int = Field(100, ge=1)
    shift_min_s: float = Field(2.0, gt=0)

    @model_validator(mode="after")
    def _whole_blocks(self) -> PermutationsConfig:
        if self.n % self.block:
            raise ValueError(f"n: {self.n} must be a multiple of block ({self.block})")
        if self.n > MAX_BLOCKS * self.block:
            raise ValueError(f"n: {self.n} makes more than {MAX_BLOCKS} blocks of {self.block}; choose a larger block")
        return self


class CanariesConfig(Config):
    """Listeners whose verdict is known beforehand, judged in one named condition.

    `variant` is a variant's name (None: the first of the sweep); `noise_level` one of the study's levels (None: the
    level nearest to .4). `positive_snr_db` is the SNR of the listener to IC in 1-8 Hz: on three minutes of chorale
    melodies -20 dB make a delta_r of .02 to .05 (median over channels), small enough for a worse pipeline to miss it.
    """

    variant: str | None = None
    noise_level: Annotated[float, Field(ge=0, le=1)] | None = None
    n_noise_channels: int = Field(200, ge=20)
    n_acoustic_listeners: int = Field(40, ge=10)
    positive_snr_db: float = -20.0


class ParticipantsConfig(Config):
    """A table of participants (csv or tsv, as BIDS's participants.tsv), and its column whose two values are compared.

    Rows are known by participant_id or subject: ``sub-01`` is the subject 01 or sub-01. An empty value or n/a leaves
    the subject out of the comparison.
    """

    path: str = Field(min_length=1)
    column: str = Field(min_length=1)


class EegConfig(Config):
    """One EEG data set and everything done with it. Exactly one of `simulation`, `cnd`, `raw`, `bids` is given."""

    simulation: SimulationConfig | None = None
    cnd: CndConfig | None = None
    raw: RawConfig | None = Field(None, json_schema_extra={"neutral": None})
    bids: BidsConfig | None = Field(None, json_schema_extra={"neutral": None})
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    trf: TrfConfig = TrfConfig()
    permutations: PermutationsConfig = PermutationsConfig()
    canaries: CanariesConfig | None = CanariesConfig()
    alpha: float = Field(0.05, gt=0, lt=1)
    participants: ParticipantsConfig | None = Field(None, json_schema_extra={"neutral": None})

    @model_validator(mode="after")
    def _one_source(self) -> EegConfig:
        sources = ("simulation", "cnd", "raw", "bids")
        given = [name for name in sources if getattr(self, name) is not None]
        if len(given) != 1:
            said = {0: "none is given", 2: "both are given; set the other to null"}.get(
                len(given), "all are given; set the others to null"
            )
            named = ", ".join(given or sources)
            raise ValueError(f"{named}: exactly one of them says where the EEG comes from, {said}")
        return self

    @model_validator(mode="after")
    def _meg_has_no_reference(self) -> EegConfig:
        source = self.raw or self.bids
        reference = self.preprocessing.reference
        if source is not None and source.sensor_type != "eeg" and reference != "none":
            name = "raw" if source is self.raw else "bids"
            raise ValueError(
                f"{name}.sensor_type: {source.sensor_type} is MEG, which has no reference: preprocessing.reference "
                f"must be none, and it is {reference}"
            )
        if source is not None and source.sensor_type != "eeg" and self.preprocessing.bad_channels.against != "all":
            raise ValueError(
                "preprocessing.bad_channels.against: neighbours are those of EEG electrodes; of MEG use all"
            )
        return self

    @model_validator(mode="after")
    def _null_has_onsets(self) -> EegConfig:
        held = [model for model in self.trf.models if model.tested and model.regressor != "onset"]
        if self.permutations.null == "onset_values" and held:
            raise ValueError(
                "permutations.null: onset_values shuffles IC among note onsets, and the tested model "
                f"{held[0].reduced} with {held[0].regressor} has none; test only regressor onset, or use residual_shift"
            )
        return self

    @model_validator(mode="after")
    def _simulation_can_be_cleaned(self) -> EegConfig:
        if self.simulation is None:
            return self
        wanted = self.preprocessing
        if wanted.sample_rate_hz > self.simulation.sample_rate_hz:
            raise ValueError(
                f"preprocessing.sample_rate_hz: {wanted.sample_rate_hz} must not be above "
                f"simulation.sample_rate_hz ({self.simulation.sample_rate_hz})"
            )
        if wanted.reference == "mastoids":
            raise ValueError(
                "preprocessing.reference: simulated listeners have no mastoids; allowed are average, none, [channels]"
            )
        return self
