"""Bases and arms: what they share, and going on after a kill."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers_autoencoder import MemoryCheckpoints, corpus, melody
from safetensors.torch import load

from tasks.autoencoder import training
from tasks.contract import Artefact, Cell, Context, Stopped

Train = Callable[..., Artefact]


def weights(artefact: Artefact) -> dict[str, bytes]:
    return {k: v.numpy().tobytes() for k, v in load(artefact.read_bytes("codec.safetensors")).items()}


@pytest.mark.parametrize("of", ["base", "arm"])
def test_a_stopped_training_goes_on_to_the_same_bits(train: Train, base: Artefact, tmp_path: Path, of: str) -> None:
    settings = {"steps": 4, "checkpoint_every": 3}
    arm = {} if of == "base" else {"base": base, "applied_to": "encoder+decoder"}
    whole = train("whole", **arm, **settings)
    kept = MemoryCheckpoints(tmp_path)
    asked = iter([False, True])
    with pytest.raises(Stopped):
        train("whole", **arm, **settings, context=Context(checkpoints=lambda _: kept, should_stop=lambda: next(asked)))
    assert kept.steps == [2]
    resumed = train("whole", **arm, **settings, context=Context(checkpoints=lambda _: kept))
    assert kept.steps == [2, 3]
    for name in ("codec.safetensors", "codec.json", "curve.csv"):
        assert resumed.read_bytes(name) == whole.read_bytes(name), name
    assert resumed.metrics == whole.metrics


def test_frozen_encoder_stays_the_base_bit_for_bit(train: Train, base: Artefact) -> None:
    before, after = weights(base), weights(train("decoder", base=base, applied_to="decoder"))
    same = {name for name in before if before[name] == after[name]}
    assert {name for name in before if name.startswith("encoder.")} <= same
    assert any(name.startswith("decoder.") for name in before.keys() - same)
    assert any(name.startswith("unet.") for name in before.keys() - same)


def test_noise_on_encoder_and_decoder_reaches_the_encoder(train: Train, base: Artefact) -> None:
    arm = train("aligned", base=base, applied_to="encoder+decoder")
    none = train("none", base=base, applied_to="none")
    before, aligned, clean = weights(base), weights(arm), weights(none)
    name = "encoder.to_latents.weight"
    assert len({before[name], aligned[name], clean[name]}) == 3
    assert "realised_snr_db" in arm.metrics
    assert "realised_snr_db" not in none.metrics


def test_arms_hear_the_same_crops_in_the_same_order(
    train: Train, base: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: dict[str, list[bytes]] = {}
    original = training.Crops.batch
    for arm in ("none", "decoder", "encoder+decoder"):
        heard[arm] = []

        def batch(self: training.Crops, size: int, *stream: str | int, arm: str = arm) -> object:
            drawn = original(self, size, *stream)
            heard[arm].append(drawn.tobytes())
            return drawn

        monkeypatch.setattr(training.Crops, "batch", batch)
        train(arm, base=base, applied_to=arm)
    assert heard["none"] == heard["decoder"] == heard["encoder+decoder"]
    assert len(set(heard["none"][:3])) == 3


def test_tanh_noise_keeps_the_scale_of_the_base(train: Train, tanh_base: Artefact) -> None:
    assert float(tanh_base.metrics["latent_std"]) < 1
    arm = train("tanh-decoder", "tanh", base=tanh_base, applied_to="decoder")
    assert arm.metrics["realised_snr_db"] == pytest.approx(0.0, abs=0.5)


def test_a_frozen_encoder_is_as_loud_as_the_base_exactly(train: Train, base: Artefact, tanh_base: Artefact) -> None:
    for name, of in (("layernorm", base), ("tanh", tanh_base)):
        arm = train(f"{name}-frozen", name, base=of, applied_to="decoder")
        assert arm.metrics["latent_std"] == of.metrics["latent_std"]
        assert arm.metrics["realised_snr_db"] == 0.0


def test_noised_arms_are_validated_through_their_noise_and_without(train: Train, base: Artefact) -> None:
    arm, none = train("noised", base=base, applied_to="decoder"), train("plain", base=base, applied_to="none")
    clean = arm.metrics["validation_distance_clean"]
    assert math.isfinite(clean)
    assert clean != arm.metrics["validation_distance"]
    assert "validation_distance_clean" not in none.metrics
    rows = list(csv.DictReader(io.StringIO(arm.read_bytes("curve.csv").decode())))
    assert float(rows[-1]["validation_distance_clean"]) == clean


def test_clean_validation_of_an_untrained_arm_is_that_of_an_arm_without_noise(train: Train, base: Artefact) -> None:
    """Nothing is learned at a learning rate this small, so the two differ in the noise of validation alone."""
    still = {"learning_rate": 1e-30}
    arm = train("noised", base=base, applied_to="decoder", **still)
    none = train("plain", base=base, applied_to="none", **still)
    assert arm.metrics["validation_distance_clean"] == none.metrics["validation_distance"]
    assert arm.metrics["validation_distance"] != none.metrics["validation_distance"]


def test_a_diverged_training_fails_and_stores_nothing(
    corpora: dict[str, Artefact], base: Artefact, tmp_path: Path
) -> None:
    settings = base.config["training"] | {"learning_rate": 1e30, "steps": 6}
    config = base.config | {"training": settings}
    (result,) = training.run([Cell("lost", "autoencoder_base", config, corpora, tmp_path)], Context())
    assert result.failure is not None
    assert "diverged" in result.failure
    assert "at step 6" not in result.failure  # it doesn't wait for the last step's validation
    assert "smaller learning_rate (now 1e+30)" in result.failure
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("statistics", "said"), [((0.0, math.nan), "latent_std is nan"), ((0.0, 0.0), "collapsed")])
def test_unusable_latents_fail_and_store_nothing(
    corpora: dict[str, Artefact],
    base: Artefact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    statistics: tuple[float, float],
    said: str,
) -> None:
    monkeypatch.setattr(training._Training, "_statistics", lambda self: statistics)
    (result,) = training.run([Cell("lost", "autoencoder_base", base.config, corpora, tmp_path)], Context())
    assert said in (result.failure or "")
    assert not list(tmp_path.iterdir())


def test_curve_has_a_row_per_step_and_ends_with_a_validation(base: Artefact) -> None:
    rows = list(csv.DictReader(io.StringIO(base.read_bytes("curve.csv").decode())))
    assert [int(row["step"]) for row in rows] == [1, 2, 3]
    assert float(rows[-1]["validation_loss"]) == base.metrics["validation_loss"]
    assert rows[0]["validation_loss"] == ""


def test_what_is_told_while_it_trains_is_the_curve_row_by_row(
    train: Train, base: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CURVE_ROWS", 4)
    monkeypatch.setattr(training, "PROGRESS_EVERY", 2)
    told: list[tuple[int, dict[str, float]]] = []
    context = Context(progress=lambda step, total, metrics: told.append((step, dict(metrics))))
    arm = train("told", base=base, applied_to="none", steps=8, checkpoint_every=3, context=context)
    rows = csv.DictReader(io.StringIO(arm.read_bytes("curve.csv").decode()))
    curve = [(int(row.pop("step")), {name: float(value) for name, value in row.items() if value}) for row in rows]
    assert [step for step, _ in curve] == [2, 3, 4, 6, 8]
    assert told == curve
    assert [step for step, values in told if "validation_loss" in values] == [3, 6, 8]


def test_shared_material_is_refused(corpora: dict[str, Artefact], base: Artefact, tmp_path: Path) -> None:
    inputs = {"train": corpora["train"], "validation": corpora["train"]}
    (result,) = training.run([Cell("shared", "autoencoder_base", base.config, inputs, tmp_path)], Context())
    assert result.failure is not None
    assert "train0" in result.failure


def test_too_short_a_corpus_is_refused(corpora: dict[str, Artefact], base: Artefact, tmp_path: Path) -> None:
    inputs = corpora | {"train": corpus("train", {"click": melody(0, 0.5)})}
    (result,) = training.run([Cell("short", "autoencoder_base", base.config, inputs, tmp_path)], Context())
    assert result.failure is not None
    assert "34304 samples" in result.failure
