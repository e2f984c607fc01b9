"""The recordings of a study by role, and what two roles may not share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from tasks.audio.config import DataSet, SplitConfig
from tasks.config import Config

ROLES = ("train", "validation", "reconstruction", "melodies", "melodies_dev", "stimuli")
MELODIES = ("melodies", "melodies_dev")
"""The roles whose IC is compared with pitch surprisal: noise levels are chosen on the second, judged on the first."""


class Data(Config):
    """The recordings of each role. `path` serves every role that needs a folder and names none of its own.

    `seed` decides splits, renderings, simulated listeners and permutations; models draw from the study's own seed, so
    that several seeds of one model hear the same music and meet the same listeners. On `melodies_dev` each arm's noise
    level is chosen by pitch surprisal; on `melodies` it is judged.
    """

    seed: int = Field(0, ge=0)
    path: str | None = None
    train: DataSet
    validation: DataSet
    reconstruction: DataSet | None = None
    melodies: DataSet | None = None
    melodies_dev: DataSet | None = Field(None, json_schema_extra={"neutral": None})
    stimuli: DataSet | None = None
    split: SplitConfig = SplitConfig()
    allow_overlap: bool = False

    @model_validator(mode="before")
    @classmethod
    def _shared_path(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or not raw.get("path"):
            return raw
        filled = dict(raw)
        for role in ROLES:
            entry = filled.get(role)
            if isinstance(entry, Mapping) and entry.get("source") in ("audio", "midi") and not entry.get("path"):
                filled[role] = {**entry, "path": raw["path"]}
        return filled

    @model_validator(mode="after")
    def _train_is_held_out(self) -> Data:
        for role in ROLES[1:]:
            dataset = self.of(role)
            if dataset is not None and not self.allow_overlap and _share_material(self.train, dataset):
                raise ValueError(
                    f"{role}: it shares recordings with train (same source, split {dataset.split!r}); choose the split "
                    "dev or test for it and train for training, or set allow_overlap: true, which the report stamps"
                )
        return self

    @model_validator(mode="after")
    def _levels_are_chosen_apart(self) -> Data:
        chosen_on, judged_on = self.melodies_dev, self.melodies
        if chosen_on is None:
            return self
        if judged_on is None:
            raise ValueError(
                "melodies_dev: a noise level chosen on it is judged on data.melodies, and there is none; give "
                "data.melodies, or remove melodies_dev"
            )
        if chosen_on.source == "audio":
            raise ValueError(
                "melodies_dev: noise levels are chosen by pitch surprisal, and source audio has no notes; allowed are "
                "chorales and midi"
            )
        if _share_material(judged_on, chosen_on):
            raise ValueError(
                f"melodies_dev: it shares tunes with melodies (same source, split {chosen_on.split!r}); a level is "
                "judged on tunes that did not choose it: use split dev for melodies_dev and test for melodies"
            )
        return self

    def of(self, role: str) -> DataSet | None:
        """The data set of a role, or None where the study has none."""
        assert role in ROLES, role
        found = getattr(self, role)
        assert found is None or isinstance(found, DataSet)
        return found


def _share_material(one: DataSet, other: DataSet) -> bool:
    if (one.source, one.path) != (other.source, other.path):
        return False
    return one.split_by != other.split_by or "all" in (one.split, other.split) or one.split == other.split
