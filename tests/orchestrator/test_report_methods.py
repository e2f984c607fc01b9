"""What the methods paragraph says of models."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.report.methods import methods
from orchestrator.report.results import Results


@pytest.mark.parametrize(
    ("flows", "said"),
    [
        (({}, {}), "was trained for 7 steps. "),
        (
            ({"project": True},),
            "7 steps, on coordinates in the hyperplane of zero mean over channels (a dimension less). ",
        ),
        (({"project": True}, {}), "7 steps, some of them on coordinates in the hyperplane"),
    ],
)
def test_methods_say_which_flows_are_projected(flows: tuple[dict[str, Any], ...], said: str) -> None:
    configs = {"flow": tuple({"seed": 0, "flow": {"steps": 7, **flow}} for flow in flows)}
    results = Results("demo", ("v",), configs=configs, arms={"v": {}})
    assert said in methods(results)[0]
    assert ("hyperplane" in methods(results)[0]) == any(flows)
