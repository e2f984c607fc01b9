"""The base of every config, and the configs of the stages that are one file: surprisal, reconstruction, pitch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

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
    """Frozen; a key that it doesn't know is an error, and so are NaN, infinity (where not allowed) and true for 1.

    A key that was added after results had been signed names its neutral value, the one that means what the config meant
    without it: ``Field(0.1, json_schema_extra={"neutral": 0.0})``. At that value it isn't signed.
    """

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

    @classmethod
    def neutral(cls) -> dict[str, Any]:
        """The neutral values of the keys that were added later."""
        extras = {name: field.json_schema_extra for name, field in cls.model_fields.items()}
        return {
            name: extra["neutral"] for name, extra in extras.items() if isinstance(extra, dict) and "neutral" in extra
        }

    def signed(self) -> dict[str, Any]:
        """The keys that decide a signature, as JSON: all but those added later that have their neutral value."""
        neutral = self.neutral()
        plain = self.model_dump(mode="json")
        inner = {name: value.signed() for name in plain if isinstance(value := getattr(self, name), Config)}
        kept = {**plain, **inner}
        return {name: value for name, value in kept.items() if name not in neutral or value != neutral[name]}

    @classmethod
    def of_signed(cls, keys: Mapping[str, Any]) -> Self:
        """The config of a cell, from what `signed` gave: keys that it leaves out are neutral, whatever the default.

        So are those of the configs within it.
        """
        inner = {
            name: kind.of_signed(value)
            for name, value in keys.items()
            if isinstance(value, Mapping) and (kind := _config_kind(cls.model_fields.get(name))) is not None
        }
        return cls.model_validate({**cls.neutral(), **keys, **inner})


def _config_kind(field: FieldInfo | None) -> type[Config] | None:
    """The config that a key holds, or may hold beside None; None for other keys."""
    annotation = None if field is None else field.annotation
    kinds = [
        kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type) and issubclass(kind, Config)
    ]
    return kinds[0] if len(kinds) == 1 else None


def _allows_flags(annotation: Any) -> bool:
    return annotation in (bool, Any) or any(_allows_flags(part) for part in get_args(annotation))


Definition = Literal["expectation", "monte_carlo", "probability_flow", "expected"]
Solver = Literal["quadrature", "euler", "exact"]
Order = Literal[2, 3]
Precision = Literal["float32", "bfloat16"]
PRESETS: dict[Solver, dict[str, int]] = {
    "quadrature": {"n_nodes": 12, "n_probes": 2, "order": 2},
    "euler": {"n_steps": 100, "n_probes": 4},
    "exact": {"n_nodes": 20, "n_probes": 9, "order": 3},
}
"""What each solver does where nothing else is asked for."""
PRECISIONS: dict[Solver, Precision] = {"quadrature": "float32", "exact": "bfloat16"}
"""In which precision a solver carries tangents where nothing else is asked for."""


class ProbeFile(Config):
    """Probes from a .npy file: ``(P, D)`` for every frame, or ``(P, T - 1, D)`` for the frames of one recording.

    It is known by its content, wherever it lies.
    """

    sha256: str


class PlacedProbeFile(ProbeFile):
    """A file of probes as it is asked for: with the path at which it lies now, which decides no result."""

    path: str


class SurprisalSettings(Config):
    """How information content (IC) is computed; all of it may be left out.

    `definition` says which quantity, with s the noise level, x a frame and n standard normal noise:
    ``expectation`` is the IC of the mean noised frame (1 - s) x; ``monte_carlo`` that of the mean of `n_draws` noised
    frames (1 - s) x + s n, as published; ``probability_flow`` that of the point at time 1 - s on the ODE's path from x;
    ``expected`` the mean IC of `n_draws` noised frames. `context` is what precedes the frame: ``transformed`` as the
    frame itself is (with ``probability_flow`` that is clean), ``clean``, or ``none`` (the flow's null context: IC
    without context).

    `solver`: ``quadrature`` takes `n_nodes` nodes on the whole path from noise to data, the share 1 - s of them from
    level s, and `n_probes` random probes for each node of the whole path, most where a probe leaves most; ``exact`` is
    the same with more of both. `order` is that of the method that goes from node to node, `precision` that of the
    Jacobian's products with probes (all else is float32): ``quadrature`` has 2 and float32, ``exact`` 3 and bfloat16
    (float32 with the exact divergence). ``euler`` takes `n_steps` steps with `n_probes` probes that stay the same, as
    published. `probes` are drawn, ``exact`` (the exact divergence), or read from a file (solver ``euler`` only).
    """

    definition: Definition = "expectation"
    context: Literal["transformed", "clean", "none"] = "transformed"
    n_draws: int = Field(16, ge=1)
    solver: Solver = "quadrature"
    n_steps: int | None = Field(None, ge=1)
    n_nodes: int | None = Field(None, ge=1, le=256)
    n_probes: int | None = Field(None, ge=1)
    order: Order | None = None
    precision: Precision | None = None
    probes: Literal["drawn", "exact"] | PlacedProbeFile = "drawn"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if isinstance(self.probes, ProbeFile) and self.solver != "euler":
            raise ValueError(f"probes from a file stay the same along the path: solver euler, not {self.solver}")
        unread = ["n_nodes", "order", "precision"] if self.solver == "euler" else ["n_steps"]
        unread += [] if self.probes == "drawn" else ["n_probes"]
        given = [key for key in unread if getattr(self, key) is not None]
        if given:
            probes = "" if self.probes == "drawn" else " with these probes"
            raise ValueError(f"the solver {self.solver}{probes} has no {' and no '.join(given)}")
        return self

    def setting(self, key: str) -> int:
        """Steps, nodes, probes or order: what was asked for, or what the solver does by itself."""
        asked: int | None = getattr(self, key)
        return PRESETS[self.solver][key] if asked is None else asked


class SurprisalCell(Config):
    """One cell of the stage `surprisal`, as `SurprisalConfig.cell` writes it; keys that it leaves out don't matter."""

    noise_level: Level
    definition: Definition
    solver: Literal["quadrature", "euler"]
    context: Literal["transformed", "clean", "none"] = "transformed"
    n_draws: int = Field(1, ge=1)
    n_steps: int = Field(1, ge=1)
    n_nodes: int = Field(1, ge=1)
    n_probes: int = Field(1, ge=1)
    order: Order = 2
    precision: Precision = "float32"
    probes: Literal["drawn", "exact"] | ProbeFile = "drawn"


class SurprisalConfig(SurprisalSettings):
    """Information content at noise levels: s in [0, 1], where 0 is the clean latent and 1 is all noise."""

    noise_levels: Annotated[tuple[Level, ...], Distinct] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

    def cell(self, level: float) -> dict[str, Any]:
        """The config of the cell of one level: what was asked for and what the solver adds, without what can't matter.

        ``exact`` is the quadrature with other sizes. What all cells once had is always there (definition, solver); what
        came later is left out where it says what was meant before. A file of probes is named by its content: `places`
        says where it lies.
        """
        euler = self.solver == "euler"
        keys: dict[str, Any] = {"noise_level": level, "definition": self.definition}
        keys["solver"] = "euler" if euler else "quadrature"
        sizes = ["n_steps"] if euler else ["n_nodes", "order"]
        sizes += ["n_probes"] if self.probes == "drawn" else []
        if euler or level < 1:
            keys |= {key: self.setting(key) for key in sizes}
        if not euler and level < 1:
            implied = PRECISIONS[self.solver] if self.probes == "drawn" else "float32"
            keys["precision"] = self.precision or implied
        if self.definition in ("monte_carlo", "expected") and level > 0:
            keys["n_draws"] = self.n_draws
        told_apart = self.definition != "probability_flow" and level > 0
        if self.context == "none" or (self.context == "clean" and told_apart):
            keys["context"] = self.context
        if self.probes != "drawn":
            keys["probes"] = {"sha256": self.probes.sha256} if isinstance(self.probes, ProbeFile) else self.probes
        return keys

    @property
    def places(self) -> dict[str, str]:
        """Where the files lie that a cell's config names by their content alone, by key."""
        return {"probes": self.probes.path} if isinstance(self.probes, PlacedProbeFile) else {}


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


class PitchModelConfig(Config):
    """Pitch surprisal from a variable-order Markov model of symbols.

    `model` ``ppm`` is an interpolated PPM without exclusion, trained once. The others are IDyOM's: long-term (``ltm``),
    short-term (``stm``) or both, their long-term model learning the present melody too where there is a ``+``.
    `viewpoint` is what these see of a melody: pitch, interval, or scale degree and interval; their predictions are of
    pitches in any case. `order_max` bounds the contexts (None: unbounded, IDyOM's default). `escape` is the method of
    the long-term model; the short-term one always has X.
    """

    model: Literal["ppm", "ltm", "ltm+", "stm", "both", "both+"] = Field("ppm", json_schema_extra={"neutral": "ppm"})
    viewpoint: Literal["cpitch", "cpint", "cpintfref x cpint"] = Field(
        "cpitch", json_schema_extra={"neutral": "cpitch"}
    )
    order_max: Annotated[int, Field(ge=0)] | None = 4
    escape: Literal["C", "X"] = "C"

    @model_validator(mode="after")
    def _ppm_is_plain(self) -> Self:
        if self.model == "ppm" and (self.viewpoint != "cpitch" or self.escape != "C"):
            raise ValueError(
                "model ppm has viewpoint cpitch and escape C; for another choose model ltm, ltm+, stm, both or both+"
            )
        return self


class PitchConfig(PitchModelConfig):
    """The pitch model, and which IC a note gets.

    `ic_frames`: IC of the frame of the note's onset, the mean of that frame and the next, or the larger of the two.
    """

    ic_frames: Literal["onset", "onset_and_next", "maximum"] = "onset_and_next"


class CausalAuditConfig(Config):
    """How much IC owes to audio behind the predicted frame: contexts from audio that ends there, compared.

    `frames_per_recording` frames of each recording are audited, drawn at random.
    """

    frames_per_recording: int = Field(16, ge=2)


class SolverAuditConfig(Config):
    """How far IC can be relied on: some frames solved again with other seeds, more finely, by other definitions.

    `frames_per_recording` frames of each recording are audited, drawn at random. With `definitions` the ranks of IC are
    compared between its four definitions, with `n_draws` draws of noise where one draws it (None: as in the study).
    """

    frames_per_recording: int = Field(8, ge=2)
    definitions: bool = True
    n_draws: Annotated[int, Field(ge=1)] | None = None

    def compared(self, surprisal: SurprisalConfig, level: float) -> dict[str, dict[str, Any]]:
        """By name, what the cell of `level` is with each definition in its default context; empty if not asked for."""
        if not self.definitions:
            return {}
        plain = {"context": "transformed", "n_draws": self.n_draws or surprisal.n_draws}
        return {
            name: surprisal.model_copy(update={**plain, "definition": name}).cell(level)
            for name in get_args(Definition)
        }
