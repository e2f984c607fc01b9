"""What a study reads of a Ray cluster YAML, and what stages may ask of its nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cluster_file import ClusterFileMistake, read_cluster_file
from orchestrator.experiment import ExecutionConfig
from orchestrator.reading import UsageError, load_experiment
from orchestrator.stages import STAGES, with_requests

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "experiments/demo.yaml")


def test_node_types_of_the_aws_cluster() -> None:
    declared = read_cluster_file(str(ROOT / "cluster.yaml"))
    assert (declared.at_least, declared.grows) == (1, True)
    by_name = {kind.name: kind for kind in declared.types}
    assert by_name["head"].is_head
    assert by_name["head"].most == 0
    workers = [kind for kind in declared.types if not kind.is_head]
    assert declared.potential()["GPU"] == sum(kind.most * kind.resources.get("GPU", 0.0) for kind in workers) > 0
    assert dict(by_name["gpu_worker"].resources) in declared.nodes()


def test_machines_of_ones_own_are_the_head_and_its_workers(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("provider: {type: local, head_ip: 192.0.2.1, worker_ips: [192.0.2.2, 192.0.2.3]}\n")
    declared = read_cluster_file(str(path))
    assert (declared.at_least, declared.grows, declared.nodes()) == (3, False, [])


def test_workers_that_are_always_there_are_counted_and_the_limit_of_all_holds(tmp_path: Path) -> None:
    path = tmp_path / "cloud.yaml"
    path.write_text(
        "provider: {type: aws}\nmax_workers: 3\nhead_node_type: h\navailable_node_types:\n"
        "  h: {resources: {CPU: 0}}\n"
        "  w: {resources: {CPU: 4, fan_out: 4}, min_workers: 2, max_workers: 9}\n"
    )
    declared = read_cluster_file(str(path))
    assert declared.at_least == 3
    assert declared.potential() == {"CPU": 12, "fan_out": 12}


@pytest.mark.parametrize(
    ("content", "word"),
    [(None, "no such file"), ("a: [", "cannot be read as YAML"), ("name: demo", "no provider"), ("- a", "no provider")],
)
def test_what_is_no_cluster_yaml_is_one_line(tmp_path: Path, content: str | None, word: str) -> None:
    path = tmp_path / "c.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ClusterFileMistake, match=word) as caught:
        read_cluster_file(str(path))
    assert "\n" not in str(caught.value)


def test_requests_change_what_a_process_asks_for_and_nothing_else() -> None:
    settings = ExecutionConfig.model_validate(
        {"gpus_per_training": 0.5, "resources": {"flow": {"gpus": 1, "custom": {"training": 1}}, "trf": {"cpus": 2}}}
    )
    asked = with_requests(STAGES, settings.resources, settings.gpus_per_training)
    assert asked["flow"].request == {"CPU": 1.0, "GPU": 1.0, "training": 1.0}
    assert asked["autoencoder"].request == {"CPU": 1.0, "GPU": 0.5}
    assert asked["trf"].request == {"CPU": 2.0}
    assert {name: (row.version, row.threads) for name, row in asked.items()} == {
        name: (row.version, row.threads) for name, row in STAGES.items()
    }


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("execution.resources.flwo.gpus=1", "unknown stage 'flwo'; did you mean 'flow'?"),
        ("execution.resources.flow.gpu=1", "did you mean 'gpus'?"),
        ("execution.resources.flow.gpus=1.5", "neither a whole number nor a share"),
        ("execution.resources.flow.custom.GPU=1", "labels of your own"),
        ("execution.resources.flow.custom.training=0", "above 0"),
        ("execution.resources.flow.cpus=-1", "greater than 0"),
    ],
)
def test_mistaken_requests_are_one_line(override: str, word: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_experiment(DEMO, [override])
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_where_a_study_runs_never_changes_its_signatures(tmp_path: Path) -> None:
    from orchestrator.opening import open_study

    few = ["sweep=[]", "eeg.simulation.n_subjects=1", "eeg.permutations={n: 20, block: 20}"]
    plain = open_study(DEMO, few, str(tmp_path / "a"))
    moved = [*few, "execution.resources.flow={gpus: 1, custom: {training: 1}}", "execution.cluster=cluster.yaml"]
    assert set(open_study(DEMO, moved, str(tmp_path / "b")).graph.cells) == set(plain.graph.cells)
