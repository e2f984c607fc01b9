"""What a person can mend is one line: no store, no results, no data, no ledger."""

from __future__ import annotations

import json
import shlex
import sys
from typing import Any

from tiny_study import DEMO, PAPER, SMALL, call

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
