"""Several drivers at one study: they share its work, and none depends on another's word."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_driver import crowd, slow
from fake_stages import STAGES, cell, graph
from test_study_inline import Diary

from orchestrator.claims import Claims
from orchestrator.ledger import Ledger
from orchestrator.progress import Progress
from orchestrator.ready import Task
from orchestrator.reasons import Reason, State
from orchestrator.storage import Storage
from orchestrator.study import Execution, run_study

DRIVER = str(Path(__file__).with_name("fake_driver.py"))
INLINE = Execution(inline=True)


def drive(root: Path, study: str, **environment: str) -> subprocess.Popen[str]:
    """A driver in a process of its own."""
    return subprocess.Popen(
        [sys.executable, DRIVER, str(root), study, "--inline", "--started", "--counts"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def attempts(root: Path) -> dict[str, int]:
    """How often each cell was begun."""
    return {path.parent.name: len(list(path.iterdir())) for path in root.glob("*/*/attempts")}


def wait_for_claims(ledger: Ledger, signatures: list[str]) -> None:
    """Until anybody can read what the driver "other" claims: alone in the ledger, it writes that in a thread."""
    for _ in range(600):
        if any(peer.claims == frozenset(signatures) for peer in ledger.peers("mine", 60.0).values()):
            return
        time.sleep(0.05)
    raise AssertionError(ledger.peers("mine", 60.0))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Storage(str(tmp_path / "ledger")))


def test_what_another_driver_has_in_hand_is_left_to_it(ledger: Ledger, tmp_path: Path) -> None:
    one, two = cell("nap", "one"), cell("nap", "two")
    other = Claims(ledger, "other", graph(one, two))
    other.start()
    other.take([one.signature])
    wait_for_claims(ledger, [one.signature])
    beat = json.loads((tmp_path / "ledger/drivers/other.json").read_text())
    assert beat["claims"] == [one.signature]
    mine = Claims(ledger, "mine", graph(one, two))
    mine.start()
    assert mine.shared
    assert mine.elsewhere(one.signature) == "other"
    assert mine.elsewhere(two.signature) is None
    other.close()
    time.sleep(1.1)
    mine.refresh()
    assert not mine.shared
    mine.close()


def test_each_driver_begins_with_its_own_share(ledger: Ledger) -> None:
    cells = [cell("nap", f"n{index}") for index in range(40)]
    tasks = [Task(STAGES["nap"], (spec,), {}) for spec in cells]
    drivers = [Claims(ledger, name, graph(*cells)) for name in ("a", "b")]
    for driver in drivers:
        driver.start()
    drivers[0].take([])  # whoever begins something looks at the others
    time.sleep(1.3)
    first = []
    for driver in drivers:
        driver.refresh()
        first.append({task.cells[0].name for task in driver.in_order(tasks)[:12]})
    assert not first[0] & first[1]
    stranger = Claims(ledger, "c", graph(cells[0]))
    assert list(stranger.in_order(tasks)) == tasks
    for driver in drivers:
        driver.close()


def test_a_result_of_another_driver_is_taken_over_while_the_study_runs(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other driver finishes a cell after this one's survey, and says nothing of it."""
    one, two = cell("nap", "one", sleep_s=0.2), cell("nap", "two")
    other = Claims(ledger, "other", graph(one))
    other.start()
    done = Ledger.begin

    def begin(self: Ledger, spec: Any, reason: Reason, driver: str) -> Any:
        if spec.name == "one" and driver != "other":
            attempt = done(self, two, Reason.NEW, "other")
            (attempt.out_dir / "out.txt").write_text("two")
            self.publish(attempt, attempt.out_dir, {}, 0.1)
        return done(self, spec, reason, driver)

    monkeypatch.setattr(Ledger, "begin", begin)
    outcome = run_study(graph(one, two), ledger, INLINE, stages=STAGES, driver="mine")
    other.close()
    assert (outcome.exit_code, outcome.done, outcome.cached) == (0, [one.signature], [two.signature])
    assert len(ledger.history("nap", two.signature)) == 1


def test_a_cell_that_two_computed_counts_once_and_is_counted(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = cell("nap", "one")
    publish = Ledger.publish

    def late(self: Ledger, attempt: Any, *values: Any) -> Any:
        if attempt.driver == "mine":
            other = self.begin(spec, Reason.NEW, "other")
            (other.out_dir / "out.txt").write_text("theirs")
            publish(self, other, other.out_dir, {}, 0.1)
        return publish(self, attempt, *values)

    monkeypatch.setattr(Ledger, "publish", late)
    outcome = run_study(graph(spec), ledger, INLINE, stages=STAGES, driver="mine")
    assert (outcome.exit_code, outcome.computed_twice) == (0, ["one"])
    assert sorted(record.outcome for record in ledger.history("nap", spec.signature)) == ["done", "superseded"]
    assert ledger.artefact("nap", spec.signature, None).read_bytes("out.txt") == b"theirs"


def test_a_failure_of_another_driver_is_taken_as_found_though_failures_are_retried(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other driver has tried it again just now: its word counts."""
    one, two = cell("nap", "one", sleep_s=0.2), cell("nap", "two", raises="mine")
    run_study(graph(two), ledger, INLINE, stages=STAGES)
    other = Claims(ledger, "other", graph(one))
    other.start()
    begin = Ledger.begin

    def fail_elsewhere(self: Ledger, spec: Any, reason: Reason, driver: str) -> Any:
        if spec.name == "one":
            self.fail(begin(self, two, Reason.RETRY_REQUESTED, "other"), Reason.ERROR, "theirs", 0.1)
        return begin(self, spec, reason, driver)

    monkeypatch.setattr(Ledger, "begin", fail_elsewhere)
    outcome = run_study(graph(one, two), ledger, replace(INLINE, retry_failed=True), stages=STAGES, driver="mine")
    other.close()
    assert outcome.failed == {two.signature: "theirs"}
    assert len(ledger.history("nap", two.signature)) == 2


def test_a_driver_whose_cells_are_all_in_other_hands_says_so_and_seldom_asks(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = cell("nap", "one")
    other = Claims(ledger, "other", graph(spec))
    other.start()
    other.take([spec.signature])
    wait_for_claims(ledger, [spec.signature])
    looks: list[float] = []
    peers = Ledger.peers

    def look(self: Ledger, driver: str, max_age_s: float) -> Any:
        looks.extend([time.monotonic()] if driver == "mine" else [])
        return peers(self, driver, max_age_s)

    class Told(Diary):
        def waiting(self, others: Mapping[str, int]) -> None:
            self.lines.append(("waiting", dict(others)))

    monkeypatch.setattr("orchestrator.claims.WAITING_S", 0.8)
    monkeypatch.setattr("orchestrator.study.WAITING_S", 0.8)
    monkeypatch.setattr(Ledger, "peers", look)

    def finish() -> None:
        attempt = ledger.begin(spec, Reason.NEW, "other")
        (attempt.out_dir / "out.txt").write_text("theirs")
        ledger.publish(attempt, attempt.out_dir, {}, 0.1)
        other.close()

    threading.Timer(2.5, finish).start()
    diary = Told()
    outcome = run_study(graph(spec), ledger, INLINE, [diary], stages=STAGES, driver="mine")
    assert (outcome.exit_code, outcome.done, outcome.cached) == (0, [], [spec.signature])
    assert ("waiting", {"other": 1}) in diary.lines
    assert ("finished", "one", "done", True) in diary.lines
    assert len(ledger.history("nap", spec.signature)) == 1
    assert len(looks) <= 8


def test_cells_at_work_elsewhere_are_shown_now_and_then() -> None:
    now, out = [100.0], io.StringIO()
    progress = Progress(out, terminal=False, clock=lambda: now[0])
    for _ in range(3):
        progress.waiting({"b": 2, "a": 1})
        progress.waiting({})
        now[0] += 6.0
    assert (
        out.getvalue().splitlines()
        == [
            "waiting: 1 cell at work in driver a",
            "waiting: 2 cells at work in driver b",
        ]
        * 2
    )


def test_a_beat_that_hangs_holds_nobody_up(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, hangs, beats = Claims(ledger, "mine", graph(cell("nap", "one"))), threading.Event(), threading.Event()

    def beat(*values: Any) -> None:
        beats.set()
        hangs.wait(20)

    monkeypatch.setattr(Ledger, "heartbeat", beat)
    thread = threading.Thread(target=mine._beat)
    thread.start()
    assert beats.wait(10)
    mine.take(["a"])
    mine.drop("a")
    assert thread.is_alive()
    hangs.set()
    thread.join()


@pytest.mark.processes
def test_two_drivers_share_the_work_of_one_study(tmp_path: Path) -> None:
    root = tmp_path / "ledger"
    drivers = [drive(root, "crowd") for _ in range(2)]
    told = [driver.communicate(timeout=240)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0]
    counts = [dict(zip(*[iter(text.split("\n")[-2].split())] * 2, strict=True)) for text in told]
    computed = [int(count["done"]) for count in counts]
    assert min(computed) >= 5
    again = sum(number - 1 for number in attempts(root).values())
    assert sum(int(count["twice"]) for count in counts) <= again <= 3
    ledger = Ledger(Storage(str(root)))
    assert {state for state, _, _ in ledger.survey(crowd(), full=True).values()} == {State.CACHED}


@pytest.mark.processes
def test_a_writer_that_sleeps_while_another_takes_over_does_no_harm(tmp_path: Path) -> None:
    root = tmp_path / "ledger"
    sleeper = drive(root, "slow", FAKE_EXPIRES_S="2")
    assert sleeper.stdout is not None
    assert sleeper.stdout.readline().strip() == "started n"
    sleeper.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    other = drive(root, "slow", FAKE_EXPIRES_S="2")
    told = other.communicate(timeout=120)[0]
    assert other.returncode == 0
    assert "twice 0 done 2" in told
    assert time.monotonic() - began > 2
    before = {path: path.read_bytes() for path in root.glob("*/*/status.json")}
    sleeper.send_signal(signal.SIGCONT)
    told = sleeper.communicate(timeout=120)[0]
    assert sleeper.returncode == 0
    assert "twice 1" in told
    assert {path: path.read_bytes() for path in root.glob("*/*/status.json")} == before
    ledger = Ledger(Storage(str(root)))
    nap = next(spec for spec in slow() if spec.stage == "nap")
    assert {state for state, _, _ in ledger.survey(slow(), full=True).values()} == {State.CACHED}
    assert [record.outcome for record in ledger.history("nap", nap.signature)] == ["superseded", "done"]
