"""What a data set is, and how melodies are rendered."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from tasks.config import Config

SAMPLE_RATE_HZ = 44_100


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"[{value[0]:g}, {value[1]:g}]: the lower end of a range comes first")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
Positive = Annotated[float, Field(gt=0)]
PositiveRange = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]


class RenderConfig(Config):
    """The synthesiser. Each rendering draws its tempo, brightness, decay and note levels from these ranges.

    Without `vary_tempo` every rendering has the middle of `tempo_bpm`. MIDI files always keep their own tempo and
    velocities: a note of velocity v lies 20 log10(127 / v) dB below the upper end of `velocity_db`, but not below its
    lower end.
    """

    harmonics: int = Field(8, ge=1, le=32)
    tempo_bpm: PositiveRange = (80.0, 126.0)
    spectral_slope_db_per_octave: Range = (-9.0, -5.0)
    decay_s: PositiveRange = (0.4, 0.9)
    velocity_db: Range = (-9.0, 0.0)
    vary_tempo: bool = True


class SplitConfig(Config):
    """Shares of a source's tunes (or recordings) for training, choosing, and testing.

    Tunes whose transposition-invariant interval n-grams (length `ngram`) overlap by `overlap` or more are never split.
    Within recordings the last `held_out_share` of each is held out, after a gap of `gap_s`: its first half is ``dev``,
    its second half ``test``.
    """

    train: float = Field(0.6, gt=0, lt=1)
    dev: float = Field(0.2, gt=0, lt=1)
    ngram: int = Field(6, ge=1)
    overlap: float = Field(0.3, gt=0, le=1)
    held_out_share: float = Field(0.2, gt=0, lt=1)
    gap_s: float = Field(10.0, ge=0)

    @model_validator(mode="after")
    def _leaves_a_test_set(self) -> SplitConfig:
        if self.train + self.dev >= 1:
            raise ValueError(f"train + dev is {self.train + self.dev:g}: it must stay below 1 to leave tunes for test")
        return self


class DataSet(Config):
    """One role's recordings: where they come from and which part of them.

    `source` ``chorales`` (sopranos of the Bach chorales in music21) and ``midi`` (a folder of melodies) are rendered;
    ``audio`` is a folder or s3 prefix of wav, flac, ogg or mp3. `pieces` and `excerpt_s` keep only the first of each.
    Melodies are split by tune, audio by recording or within recordings: then every split has a part of each recording,
    and no two of them share a sample.
    """

    source: Literal["chorales", "midi", "audio"]
    path: Annotated[str, Field(min_length=1)] | None = None
    split: Literal["train", "dev", "test", "all"] = "all"
    split_by: Literal["tune", "recording", "within_recording"] | None = None
    pieces: Annotated[int, Field(ge=1)] | None = None
    excerpt_s: Annotated[float, Field(gt=0)] | None = None
    render: RenderConfig = RenderConfig()

    @model_validator(mode="after")
    def _source_fits(self) -> DataSet:
        if self.source == "chorales" and self.path is not None:
            raise ValueError("path: the chorales come with music21; remove path, or set source to midi or audio")
        if self.source != "chorales" and self.path is None:
            raise ValueError(f"path: source {self.source} needs a folder (or an s3:// prefix)")
        if self.split_by is None:
            object.__setattr__(self, "split_by", "recording" if self.source == "audio" else "tune")
        if (self.split_by == "tune") == (self.source == "audio"):
            raise ValueError(f"split_by: {self.split_by} does not fit source {self.source}")
        return self


class SourceFile(Config):
    """A file of the outside world as the study found it: `version` is its ETag, or its time of modification."""

    path: str
    size: int
    version: str


class TunesConfig(Config):
    """The config of a ``tunes`` cell; `files` are the MIDI files."""

    source: Literal["chorales", "midi"]
    files: tuple[SourceFile, ...] = ()
    split: SplitConfig
    seed: int


class CorpusConfig(Config):
    """The config of a ``corpus`` cell; `files` are the recordings of source ``audio``.

    A corpus that shares recordings or melodies with its input ``train`` is refused unless `allow_overlap`, and one that
    shares them with its input ``melodies`` in any case: what is judged there was chosen here.
    """

    role: str
    dataset: DataSet
    seed: int
    split: SplitConfig
    files: tuple[SourceFile, ...] = ()
    allow_overlap: bool = False
