"""The graph: which cells there are, and which of them a change touches."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from orchestrator.graph import CellSpec, Graph
from orchestrator.manifest import resolve
from orchestrator.planner import build
from orchestrator.planner_eeg_group import reduce
from orchestrator.reading import UsageError, load_experiment
from orchestrator.storage import Storage

ROOT = Path(__file__).parents[2]
GOLDEN_STUDY = Path(__file__).with_name("golden.yaml")


def graph(tmp_path: Path, name: str, *overrides: str) -> Graph:
    path = GOLDEN_STUDY if name == "golden" else ROOT / f"experiments/{name}.yaml"
    experiment = load_experiment(str(path), overrides).experiment
    return build(experiment, resolve(experiment, Storage(str(tmp_path / "results"))))


def added(before: Graph, after: Graph) -> Counter[str]:
    return Counter(cell.stage for cell in after if cell.signature not in before.cells)


def removed(before: Graph, after: Graph) -> Counter[str]:
    return added(after, before)


def test_parents_come_before_children(tmp_path: Path) -> None:
    seen: set[str] = set()
    for cell in graph(tmp_path, "demo"):
        assert set(cell.parents) <= seen, cell.name
        seen.add(cell.signature)


def test_golden_signatures(tmp_path: Path) -> None:
    """A change here means that every result in every ledger is computed again: raise a stage's version instead."""
    first = {}
    for cell in graph(tmp_path, "golden"):
        first.setdefault(cell.stage, cell.signature[:12])
    assert first == GOLDEN


GOLDEN: dict[str, str] = {
    "tunes": "26d3b94eac69",
    "corpus": "f283fd2a788a",
    "pitch_surprisal": "00b91330f2d1",
    "autoencoder_base": "b12527557aa0",
    "autoencoder": "a6b9b93df7f2",
    "latents": "aff7786cb29c",
    "flow": "ed17b1db7ae6",
    "surprisal": "041d2a35b1a6",
    "pitch": "63a1fe10a54a",
    "reconstruction": "554920ceb2b2",
    "eeg": "d5ef0a632e64",
    "features": "f5475c55af2b",
    "trf": "a2f1795f6a9d",
    "permutations": "b8615a65e334",
    "canaries": "b80367712f73",
    "group": "5df68d386290",
}


def test_a_key_that_came_later_changes_nothing_until_it_is_set(tmp_path: Path) -> None:
    before = graph(tmp_path, "golden")
    assert not added(before, graph(tmp_path, "golden", "pitch.model=ppm", "pitch.viewpoint=cpitch"))
    changed = added(before, graph(tmp_path, "golden", "pitch.model=both+", "pitch.order_max=null"))
    assert changed["pitch_surprisal"] == 2
    assert "surprisal" not in changed


def test_a_null_of_ones_own_adds_only_permutations_and_what_reads_them(tmp_path: Path) -> None:
    before = graph(tmp_path, "golden")
    assert not added(before, graph(tmp_path, "golden", "eeg.permutations.null=residual_shift"))
    changed = added(before, graph(tmp_path, "golden", "eeg.permutations.null=onset_values"))
    assert set(changed) == {"permutations", "group", "canaries"}
    assert changed["permutations"] == sum(cell.stage == "permutations" for cell in before)
    held = "eeg.trf.models=[{reduced: acoustic_plus, regressor: hold, tested: true}]"
    with pytest.raises(UsageError, match=r"eeg.*onset_values shuffles IC among note onsets.*use residual_shift"):
        graph(tmp_path, "golden", "eeg.permutations.null=onset_values", held)
    with pytest.raises(UsageError, match=r"eeg\.permutations\.null = 'flips': input should be 'residual_shift', 'ons"):
        graph(tmp_path, "golden", "eeg.permutations.null=flips")


def test_stimuli_without_notes_have_no_values_to_shuffle_among_onsets(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    recordings = f"data.stimuli={{source: audio, path: {tmp_path}}}"
    eeg = ("eeg.simulation=null", "eeg.canaries=null", "eeg.cnd={path: none, expect: {subjects: 2, pieces: 2}}")
    held = {cell.labels["model"] for cell in graph(tmp_path, "golden", recordings, *eeg) if cell.stage == "trf"}
    assert "acoustic_plus/onset" not in held
    with pytest.raises(ValueError, match=r"eeg\.permutations\.null: onset_values .* the stimuli have no notes"):
        graph(tmp_path, "golden", recordings, *eeg, "eeg.permutations.null=onset_values")


def test_a_projected_flow_is_another_and_only_behind_a_layer_norm(tmp_path: Path) -> None:
    before = graph(tmp_path, "golden")
    assert not added(before, graph(tmp_path, "golden", "flow.project=false"))
    one = ("sweep=[]", "eeg=null")
    plain, projected = (graph(tmp_path, "golden", *one, f"flow.project={word}") for word in ("false", "true"))
    changed = added(plain, projected)
    assert (changed["flow"], changed["latents"], changed["autoencoder"]) == (1, 0, 0)
    with pytest.raises(UsageError) as refused:
        graph(tmp_path, "golden", "flow.project=true")
    assert str(refused.value).endswith(
        "flow.project: latents behind tanh fill all channels, and only those of autoencoder.bottleneck layernorm lie "
        "in a hyperplane; set flow.project: false, or that bottleneck"
    )
    with pytest.raises(UsageError, match=r"flow\.project: latents behind tanh"):
        graph(tmp_path, "golden", *one, "flow.project=true", "autoencoder.bottleneck=tanh")


def test_probes_are_signed_by_their_content_wherever_they_lie(tmp_path: Path) -> None:
    def with_probes(path: str, sha256: str) -> Graph:
        given = f"surprisal.probes={{path: {path}, sha256: {sha256}}}"
        return graph(tmp_path, "golden", "surprisal.n_probes=null", given)

    here, there, other = with_probes("here.npy", "a"), with_probes("there.npy", "a"), with_probes("here.npy", "b")
    assert here.cells.keys() == there.cells.keys()
    assert added(here, other)["surprisal"] == sum(cell.stage == "surprisal" for cell in here)
    placed = [(cell.places, cell.config["probes"]) for cell in there if cell.stage == "surprisal"]
    assert placed == [({"probes": "there.npy"}, {"sha256": "a"})] * len(placed)
    assert not any(cell.places for cell in there if cell.stage != "surprisal")


def test_a_noise_level_adds_only_that_level(tmp_path: Path) -> None:
    before = graph(tmp_path, "demo")
    after = graph(tmp_path, "demo", "surprisal.noise_levels=[0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9]")
    variants, subjects, models, blocks = 4, 6, 3, 2
    assert added(before, after) == {
        "surprisal": 2 * variants,
        "pitch": variants,
        "trf": variants * subjects * models,
        "permutations": variants * subjects * blocks,
        "group": models,
    }
    assert removed(before, after) == {"group": models}


def test_a_subject_adds_only_that_subject(tmp_path: Path) -> None:
    before = graph(tmp_path, "demo")
    after = graph(tmp_path, "demo", "eeg.simulation.n_subjects=7")
    conditions = 4 * 6
    driver = 1  # what the planted response is worth in the new listener
    assert added(before, after) == {
        "eeg": 1,
        "trf": 3 * conditions + driver,
        "permutations": 2 * conditions,
        "group": 3,
    }


def test_more_permutations_add_only_the_missing_blocks(tmp_path: Path) -> None:
    before = graph(tmp_path, "demo")
    after = graph(tmp_path, "demo", "eeg.permutations.n=400")
    assert added(before, after) == {"permutations": 2 * (4 * 6 * 6 + 3), "group": 1, "canaries": 1}
    assert removed(before, after) == {"group": 1, "canaries": 1}


def test_keys_that_cannot_matter_do_not_count(tmp_path: Path) -> None:
    one = "sweep=[{autoencoder.bottleneck: [tanh]}]"
    before = graph(tmp_path, "demo", one, "eeg.canaries=null")
    after = graph(tmp_path, "demo", one, "eeg.canaries=null", "autoencoder.latent_noise.logit_mean=2.0")
    assert not added(before, after)


def test_arms_share_their_base(tmp_path: Path) -> None:
    bases = Counter(cell.inputs["base"] for cell in graph(tmp_path, "demo") if cell.stage == "autoencoder")
    assert sorted(bases.values()) == [1, 3]


def test_canaries_are_never_in_a_group(tmp_path: Path) -> None:
    planned = graph(tmp_path, "demo")
    canaries = {cell.signature for cell in planned if cell.labels.get("subject", "").startswith("canary-")}
    assert canaries
    for cell in planned:
        if cell.stage == "group":
            assert not canaries & set(cell.parents)


def test_missing_data_block_what_needs_them(tmp_path: Path) -> None:
    planned = graph(tmp_path, "noise_levels")
    waiting = {cell.stage for cell in planned if cell.missing}
    ready = {cell.stage for cell in planned if not cell.missing}
    assert {"corpus", "autoencoder", "flow", "trf", "permutations", "group", "eeg"} <= waiting
    assert "tunes" in ready
    assert len({cell.labels["subject"] for cell in planned if cell.stage == "eeg" and "Sub" in cell.name}) == 20


def test_recordings_without_eeg_leave_its_stages_out(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio/a.wav").write_bytes(b"RIFF")
    planned = graph(tmp_path, "recordings", f"data.path={tmp_path / 'audio'}")
    assert not {cell.stage for cell in planned} & {"trf", "eeg", "group", "pitch"}
    assert any("eeg" in note for note in planned.notes)
    assert any("pitch" in note for note in planned.notes)
    assert not any(cell.missing for cell in planned)


def group_cell(planned: Graph) -> CellSpec:
    return next(cell for cell in planned if cell.stage == "group" and cell.labels["tested"] == "true")


def test_a_group_without_a_failed_subject_names_it(tmp_path: Path) -> None:
    planned = graph(tmp_path, "demo")
    whole = group_cell(planned)
    failed = {cell.signature: "no trials" for cell in planned if cell.labels.get("subject") == "S03"}
    reduced = reduce(whole, failed)
    assert reduced is not None
    assert reduced.config["missing"] == [{"subject": "S03", "reason": "no trials"}]
    assert not set(failed) & set(reduced.parents)
    assert len(reduced.inputs["trf"]) == len(whole.inputs["trf"]) - 24
    assert reduced.signature != whole.signature


def test_a_group_knows_which_variants_are_seeds_of_one_arm(tmp_path: Path) -> None:
    """Nothing is said of arms where no seed is swept; a group without a subject keeps what is said."""
    assert "arms" not in group_cell(graph(tmp_path, "demo")).config
    swept = "sweep=[{seed: [0, 1], autoencoder.bottleneck: [layernorm, tanh]}]"
    planned = graph(tmp_path, "demo", swept, "eeg.canaries=null")
    arms = group_cell(planned).config["arms"]
    variants = {condition["variant"] for condition in group_cell(planned).config["conditions"]}
    assert {entry["variant"] for entry in arms} == variants
    assert len(arms) == 4
    for entry in arms:
        assert entry["variant"] == f"{entry['arm']} seed={entry['seed']}"
    assert len({entry["arm"] for entry in arms}) == 2
    failed = {cell.signature: "no trials" for cell in planned if cell.labels.get("subject") == "S03"}
    reduced = reduce(group_cell(planned), failed)
    assert reduced is not None
    assert reduced.config["arms"] == arms


def test_nothing_left_of_a_group(tmp_path: Path) -> None:
    planned = graph(tmp_path, "demo")
    assert reduce(group_cell(planned), dict.fromkeys(planned.cells, "lost")) is None


def test_an_audit_adds_its_cells_alone(tmp_path: Path) -> None:
    before = graph(tmp_path, "demo")
    after = graph(tmp_path, "demo", "causal_audit={frames_per_recording: 8}")
    variants, levels, roles = 4, 6, 2
    assert added(before, after) == {"causal_audit": variants * levels * roles}
    assert not removed(before, after)
    assert any("causal_audit: left out" in note for note in before.notes)
    assert not any("causal_audit" in note for note in after.notes)
    audits = [cell for cell in after if cell.stage == "causal_audit"]
    assert {cell.labels["role"] for cell in audits} == {"melodies", "stimuli"}
    assert audits[0].config["audit"] == {"frames_per_recording": 8}
    more_levels = graph(
        tmp_path,
        "demo",
        "causal_audit={frames_per_recording: 8}",
        "surprisal.noise_levels=[0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9]",
    )
    assert added(after, more_levels)["causal_audit"] == variants * roles


def test_an_audit_of_the_solver_adds_its_cells_alone(tmp_path: Path) -> None:
    before = graph(tmp_path, "demo")
    after = graph(tmp_path, "demo", "solver_audit={n_draws: 3}")
    variants, levels, roles = 4, 6, 2
    assert added(before, after) == {"solver_audit": variants * levels * roles}
    assert not removed(before, after)
    assert any("solver_audit: left out (solver_audit: null)" in note for note in before.notes)
    assert not any("solver_audit" in note for note in after.notes)
    first = next(cell for cell in after if cell.stage == "solver_audit" and cell.labels["noise_level"] == "0.2")
    assert set(first.inputs) == {"flow", "latents"}
    assert first.config["frames_per_recording"] == 8
    assert first.config["surprisal"] == first.config["definitions"]["expectation"]
    assert first.config["definitions"]["expected"]["n_draws"] == 3
    more = graph(tmp_path, "demo", "solver_audit={n_draws: 3}", "surprisal.noise_levels=[0.0, 0.2, 0.4, 0.6, 0.8]")
    assert not added(after, more)["solver_audit"]
    assert removed(after, more)["solver_audit"] == variants * roles


def test_definitions_are_compared_where_they_are_asked_for(tmp_path: Path) -> None:
    def definitions(*overrides: str) -> list[dict[str, object]]:
        planned = graph(tmp_path, "demo", *overrides)
        return [dict(cell.config["definitions"]) for cell in planned if cell.stage == "solver_audit"]

    assert set(map(len, definitions("solver_audit={}"))) == {4}
    assert not any(definitions("solver_audit={definitions: false}"))
    (clean, *_) = definitions("solver_audit={}", "surprisal.context=clean", "surprisal.noise_levels=[0.4]")
    assert not any("context" in settings for settings in clean.values() if isinstance(settings, dict))


def test_given_probes_have_no_audit_of_the_solver(tmp_path: Path) -> None:
    given = "surprisal={noise_levels: [0.4], solver: euler, probes: {path: probes.npy, sha256: s}}"
    planned = graph(tmp_path, "demo", "solver_audit={}", given)
    assert not any(cell.stage == "solver_audit" for cell in planned)
    assert any("its probes are given" in note for note in planned.notes)


def test_context_dropout_is_a_key_added_later(tmp_path: Path) -> None:
    flows = {cell.signature for cell in graph(tmp_path, "golden") if cell.stage == "flow"}
    for override in ("flow.context_dropout=0.1", "flow.precision=bfloat16"):
        assert not flows & set(graph(tmp_path, "golden", override).cells)
    for override in ("flow.context_dropout=0", "flow.precision=float32"):
        assert flows <= set(graph(tmp_path, "golden", override).cells)


def test_canary_condition_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="noise_level"):
        graph(tmp_path, "demo", "eeg.canaries.noise_level=0.33")
    with pytest.raises(ValueError, match="is no variant"):
        graph(tmp_path, "demo", "eeg.canaries.variant=relu none")


def test_content_decides_not_the_clock(tmp_path: Path) -> None:
    audio = tmp_path / "audio"
    audio.mkdir()
    (audio / "a.wav").write_bytes(b"RIFF0000")
    first = graph(tmp_path, "recordings", f"data.path={audio}")
    (audio / "a.wav").write_bytes(b"RIFF0000")
    assert set(graph(tmp_path, "recordings", f"data.path={audio}").cells) == set(first.cells)
    (audio / "a.wav").write_bytes(b"RIFF0001")
    assert set(graph(tmp_path, "recordings", f"data.path={audio}").cells).isdisjoint(first.cells)
