"""Reading IC: what its frames are has to be what is assumed of them."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from tasks.contract import Artefact, TaskError
from tasks.ic import read_ic


def finished(**changed: Any) -> Artefact:
    about = {"sample_rate_hz": 44_100, "frame_samples": 4096, "stamp": "start of the frame"} | changed
    about["recordings"] = {"a": {"lead_samples": 441, "trail_samples": 0, "n_samples": 13_000, "n_frames": 3}}
    kept = {key: value for key, value in about.items() if value is not None}
    files = {"ic.json": json.dumps(kept).encode(), "ic.safetensors": save({"a": np.array([np.nan, 1.0, 2.0])})}
    return Artefact("1234", "surprisal", {}, {}, lambda name: BytesIO(files[name]))


def test_frames_start_where_the_file_says() -> None:
    series = read_ic(finished())["a"]
    np.testing.assert_allclose(series.start_s, (441 + 4096 * np.arange(3)) / 44_100)


@pytest.mark.parametrize(
    ("key", "value"),
    [("sample_rate_hz", 48_000), ("frame_samples", 2048), ("stamp", "middle of the frame"), ("stamp", None)],
)
def test_other_frames_than_assumed_are_refused(key: str, value: object) -> None:
    with pytest.raises(TaskError, match=f"1234: {key} is {value!r}"):
        read_ic(finished(**{key: value}))
