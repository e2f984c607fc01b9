"""Attempts and drivers that die, and others in between: the history says why anything was computed again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ledger_cells import cell, out, outcomes, publish, state

from orchestrator.ledger import CRASH_VARIABLE, Ledger
from orchestrator.local_files import LocalFiles
from orchestrator.reasons import Reason, State
from orchestrator.storage import Storage


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
from ledger_cells import cell, publish
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
