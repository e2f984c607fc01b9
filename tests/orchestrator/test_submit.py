"""What is checked on a laptop before a job is sent, and what travels with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.reading import UsageError
from orchestrator.verbs.submit import prepare

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "experiments/demo.yaml")
ON_S3 = ["execution.tracking_uri=http://127.0.0.1:5000"]


def call(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("ORCHESTRATOR_", "RAY_"))]:
        monkeypatch.delenv(name)


def test_the_command_of_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_TRACKING_URI", "http://127.0.0.1:5000")
    command = prepare("run", DEMO, ["sweep=[]"], "s3://bucket/prefix", ["--retry", "failed"])
    assert command.study == "demo"
    assert list(command.words) == [
        "run",
        "experiments/demo.yaml",
        'execution.tracking_uri="http://127.0.0.1:5000"',
        "execution.ledger=s3://bucket/prefix",
        "sweep=[]",
        "--address",
        "auto",
        "--retry",
        "failed",
    ]
    assert list(command.files.values()) == [Path(DEMO)]


@pytest.mark.parametrize(
    ("ledger", "overrides", "word"),
    [
        (None, [], "execution.ledger=./results: it would lie in the job's temporary folder"),
        ("s3://bucket/prefix", [], "execution.tracking_uri: without it"),
        ("s3://bucket/prefix", ["execution.tracking_uri=sqlite:///a.db"], "relative to the job's temporary folder"),
        ("/shared", ["data.stimuli={source: audio, path: sounds}"], "data.stimuli.path=sounds: data never travels"),
        ("/shared", ["execution.cluster=nowhere.yaml"], "nowhere.yaml: no such file"),
        ("/shared", ["execution.tracking_uri=postgresql://a:pass@h/db"], "a URL with a password would be readable"),
        ("/shared", ["flow.steps=many"], "flow.steps"),
    ],
)
def test_what_could_not_work_or_would_be_seen_is_refused(ledger: str | None, overrides: list[str], word: str) -> None:
    if "data.stimuli" in str(overrides):
        overrides = [*overrides, "eeg=null"]
    with pytest.raises(UsageError) as caught:
        prepare("run", DEMO, overrides, ledger)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "pass@" not in str(caught.value)


def test_a_search_on_eeg_is_asked_for_in_words_before_it_is_sent() -> None:
    search = "search={objective: delta_r, space: {surprisal.noise_levels: [0.0, 0.5]}}"
    words = [*ON_S3, "sweep=[]", "eeg.canaries=null", search]
    with pytest.raises(UsageError, match="--exploratory does it"):
        prepare("run", DEMO, words, "s3://bucket/prefix")
    command = prepare("run", DEMO, words, "s3://bucket/prefix", ["--exploratory"])
    assert command.words[-1] == "--exploratory"


def test_a_password_in_the_file_would_travel_too(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(Path(DEMO).read_text() + "# postgresql://someone:s3cret@host/db\n")
    with pytest.raises(UsageError, match="readable in the job"):
        prepare("run", str(path), [], "/shared")


def test_a_mistake_is_found_before_any_cluster_is_asked() -> None:
    result = call("submit", DEMO, "flow.stepz=3", "--address", "http://127.0.0.1:9")
    assert result.exit_code == 2
    assert "did you mean" in result.stderr
    assert call("submit", DEMO, "--retry", "all").exit_code == 2


@pytest.mark.parametrize("words", [("status", "demo-1"), ("logs", "demo-1"), ("stop", "demo-1")])
def test_without_a_cluster_there_is_one_line(words: tuple[str, ...]) -> None:
    result = call(*words, "--address", "http://127.0.0.1:9")
    assert result.exit_code == 3
    assert result.stderr.count("\n") == 1
    assert "no Ray cluster answers at http://127.0.0.1:9" in result.stderr
    assert call(*words, "--address", "ray://head:10001").exit_code == 2


def test_what_travels_is_code_and_the_experiment(tmp_path: Path) -> None:
    from orchestrator import jobs

    files = {
        ".gitignore": "/results/\n*.secret\n",
        ".rayignore": "sounds/\n.git/\n",
        "code.py": "1",
        "study.yaml": "name: a",
        "hidden.secret": "",
        "results/status.json": "",
        "sounds/a.wav": "",
        ".git/config": "",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    sent = {str(path) for path in jobs.sent_files(tmp_path)}
    assert sent == {".gitignore", ".rayignore", "code.py", "study.yaml"}
    assert jobs.unfit(tmp_path, {"study.yaml": tmp_path / "study.yaml"}) is None
    assert "keeps it from travelling" in str(jobs.unfit(tmp_path, {"a": tmp_path / "hidden.secret"}))
    assert "outside" in str(jobs.unfit(tmp_path, {"a": tmp_path.parent / "a"}))
    with (tmp_path / "big.bin").open("wb") as big:
        big.truncate(jobs.LARGEST_BYTES + 1)
    assert "big.bin (100 MB)" in str(jobs.unfit(tmp_path, {}))


def test_this_repository_travels_without_tests_and_results() -> None:
    from orchestrator.jobs import LARGEST_BYTES, sent_files

    sent = sent_files(ROOT)
    folders = {path.parts[0] for path in sent}
    assert {"orchestrator", "tasks", "experiments"} <= folders
    assert not folders & {"tests", "results", ".git", ".venv"}
    assert sum(sent.values()) < LARGEST_BYTES / 10
