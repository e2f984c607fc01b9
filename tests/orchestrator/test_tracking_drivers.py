"""Runs of several drivers, dead and alive."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from pathlib import Path

from tracked import STUDY, client_of, mirror_all, outcome, runs_of, small_study, tracking_of

from orchestrator import mirror
from orchestrator.graph import Graph
from orchestrator.reasons import Reason


def test_runs_of_a_dead_driver_are_closed_and_taken_up_again(uri):
    graph, ledger = small_study(eeg=False)
    cell = next(cell for cell in graph if cell.stage == "flow")
    status = ledger.statuses.pop(cell.signature)
    killed = tracking_of(uri, ledger, "killed")
    killed.study_started(graph, ledger.survey(graph, full=False))
    killed.cell_started(cell, Reason.NEW)
    for step in (1, 2, 3):
        killed.cell_progress(cell, step, 40, {"train_loss": 1.0 / step})
    killed._do("points", killed._flush)
    assert killed._writer.drain(60)  # and it dies here
    before = runs_of(uri)
    assert before[cell.name].info.status == before[STUDY].info.status == "RUNNING"

    other = Graph({key: spec for key, spec in graph.cells.items() if key != cell.signature})
    bystander = tracking_of(uri, ledger, "bystander")
    mirror_all(bystander, other, ledger)
    closed = runs_of(uri)[cell.name]
    assert closed.info.status == "KILLED"
    assert closed.data.tags["stop_reason"] == "lost_process"

    ledger.statuses[cell.signature] = status
    resumed = tracking_of(uri, ledger, "resumed")
    resumed.study_started(
        graph, {key: value for key, value in ledger.survey(graph, full=False).items() if key != cell.signature}
    )
    resumed.cell_started(cell, Reason.INTERRUPTED)
    for step in (2, 3, 4):
        resumed.cell_progress(cell, step, 40, {"train_loss": 1.0 / step})
    resumed.cell_finished(cell, status, False)
    resumed.study_finished(outcome())
    resumed.close()
    after = runs_of(uri)[cell.name]
    assert after.info.run_id == closed.info.run_id
    assert after.info.status == "FINISHED"
    assert "stop_reason" not in after.data.tags
    points = [point.step for point in client_of(uri).get_metric_history(after.info.run_id, "train_loss")]
    assert sorted(points) == list(range(1, 41))


def test_run_killed_between_its_last_tags_and_its_end_is_finished_later(uri):
    """A kill there leaves RUNNING with the attempt that counts, and the next start makes KILLED of it."""
    graph, ledger = small_study(eeg=False)
    cell = next(cell for cell in graph if cell.stage == "flow")
    status = ledger.statuses[cell.signature]
    killed = tracking_of(uri, ledger, "killed")
    killed.study_started(graph, {})
    content = mirror.training(cell)
    killed._do("begin", lambda store: store.begin(content, {**mirror.attempt_tags(status), "driver": "killed"}))
    killed._do("log", lambda store: store.log(content.key, [(1, {"train_loss": 1.0})]))
    assert killed._writer.drain(60)  # and it dies here
    mirror_all(tracking_of(uri, ledger, "next"), graph, ledger)
    run = runs_of(uri)[cell.name]
    assert run.info.status == "FINISHED"
    assert "stop_reason" not in run.data.tags
    points = client_of(uri).get_metric_history(run.info.run_id, "train_loss")
    assert sorted(point.step for point in points) == list(range(1, 41))
    assert run.data.metrics["final/train_loss"] == 0.1


def test_two_drivers_share_the_run_of_an_identity(uri):
    """The second opened the store before the first made its runs."""
    graph, ledger = small_study(eeg=False)
    one, two = (tracking_of(uri, ledger, name) for name in ("one", "two"))
    stores = [tracking._open() for tracking in (one, two)]
    quoted = mirror.evaluation("layernorm files=['a']", {})
    for content in (mirror.parent(STUDY), *map(mirror.training, (c for c in graph if c.stage == "flow")), quoted):
        for store, driver in zip(stores, ("one", "two"), strict=True):
            store.begin(content, {"driver": driver})
    client = client_of(uri)
    runs = client.search_runs([client.get_experiment_by_name(STUDY).experiment_id])
    assert sorted(run.info.run_name for run in runs) == sorted(
        [STUDY, *(cell.name for cell in graph if cell.stage == "flow"), quoted.name]
    )
    for run in runs:
        assert len(run.inputs.dataset_inputs) == int(run.data.tags["kind"] == mirror.TRAINING)


def _flow_run(uri, study=STUDY):
    """All runs of trainings, deleted ones left out."""
    client = client_of(uri)
    return client.search_runs([client.get_experiment_by_name(study).experiment_id], "tags.kind = 'training'")


def test_two_drivers_that_make_a_run_at_once_keep_one(uri, monkeypatch):
    """Neither finds a run; both make one; both then agree which of them stays."""
    from mlflow.exceptions import MlflowException

    from orchestrator.tracking import Store

    graph, ledger = small_study(eeg=False)
    cell = next(cell for cell in graph if cell.stage == "flow")
    stores = [tracking_of(uri, ledger, name)._open() for name in ("one", "two")]
    both = threading.Barrier(2)
    find = Store._find

    def find_both(store, content):
        found = find(store, content)
        both.wait(30)
        return found

    monkeypatch.setattr(Store, "_find", find_both)

    def begin(number, driver):
        for content in (mirror.parent(STUDY), mirror.training(cell)):
            with contextlib.suppress(MlflowException):  # the other deleted its run in the midst of its writing
                stores[number].begin(content, {"driver": driver})

    threads = [threading.Thread(target=begin, args=pair) for pair in enumerate(("one", "two"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (run,) = _flow_run(uri)
    assert set(runs_of(uri)) == {STUDY, cell.name}
    for store in stores:  # whoever was the second knows by its next job
        try:
            store.tag(("training", cell.signature), {"told": store.run_id(("training", cell.signature))})
        except MlflowException:
            store = tracking_of(uri, ledger)._open()
        assert store.run_id(("training", cell.signature)) == run.info.run_id


def test_driver_whose_run_was_the_second_goes_on_with_the_first(uri):
    """By the other's clock, which is slow, its run is the older one."""
    graph, ledger = small_study(eeg=False)
    cell = next(cell for cell in graph if cell.stage == "flow")
    other = tracking_of(uri, ledger, "other")._open()
    create, search = other._client.create_run, other._search
    other._client.create_run = lambda *values, **named: create(*values, start_time=1, **named)
    tracking = tracking_of(uri, ledger, "driver")
    tracking.study_started(graph, {})
    tracking.cell_started(cell, Reason.NEW)
    tracking._do("points", lambda store: store.log(mirror.training(cell).key, [(1, {"train_loss": 1.0})]))
    assert tracking._writer.drain(60)
    blind = [True, True]
    other._search = lambda wanted="": [] if blind and blind.pop() else search(wanted)
    other.begin(mirror.parent(STUDY), {"driver": "other"})
    blind.extend([True])
    other.begin(mirror.training(cell), {"driver": "other"})
    tracking.cell_finished(cell, ledger.statuses[cell.signature], False)
    tracking.study_finished(outcome())
    tracking.close()
    (run,) = _flow_run(uri)
    assert run.info.start_time == 1
    assert run.info.status == "FINISHED"
    points = client_of(uri).get_metric_history(run.info.run_id, "train_loss")
    assert sorted(point.step for point in points) == list(range(1, 41))
    assert run.data.tags["mlflow.parentRunId"] == runs_of(uri)[STUDY].info.run_id


def test_all_second_runs_of_dead_drivers_are_closed(uri):
    graph, ledger = small_study(eeg=False)
    cell = next(cell for cell in graph if cell.stage == "flow")
    store = tracking_of(uri, ledger)._open()
    store.begin(mirror.parent(STUDY), {"driver": "gone"})
    store.begin(mirror.training(cell), {"driver": "gone"})
    tags = {key: value for key, value in store._runs["training", cell.signature].data.tags.items() if key != "x"}
    client_of(uri).create_run(store._experiment, tags=tags)
    store.close_dead([])
    assert {run.info.status for run in _flow_run(uri)} == {"KILLED"}
    assert store.running("gone") == []


def test_what_another_driver_runs_is_looked_at_again(uri, study):
    """Else the short cut for what is mirrored already would never close the runs of one that dies later."""
    graph, ledger, report = study
    other = tracking_of(uri, ledger, "other")
    ledger.alive.add("other")
    other.study_started(graph, {})
    cell = next(cell for cell in graph if cell.stage == "flow")
    other.cell_started(replace(cell, signature="ab" * 16, name="flow of another"), Reason.NEW)
    assert other._writer.drain(60)
    mirror_all(tracking_of(uri, ledger, "second"), graph, ledger, report)
    ledger.alive.clear()
    assert not Path(uri.removeprefix("sqlite:///") + ".mirrored.json").exists()
    mirror_all(tracking_of(uri, ledger, "third"), graph, ledger, report)
    runs = runs_of(uri)
    assert runs.pop("flow of another").info.status == "KILLED"
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_runs_of_a_living_driver_are_left_alone(uri):
    graph, ledger = small_study(eeg=False)
    cell = next(cell for cell in graph if cell.stage == "flow")
    one = tracking_of(uri, ledger, "living")
    one.study_started(graph, {})
    one.cell_started(cell, Reason.NEW)
    assert one._writer.drain(60)
    ledger.alive.add("living")
    two = tracking_of(uri, ledger, "second")
    two.study_started(graph, {})
    assert two._writer.drain(60)
    assert runs_of(uri)[cell.name].info.status == "RUNNING"


def test_stop_kills_what_runs(uri):
    graph, ledger = small_study(eeg=False)
    cell = next(cell for cell in graph if cell.stage == "flow")
    tracking = tracking_of(uri, ledger)
    tracking.study_started(graph, {})
    tracking.cell_started(cell, Reason.NEW)
    tracking.study_finished(outcome(stopped=True, exit_code=130))
    tracking.close()
    runs = runs_of(uri)
    assert {runs[STUDY].info.status, runs[cell.name].info.status} == {"KILLED"}
    assert runs[cell.name].data.tags["stop_reason"] == "stopped"
