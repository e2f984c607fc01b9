import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_stages import STAGES, cell, graph

from orchestrator import backends
from orchestrator.graph import CellSpec, Graph
from orchestrator.ledger import Ledger, Status
from orchestrator.orders import Emit, Event, WorkOrder
from orchestrator.reasons import Reason, State
from orchestrator.storage import Storage
from orchestrator.study import Execution, Outcome, run_study
from orchestrator.trouble import StorageAway

INLINE = Execution(inline=True)


class Diary:
    """An observer that writes everything down."""

    def __init__(self) -> None:
        self.lines: list[tuple[Any, ...]] = []

    def study_started(self, planned: Graph, states: Mapping[str, Any]) -> None:
        self.lines.append(("study_started", len(planned), len(states)))

    def cell_started(self, spec: CellSpec, reason: Reason) -> None:
        self.lines.append(("started", spec.name, reason))

    def cell_progress(self, spec: CellSpec, step: int, total: int, metrics: Mapping[str, float]) -> None:
        self.lines.append(("progress", spec.name, step, total))

    def cell_finished(self, spec: CellSpec, status: Status, cached: bool) -> None:
        self.lines.append(("finished", spec.name, status.state, cached))

    def study_finished(self, outcome: Outcome) -> None:
        self.lines.append(("study_finished", outcome.exit_code))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Storage(str(tmp_path / "ledger")))


def small_study(**bad: Any) -> Graph:
    source, base = cell("source", "s"), cell("base", "b", steps=2)
    arm = cell("arm", "a", {"base": base})
    latents = [cell("latents", f"latents {role}", {"arm": arm, "corpus": source}) for role in ("train", "melodies")]
    flow = cell("flow", "f", {"train": latents[0]})
    levels = [
        cell("level", f"level {index}", {"flow": flow}, index=index, **(bad if index == 1 else {}))
        for index in range(3)
    ]
    group = cell("group", "g", {"levels": levels})
    return graph(source, base, arm, *latents, flow, *levels, group)


def without_failed(spec: CellSpec, failed: Mapping[str, str]) -> CellSpec | None:
    left = tuple(signature for signature in spec.inputs["levels"] if signature not in failed)
    return CellSpec(spec.stage, spec.name, spec.config, {"levels": left}, "f" * 32, spec.labels) if left else None


def test_everything_is_computed_once_and_then_never_again(ledger: Ledger) -> None:
    planned, diary = small_study(), Diary()
    outcome = run_study(planned, ledger, INLINE, [diary], stages=STAGES)
    assert (outcome.exit_code, len(outcome.done), outcome.cached) == (0, len(planned), [])
    assert diary.lines[0] == ("study_started", 10, 10)
    assert ("progress", "b", 2, 2) in diary.lines
    assert diary.lines[-1] == ("study_finished", 0)
    diary = Diary()
    again = run_study(planned, ledger, INLINE, [diary], stages=STAGES)
    assert (again.exit_code, again.done, len(again.cached)) == (0, [], len(planned))
    assert ("finished", "g", "done", True) in diary.lines


def test_one_failure_costs_one_cell_and_the_aggregate_says_so(ledger: Ledger) -> None:
    planned = small_study(raises="division by zero")
    outcome = run_study(planned, ledger, INLINE, reduce=without_failed, stages=STAGES)
    bad = next(spec for spec in planned if spec.name == "level 1")
    assert outcome.exit_code == 1
    assert outcome.failed == {bad.signature: "ValueError: division by zero"}
    assert [spec.signature for spec in outcome.reduced.values()] == ["f" * 32]
    assert len(outcome.done) == len(planned) - 1
    again = run_study(planned, ledger, INLINE, reduce=without_failed, stages=STAGES)
    assert (again.exit_code, again.done, len(again.cached)) == (1, [], len(planned) - 1)


def test_failed_cells_are_tried_again_on_request(ledger: Ledger) -> None:
    planned = graph(cell("source", "bad", raises="x"), cell("source", "good"))
    run_study(planned, ledger, INLINE, stages=STAGES)
    diary = Diary()
    run_study(planned, ledger, Execution(inline=True, retry_failed=True), [diary], stages=STAGES)
    assert [line for line in diary.lines if line[0] == "started"] == [("started", "bad", Reason.RETRY_REQUESTED)]


def test_a_deleted_result_is_computed_again_and_what_was_made_of_it_is_kept(ledger: Ledger) -> None:
    planned = small_study()
    run_study(planned, ledger, INLINE, stages=STAGES)
    (file,) = Path(ledger.storage.root).glob("base/*/attempts/*/out/out.txt")
    file.unlink()
    diary = Diary()
    outcome = run_study(planned, ledger, INLINE, [diary], stages=STAGES)
    assert [line for line in diary.lines if line[0] == "started"] == [("started", "b", Reason.FILE_MISSING)]
    assert (outcome.exit_code, len(outcome.done)) == (0, 1)


def test_an_input_that_turns_corrupt_while_the_study_runs_is_computed_again(ledger: Ledger) -> None:
    source, trigger = cell("source", "s"), cell("nap", "n")
    child = cell("level", "c", {"source": source, "nap": trigger})
    diary = Diary()

    class Vandal(Diary):
        def cell_finished(self, spec: CellSpec, status: Status, cached: bool) -> None:
            if spec.name == "n" and not cached:
                (file,) = Path(ledger.storage.root).glob("source/*/attempts/*/out/out.txt")
                file.write_text("?")

    outcome = run_study(graph(source, trigger, child), ledger, INLINE, [diary, Vandal()], stages=STAGES)
    assert outcome.exit_code == 0
    started = [line[1:] for line in diary.lines if line[0] == "started"]
    assert started[-3:] == [("c", Reason.NEW), ("s", Reason.CHECKSUM_MISMATCH), ("c", Reason.INPUT_CORRUPT)]
    assert ledger.artefact("level", child.signature, None).read_bytes("out.txt") == b"c(s)(n)"


def test_an_observer_that_raises_is_named_once_and_stops_nothing(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    class Grumpy(Diary):
        def cell_started(self, spec: CellSpec, reason: Reason) -> None:
            raise ConnectionError("no tracking server")

    outcome = run_study(small_study(), ledger, INLINE, [Grumpy()], stages=STAGES)
    assert outcome.exit_code == 0
    assert capsys.readouterr().err.count("no tracking server") == 1


def test_what_was_left_out_is_named_and_not_a_full_success(ledger: Ledger) -> None:
    planned = graph(
        cell("source", "one", skipped=["a.wav: silent"]),
        cell("source", "two", skipped=["a.wav: silent", "b.wav: cut off"], n_skipped=5),
        cell("source", "three", skipped=[]),
        cell("source", "four", n_skipped=1),
    )
    expected = {
        "a.wav: silent": ["one", "two"],
        "b.wav: cut off": ["two"],
        "3 more left out; the cell's files name them": ["two"],
        "1 left out; the cell's files name them": ["four"],
    }
    for cached in (0, 4):
        outcome = run_study(planned, ledger, INLINE, stages=STAGES)
        assert (outcome.exit_code, len(outcome.cached)) == (1, cached)
        assert outcome.excluded == expected


class FullDisk(Ledger):
    """A ledger in which attempts cannot be begun `times` times."""

    def __init__(self, storage: Storage, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(storage)
        left, begin = iter(range(times)), Ledger.begin

        def full(self: Ledger, *values: Any) -> Any:
            if next(left, None) is not None:
                raise OSError(28, "No space left on device")
            return begin(self, *values)

        monkeypatch.setattr(Ledger, "begin", full)


def test_a_ledger_that_stays_full_ends_the_study_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.schedule.FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr("orchestrator.schedule.PATIENCE_S", 0.3)
    ledger, diary = FullDisk(Storage(str(tmp_path / "ledger")), 1000, monkeypatch), Diary()
    outcome = run_study(small_study(), ledger, INLINE, [diary], stages=STAGES)
    assert (outcome.exit_code, outcome.aborted, outcome.done) == (1, None, [])
    assert all("no room left on its disk for too long" in sentence for sentence in outcome.failed.values())
    assert diary.lines[-1] == ("study_finished", 1)
    assert not ledger.alive_drivers(60.0)


def test_a_ledger_that_is_full_for_a_moment_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.schedule.FIRST_PAUSE_S", 0.1)
    ledger = FullDisk(Storage(str(tmp_path / "ledger")), 2, monkeypatch)
    outcome = run_study(small_study(), ledger, INLINE, stages=STAGES)
    assert (outcome.exit_code, outcome.aborted, len(outcome.done)) == (0, None, 10)


def test_an_error_of_the_driver_is_not_a_failure_of_the_stage(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*values: Any) -> None:
        raise KeyError("bookkeeping")

    monkeypatch.setattr("orchestrator.schedule.Schedule.progressed", broken)
    outcome = run_study(small_study(), ledger, INLINE, stages=STAGES)
    assert (outcome.exit_code, outcome.failed) == (1, {})
    assert outcome.aborted is not None
    assert "bookkeeping" in outcome.aborted


def smaller_and_broken(spec: CellSpec, failed: Mapping[str, str]) -> CellSpec:
    left = [signature for signature in spec.inputs["levels"] if signature not in failed]
    return replace(spec, config={"name": "g", "raises": "too few"}, inputs={"levels": tuple(left)}, signature="e" * 32)


def test_a_reduced_aggregate_that_failed_stays_failed_until_it_is_retried(ledger: Ledger) -> None:
    planned, started = small_study(raises="division by zero"), []
    for execution in (INLINE, INLINE, replace(INLINE, retry_failed=True)):
        diary = Diary()
        outcome = run_study(planned, ledger, execution, [diary], reduce=smaller_and_broken, stages=STAGES)
        assert (outcome.exit_code, sorted(outcome.failed.values())) == (
            1,
            ["ValueError: division by zero", "ValueError: too few"],
        )
        started.append([line[2] for line in diary.lines if line[:2] == ("started", "g")])
    assert started == [[Reason.NEW], [], [Reason.RETRY_REQUESTED]]


def test_a_stop_that_cannot_be_written_down_is_still_a_stop(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Storage.write

    def full(self: Storage, path: str, data: bytes) -> None:
        if path.endswith(".stop"):
            raise OSError(28, "No space left on device")
        write(self, path, data)

    class Impatient(Diary):
        def cell_started(self, spec: CellSpec, reason: Reason) -> None:
            if spec.name == "b":
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Storage, "write", full)
    outcome = run_study(small_study(), ledger, INLINE, [Impatient()], stages=STAGES)
    assert (outcome.exit_code, outcome.aborted) == (130, None)


def test_files_of_killed_drivers_go_when_the_next_one_starts(ledger: Ledger) -> None:
    ledger.heartbeat("alive")
    record = json.loads(ledger.storage.read("drivers/alive.json"))
    ledger.storage.write("drivers/killed.json", json.dumps({**record, "start": "1"}).encode())
    ledger.storage.write("drivers/killed.stop", b"")
    ledger.storage.write("drivers/elsewhere.json", json.dumps({**record, "host": "other"}).encode())
    run_study(graph(cell("source", "s")), ledger, INLINE, stages=STAGES)
    assert ledger.storage.names("drivers") == ["alive.json", "clock", "elsewhere.json"]


def test_inline_imports_neither_ray_nor_torch(tmp_path: Path) -> None:
    found = driver(tmp_path, "small", "--inline", "--modules")
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1].split() == ["ray=False", "torch=False", "mlflow=False"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_checkpoint_and_tells_by_the_exit_code(tmp_path: Path, signum: signal.Signals) -> None:
    process = start_driver(tmp_path, "training", "--inline")
    assert process.stdout is not None
    assert process.stdout.readline() == "b 3\n"
    process.send_signal(signum)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 128 + signum, err
    assert "checkpoints are being written" in err
    assert driver(tmp_path, "training", "--inline").returncode == 0
    (status,) = statuses(tmp_path, "base")
    assert status.metrics["began_at"] >= 3
    assert [record.outcome for record in status.attempts] == ["interrupted", "done"]
    assert status.attempts[1].reason is Reason.STOPPED


def driver(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    process = start_driver(folder, *arguments)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def start_driver(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    script = Path(__file__).with_name("fake_driver.py")
    here = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, str(script), str(folder / "ledger"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(here), "PYTHONUNBUFFERED": "1"},
    )


def statuses(folder: Path, stage: str) -> list[Status]:
    ledger = Ledger(Storage(str(folder / "ledger")))
    found = [ledger.status(stage, signature) for signature in ledger.signatures(stage)]
    return [status for status in found if status is not None]


def test_trouble_of_a_node_is_waited_out(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.schedule.FIRST_PAUSE_S", 0.2)
    room = tmp_path / "room"
    spec, other = cell("latents", "a", no_space=str(room)), cell("latents", "b")
    threading.Timer(1.0, room.touch).start()
    outcome = run_study(graph(spec, other), ledger, INLINE, stages=STAGES)
    assert outcome.exit_code == 0
    history = ledger.history("latents", spec.signature)
    assert {record.reason for record in history[1:]} == {Reason.NO_SPACE}
    assert [record.outcome for record in history][-1] == "done"
    assert 1 < len(history) < 8


def test_trouble_that_lasts_fails_the_cell_in_the_end(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.schedule.FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr("orchestrator.schedule.PATIENCE_S", 0.5)
    spec = cell("latents", "a", no_space=str(tmp_path / "never"))
    outcome = run_study(graph(spec), ledger, INLINE, stages=STAGES)
    assert outcome.exit_code == 1
    assert "no room left on its disk for too long" in outcome.failed[spec.signature]
    assert ledger.survey([spec], full=True)[spec.signature][:2] == (State.FAILED, Reason.FAILED_BEFORE)


def test_a_ledger_that_stays_away_gives_no_false_done(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.schedule.FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr("orchestrator.schedule.PATIENCE_S", 0.3)

    def away(*values: object, **named: object) -> None:
        raise StorageAway("it does not answer")

    monkeypatch.setattr(Ledger, "publish", away)
    monkeypatch.setattr(Ledger, "abandon", away)
    monkeypatch.setattr(Ledger, "fail", away)
    spec = cell("latents", "a")
    outcome = run_study(graph(spec), ledger, INLINE, stages=STAGES)
    assert (outcome.exit_code, outcome.done) == (1, [])
    assert "the ledger did not answer for too long" in outcome.failed[spec.signature]
    monkeypatch.undo()
    assert ledger.survey([spec], full=True)[spec.signature][:2] == (State.TO_DO, Reason.INTERRUPTED)


def test_a_ledger_that_is_away_when_something_should_start_is_waited_for(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.schedule.FIRST_PAUSE_S", 0.1)
    ledger.heartbeat("other")  # so that the ledger is asked before anything starts
    survey, asked = Ledger.survey, iter([True, False, True, True])

    def away(self: Ledger, *values: Any, **named: Any) -> Any:
        if next(asked, True):
            return survey(self, *values, **named)
        raise StorageAway("it does not answer")

    monkeypatch.setattr(Ledger, "survey", away)
    planned = small_study()
    outcome = run_study(planned, ledger, INLINE, stages=STAGES)
    assert (outcome.exit_code, outcome.aborted, len(outcome.done)) == (0, None, len(planned))


@pytest.mark.parametrize("unheard", [{"settled"}, {"started", "progress", "settled"}])
def test_a_result_whose_word_was_lost_is_not_computed_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, unheard: set[str]
) -> None:
    """The process is lost after it published and before the driver heard of it, or of anything."""
    monkeypatch.setattr("orchestrator.schedule.FIRST_PAUSE_S", 0.1)
    execute, lost = backends.execute, iter([True])

    def forgetful(order: WorkOrder, emit: Emit, should_stop: Any) -> None:
        is_lost = next(lost, False)

        def tell(event: Event) -> None:
            if not is_lost or event.kind not in unheard:
                emit(event)
            elif event.kind == "settled":
                emit(Event("lost", event.signature, sentence="its node died"))

        execute(order, tell, should_stop)

    monkeypatch.setattr(backends, "execute", forgetful)
    spec = cell("base", "b", steps=3)
    outcome = run_study(graph(spec), ledger, INLINE, stages=STAGES)
    assert (outcome.exit_code, outcome.done, outcome.computed_twice) == (0, [spec.signature], [])
    assert [record.outcome for record in ledger.history("base", spec.signature)] == ["done"]
