"""What the group stage says beyond single conditions, typed: comparisons, clusters, ceiling, finds, kernels."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

Interval = tuple[float, float] | None
"""Low and high end of a 95 % interval; None where there is none."""


class Setting(BaseModel):
    """One side of a contrast: an arm at a noise level, or at the mean of several."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    arm: str
    levels: tuple[float, ...]


class Contrast(BaseModel):
    """First setting minus second, excess delta r; p is corrected over its family x channels.

    `p_subject` and `p_piece` are of sign-flips over subjects and over pieces, `p` is where both agree best.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    family: str
    first: Setting
    second: Setting
    mean: float
    ci: Interval = None
    by_seed: dict[str, float] = {}
    seed_sd: float | None = None
    n_seeds: int = 1
    n_subjects: int = 0
    n_pieces: int = 0
    n_contrasts: int = 1
    p_subject: float | None = None
    p_piece: float | None = None
    p: float | None = None
    higher: tuple[str, ...] = ()
    lower: tuple[str, ...] = ()
    claimed: bool = False


class Intermediate(BaseModel):
    """Whether an arm's intermediate noise levels are best: above s = 0 and above s = .9 at one channel."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    arm: str
    levels: tuple[float, ...]
    above_clean: float
    above_noisy: float
    p: float | None = None
    n_seeds: int = 1
    channels: tuple[str, ...] = ()
    claimed_there: bool = True
    best: bool = False


class Chosen(BaseModel):
    """An arm's noise level, chosen for every piece on the others, and what it earns there."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    arm: str
    wins: dict[str, int]
    excess_delta_r: float
    ci: Interval = None
    by_choice: float
    n_seeds: int = 1
    n_subjects: int = 0
    n_pieces: int = 0
    p: float | None = None


class Cluster(BaseModel):
    """Neighbouring channels of one condition whose mass is significant."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    variant: str
    noise_level: float
    channels: tuple[str, ...]
    mass: float
    p: float


class N(BaseModel):
    """How many subjects, channels and pieces (least and most) the tests are over, and how many there are."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    subjects: int
    subjects_known: int
    channels: int
    channels_known: int
    pieces: tuple[int, int]
    pieces_known: int


class Members(BaseModel):
    """One of two groups of subjects: the value that its members have, and how many they are."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    value: str
    n: int


class Difference(BaseModel):
    """First group minus second in one condition, excess delta r; p is corrected over conditions and channels."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    variant: str
    noise_level: float
    means: tuple[float, float]
    difference: float
    ci: Interval = None
    p_stimulus: float
    p_subject: float
    p: float
    higher_in: dict[str, tuple[str, ...]] = {}
    claimed: bool = False


class Between(BaseModel):
    """Two groups of subjects by a column of the table of participants, or why they are not compared."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    column: str
    refused: str | None = None
    groups: tuple[Members, ...] = ()
    without_value: tuple[str, ...] = ()
    n_relabelings: int = 0
    conditions: tuple[Difference, ...] = ()


class Explored(BaseModel):
    """Finds among all conditions and channels under a false discovery rate; no claim."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    procedure: str
    n_tests: int
    n_found: int
    needed: int


class Across(BaseModel):
    """The r of a perfect model of what all subjects share."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    mean: float
    n_subjects: int


class Ceiling(BaseModel):
    """The r that a perfect model could reach, from repetitions; or why it isn't known."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    why: str | None = None
    mean: float | None = None
    ci: Interval = None
    of_mean: float | None = None
    by_subject: dict[str, float] = {}
    r_full: float | None = None
    share: float | None = None
    variant: str = ""
    noise_level: float = 0.0
    n_subjects: int = 0
    n_pieces: tuple[int, int] = (0, 0)
    n_repetitions: tuple[int, int] = (0, 0)
    subjects_without: tuple[str, ...] = ()
    across: Across | None = None


class Curve(BaseModel):
    """A kernel by lag: mean over subjects, and its 95 % interval at each lag by itself."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    mean: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None


class KernelRow(BaseModel):
    """The kernels of one condition, one curve for each channel."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    variant: str
    noise_level: float
    curves: tuple[Curve, ...]


class Kernels(BaseModel):
    """Kernels of IC at the channels where it adds most, the best first."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    channels: tuple[str, ...]
    lags_s: tuple[float, ...]
    conditions: tuple[KernelRow, ...]
