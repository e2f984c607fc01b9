"""Findings of the doctor: on a laptop, on nodes that disagree, and each with its remedy."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator import doctor
from orchestrator.backends import RayBackend
from orchestrator.cli import app
from orchestrator.doctor import Finding
from orchestrator.node_facts import NodeFacts, installed, ledger_on_nodes, ledger_trouble, node_facts, token_trouble
from orchestrator.provenance import lock_hash, process_facts
from orchestrator.stages import STAGES
from orchestrator.storage import Storage

ROOT = Path(__file__).parents[2]
DEMO, PAPER = (str(ROOT / "experiments" / name) for name in ("demo.yaml", "noise_levels.yaml"))
SMALL = ["sweep=[]", "surprisal.noise_levels=[0.0, 0.4]", "eeg.permutations={n: 20, block: 20}"]


def findings(*words: str) -> tuple[int, list[dict[str, Any]]]:
    result = CliRunner().invoke(app, ["doctor", *words, "--json"])
    return result.exit_code, json.loads(result.stdout)


def of(found: list[dict[str, Any]], check: str) -> list[dict[str, Any]]:
    return [finding for finding in found if finding["check"] == check]


def test_a_laptop_on_which_all_is_well(tmp_path: Path) -> None:
    code, found = findings(DEMO, *SMALL, "--ledger", str(tmp_path / "ledger"))
    assert code == 0, found
    assert [finding["check"] for finding in found] == ["ledger", "data", "tracking", "resources", "scratch"]
    assert not list((tmp_path / "ledger").rglob("*probe*/*"))
    text = CliRunner().invoke(app, ["doctor", DEMO, *SMALL, "--ledger", str(tmp_path / "ledger")]).stdout
    assert text.splitlines()[0].split() == ["ok", "ledger", *text.splitlines()[0].split()[2:]]


def test_missing_data_and_a_ledger_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    code, found = findings(PAPER, "sweep=[]", "surprisal.noise_levels=[0.0]", "--ledger", str(tmp_path / "ledger"))
    assert code == 3
    assert all("put it there" in finding["sentence"] for finding in of(found, "data"))
    code, found = findings(DEMO, *SMALL, "--ledger", str(tmp_path / "file"))
    assert (code, found[0]["ok"]) == (3, False)


def test_requests_are_judged_by_the_node_types_of_a_cluster_that_is_not_up(tmp_path: Path) -> None:
    cluster = ["--ledger", str(tmp_path), f"execution.cluster={ROOT / 'cluster.yaml'}"]
    code, found = findings(DEMO, *SMALL, *cluster, "execution.resources.flow={gpus: 1, custom: {training: 1}}")
    assert code == 0, found
    code, found = findings(DEMO, *SMALL, *cluster, "execution.resources.flow={gpus: 8, custom: {fan_out: 1}}")
    (finding,) = of(found, "resources")
    assert (code, finding["ok"]) == (3, False)
    assert "'flow' asks for 1 CPUs and 8 GPUs, 1 'fan_out'" in finding["sentence"]
    assert "8 CPUs and 1 GPUs" in finding["sentence"]
    assert "execution.resources.flow" in finding["sentence"]


def test_an_mlflow_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, found = findings(DEMO, *SMALL, "--ledger", str(tmp_path), "execution.tracking_uri=http://127.0.0.1:9")
    (finding,) = of(found, "tracking")
    assert (code, finding["ok"]) == (3, False)
    assert finding["sentence"].startswith("http://127.0.0.1:9: ")
    assert "ui --serve" in finding["sentence"]
    assert "\n" not in finding["sentence"]


def test_nodes_are_asked_for_the_store_that_a_run_would_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Storage] = []
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(doctor, "ledger_trouble", lambda storage: asked.append(storage) or "not now")
    findings(DEMO, *SMALL, "--ledger", "s3://bucket/prefix")
    assert [storage.options for storage in asked] == [{"endpoint_url": "http://127.0.0.1:9"}]


def test_no_cluster_there_is_a_finding(tmp_path: Path) -> None:
    code, found = findings(DEMO, *SMALL, "--ledger", str(tmp_path), "--address", "http://127.0.0.1:8265")
    (finding,) = of(found, "cluster")
    assert (code, finding["ok"]) == (3, False)
    assert "orchestrator submit" in finding["sentence"]


FACTS = NodeFacts("3.11.7", "2.60.0", f"lock {lock_hash()[:12]}", "c0ffee", "123", "", "", "/tmp", 2**40)


class Nodes:
    """Nodes with given answers."""

    is_own = False
    declared = None

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def on_every_node(self, function: Any, *arguments: Any) -> dict[str, Any]:
        return self.answers

    def has_other_nodes(self) -> bool:
        return len(self.answers) > 1

    def preflight(self, stages: Any) -> list[str]:
        return []

    def missing_nodes(self) -> str | None:
        return None


def asked(storage: Storage | None, ledger: str, **answers: Any) -> dict[str, list[Finding]]:
    from orchestrator.experiment import ExecutionConfig

    nodes: Any = Nodes(**answers)
    found: dict[str, list[Finding]] = {}
    for finding in doctor._nodes(nodes, ExecutionConfig(ledger=ledger), storage):
        found.setdefault(finding.check, []).append(finding)
    return found


def test_nodes_that_agree_are_fine(tmp_path: Path) -> None:
    found = asked(Storage(f"file://{tmp_path}"), f"file://{tmp_path}", a=FACTS, b=FACTS)
    assert all(finding.ok for of_check in found.values() for finding in of_check)
    assert set(found) == {"versions", "ledger", "token", "scratch"}


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        ({"python": "3.12.1"}, "versions", ["Python differs", "3.11.7 on a", "3.12.1 on b", "ray up"]),
        ({"packages": "lock def"}, "versions", ["installed packages", "make .venv/.ready"]),
        ({"code": "456"}, "versions", ["code differs"]),
        ({"ledger": "ledger s3://b: access is denied"}, "ledger", ["node b: ledger s3://b: access is denied"]),
        ({"token": "x: others may read it"}, "token", ["node b: x: others may read it"]),
        ({"scratch_free_bytes": 10**6}, "scratch", ["0.0 GiB free in /tmp on b", "make room"]),
    ],
)
def test_a_node_that_differs_is_named_with_the_remedy(
    tmp_path: Path, change: dict[str, Any], check: str, words: list[str]
) -> None:
    found = asked(Storage(f"file://{tmp_path}"), f"file://{tmp_path}", a=FACTS, b=replace(FACTS, **change))
    bad = [finding for of_check in found.values() for finding in of_check if not finding.ok]
    assert [finding.check for finding in bad] == [check]
    assert all(word in bad[0].sentence for word in words)


def test_nodes_that_agree_on_another_lock_than_the_codes_are_to_be_installed_again() -> None:
    old = replace(FACTS, packages="lock 0123456789ab")
    (bad,) = [finding for finding in asked(None, "s3://b", a=old, b=old)["versions"] if not finding.ok]
    assert "are those of lock 0123456789ab" in bad.sentence
    assert f"asks for lock {lock_hash()[:12]}; run make up" in bad.sentence


def test_a_node_that_gives_no_answer_and_a_ledger_on_own_disks(tmp_path: Path) -> None:
    found = asked(Storage(str(tmp_path)), str(tmp_path), a=FACTS, b=TimeoutError("no answer in 60 s"))
    assert "file:///" in found["ledger"][0].sentence
    assert "node b: TimeoutError: no answer in 60 s" in found["nodes"][0].sentence


def test_a_ledger_that_a_node_cannot_use_refuses_a_run() -> None:
    nodes: Any = Nodes(a="", b="ledger s3://b: access is denied")
    refused = RayBackend(nodes, 0, remote=Storage("memory://refusing")).preflight([STAGES["flow"]])
    assert refused == ["node b: ledger s3://b: access is denied"]


def test_a_node_that_dies_while_it_is_asked_refuses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    nodes: Any = Nodes(a="", b=TimeoutError("no answer in 60 s"))
    assert RayBackend(nodes, 0, remote=Storage("memory://refusing")).preflight([STAGES["flow"]]) == []
    assert "note: node b: TimeoutError: no answer in 60 s; the study goes on without it" in capsys.readouterr().err


def test_the_ledgers_probe_finds_another_folder_and_leaves_nothing(root: str, tmp_path: Path) -> None:
    storage = Storage(root)
    assert ledger_trouble(storage) == ""
    assert "another folder" in ledger_trouble(storage, "drivers/probe-of-elsewhere")
    assert ledger_on_nodes(Nodes(a=""), storage) == ([], [])  # type: ignore[arg-type]
    assert not [name for name in storage.find("") if "probe" in name]


def test_a_token_that_others_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    assert "no token there" in token_trouble()
    token.write_text("t")
    token.chmod(0o644)
    assert f"(mode 0644); chmod 600 {token}" in token_trouble()
    token.chmod(0o600)
    assert token_trouble() == ""


def test_the_environment_is_named_by_the_lock_it_was_made_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    assert installed().startswith("packages ")
    (tmp_path / ".ready").write_text("ab" * 32 + "\n")
    assert installed() == "lock abababababab"
    assert node_facts(None, "").packages == "lock abababababab"
    assert process_facts.__wrapped__()["lock"] == "ab" * 32, "what computes, not what travelled"


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_installs_again_when_the_lock_is_another_whatever_its_date(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    lock, ready = tmp_path / "requirements.lock", tmp_path / ".venv/.ready"
    ready.parent.mkdir()
    ready.write_text(hashlib.sha256(lock.read_bytes()).hexdigest() + "\n")

    def is_to_be_made(*, locked_at: float, declared_at: float) -> bool:
        os.utime(lock, (locked_at, locked_at))
        os.utime(tmp_path / "pyproject.toml", (declared_at, declared_at))
        os.utime(ready, (1000.0, 1000.0))
        words = ["make", "--question", f"PYTHON={sys.executable}", ".venv/.ready"]
        return subprocess.run(words, cwd=tmp_path, check=False).returncode == 1

    assert not is_to_be_made(locked_at=500.0, declared_at=500.0)
    assert not is_to_be_made(locked_at=2000.0, declared_at=500.0), "it is the same lock"
    assert is_to_be_made(locked_at=500.0, declared_at=2000.0)
    lock.write_text("another\n")
    assert is_to_be_made(locked_at=500.0, declared_at=500.0), "rsync kept its date"
    ready.write_text("")
    assert is_to_be_made(locked_at=500.0, declared_at=500.0)


def test_make_notes_the_lock() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert 'hashlib.sha256(open("requirements.lock", "rb").read()).hexdigest())' in makefile
    assert "echo $(LOCK) > $@" in makefile
