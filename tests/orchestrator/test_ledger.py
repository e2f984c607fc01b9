"""What is published reads back, on every kind of store, with what made it."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ledger_cells import cell, out, outcomes, publish, state

from orchestrator.ledger import Attempt, Ledger
from orchestrator.provenance import NOTE, _noted, process_facts, source_hash
from orchestrator.reasons import Reason, State
from orchestrator.signature import sign
from orchestrator.storage import Storage, UnsafePath


def test_a_published_cell_is_cached_and_reads_back(ledger: Ledger, tmp_path: Path) -> None:
    spec = cell()
    assert ledger.status("trf", spec.signature) is None
    assert state(ledger, spec) == (State.TO_DO, Reason.NEW)
    status = publish(ledger, spec)
    assert state(ledger, spec) == (State.CACHED, Reason.DONE)
    assert ledger.survey([spec], False)[spec.signature][2] == status
    assert ledger.status("trf", spec.signature) == status
    assert sorted(status.files) == ["deep/table.csv", "r.bin"]
    assert [(a.id, a.reason, a.outcome) for a in status.attempts] == [(status.attempt, Reason.NEW, "done")]
    artefact = ledger.artefact("trf", spec.signature, tmp_path / "cache")
    assert artefact.read_bytes("r.bin") == b"result"
    assert artefact.read_bytes("deep/table.csv") == b"a,b\n1,2\n"
    assert artefact.config == {"subject": "S01", "snr": "inf", "level": 0.5}
    assert artefact.metrics == {"delta_r": 0.5}
    assert pickle.loads(pickle.dumps(artefact)).read_bytes("r.bin") == b"result"
    assert ledger.storage.size(f"index/trf/{spec.signature}.done") == 0
    with pytest.raises(FileNotFoundError, match=r"deep/table\.csv"):
        artefact.open("never.bin")


def test_the_config_says_what_made_it(ledger: Ledger) -> None:
    spec = cell()
    publish(ledger, spec)
    config = ledger.config("trf", spec.signature)
    assert config["inputs"] == {"eeg": "e" * 32, "surprisal": ["a" * 32, "b" * 32]}
    assert sign(config["stage"], config["version"], config["config"], config["inputs"]) == spec.signature
    assert config["name"] == "trf S01"
    assert config["labels"] == {"subject": "S01"}
    assert ledger.signatures("trf") == [spec.signature]


def test_provenance_tells_where_and_when(local: Ledger) -> None:
    facts = publish(local, cell()).provenance
    described = {"host", "python", "commit", "dirty", "source", "lock", "cpu", "threads", "started", "finished"}
    assert set(facts) == described
    assert facts["started"] <= facts["finished"]
    assert facts["finished"].endswith("Z")
    assert all(facts.values())


def test_a_commit_can_be_told_to_nodes_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_COMMIT", "abc123+dirty")
    facts = process_facts.__wrapped__()
    assert (facts["commit"], facts["dirty"]) == ("abc123", "true")


def test_a_copy_without_git_is_told_its_commit_by_a_note_that_is_true_of_this_code_only(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    code = tmp_path / "tasks/one.py"
    code.write_text("x = 1\n")
    (tmp_path / NOTE).write_text(f"abc123+dirty {source_hash(tmp_path)}\n")
    assert _noted(tmp_path) == ("abc123", "true")
    code.write_text("x = 2\n")
    assert _noted(tmp_path) is None
    code.write_text("x = 1\n")
    (tmp_path / ".git").mkdir()
    assert _noted(tmp_path) is None, "git knows better"


def test_a_failure_stands_until_it_is_retried(ledger: Ledger) -> None:
    spec = cell()
    attempt = ledger.begin(spec, Reason.NEW, "driver")
    (attempt.out_dir / "half.bin").write_bytes(b"half")
    status = ledger.fail(attempt, Reason.ERROR, "ValueError: the EEG has no channels", 0.5)
    assert (status.state, status.failure, status.files) == ("failed", "ValueError: the EEG has no channels", {})
    assert not attempt.out_dir.exists()
    assert state(ledger, spec) == (State.FAILED, Reason.FAILED_BEFORE)
    assert ledger.storage.exists(f"index/trf/{spec.signature}.failed")
    publish(ledger, spec, Reason.RETRY_REQUESTED)
    assert outcomes(ledger, spec) == [(Reason.NEW, "failed"), (Reason.RETRY_REQUESTED, "done")]
    assert ledger.storage.names("index/trf") == [f"{spec.signature}.done"]


def test_local_results_are_not_copied(local: Ledger) -> None:
    attempt = local.begin(cell(), Reason.NEW, "driver")
    file = attempt.out_dir / "r.bin"
    file.write_bytes(b"result")
    inode = file.stat().st_ino
    status = local.publish(attempt, attempt.out_dir, {}, 1.0)
    path = local.storage.local_path(out(status))
    assert path == file
    assert file.stat().st_ino == inode


def test_a_foreign_folder_of_files_is_moved_in(ledger: Ledger, tmp_path: Path) -> None:
    attempt = ledger.begin(cell(), Reason.NEW, "driver")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "r.bin").write_bytes(b"result")
    status = ledger.publish(attempt, tmp_path / "made", {}, 1.0)
    assert ledger.storage.read(out(status)) == b"result"
    assert not (tmp_path / "made").exists()
    assert attempt.out_dir.exists() == ledger.storage.is_local


def test_metrics_of_any_number_come_back(local: Ledger) -> None:
    attempt = local.begin(cell(), Reason.NEW, "driver")
    metrics = {
        "nan": math.nan,
        "inf": [math.inf, 1],
        "f32": np.float32(0.5),
        "i": np.int64(3),
        "skipped": ["Für \udce9"],
    }
    local.publish(attempt, attempt.out_dir, metrics, 1.0)
    status = local.status("trf", cell().signature)
    assert status is not None
    assert math.isnan(status.metrics["nan"])
    assert {**status.metrics, "nan": 0} == {
        "nan": 0,
        "inf": [math.inf, 1],
        "f32": 0.5,
        "i": 3,
        "skipped": ["Für \udce9"],
    }


@pytest.mark.parametrize("name", ["../../escape", "", "a/b", ".hidden", "/etc", "a\\b"])
def test_names_cannot_leave_the_ledger(name: str, local: Ledger, tmp_path: Path) -> None:
    for bad in (replace(cell(), signature=name), replace(cell(), stage=name)):
        with pytest.raises(UnsafePath):
            local.begin(bad, Reason.NEW, "driver")
        with pytest.raises(UnsafePath):
            local.survey([bad], False)
    with pytest.raises(UnsafePath):
        local.heartbeat(name)
    with pytest.raises(UnsafePath):
        local.checkpoints("flow", name, tmp_path)
    assert not any(tmp_path.rglob("*"))


def test_results_are_plain_files(local: Ledger, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    attempt = local.begin(cell(), Reason.NEW, "driver")
    (attempt.out_dir / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafePath, match="link"):
        local.publish(attempt, attempt.out_dir, {}, 1.0)
    assert local.status("trf", cell().signature) is None


def test_a_pickled_ledger_and_attempt_go_on_elsewhere(ledger: Ledger) -> None:
    attempt = ledger.begin(cell(), Reason.NEW, "driver")
    (attempt.out_dir / "r.bin").write_bytes(b"result")
    copy: Ledger = pickle.loads(pickle.dumps(ledger))
    again: Attempt = pickle.loads(pickle.dumps(attempt))
    copy.publish(again, again.out_dir, {}, 1.0)
    assert state(ledger, cell()) == (State.CACHED, Reason.DONE)


def test_secrets_are_neither_shown_nor_written(tmp_path: Path) -> None:
    ledger = Ledger(Storage(str(tmp_path), {"secret": "hunter2"}))
    publish(ledger, cell())
    assert "hunter2" not in repr(ledger)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
