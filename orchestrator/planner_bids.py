"""The subjects of a BIDS data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.manifest_bids import bids_key
from tasks.eeg.config import EegConfig

if TYPE_CHECKING:
    from orchestrator.planner import Builder


def plan_bids(builder: Builder, eeg: EegConfig, made: Mapping[str, str]) -> dict[str, str]:
    """A cell per subject, which has the files of the subject's recordings and those that describe them, no others."""
    bids = eeg.bids
    assert bids is not None
    manifest = builder.manifest
    planned = {}
    for subject, recordings in manifest.bids[bids_key(bids)].items():
        config: dict[str, Any] = {
            "subject": subject,
            "bids": {
                "recordings": [dict(recording) for recording in recordings],
                "stimulus_column": bids.stimulus_column,
                "sensor_type": bids.sensor_type,
                "mastoids": list(bids.mastoids),
                "not_eeg": list(bids.not_eeg),
            },
            "preprocessing": eeg.preprocessing.signed(),
        }
        inputs = {"corpus": made["corpus stimuli"]}
        missing = manifest.missing.get(bids.path)
        planned[subject] = builder.add("eeg", f"eeg {subject}", config, inputs, {"subject": subject}, missing)
    return planned
