"""Where real recordings lie, as a study says it: what all sources share, and BIDS data sets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tasks.config import Config

SensorType = Literal["eeg", "mag", "grad"]
"""Electrodes, magnetometers, gradiometers (planar or axial)."""

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$")]


class ExpectConfig(Config):
    """How many subjects and pieces a data set is declared to have."""

    subjects: int = Field(ge=1)
    pieces: int = Field(ge=2)


class ShippedFiles(Config):
    """The stimulus file of a CND data set and its table of trials; versions name their content."""

    stimulus_file: str
    stimulus_version: str | None = None
    trials_file: str | None = None
    trials_version: str | None = None


class BidsConfig(Config):
    """The root of a BIDS data set, and which of its recordings are meant.

    `task`, `session` and `run` are labels as in file names (``task-listening``: listening); without `session` or `run`
    all of them are read. `stimulus_column` is the column of events.tsv that names the stimulus's file where one begins.
    `sensor_type` are the channels that are taken: EEG, or MEG's magnetometers or gradiometers (where they lie about the
    head is taken from a subject's first recording). `mastoids` are the channels for the reference of that name;
    `not_eeg` are channels that the data set wrongly calls EEG. `expect` lets a plan be drawn before the data are there.
    """

    path: str = Field(min_length=1)
    task: Label
    session: Label | None = None
    run: Label | None = None
    stimulus_column: str = Field("stim_file", min_length=1)
    sensor_type: SensorType = "eeg"
    mastoids: tuple[str, ...] = ()
    not_eeg: tuple[str, ...] = ()
    expect: ExpectConfig | None = None
