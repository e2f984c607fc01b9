"""The subjects of a data set of raw files with a table of events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tasks.eeg.config import EegConfig

if TYPE_CHECKING:
    from orchestrator.planner import Builder


def plan_raw(builder: Builder, eeg: EegConfig, made: Mapping[str, str]) -> dict[str, str]:
    """A cell per subject, which has the subject's own rows and files: another subject's row changes nothing of it."""
    raw = eeg.raw
    assert raw is not None
    manifest = builder.manifest
    found = manifest.raw[raw.path, raw.events]
    missing = manifest.missing.get(raw.events) or manifest.missing.get(raw.path)
    planned = {}
    for subject, rows in found.presentations.items():
        config: dict[str, Any] = {
            "subject": subject,
            "raw": {
                "presentations": [row.model_dump(mode="json") for row in rows],
                "files": [dict(found.files[name]) for name in dict.fromkeys(row.file for row in rows)],
                "mastoids": list(raw.mastoids),
                "not_eeg": list(raw.not_eeg),
                **({} if raw.sensor_type == "eeg" else {"sensor_type": raw.sensor_type}),
                "bad_spans": "masked",
            },
            "preprocessing": eeg.preprocessing.signed(),
        }
        inputs = {"corpus": made["corpus stimuli"]}
        planned[subject] = builder.add("eeg", f"eeg {subject}", config, inputs, {"subject": subject}, missing)
    return planned
