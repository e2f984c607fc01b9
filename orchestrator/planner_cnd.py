"""The subjects and the stimulus file of a data set in CND layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tasks.eeg.config import CndConfig, EegConfig

if TYPE_CHECKING:
    from orchestrator.planner import Builder


def plan_cnd(builder: Builder, eeg: EegConfig, made: Mapping[str, str]) -> dict[str, str]:
    """A cell per subject, which has the subject's own file and what all share."""
    cnd = eeg.cnd
    assert cnd is not None
    stimuli, missing = cnd_stimuli(builder, cnd)
    planned = {}
    for subject in builder.manifest.subjects[cnd.path]:
        file = subject.file or {"path": f"{cnd.path}/{subject.name}.mat", "size": 0, "version": "missing"}
        config = {
            "subject": subject.name,
            "cnd": {
                "file": file["path"],
                "size": file["size"],
                "version": file["version"],
                **stimuli,
                **({"external": "described"} if eeg.preprocessing.reference == "mastoids" else {}),
            },
            "preprocessing": eeg.preprocessing.signed(),
        }
        labels = {"subject": subject.name}
        inputs = {"corpus": made["corpus stimuli"]}
        planned[subject.name] = builder.add("eeg", f"eeg {subject.name}", config, inputs, labels, missing)
    return planned


def cnd_stimuli(builder: Builder, cnd: CndConfig) -> tuple[dict[str, Any], str | None]:
    """The stimulus file and the table of trials as cells name them, and what is missing of the data set."""
    manifest = builder.manifest
    stimulus_file = f"{cnd.path}/dataStim.mat"
    files = {
        "stimulus_file": stimulus_file,
        "stimulus_version": manifest.companions.get(stimulus_file, {}).get("version", "missing"),
        "trials_file": cnd.trials,
        "trials_version": manifest.companions.get(cnd.trials or "", {}).get("version"),
    }
    return files, manifest.missing.get(cnd.path) or manifest.missing.get(cnd.trials or "")
