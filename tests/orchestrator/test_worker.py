import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_stages import STAGES, cell

from orchestrator.graph import CellSpec
from orchestrator.ledger import Ledger
from orchestrator.orders import Event, WorkOrder
from orchestrator.reasons import Reason
from orchestrator.storage import Storage
from orchestrator.trouble import StorageAway
from orchestrator.worker import execute, sentence, stop_marker, threads
from tasks.contract import TaskError


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Storage(str(tmp_path / "ledger")))


def work(
    ledger: Ledger,
    *cells: CellSpec,
    parents: tuple[CellSpec, ...] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Event]:
    order = WorkOrder(
        ledger.storage,
        STAGES[cells[0].stage],
        cells,
        {spec.signature: Reason.NEW for spec in cells},
        {spec.signature: spec.stage for spec in parents},
        "driver",
    )
    events: list[Event] = []
    execute(pickle.loads(pickle.dumps(order)), events.append, should_stop)
    return events


def why(ledger: Ledger, spec: CellSpec) -> Reason:
    return ledger.survey([spec], full=False)[spec.signature][1]


def kinds(events: list[Event], spec: CellSpec) -> list[str]:
    return [event.kind for event in events if event.signature == spec.signature and event.kind != "progress"]


def test_cells_are_published_with_what_they_read(ledger: Ledger) -> None:
    source = cell("source", "a")
    work(ledger, source)
    child = cell("latents", "b", {"source": source})
    events = work(ledger, child, parents=(source,))
    assert kinds(events, child) == ["started", "settled"]
    assert ledger.artefact("latents", child.signature, None).read_bytes("out.txt") == b"b(a)"


def test_a_failed_cell_leaves_the_others_of_its_task_alone(ledger: Ledger) -> None:
    good, bad, late = cell("level", "g"), cell("level", "b", fails="too short"), cell("level", "l")
    events = work(ledger, good, bad, late)
    states = {event.signature: event.status.state for event in events if event.status}
    assert states == {good.signature: "done", bad.signature: "failed", late.signature: "done"}
    found = ledger.status("level", bad.signature)
    assert found is not None
    assert (found.failure, found.reason) == ("too short", Reason.ERROR)


def test_of_several_cells_only_the_one_that_raises_fails(ledger: Ledger) -> None:
    cells = [cell("level", "one"), cell("level", "two", raises="bad number"), cell("level", "three")]
    work(ledger, *cells)
    found = [ledger.status("level", spec.signature) for spec in cells]
    assert [status.state for status in found if status] == ["done", "failed", "done"]
    assert found[1] is not None
    assert found[1].failure == "ValueError: bad number"
    attempt = found[1].attempt
    trace = ledger.storage.read(f"level/{cells[1].signature}/attempts/{attempt}/traceback.txt").decode()
    assert "fake_stages.py" in trace


def test_a_stage_that_cannot_be_imported_fails_its_cells(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    monkeypatch.setitem(STAGES, "source", replace(STAGES["source"], entry="no_such_module:run"))
    spec = cell("source", "a")
    work(ledger, spec)
    found = ledger.status("source", spec.signature)
    assert found is not None
    assert found.failure == "ModuleNotFoundError: No module named 'no_such_module'"


def test_messages_for_people_stay_as_they_were_written() -> None:
    assert sentence(TaskError("3 channels in a.mat;\n allowed: 64")) == "3 channels in a.mat; allowed: 64"
    assert sentence(KeyError()) == "KeyError"


@pytest.mark.parametrize("damage", ["content", "missing"])
def test_a_corrupt_input_names_its_producer_and_publishes_nothing(ledger: Ledger, damage: str) -> None:
    source = cell("source", "a")
    work(ledger, source)
    (file,) = Path(ledger.storage.root).glob("source/*/attempts/*/out/out.txt")
    file.write_text("b") if damage == "content" else file.unlink()
    child, other = cell("latents", "b", {"source": source}), cell("latents", "c")
    events = work(ledger, child, other, parents=(source,))
    corrupt = [event for event in events if event.kind == "corrupt"]
    assert [(event.signature, event.producer) for event in corrupt] == [(child.signature, source.signature)]
    assert corrupt[0].reason is (Reason.CHECKSUM_MISMATCH if damage == "content" else Reason.FILE_MISSING)
    assert ledger.status("latents", child.signature) is None
    assert kinds(events, other)[-1] in ("again", "settled")
    assert why(ledger, child) is Reason.INPUT_CORRUPT


def test_cells_beside_one_with_a_corrupt_input_are_set_back(ledger: Ledger) -> None:
    source = cell("source", "a")
    work(ledger, source)
    (file,) = Path(ledger.storage.root).glob("source/*/attempts/*/out/out.txt")
    file.write_text("b")
    child, other = cell("level", "b", {"source": source}), cell("level", "c")
    events = work(ledger, child, other, parents=(source,))
    assert (kinds(events, child)[-1], kinds(events, other)[-1]) == ("corrupt", "again")
    assert (why(ledger, child), why(ledger, other)) == (Reason.INPUT_CORRUPT, Reason.SET_BACK)


@pytest.mark.parametrize("method", ["begin", "publish"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), Reason.NO_SPACE),
        (StorageAway("s3://b: it does not answer"), Reason.STORAGE_AWAY),
    ],
)
def test_a_ledger_that_fails_loses_the_cells_and_raises_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, method: str, error: OSError, reason: Reason
) -> None:
    def full(*values: object) -> None:
        raise error

    monkeypatch.setattr(Ledger, method, full)
    monkeypatch.setattr(Ledger, "fail", full)
    cells = [cell("level", "a"), cell("level", "b")]
    events = work(ledger, *cells)
    lost = {event.signature: event for event in events if event.kind == "lost"}
    assert list(lost) == [spec.signature for spec in cells]
    assert {event.reason for event in lost.values()} == {reason}
    assert {event.sentence for event in lost.values()} == {f"{type(error).__name__}: {error}"}


def test_a_full_disk_is_no_failure_of_the_cell(ledger: Ledger) -> None:
    spec = cell("level", "a", no_space=True)
    events = work(ledger, spec)
    assert kinds(events, spec) == ["started", "lost"]
    assert ledger.status("level", spec.signature) is None
    assert why(ledger, spec) is Reason.NO_SPACE


def test_a_training_goes_on_from_its_checkpoint(ledger: Ledger) -> None:
    spec = cell("base", "b", steps=6)
    steps: list[int] = []
    order_stop = lambda: len(steps) >= 3  # noqa: E731
    events = work(ledger, spec, should_stop=lambda: steps.append(1) or order_stop())
    assert kinds(events, spec) == ["started", "stopped"]
    assert ledger.status("base", spec.signature) is None
    assert why(ledger, spec) is Reason.STOPPED
    (settled,) = [event for event in work(ledger, spec) if event.kind == "settled"]
    assert settled.status is not None
    assert 0 < settled.status.metrics["began_at"] < 6
    assert [record.outcome for record in settled.status.attempts] == ["interrupted", "done"]


def test_after_a_stop_no_further_cell_is_begun(ledger: Ledger) -> None:
    cells = [cell("level", name) for name in "abc"]
    events = work(ledger, *cells, should_stop=lambda: True)
    assert [event.kind for event in events] == ["stopped"] * 3
    assert not ledger.signatures("level")


def test_cells_published_before_a_stop_are_kept(ledger: Ledger) -> None:
    cells = [cell("level", name) for name in "abc"]
    done: list[str] = []
    order = WorkOrder(
        ledger.storage, STAGES["level"], tuple(cells), dict.fromkeys((c.signature for c in cells), Reason.NEW), {}, "d"
    )
    execute(order, lambda event: done.append(event.signature) if event.kind == "settled" else None, lambda: bool(done))
    assert done == [cells[0].signature]


def test_the_stop_marker_is_seen(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.worker.STOP_CHECK_S", 0.0)
    should_stop = stop_marker(ledger.storage, "drivers/d.stop")
    assert not should_stop()
    ledger.storage.write("drivers/d.stop", b"")
    assert should_stop()


def test_threads_are_those_of_the_stage_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = [pool["num_threads"] for pool in threadpool_info()]
    with threads(1):
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}
        if "torch" in sys.modules:
            assert sys.modules["torch"].get_num_threads() == 1
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
    assert [pool["num_threads"] for pool in threadpool_info()] == before


def test_a_store_that_is_away_is_waited_for_once_however_many_cells_are_given_back(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    asked: list[int] = []

    def away(*values: object, **named: object) -> None:
        asked.append(len(told))
        raise StorageAway("it does not answer")

    monkeypatch.setattr(Ledger, "publish", away)
    monkeypatch.setattr(Ledger, "abandon", away)
    cells = [cell("level", f"l{index}") for index in range(4)]
    order = WorkOrder(ledger.storage, STAGES["level"], tuple(cells), {c.signature: Reason.NEW for c in cells}, {}, "d")
    execute(order, lambda event: told.extend([1] if event.kind == "lost" else []), lambda: False)
    assert len(told) == 4
    assert asked == [0, 4], "once to publish, and to abandon only when the driver has been told of all cells"
