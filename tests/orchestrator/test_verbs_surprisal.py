"""surprisal on a ledger whose models are made up: what it asks for, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tiny_study import call, fill, tiny

from orchestrator.graph import CellSpec
from orchestrator.opening import Study
from orchestrator.reasons import State


@pytest.fixture
def modelled(tmp_path: Path) -> tuple[Study, CellSpec, list[str]]:
    """A ledger with a flow, and the words of the verb up to the recordings."""
    study = tiny(tmp_path)
    fill(study, [cell for cell in study.graph if cell.stage in ("flow", "latents", "autoencoder")])
    flow = next(cell for cell in study.graph if cell.stage == "flow")
    soundfile.write(tmp_path / "a.wav", np.zeros(44_100), 44_100)
    words = ["surprisal", "--model", flow.signature[:12], "--ledger", str(tmp_path / "ledger")]
    return study, flow, [*words, "--out", str(tmp_path / "csv"), str(tmp_path / "a.wav")]


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--noise-levels", "0,two"], "--noise-levels '0,two'"),
        (["--noise-levels", "1.5"], "--noise-levels '1.5'"),
        (["--n-steps", "0"], "n-steps"),
        (["b.aiff"], "b.aiff: no recordings there"),
        (["gone.wav"], "gone.wav: no such recording"),
        (["--model", "ffff"], "--model 'ffff': no flow"),
    ],
)
def test_surprisal_refuses_bad_arguments(modelled, tmp_path, monkeypatch, more, word):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.aiff").write_bytes(b"")
    result = call(*modelled[2], *more)
    assert result.exit_code == 2
    assert word in result.stderr
    assert not (tmp_path / "csv").exists()


@pytest.mark.parametrize("damage", ["flow file", "autoencoder gone", "other version"])
def test_surprisal_never_trains_a_model(modelled, tmp_path, monkeypatch, damage):
    study, flow, words = modelled
    monkeypatch.setattr("orchestrator.study.run_study", lambda *_, **__: pytest.fail("something was computed"))
    codec = next(cell for cell in study.graph if cell.stage == "autoencoder")
    folder = tmp_path / "ledger/flow" / flow.signature
    if damage == "flow file":
        next(folder.rglob("made_up.txt")).write_bytes(b"MADE UP")
    elif damage == "autoencoder gone":
        (tmp_path / "ledger/autoencoder" / codec.signature / "status.json").unlink()
    else:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "version": config["version"] + 1}))
    result = call(*words)
    assert result.exit_code == 2
    assert (codec if damage == "autoencoder gone" else flow).signature[:12] in result.stderr
    assert f"orchestrator run EXPERIMENT --ledger {tmp_path / 'ledger'}" in result.stderr


def test_surprisal_asks_for_its_own_cells_only_and_tries_failed_ones_again(modelled, monkeypatch):
    from orchestrator.study import Outcome

    asked: list[Any] = []

    def fake(graph: Any, ledger: Any, execution: Any, observers: Any) -> Outcome:
        asked.append((graph, execution, ledger.survey(graph, full=True)))
        return Outcome(signum=2)

    monkeypatch.setattr("orchestrator.study.run_study", fake)
    monkeypatch.setattr(sys, "argv", ["/somewhere/orchestrator", "surprisal", "a b.wav"])
    result = call(*modelled[2], modelled[2][-1], "--noise-levels", "0,0.4")
    assert result.exit_code == 130
    assert "To go on: /somewhere/orchestrator surprisal 'a b.wav'" in result.stderr
    ((graph, execution, states),) = asked
    to_do = [cell.name for cell in graph if states[cell.signature][0] is State.TO_DO]
    assert to_do == ["corpus a", "latents a", "IC a s=0.0", "IC a s=0.4"]
    assert {cell.stage for cell in graph if states[cell.signature][0] is State.CACHED} == {"autoencoder", "flow"}
    assert execution.inline
    assert execution.retry_failed
    corpus = next(cell for cell in graph if cell.stage == "corpus")
    assert len(corpus.config["files"]) == 1  # the same file named twice
