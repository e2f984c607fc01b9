"""The models of the command: imported, projected, or not made for each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_checkpoint import Sizes, checkpoint, write
from safetensors.numpy import load
from surprisal_house import EXACT, House, call, music

from orchestrator.graph import CellSpec, Graph
from orchestrator.signature import sign
from orchestrator.stages import STAGES
from orchestrator.study import Execution, run_study
from tasks.config import SurprisalCell, SurprisalConfig
from tasks.flow.config import FlowConfig
from tasks.flow.hyperplane import projected
from tasks.flow.information import InformationContent
from tasks.flow.network import read_flow


def test_a_model_of_other_latents_is_refused(house: House) -> None:
    house.sound("a.wav", music(1.2))
    other = write(house.folder / "other.pt", checkpoint(Sizes(latent_dim=16)))
    result = house.surprisal("a.wav", model=str(other))
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert "models latents of 16 channels" in result.stderr
    assert f"ae made up ({house.codec.signature[:12]}) makes 64" in result.stderr


# A flow of 63 coordinates


def projected_flow(house: House, name: str) -> str:
    """The signature of one trained on the latents that the ledger has of the recording `name`."""
    assert house.surprisal(name, *EXACT, out="for its latents").exit_code == 0
    (latents,) = house.ledger.signatures("latents")
    sizes = {"size": "tiny", "steps": 5, "batch_size": 2, "sequence_frames": 8, "warmup_steps": 1}
    config = {"seed": 0, "flow": FlowConfig.model_validate({**sizes, "project": True}).signed()}
    inputs = {"train": latents, "validation": latents}
    cells = {latents: CellSpec("latents", "latents", house.ledger.config("latents", latents)["config"], {}, latents)}
    signature = sign("flow", STAGES["flow"].version, config, inputs)
    cells[signature] = CellSpec("flow", "flow projected", config, inputs, signature)
    assert run_study(Graph(cells), house.ledger, Execution(inline=True)).exit_code == 0
    return signature


def test_a_projected_flow_has_the_ic_of_63_coordinates(house: House) -> None:
    house.sound("a.wav", music(1.6))
    signature = projected_flow(house, "a.wav")
    levels = ("--noise-levels", "0.3,1")
    result = house.surprisal("a.wav", *levels, *EXACT, "--autoencoder", house.codec.signature, model=signature[:12])
    assert result.exit_code == 0, result.output
    _, table = house.table("out/a.csv")
    assert np.allclose(table[1:, 2], 31.5 * math.log(2 * math.pi))
    (latents,) = house.ledger.signatures("latents")
    stored = load(house.ledger.artefact("latents", latents, None).read_bytes("latents.safetensors"))
    (frames,) = stored.values()
    assert frames.shape[1] == 64
    flow, window = read_flow(house.ledger.artefact("flow", signature, None))
    cell = SurprisalConfig(solver="euler", n_steps=3, probes="exact").cell(0.3)
    with torch.inference_mode():
        by_hand = InformationContent(flow, window, SurprisalCell.model_validate(cell), "any")
        assert np.allclose(by_hand.of({"a": projected(frames)})["a"], table[:, 1], rtol=1e-6, equal_nan=True)


def test_an_imported_model_is_never_projected(house: House) -> None:
    house.sound("a.wav", music(1.2))
    narrow = write(house.folder / "narrow.pt", checkpoint(Sizes(latent_dim=63)))
    result = house.surprisal("a.wav", model=str(narrow))
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert "models latents of 63 channels" in result.stderr
    assert house.surprisal("a.wav", "--noise-levels", "1", *EXACT).exit_code == 0
    assert np.allclose(house.table("out/a.csv")[1][1:, 1], 32 * math.log(2 * math.pi))


# Imported weights


def imported(house: House, *words: str) -> Any:
    return call("import-weights", *(words or (str(house.weights),)), "--ledger", house.ledger.storage.root)


def test_imported_weights_are_a_flow_of_their_own_signature(house: House) -> None:
    result = imported(house, str(house.weights))
    assert result.exit_code == 0, result.output
    (signature,) = house.ledger.signatures("flow")
    assert f"flow flow.pt: flow {signature[:12]}, imported" in result.stdout
    assert f"--model {signature[:12]} --autoencoder SIGNATURE" in result.stdout
    status = house.ledger.status("flow", signature)
    assert status is not None
    assert set(status.files) == {"flow.json", "flow.safetensors"}
    assert status.metrics["sequence_frames"] == 128
    assert "imported before" in imported(house).stdout
    renamed = house.weights.rename(house.folder / "renamed.pt")
    assert "imported before" in imported(house, str(renamed)).stdout
    assert len(house.ledger.attempts("flow", signature)) == 1
    write(renamed, checkpoint(seed=1))
    assert imported(house, str(renamed)).stdout.endswith(house.ledger.storage.root + "\n")
    assert len(house.ledger.signatures("flow")) == 2


def test_by_file_or_by_signature_the_ic_is_the_same(house: House) -> None:
    house.sound("a.wav", music(1.2))
    assert house.surprisal("a.wav", *EXACT).exit_code == 0
    (signature,) = house.ledger.signatures("flow")
    result = house.surprisal("a.wav", *EXACT, model=signature[:8], out="again")
    assert result.exit_code == 0
    assert "0 computed" in result.output
    assert (house.folder / "out/a.csv").read_bytes() == (house.folder / "again/a.csv").read_bytes()
    explained = call("explain", signature, "--ledger", house.ledger.storage.root)
    assert explained.exit_code == 0
    assert "flow flow.pt" in explained.output


def test_imported_weights_need_an_autoencoder(house: House) -> None:
    house.sound("a.wav", music(1.2))
    words = ["surprisal", str(house.folder / "a.wav"), "--model", str(house.weights)]
    result = call(*words, "--ledger", house.ledger.storage.root, "--out", str(house.folder / "out"))
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert "give --autoencoder SIGNATURE" in result.stderr
    assert house.codec.signature[:12] in result.stderr


def test_weights_imported_by_another_version_are_to_be_imported_again(house: House) -> None:
    house.sound("a.wav", music(1.2))
    imported(house)
    (signature,) = house.ledger.signatures("flow")
    path = house.folder / "ledger/flow" / signature / "config.json"
    path.write_text(path.read_text().replace(f'"version": {STAGES["flow"].version}', '"version": 999'))
    result = house.surprisal("a.wav", model=signature)
    assert result.exit_code == 2
    assert "made by version 999" in result.stderr
    assert "orchestrator import-weights FILE" in result.stderr


def truncated(folder: Path) -> Path:
    path = write(folder / "bad.pt", checkpoint())
    path.write_bytes(path.read_bytes()[:-500])
    return path


def unknown_layout(folder: Path) -> Path:
    return write(folder / "bad.pt", {"state_dict": {}, "epoch": 3})


def unmatched_key(folder: Path) -> Path:
    content = checkpoint()
    content["model_state_dict"]["backbone.project_out.weight"] = torch.zeros(64, 48)
    return write(folder / "bad.pt", content)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.mkdir, ("made by a pickle",)


def pickled_code(folder: Path) -> Path:
    return write(folder / "bad.pt", checkpoint() | {"extra": Evil()})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (truncated, "not a checkpoint that torch can read: truncated, damaged, or another kind of file"),
        (unknown_layout, "no flow checkpoint of the published layout: it has no model_state_dict, max_seq_length"),
        (unmatched_key, "model_state_dict: backbone.project_out.weight has no counterpart here"),
        (pickled_code, "holds pickled code (posix.mkdir), which is refused"),
        (lambda folder: folder / "gone.pt", "no such file"),
        (lambda folder: folder, "can't be opened (Is a directory)"),
    ],
)
@pytest.mark.parametrize("verb", ["import-weights", "surprisal"])
def test_bad_weights_are_one_line_and_nothing_is_written(
    house: House, monkeypatch: pytest.MonkeyPatch, verb: str, make: Callable[[Path], Path], said: str
) -> None:
    monkeypatch.chdir(house.folder)
    (house.folder / "weights.pt").mkdir()
    path = make(house.folder / "weights.pt")
    house.sound("a.wav", music(1.2))
    result = imported(house, str(path)) if verb == "import-weights" else house.surprisal("a.wav", model=str(path))
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert result.stderr.startswith(f"orchestrator: {path}: {said}"), result.stderr
    assert not house.ledger.signatures("flow")
    assert not (house.folder / "made by a pickle").exists()


def test_what_a_file_of_weights_is_needs_no_option(house: House) -> None:
    assert "--kind" not in call("import-weights", "--help").output
    assert imported(house, str(house.weights), "--kind", "flow").exit_code == 2
