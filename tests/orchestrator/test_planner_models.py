"""Cells that a model of EEG asks for beside IC, and bands of EEG as variants."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from orchestrator.graph import CellSpec, Graph
from orchestrator.ledger import Ledger
from orchestrator.manifest import resolve
from orchestrator.planner import build
from orchestrator.reading import UsageError, load_experiment
from orchestrator.report.gathering import gather
from orchestrator.report.headline import headline
from orchestrator.report.pitch_arms import arms
from orchestrator.report.results import Group, Results, SubjectScore
from orchestrator.storage import Storage

STUDY = str(Path(__file__).with_name("golden.yaml"))
FLOW = "flow.context_dropout=0.1"


def graph(tmp_path: Path, *overrides: str) -> Graph:
    experiment = load_experiment(STUDY, overrides).experiment
    return build(experiment, resolve(experiment, Storage(str(tmp_path / "results"))))


def added(before: Graph, after: Graph) -> Counter[str]:
    return Counter(cell.stage for cell in after if cell.signature not in before.cells)


def models(*listed: str) -> str:
    return f"eeg.trf.models=[{', '.join(f'{{reduced: acoustic_plus, regressor: onset, {own}}}' for own in listed)}]"


def of_stage(planned: Graph, stage: str) -> list[CellSpec]:
    return [cell for cell in planned if cell.stage == stage]


def test_ic_without_context_is_computed_where_a_model_asks(tmp_path: Path) -> None:
    plain = models("tested: true")
    before = graph(tmp_path, FLOW, plain)
    assert not added(before, graph(tmp_path, FLOW, models("tested: true, plus: []"), "eeg.trf.features={}"))
    after = graph(tmp_path, FLOW, models("tested: true", "tested: true, plus: [latent_step, ic_null]"))
    variants, levels, subjects, blocks, canaries = 4, 6, 6, 2, 3
    assert added(before, after) == {
        "surprisal": variants * levels,
        "trf": variants * levels * subjects,
        "permutations": variants * levels * subjects * blocks,
        "group": 1,
    }
    new = [cell for cell in after if cell.signature not in before.cells]
    for cell in new:
        if cell.stage == "trf":
            null, ic, latents = (after.cells[str(cell.inputs[role])] for role in ("ic_null", "surprisal", "latents"))
            assert null.config == {**ic.config, "context": "none"}
            assert null.inputs == ic.inputs
            assert latents.signature == ic.inputs["latents"]
            assert cell.config["model"]["plus"] == ["ic_null", "latent_step"]
            assert cell.labels["model"] == "acoustic_plus+ic_null+latent_step/onset"
    only = graph(tmp_path, FLOW, models("tested: true, plus: [ic_null]"))
    inputs = of_stage(only, "canaries")[0].inputs["trf"]
    assert len(inputs) == canaries
    assert all("ic_null" in only.cells[signature].inputs for signature in inputs)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            (models("plus: [ic_null]"),),
            "ic_null needs a flow that learned to do without context; set flow.context_drop",
        ),
        ((models("plus: [ic_null]"), FLOW, "surprisal.context=none"), "with surprisal.context none IC has none either"),
        (
            (models("plus: [loud]"),),
            "'loud' is no feature; allowed: acoustic_plus, envelope, ic_null, latent_step, and",
        ),
        ((models("plus: [acoustic_plus]"),), "acoustic_plus is the reduced model already"),
        ((models("plus: [envelope, envelope]"),), "envelope is given twice"),
        (("eeg.trf.models=[{reduced: ic_null, regressor: hold}]",), "reduced: ic_null joins acoustic features"),
        (("eeg.trf.features={envelope: {path: x}}",), "features.envelope: that name is taken"),
        (
            ("eeg.trf.models=[{reduced: mine, regressor: hold, tested: true}]", "eeg.trf.features={mine: {path: x}}"),
            "a model against mine alone carries no claim; allowed for acoustic_plus only",
        ),
    ],
)
def test_models_that_make_no_sense_are_refused(overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError) as refused:
        load_experiment(STUDY, overrides)
    assert words in str(refused.value)


def test_features_of_ones_own_are_known_by_content_wherever_they_lie(tmp_path: Path) -> None:
    def planned(folder: str, *contents: bytes) -> Graph:
        for name, content in zip("ab", contents, strict=False):
            (tmp_path / folder / "deep").mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / f"{name}.csv").write_bytes(content)
            (tmp_path / folder / "deep" / f"{name}.csv").write_bytes(b"not directly in the folder")
        features = f"eeg.trf.features={{loud: {{path: {tmp_path / folder}}}, unused: {{path: nowhere}}}}"
        return graph(tmp_path, features, models("tested: true", "plus: [loud]"))

    here, there, changed = planned("here", b"1", b"2"), planned("there", b"1", b"2"), planned("other", b"1", b"3")
    assert here.cells.keys() == there.cells.keys()
    differs = added(here, changed)
    assert differs["features"] == 1
    assert set(differs) == {"features", "trf", "group"}
    own = next(cell for cell in of_stage(there, "features") if "own" in cell.config)
    assert own.places == {name: str(tmp_path / "there" / name) for name in ("a.csv", "b.csv")}
    assert own.missing is None
    readers = {cell.labels["model"] for cell in there if own.signature in cell.parents}
    assert readers == {"acoustic_plus+loud/onset"}
    absent = planned("absent")
    (lost,) = [cell for cell in of_stage(absent, "features") if cell.missing]
    assert lost.missing == f"{tmp_path / 'absent'}: no such file or folder (eeg.trf.features)"
    assert {cell.labels["model"] for cell in absent if cell.stage == "trf" and cell.missing} == {readers.pop()}


def test_bands_share_all_that_has_no_eeg(tmp_path: Path) -> None:
    """Pitch, trainings and IC are there once, under the name of the model; EEG is there once per band."""
    sweep = "seed: [0, 1], autoencoder.bottleneck: [layernorm], autoencoder.latent_noise.applied_to: [none]"
    one = graph(tmp_path, f"sweep=[{{{sweep}}}]", "eeg.canaries=null")
    both = graph(tmp_path, f"sweep=[{{{sweep}, eeg.preprocessing.band_hz: [[1, 8], [0.5, 4]]}}]", "eeg.canaries=null")
    subjects, levels, seeds, models_, blocks, drivers = 6, 6, 2, 3, 2, 6
    assert added(one, both) == {
        "eeg": subjects,
        "trf": subjects * levels * seeds * models_ + drivers,
        "permutations": subjects * levels * seeds * blocks,
        "group": models_,
    }
    names = {f"layernorm none seed={seed}" for seed in (0, 1)}
    for stage in ("autoencoder", "flow", "surprisal", "pitch", "reconstruction"):
        assert {cell.labels["variant"] for cell in of_stage(both, stage)} == names
        assert len(of_stage(both, stage)) == len(of_stage(one, stage))
    assert {cell.name for cell in of_stage(both, "eeg")} >= {"eeg S01 1-8 Hz", "eeg S01 0.5-4 Hz"}
    drivers_of = {cell.labels["variant"] for cell in of_stage(both, "trf") if cell.labels["model"].endswith("driver")}
    assert drivers_of == {"true driver 1-8 Hz", "true driver 0.5-4 Hz"}
    (group,) = [cell for cell in of_stage(both, "group") if cell.labels["tested"] == "true"]
    banded = {f"{name} {band}" for name in names for band in ("1-8 Hz", "0.5-4 Hz")}
    assert {condition["variant"] for condition in group.config["conditions"]} == banded
    assert {entry["arm"] for entry in group.config["arms"]} == {"layernorm none 1-8 Hz", "layernorm none 0.5-4 Hz"}
    for condition in group.config["conditions"]:
        eeg = both.cells[group.inputs["eeg"][condition["subjects"][0]["eeg"]]]
        low, high = eeg.config["preprocessing"]["band_hz"]
        assert condition["variant"].endswith(f"{low:g}-{high:g} Hz")
    results = gather(both, Ledger(Storage(str(tmp_path / "results"))), "bands")
    assert arms(results, sorted(banded)) == {
        f"layernorm none {band}": [f"layernorm none seed={seed} {band}" for seed in (0, 1)]
        for band in ("0.5-4 Hz", "1-8 Hz")
    }


def test_the_true_driver_is_told_for_each_band() -> None:
    """Its mean over both would be of no EEG that anybody has heard of."""
    gains = {"true driver 1-8 Hz": (0.02, 0.04), "true driver 0.5-4 Hz": (0.001, 0.003)}
    subjects = tuple(
        SubjectScore(variant, "", "acoustic_plus/driver", f"S{number}", True, "s", {"delta_r": gain})
        for variant, both in gains.items()
        for number, gain in enumerate(both)
    )
    group = Group(model="acoustic_plus/onset", tested=True, simulated=True, n_subjects=2)
    said = headline(Results("bands", (), groups=(group,), subjects=subjects, simulated=True))
    told = [sentence for sentence in said if "in IC's place" in sentence]
    assert told == [
        "With the planted pitch surprisal in IC's place Δr is +0.0300 ± 0.0100 at 1-8 Hz: the most there is to find.",
        "With the planted pitch surprisal in IC's place Δr is +0.0020 ± 0.0010 at 0.5-4 Hz: the most there is to find.",
    ]
