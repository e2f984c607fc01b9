"""Each verb as a person calls it, on ledgers whose results are made up."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import made_up_study
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.graph import CellSpec
from orchestrator.opening import Study, open_study, survey
from orchestrator.planner_eeg import reduce
from orchestrator.reasons import Reason, State
from orchestrator.report.gathering import gather
from orchestrator.schedule import Schedule
from orchestrator.standing import stand

ROOT = Path(__file__).parents[2]
DEMO, PAPER = (str(ROOT / "experiments" / name) for name in ("demo.yaml", "noise_levels.yaml"))
SMALL = [
    "name=tiny",
    "sweep=[]",
    "surprisal.noise_levels=[0.0, 0.4]",
    "reconstruction.snr=[.inf]",
    "eeg.simulation.n_subjects=3",
    "eeg.permutations={n: 20, block: 20}",
    "eeg.canaries={variant: null, noise_level: 0.4}",
]


def call(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def tiny(folder: Path) -> Study:
    return open_study(DEMO, SMALL, str(folder / "ledger"))


def fill(study: Study, cells: Iterable[CellSpec], files: dict[str, bytes] | None = None) -> None:
    ledger = made_up_study.RealLedger(study.ledger.storage)
    for cell in cells:
        ledger.finish(cell, {"made_up.txt": b"made up", **(files or {})}, {"loss": 1.0, "bad": float("nan")})


def named(study: Study, name: str) -> CellSpec:
    return next(cell for cell in study.graph if cell.name == name)


def planned(folder: Path, *words: str) -> dict[str, Any]:
    result = call("plan", DEMO, *SMALL, "--ledger", str(folder / "ledger"), "--json", *words)
    assert result.exit_code == 0, result.output
    content: dict[str, Any] = json.loads(result.stdout)
    return content


def as_run(study: Study) -> dict[str, CellSpec]:
    """Aggregates as the driver reduces them: all that can succeeds, one task after the other."""
    states = {
        key: (state, reason, (status.failure or "") if state is State.FAILED and status else "")
        for key, (state, reason, status) in study.ledger.survey(study.graph, full=False).items()
    }
    schedule = Schedule(study.graph, states, reduce=reduce)
    while not schedule.finished:
        for task in list(schedule.ready()):
            schedule.started(task)
            for cell in task.cells:
                schedule.done(cell.signature)
    return dict(schedule.reduced)


# plan


def test_plan_names_what_is_to_do_and_why(tmp_path):
    study = tiny(tmp_path)
    fill(study, [named(study, "tunes chorales")])
    text = call("plan", DEMO, *SMALL, "--ledger", str(tmp_path / "ledger")).stdout
    assert text.splitlines()[0] == f"study tiny: {len(study.graph)} cells, ledger {tmp_path / 'ledger'}"
    assert "corpus train  (no result yet)" in text
    assert "ae base layernorm  (an input is still to do)" in text
    assert "more (--all names them" in text
    everything = call("plan", DEMO, *SMALL, "--ledger", str(tmp_path / "ledger"), "--all").stdout
    assert everything.count("  to do    ") == len(study.graph) - 1


def test_plan_as_json_counts_and_links_every_cell(tmp_path):
    content = planned(tmp_path)
    assert content["counts"] == {"to do": len(content["cells"])}
    signatures = {cell["signature"] for cell in content["cells"]}
    assert all(signatures.issuperset(cell["inputs"]) for cell in content["cells"])
    assert {cell["reason"] for cell in content["cells"] if cell["inputs"]} == {"input_to_do"}
    assert {cell["reason"] for cell in content["cells"] if not cell["inputs"]} == {"new"}


def test_plan_shows_where_each_value_comes_from(tmp_path):
    text = call("plan", DEMO, *SMALL, "--ledger", str(tmp_path / "ledger"), "--show-config").stdout
    levels = next(line for line in text.splitlines() if "surprisal.noise_levels" in line and "=" in line)
    assert "command line" in levels
    assert "demo.yaml" in next(line for line in text.splitlines() if "autoencoder.size" in line)
    assert "[default]" in text


def test_plan_of_a_finished_study_has_nothing_to_compute(tmp_path):
    study = tiny(tmp_path)
    fill(study, study.graph)
    text = call("plan", DEMO, *SMALL, "--ledger", str(tmp_path / "ledger")).stdout
    assert text.splitlines()[-1] == "everything is cached: a run would compute nothing"


def test_plan_of_a_study_with_failures_shows_what_a_run_computes(tmp_path):
    study = tiny(tmp_path)
    lost = {"eeg S02", "eeg canary-noise"}
    ledger = made_up_study.RealLedger(study.ledger.storage)
    for name in lost:
        ledger.fail(named(study, name), f"{name}: truncated")
    smaller = as_run(study)
    groups = [cell for cell in study.graph if cell.stage == "group"]
    assert set(smaller) == {cell.signature for cell in groups}

    before = {cell["name"]: cell for cell in planned(tmp_path)["cells"]}
    for cell in groups:
        assert before[cell.name]["signature"] == smaller[cell.signature].signature
        assert before[cell.name]["reason"] == "input_to_do"
    assert before["canaries"]["state"] == "blocked"

    fill(study, [cell for cell in study.graph if before[cell.name]["state"] == "to do" and cell.stage != "group"])
    fill(study, smaller.values())
    after = planned(tmp_path)["cells"]
    assert {cell["state"] for cell in after if cell["stage"] == "group"} == {"cached"}
    text = call("plan", DEMO, *SMALL, "--ledger", str(tmp_path / "ledger")).stdout
    assert "nothing is to do: a run would compute nothing" in text
    assert not [line for line in text.splitlines() if line.startswith("  to do")]
    assert "  blocked  " in text


def test_report_and_plan_agree_on_reduced_groups_whatever_failed(tmp_path):
    """The sentence of what blocks an input is part of a reduced group: a second survey must not lose it."""
    study = tiny(tmp_path)
    ledger = made_up_study.RealLedger(study.ledger.storage)
    ledger.fail(named(study, "IC layernorm none stimuli s=0.0"), "it diverged")
    smaller = as_run(study)
    graph, states = stand(study.graph, study.ledger)
    again, _ = stand(study.graph, study.ledger, survey(study, full=False))
    groups = {cell.signature for cell in graph if cell.stage == "group"}
    assert groups == {cell.signature for cell in smaller.values()}
    assert groups == {cell.signature for cell in again if cell.stage == "group"}
    assert {states[key][0] for key in groups} == {State.TO_DO}
    content = {"model": {"reduced": "acoustic_plus", "regressor": "onset"}, "tested": True, "n_subjects": 2}
    fill(study, smaller.values(), {"group.json": json.dumps(content).encode()})
    assert len(gather(study.graph, study.ledger, "tiny", survey(study, full=False)).groups) == len(groups)


# status


def test_status_counts_names_failures_and_drivers(tmp_path):
    study = tiny(tmp_path)
    made_up_study.RealLedger(study.ledger.storage).fail(named(study, "eeg S02"), "S02: truncated")
    study.ledger.heartbeat("me")
    words = ["status", DEMO, *SMALL, "--ledger", str(tmp_path / "ledger")]
    text = call(*words).stdout
    assert "eeg S02: S02: truncated" in text
    assert "(an input failed)" in text
    assert text.splitlines()[-1] == "drivers at work: me"
    content = json.loads(call(*words, "--json").stdout)
    assert content["drivers"] == ["me"]
    assert [one["failure"] for one in content["failures"]] == ["S02: truncated"]
    assert content["stages"]["eeg"] == {"to do": 5, "failed": 1}


# explain


RECORDINGS = [
    {"id": f"tune{k}", "path": None, "file": f"tune{k}.flac", "pcm_fingerprint": f"{k:012x}"} for k in range(30)
]


def test_explain_walks_from_a_result_to_the_recordings(tmp_path):
    study = tiny(tmp_path)
    content = {"corpus.json": json.dumps({"recordings": RECORDINGS, "skipped": []}).encode()}
    fill(study, study.graph, content)
    flow = next(cell for cell in study.graph if cell.stage == "flow")
    words = ["explain", flow.signature[:8], "--ledger", str(tmp_path / "ledger")]
    lines = call(*words).stdout.splitlines()
    assert lines[0].startswith(f"{flow.signature[:12]}  {flow.name}  [done]")
    assert any("corpus train" in line for line in lines)
    assert any(line.endswith("recording tune3  000000000003  tune3.flac") for line in lines)
    assert any("and 10 more recordings" in line for line in lines)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    steps = json.loads(call(*words, "--json").stdout, parse_constant=refuse)
    corpus = next(step for step in steps if step["name"] == "corpus train")
    assert [one["pcm_fingerprint"] for one in corpus["recordings"]] == [one["pcm_fingerprint"] for one in RECORDINGS]
    assert steps[0]["metrics"]["bad"] == "nan"


def test_explain_shows_what_is_damaged_or_was_interrupted(tmp_path):
    study = tiny(tmp_path)
    corpus, base = named(study, "corpus train"), named(study, "ae base layernorm")
    fill(study, [named(study, "tunes chorales"), corpus])
    study.ledger.begin(base, Reason.NEW, "killed")
    (tmp_path / "ledger/corpus" / corpus.signature / "status.json").write_text("{")
    result = call("explain", base.signature, "--ledger", str(tmp_path / "ledger"))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "[no result]" in lines[0]
    assert "new -> interrupted" in lines[1]
    assert any("corpus train  [status damaged]" in line for line in lines)


def test_explain_refuses_what_it_does_not_know(tmp_path):
    for prefix, word in (("0123456789", "no cell of the ledger"), ("ab", "at least 4 characters")):
        result = call("explain", prefix, "--ledger", str(tmp_path / "ledger"))
        assert (result.exit_code, result.stdout) == (2, "")
        assert word in result.stderr


def test_ledger_of_the_environment_is_everywhere_the_default(tmp_path, monkeypatch):
    study = tiny(tmp_path)
    cell = next(cell for cell in study.graph if cell.stage == "flow")
    fill(study, [cell])
    monkeypatch.setenv("ORCHESTRATOR_LEDGER", str(tmp_path / "ledger"))
    assert call("explain", cell.signature[:12]).exit_code == 0
    assert str(tmp_path / "ledger/mlflow.db") in call("ui").stderr
    assert f"the ledger has {cell.signature[:12]}" in call("surprisal", DEMO, "--model", "no such").stderr
    assert str(tmp_path / "ledger") in call("plan", DEMO, *SMALL).stdout


# surprisal


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


# ui, report, run


def test_ui_without_a_store_says_so(tmp_path, monkeypatch):
    result = call("ui", "--ledger", str(tmp_path / "ledger"))
    assert result.exit_code == 2
    assert f"{tmp_path / 'ledger/mlflow.db'}: no MLflow store there" in result.stderr
    monkeypatch.chdir(tmp_path)
    remote = call("ui", "--ledger", "s3://bucket/prefix")
    assert remote.exit_code == 2
    assert "orchestrator: results/mlflow.db: no MLflow store there" in remote.stderr


def test_report_of_an_empty_ledger(tmp_path):
    result = call("report", DEMO, *SMALL, "--ledger", str(tmp_path / "ledger"))
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].startswith("study tiny")
    assert "no result yet" in result.stdout
    assert (tmp_path / "ledger/reports/tiny/report.html").exists()


def test_missing_data_is_named_and_nothing_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("run", PAPER, "--ledger", str(tmp_path / "ledger"))
    assert result.exit_code == 3
    for source in ("data/music", "data/bach_midi", "data/bach_eeg"):
        assert f"orchestrator: {source}: no" in result.stderr
    assert not list((tmp_path / "ledger").glob("*/*/attempts"))
    assert call("run", PAPER, "--retry", "everything").exit_code == 2


def test_plan_of_a_study_without_its_data_says_what_waits_for_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = ["sweep=[]", "surprisal.noise_levels=[0.0, 0.4]", "eeg.permutations={n: 20, block: 20}"]
    result = call("plan", PAPER, *few, "--ledger", str(tmp_path / "ledger"), "--json")
    cells = json.loads(result.stdout)["cells"]
    reasons = {cell["stage"]: (cell["state"], cell["reason"]) for cell in cells}
    for stage in ("flow", "trf", "group"):
        assert reasons[stage] == ("blocked", "data_missing")
    assert "nothing is to do" not in call("plan", PAPER, *few, "--ledger", str(tmp_path / "ledger")).stdout


# What a person can mend


def test_ledger_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "ledger").write_text("")
    for words in (["plan", DEMO], ["status", DEMO], ["run", DEMO, "--inline"], ["explain", "abcd"]):
        result = call(*words, "--ledger", str(tmp_path / "ledger"))
        assert result.exit_code == 3, result.output
        assert result.stderr.count("\n") == 1
        assert f"orchestrator: ledger {tmp_path / 'ledger'}: NotADirectoryError" in result.stderr


def test_ledger_without_credentials_is_one_line(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    result = call("plan", DEMO, *SMALL, "--ledger", "s3://bucket/prefix")
    assert result.exit_code == 3, result.output
    assert "orchestrator: ledger s3://bucket/prefix: no credentials were found" in result.stderr
    assert "Traceback" not in result.stderr
    unknown = call("plan", DEMO, *SMALL, "--ledger", "nowhere://bucket")
    assert (unknown.exit_code, unknown.stderr.count("\n")) == (3, 1)


def test_ledger_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("orchestrator.manifest.Fingerprints.keep", full)
    result = call("plan", DEMO, *SMALL, "--ledger", str(tmp_path / "ledger"))
    assert result.exit_code == 3
    assert result.stderr.count("\n") == 1
    assert "No space left on device" in result.stderr


def test_ctrl_c_while_planning_names_the_command_that_goes_on(tmp_path, monkeypatch):
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.opening.resolve", interrupted)
    argv = ["/somewhere/orchestrator", "run", "my study.yaml"]
    monkeypatch.setattr(sys, "argv", argv)
    result = call("run", DEMO, *SMALL, "--ledger", str(tmp_path / "ledger"))
    assert result.exit_code == 130
    assert result.stderr.splitlines() == [f"orchestrator: stopped; nothing done is lost. To go on: {shlex.join(argv)}"]
