"""A result is whole or it is none, and the history says why anything was computed again."""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.graph import CellSpec
from orchestrator.ledger import CRASH_VARIABLE, Attempt, CorruptArtefact, Ledger, Status, StatusDamaged
from orchestrator.local_files import LocalFiles
from orchestrator.provenance import NOTE, _noted, process_facts, source_hash
from orchestrator.reasons import Reason, State
from orchestrator.signature import sign
from orchestrator.storage import Storage, UnsafePath


def cell(subject: str = "S01", stage: str = "trf") -> CellSpec:
    config = {"subject": subject, "snr": math.inf, "level": 0.5}
    inputs = {"eeg": "e" * 32, "surprisal": ("a" * 32, "b" * 32)}
    return CellSpec(stage, f"{stage} {subject}", config, inputs, sign(stage, 1, config, inputs), {"subject": subject})


@pytest.fixture
def ledger(root: str) -> Ledger:
    return Ledger(Storage(root))


@pytest.fixture
def local(tmp_path: Path) -> Ledger:
    return Ledger(Storage(str(tmp_path / "ledger")))


def publish(ledger: Ledger, spec: CellSpec, reason: Reason = Reason.NEW, data: bytes = b"result") -> Status:
    attempt = ledger.begin(spec, reason, "driver")
    (attempt.out_dir / "deep").mkdir()
    (attempt.out_dir / "r.bin").write_bytes(data)
    (attempt.out_dir / "deep" / "table.csv").write_bytes(b"a,b\n1,2\n")
    return ledger.publish(attempt, attempt.out_dir, {"delta_r": 0.5}, 1.25)


def state(ledger: Ledger, spec: CellSpec, full: bool = False) -> tuple[State, Reason]:
    return ledger.survey([spec], full)[spec.signature][:2]


def out(status: Status, name: str = "r.bin") -> str:
    return f"{status.stage}/{status.signature}/attempts/{status.attempt}/out/{name}"


def outcomes(ledger: Ledger, spec: CellSpec) -> list[tuple[Reason, str]]:
    return [(record.reason, record.outcome) for record in ledger.history(spec.stage, spec.signature)]


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


def test_an_attempt_without_status_is_interrupted(ledger: Ledger) -> None:
    spec = cell()
    first = ledger.begin(spec, Reason.NEW, "driver")
    (first.out_dir / "half.bin").write_bytes(b"half")
    assert state(ledger, spec) == (State.TO_DO, Reason.INTERRUPTED)
    status = publish(ledger, spec, Reason.INTERRUPTED)
    assert [(a.reason, a.outcome) for a in status.attempts] == [
        (Reason.NEW, "interrupted"),
        (Reason.INTERRUPTED, "done"),
    ]
    assert [a.id for a in status.attempts] == [first.id, status.attempt]
    assert state(ledger, spec) == (State.CACHED, Reason.DONE)


@pytest.mark.parametrize("why", [Reason.STOPPED, Reason.INPUT_CORRUPT, Reason.SET_BACK])
def test_an_attempt_that_was_given_up_says_why(ledger: Ledger, why: Reason) -> None:
    spec = cell()
    ledger.begin(spec, Reason.NEW, "driver")
    attempt = ledger.begin(spec, Reason.INTERRUPTED, "driver")
    (attempt.out_dir / "half.bin").write_bytes(b"half")
    ledger.abandon(attempt, why)
    assert not attempt.out_dir.exists()
    assert state(ledger, spec) == (State.TO_DO, why)
    ledger.begin(spec, why, "driver")
    assert state(ledger, spec) == (State.TO_DO, Reason.INTERRUPTED)
    publish(ledger, spec, Reason.INTERRUPTED)
    assert [reason for reason, _ in outcomes(ledger, spec)] == [
        Reason.NEW,
        Reason.INTERRUPTED,
        why,
        Reason.INTERRUPTED,
    ]


def test_a_damaged_result_is_superseded_and_the_history_says_why(ledger: Ledger) -> None:
    spec = cell()
    damages: list[tuple[Callable[[Status], None], Reason]] = [
        (lambda status: ledger.storage.delete(out(status)), Reason.FILE_MISSING),
        (lambda status: ledger.storage.write(out(status), b"resul"), Reason.SIZE_MISMATCH),
        (lambda status: ledger.storage.write(f"trf/{status.signature}/status.json", b"{"), Reason.STATUS_DAMAGED),
    ]
    expected = [(Reason.NEW, "done")]
    status = publish(ledger, spec)
    for damage, reason in damages:
        damage(status)
        assert state(ledger, spec) == (State.TO_DO, reason)
        attempt = ledger.begin(spec, reason, "driver")
        assert state(ledger, spec) == (State.TO_DO, Reason.INTERRUPTED)
        (attempt.out_dir / "r.bin").write_bytes(b"result")
        status = ledger.publish(attempt, attempt.out_dir, {}, 1.0)
        expected = [*expected[:-1], (expected[-1][0], "superseded"), (reason, "done")]
        assert outcomes(ledger, spec) == expected
        assert tuple(ledger.history("trf", spec.signature)) == status.attempts


def test_reading_a_damaged_result_names_the_cell(ledger: Ledger, tmp_path: Path) -> None:
    cases: list[tuple[Callable[[Status], None], Reason]] = [
        (lambda status: ledger.storage.write(out(status), b"resulT"), Reason.CHECKSUM_MISMATCH),
        (lambda status: ledger.storage.write(out(status), b"resultt"), Reason.SIZE_MISMATCH),
        (lambda status: ledger.storage.delete(out(status)), Reason.FILE_MISSING),
    ]
    for k, (damage, reason) in enumerate(cases):
        status = publish(ledger, cell(f"S{k}"))
        artefact = ledger.artefact("trf", status.signature, tmp_path / f"cache{k}")
        damage(status)
        with pytest.raises(CorruptArtefact) as caught:
            artefact.open("r.bin")
        error = pickle.loads(pickle.dumps(caught.value))
        assert (error.stage, error.signature, error.file, error.reason) == ("trf", status.signature, "r.bin", reason)
        assert "computed again" in str(error)


def test_damage_after_the_first_read_is_noticed(local: Ledger) -> None:
    status = publish(local, cell())
    artefact = local.artefact("trf", status.signature, None)
    assert artefact.read_bytes("r.bin") == b"result"
    local.storage.write(out(status), b"resulT")
    with pytest.raises(CorruptArtefact):
        artefact.open("r.bin")


def test_remote_files_come_once_and_a_damaged_copy_is_fetched_again(
    s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, cache = Ledger(Storage(s3_root)), tmp_path / "cache"
    status = publish(ledger, cell())
    artefact = ledger.artefact("trf", status.signature, cache)
    assert artefact.read_bytes("r.bin") == b"result"
    (copy,) = (file for file in cache.iterdir() if not file.name.startswith("."))
    copy.write_bytes(b"rotten")
    monkeypatch.setattr("orchestrator.artefacts._verified_in_cache", set())
    assert artefact.read_bytes("r.bin") == b"result"
    assert ledger.artefact("trf", status.signature, None).read_bytes("r.bin") == b"result"
    ledger.storage.delete(out(status))
    assert artefact.read_bytes("r.bin") == b"result"


def test_no_artefact_without_a_whole_result(ledger: Ledger) -> None:
    spec = cell()
    with pytest.raises(CorruptArtefact):
        ledger.artefact("trf", spec.signature, None)
    attempt = ledger.begin(spec, Reason.NEW, "driver")
    with pytest.raises(CorruptArtefact):
        ledger.artefact("trf", spec.signature, None)
    ledger.fail(attempt, Reason.ERROR, "ValueError: no", 0.1)
    with pytest.raises(CorruptArtefact):
        ledger.artefact("trf", spec.signature, None)
    publish(ledger, spec, Reason.RETRY_REQUESTED)
    ledger.storage.write(f"trf/{spec.signature}/config.json", b"{broken")
    with pytest.raises(CorruptArtefact, match=r"config\.json"):
        ledger.artefact("trf", spec.signature, None)
    publish(ledger, spec, Reason.INPUT_CORRUPT)
    assert ledger.artefact("trf", spec.signature, None).read_bytes("r.bin") == b"result"


def test_only_full_survey_hashes_contents(local: Ledger) -> None:
    spec = cell()
    status = publish(local, spec)
    path = local.storage.local_path(out(status))
    assert path is not None
    before = path.stat()
    path.write_bytes(b"resulT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert state(local, spec) == (State.CACHED, Reason.DONE)
    assert state(local, spec, full=True) == (State.TO_DO, Reason.CHECKSUM_MISMATCH)
    publish(local, spec, Reason.CHECKSUM_MISMATCH)
    assert state(local, spec, full=True) == (State.CACHED, Reason.DONE)
    assert outcomes(local, spec) == [(Reason.NEW, "superseded"), (Reason.CHECKSUM_MISMATCH, "done")]


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


def test_a_result_of_another_driver_is_not_taken_away(ledger: Ledger) -> None:
    spec = cell()
    slow, failing = ledger.begin(spec, Reason.NEW, "slow"), ledger.begin(spec, Reason.NEW, "failing")
    first = publish(ledger, spec)
    late = ledger.begin(spec, Reason.NEW, "late")
    assert state(ledger, spec) == (State.CACHED, Reason.DONE)
    (slow.out_dir / "r.bin").write_bytes(b"result")
    assert ledger.publish(slow, slow.out_dir, {}, 1.0) == first
    assert ledger.fail(failing, Reason.ERROR, "MemoryError", 1.0) == first
    assert ledger.status("trf", spec.signature) == first
    told = {record.id: record.outcome for record in ledger.history("trf", spec.signature)}
    assert told == {slow.id: "superseded", failing.id: "failed", first.attempt: "done", late.id: "interrupted"}


CRASHER = """
import sys
from pathlib import Path
sys.path[:0] = [{repo!r}, {tests!r}]
from test_ledger import cell, publish
from orchestrator.ledger import Ledger
from orchestrator.reasons import Reason
from orchestrator.storage import Storage
publish(Ledger(Storage({root!r})), cell(stage="features"))
publish(Ledger(Storage({root!r})), cell())
"""


def test_a_process_killed_before_its_status_leaves_an_interrupted_attempt(local: Ledger) -> None:
    tests = Path(__file__).parent
    code = CRASHER.format(repo=str(tests.parents[1]), tests=str(tests), root=local.storage.root)
    died = subprocess.run([sys.executable, "-c", code], env={**os.environ, CRASH_VARIABLE: "trf"}, check=False)
    assert died.returncode == -signal.SIGKILL
    spec = cell()
    assert state(local, cell(stage="features")) == (State.CACHED, Reason.DONE)
    assert local.status("trf", spec.signature) is None
    assert any(path.endswith("out/r.bin") for path in local.storage.find(f"trf/{spec.signature}"))
    assert local.storage.names("index/trf") == []
    assert state(local, spec) == (State.TO_DO, Reason.INTERRUPTED)
    publish(local, spec, Reason.INTERRUPTED)
    assert outcomes(local, spec) == [(Reason.NEW, "interrupted"), (Reason.INTERRUPTED, "done")]


class Killed(BaseException):
    """What stands for SIGKILL at one moment: nothing after it runs."""


def die_at(moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the writes, moves and deletions of a folder end in death from the one numbered `moment`."""
    count = iter(range(10_000))
    for name in ("write", "adopt", "delete"):
        alive = getattr(LocalFiles, name)

        def mortal(self: LocalFiles, *args: object, alive: Callable[..., None] = alive) -> None:
            if next(count) >= moment:
                raise Killed
            alive(self, *args)

        monkeypatch.setattr(LocalFiles, name, mortal)


@pytest.mark.parametrize("reason", [Reason.NEW, Reason.CHECKSUM_MISMATCH, Reason.RETRY_REQUESTED])
def test_death_at_any_moment_leaves_a_whole_result_or_an_explanation(
    reason: Reason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, ended = cell(), set()
    for moment in range(14):
        ledger = Ledger(Storage(str(tmp_path / str(moment))))
        if reason is Reason.CHECKSUM_MISMATCH:
            ledger.storage.write(out(publish(ledger, spec)), b"resulT")
        elif reason is Reason.RETRY_REQUESTED:
            ledger.fail(ledger.begin(spec, Reason.NEW, "driver"), Reason.ERROR, "no", 0.0)
        before = state(ledger, spec, full=True)
        with monkeypatch.context() as patch:
            die_at(moment, patch)
            try:
                publish(ledger, spec, reason)
            except Killed:
                ended.add("killed")
            else:
                ended.add("done")
        after = state(ledger, spec, full=True)
        assert after in {before, (State.TO_DO, Reason.INTERRUPTED), (State.CACHED, Reason.DONE)}
        if after[0] is not State.CACHED:
            publish(ledger, spec, Reason.RETRY_REQUESTED if after[0] is State.FAILED else after[1])
        assert state(ledger, spec, full=True) == (State.CACHED, Reason.DONE)
        told = outcomes(ledger, spec)
        assert [outcome for _, outcome in told].count("done") == 1
        assert told[-1][1] == "done"
        if reason is not Reason.NEW:
            assert told[0] == (Reason.NEW, "failed" if reason is Reason.RETRY_REQUESTED else "superseded")
    assert ended == {"killed", "done"}


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


@pytest.mark.parametrize("flip", range(0, 1000, 37))
def test_a_flipped_byte_of_a_status_is_noticed(flip: int) -> None:
    status = Status("trf", "ab", "n", "done", "a1", {}, {"p": 0.04}, None, Reason.DONE, 1.0, (), {"cpu": "x" * 800})
    data = bytearray(status.to_json())
    assert Status.from_json(bytes(data)) == status
    data[flip % len(data)] ^= 0x01
    try:
        read = Status.from_json(bytes(data))
    except StatusDamaged:
        return
    assert read == status


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b'"done"', b"{}", b"\xff\xfe", b'{"checksum": 1}'])
def test_what_is_no_status_is_damaged(data: bytes) -> None:
    with pytest.raises(StatusDamaged):
        Status.from_json(data)


def test_a_status_copied_from_another_cell_does_not_count(ledger: Ledger) -> None:
    one, two = cell("S01"), cell("S02")
    publish(ledger, one)
    ledger.storage.write(f"trf/{two.signature}/status.json", ledger.storage.read(f"trf/{one.signature}/status.json"))
    assert state(ledger, two) == (State.TO_DO, Reason.STATUS_DAMAGED)
    with pytest.raises(StatusDamaged, match="another cell"):
        ledger.status("trf", two.signature)


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


def test_drivers_are_alive_while_they_beat(ledger: Ledger) -> None:
    assert ledger.alive_drivers(60) == set()
    ledger.heartbeat("d1")
    ledger.heartbeat("d2")
    assert ledger.alive_drivers(60) == {"d1", "d2"}
    time.sleep(1.1)
    ledger.heartbeat("d2")
    assert ledger.alive_drivers(0.9) == {"d2"}
    ledger.leave("d2")
    assert ledger.alive_drivers(60) == {"d1"}


def test_a_killed_driver_is_dead_at_once(local: Ledger) -> None:
    code = (
        "import sys, time; from orchestrator.ledger import Ledger; from orchestrator.storage import Storage\n"
        f"Ledger(Storage({local.storage.root!r})).heartbeat('d'); print('ready', flush=True); time.sleep(60)"
    )
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert driver.stdout is not None
    assert driver.stdout.readline() == b"ready\n"
    assert local.alive_drivers(60) == {"d"}
    driver.kill()
    while local.alive_drivers(60) and driver.poll() is None:
        time.sleep(0.01)
    driver.wait()
    assert local.alive_drivers(60) == set()


def test_a_heartbeat_of_a_reused_process_id_or_another_host(local: Ledger) -> None:
    local.heartbeat("d")
    record = json.loads(local.storage.read("drivers/d.json"))
    local.storage.write("drivers/reused.json", json.dumps({**record, "start": "1"}).encode())
    local.storage.write("drivers/remote.json", json.dumps({**record, "host": "other", "pid": 1}).encode())
    local.storage.write("drivers/broken.json", b"{")
    assert local.alive_drivers(60) == {"d", "remote"}


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


def test_a_result_that_comes_in_between_is_never_removed(local: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another driver publishes while this one sets the old failure aside, and then fails itself."""
    spec = cell()
    late = local.begin(spec, Reason.NEW, "late")
    local.fail(local.begin(spec, Reason.NEW, "driver"), Reason.ERROR, "no", 0.1)
    write, done = Storage.write, []

    def between(self: Storage, path: str, data: bytes) -> None:
        write(self, path, data)
        if path.endswith("superseded.json") and not done:
            done.append(path)
            other = publish(Ledger(Storage(self.root)), spec, Reason.RETRY_REQUESTED)
            assert other.state == "done"

    monkeypatch.setattr(Storage, "write", between)
    counts = local.fail(late, Reason.ERROR, "no", 0.1)
    assert done
    assert counts.state == "done"
    assert state(local, spec, full=True) == (State.CACHED, Reason.DONE)
