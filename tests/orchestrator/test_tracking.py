# ruff: noqa: E501
from __future__ import annotations

import contextlib
import http.server
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import made_up_study
import pytest

from orchestrator import mirror
from orchestrator.background import Background, Trouble
from orchestrator.graph import Graph
from orchestrator.reasons import Reason
from orchestrator.report import Report, build
from orchestrator.tracker import Tracking

ROOT = Path(__file__).parents[2]
STUDY = "demo"


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """A store whose schema exists: making one takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    _tracking(uri, made_up_study.FakeLedger())._open()
    return Path(uri.removeprefix("sqlite:///"))


@pytest.fixture
def uri(empty_store, tmp_path):
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    client = f"sqlite:///{tmp_path / 'mlflow.db'}"
    _delete_experiment(tmp_path / "mlflow.db")
    return client


def _delete_experiment(path: Path) -> None:
    with sqlite3.connect(path) as store:
        store.execute("DELETE FROM experiment_tags")
        store.execute("DELETE FROM experiments WHERE name = ?", (STUDY,))
    store.close()


def _tracking(uri, ledger, driver="one", study=STUDY, said=None):
    return Tracking(uri, study, ledger, driver, (said if said is not None else []).append)


def _client(uri):
    from mlflow import MlflowClient

    return MlflowClient(uri)


def _runs(uri, study=STUDY):
    client = _client(uri)
    experiment = client.get_experiment_by_name(study)
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id], max_results=1000)}


def _outcome(stopped=False, exit_code=0):
    return SimpleNamespace(stopped=stopped, exit_code=exit_code)


def _small(**options):
    return made_up_study.make(("layernorm",), {"none": ("none", 0.0), "E+D m=0.0": ("encoder+decoder", 0.0)}, **options)


def _all_cached(tracking, graph, ledger, report=None):
    states = ledger.survey(graph, full=False)
    tracking.study_started(graph, states)
    for cell in graph:
        tracking.cell_finished(cell, states[cell.signature][2], True)
    tracking.study_finished(_outcome())
    if report is not None:
        tracking.report_built(report)
    tracking.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    graph, ledger = _small()
    return graph, ledger, build(graph, ledger, STUDY, tmp_path_factory.mktemp("report"))


def test_second_start_finds_the_same_runs(uri, study):
    graph, ledger, report = study
    _all_cached(_tracking(uri, ledger), graph, ledger, report)
    first = {name: run.info.run_id for name, run in _runs(uri).items()}
    assert set(first) == {STUDY, "base layernorm", "ae layernorm none", "ae layernorm E+D m=0.0", "flow layernorm none",
                          "flow layernorm E+D m=0.0", "evaluation layernorm none", "evaluation layernorm E+D m=0.0"}  # fmt: skip
    Path(uri.removeprefix("sqlite:///") + ".mirrored.json").unlink()
    _all_cached(_tracking(uri, ledger, "two"), graph, ledger, report)
    runs = _runs(uri)
    assert {name: run.info.run_id for name, run in runs.items()} == first
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    children = [run for name, run in runs.items() if name != STUDY]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {first[STUDY]}
    assert {run.data.tags["SIMULATED"] for run in runs.values()} == {"true"}


def test_what_is_written_twice_is_there_once(uri, study):
    graph, ledger, report = study
    for driver in ("one", "two"):
        _all_cached(_tracking(uri, ledger, driver), graph, ledger, report)
        Path(uri.removeprefix("sqlite:///") + ".mirrored.json").unlink()
    client, runs = _client(uri), _runs(uri)
    for name, key, n in (("ae layernorm none", "train_loss", 40), ("ae layernorm none", "final/train_loss", 1),
                         ("evaluation layernorm none", "by_level/delta_r", 5), ("evaluation layernorm none", "delta_r_best", 1)):  # fmt: skip
        steps = [point.step for point in client.get_metric_history(runs[name].info.run_id, key)]
        assert len(steps) == len(set(steps)) == n, (name, key)
    base = runs["base layernorm"]
    assert base.data.tags["rebuilt"] == "true"
    assert base.data.params["training.steps"] == "40"
    assert base.data.params["bottleneck"] == "layernorm"


def test_evaluation_has_curves_over_noise_level_and_columns_to_sort_by(uri, study):
    graph, ledger, report = study
    _all_cached(_tracking(uri, ledger), graph, ledger, report)
    client, runs = _client(uri), _runs(uri)
    run = runs["evaluation layernorm E+D m=0.0"]
    history = {point.step: point.value for point in client.get_metric_history(run.info.run_id, "by_level/delta_r")}
    tested = report.results.tested
    assert history == {
        round(1000 * c.noise_level): c.delta_r_mean for c in tested.conditions if c.variant == "layernorm E+D m=0.0"
    }
    levels = made_up_study.LEVELS
    for measure, values in (
        ("ic_sd", [10.0 * (1 - s) for s in levels]),
        ("solver_error_nats", [0.4 + s for s in levels]),
    ):
        points = client.get_metric_history(run.info.run_id, f"by_level/{measure}_melodies")
        assert {p.step: p.value for p in points} == {round(1000 * s): v for s, v in zip(levels, values, strict=True)}
    assert run.data.metrics["noise_level_best"] == 0.4
    assert run.data.metrics["delta_r_best"] == history[400]
    assert run.data.metrics["p_best"] == 0.004
    assert run.data.params["latent_noise.applied_to"] == "encoder+decoder"
    names = {item.path for item in client.list_artifacts(runs[STUDY].info.run_id, "report")}
    assert names == {"report/figures", "report/tables", "report/report.html"}
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["group.csv"]
    assert "SIMULATED" in runs[STUDY].data.tags["mlflow.note.content"]


def test_runs_of_a_dead_driver_are_closed_and_taken_up_again(uri):
    graph, ledger = _small(eeg=False)
    cell = next(cell for cell in graph if cell.stage == "flow")
    status = ledger.statuses.pop(cell.signature)
    killed = _tracking(uri, ledger, "killed")
    killed.study_started(graph, ledger.survey(graph, full=False))
    killed.cell_started(cell, Reason.NEW)
    for step in (1, 2, 3):
        killed.cell_progress(cell, step, 40, {"train_loss": 1.0 / step})
    killed._do("points", killed._flush)
    assert killed._writer.drain(60)  # and it dies here
    before = _runs(uri)
    assert before[cell.name].info.status == before[STUDY].info.status == "RUNNING"

    other = Graph({key: spec for key, spec in graph.cells.items() if key != cell.signature})
    bystander = _tracking(uri, ledger, "bystander")
    _all_cached(bystander, other, ledger)
    closed = _runs(uri)[cell.name]
    assert closed.info.status == "KILLED"
    assert closed.data.tags["stop_reason"] == "lost_process"

    ledger.statuses[cell.signature] = status
    resumed = _tracking(uri, ledger, "resumed")
    resumed.study_started(
        graph, {key: value for key, value in ledger.survey(graph, full=False).items() if key != cell.signature}
    )
    resumed.cell_started(cell, Reason.INTERRUPTED)
    for step in (2, 3, 4):
        resumed.cell_progress(cell, step, 40, {"train_loss": 1.0 / step})
    resumed.cell_finished(cell, status, False)
    resumed.study_finished(_outcome())
    resumed.close()
    after = _runs(uri)[cell.name]
    assert after.info.run_id == closed.info.run_id
    assert after.info.status == "FINISHED"
    assert "stop_reason" not in after.data.tags
    points = [point.step for point in _client(uri).get_metric_history(after.info.run_id, "train_loss")]
    assert sorted(points) == list(range(1, 41))


def test_run_killed_between_its_last_tags_and_its_end_is_finished_later(uri):
    """A kill there leaves RUNNING with the attempt that counts, and the next start makes KILLED of it."""
    graph, ledger = _small(eeg=False)
    cell = next(cell for cell in graph if cell.stage == "flow")
    status = ledger.statuses[cell.signature]
    killed = _tracking(uri, ledger, "killed")
    killed.study_started(graph, {})
    content = mirror.training(cell)
    killed._do("begin", lambda store: store.begin(content, {**mirror.attempt_tags(status), "driver": "killed"}))
    killed._do("log", lambda store: store.log(content.key, [(1, {"train_loss": 1.0})]))
    assert killed._writer.drain(60)  # and it dies here
    _all_cached(_tracking(uri, ledger, "next"), graph, ledger)
    run = _runs(uri)[cell.name]
    assert run.info.status == "FINISHED"
    assert "stop_reason" not in run.data.tags
    points = _client(uri).get_metric_history(run.info.run_id, "train_loss")
    assert sorted(point.step for point in points) == list(range(1, 41))
    assert run.data.metrics["final/train_loss"] == 0.1


def test_two_drivers_share_the_run_of_an_identity(uri):
    """The second opened the store before the first made its runs."""
    graph, ledger = _small(eeg=False)
    one, two = (_tracking(uri, ledger, name) for name in ("one", "two"))
    stores = [tracking._open() for tracking in (one, two)]
    quoted = mirror.evaluation("layernorm files=['a']", {})
    for content in (mirror.parent(STUDY), *map(mirror.training, (c for c in graph if c.stage == "flow")), quoted):
        for store, driver in zip(stores, ("one", "two"), strict=True):
            store.begin(content, {"driver": driver})
    client = _client(uri)
    runs = client.search_runs([client.get_experiment_by_name(STUDY).experiment_id])
    assert sorted(run.info.run_name for run in runs) == sorted(
        [STUDY, *(cell.name for cell in graph if cell.stage == "flow"), quoted.name]
    )
    for run in runs:
        assert len(run.inputs.dataset_inputs) == int(run.data.tags["kind"] == mirror.TRAINING)


def _flow_run(uri, study=STUDY):
    """All runs of trainings, deleted ones left out."""
    client = _client(uri)
    return client.search_runs([client.get_experiment_by_name(study).experiment_id], "tags.kind = 'training'")


def test_two_drivers_that_make_a_run_at_once_keep_one(uri, monkeypatch):
    """Neither finds a run; both make one; both then agree which of them stays."""
    from mlflow.exceptions import MlflowException

    from orchestrator.tracking import Store

    graph, ledger = _small(eeg=False)
    cell = next(cell for cell in graph if cell.stage == "flow")
    stores = [_tracking(uri, ledger, name)._open() for name in ("one", "two")]
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
    assert set(_runs(uri)) == {STUDY, cell.name}
    for store in stores:  # whoever was the second knows by its next job
        try:
            store.tag(("training", cell.signature), {"told": store.run_id(("training", cell.signature))})
        except MlflowException:
            store = _tracking(uri, ledger)._open()
        assert store.run_id(("training", cell.signature)) == run.info.run_id


def test_driver_whose_run_was_the_second_goes_on_with_the_first(uri):
    """By the other's clock, which is slow, its run is the older one."""
    graph, ledger = _small(eeg=False)
    cell = next(cell for cell in graph if cell.stage == "flow")
    other = _tracking(uri, ledger, "other")._open()
    create, search = other._client.create_run, other._search
    other._client.create_run = lambda *values, **named: create(*values, start_time=1, **named)
    tracking = _tracking(uri, ledger, "driver")
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
    tracking.study_finished(_outcome())
    tracking.close()
    (run,) = _flow_run(uri)
    assert run.info.start_time == 1
    assert run.info.status == "FINISHED"
    points = _client(uri).get_metric_history(run.info.run_id, "train_loss")
    assert sorted(point.step for point in points) == list(range(1, 41))
    assert run.data.tags["mlflow.parentRunId"] == _runs(uri)[STUDY].info.run_id


def test_all_second_runs_of_dead_drivers_are_closed(uri):
    graph, ledger = _small(eeg=False)
    cell = next(cell for cell in graph if cell.stage == "flow")
    store = _tracking(uri, ledger)._open()
    store.begin(mirror.parent(STUDY), {"driver": "gone"})
    store.begin(mirror.training(cell), {"driver": "gone"})
    tags = {key: value for key, value in store._runs["training", cell.signature].data.tags.items() if key != "x"}
    _client(uri).create_run(store._experiment, tags=tags)
    store.close_dead([])
    assert {run.info.status for run in _flow_run(uri)} == {"KILLED"}
    assert store.running("gone") == []


def test_what_another_driver_runs_is_looked_at_again(uri, study):
    """Else the short cut for what is mirrored already would never close the runs of one that dies later."""
    graph, ledger, report = study
    other = _tracking(uri, ledger, "other")
    ledger.alive.add("other")
    other.study_started(graph, {})
    cell = next(cell for cell in graph if cell.stage == "flow")
    other.cell_started(replace(cell, signature="ab" * 16, name="flow of another"), Reason.NEW)
    assert other._writer.drain(60)
    _all_cached(_tracking(uri, ledger, "second"), graph, ledger, report)
    ledger.alive.clear()
    assert not Path(uri.removeprefix("sqlite:///") + ".mirrored.json").exists()
    _all_cached(_tracking(uri, ledger, "third"), graph, ledger, report)
    runs = _runs(uri)
    assert runs.pop("flow of another").info.status == "KILLED"
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_store_that_is_locked_for_a_moment_is_written_in_the_end(uri, monkeypatch):
    from orchestrator.tracking import Store

    graph, ledger = _small(eeg=False)
    cell = next(cell for cell in graph if cell.stage == "flow")
    calls: list[str] = []
    log = Store.log

    def locked(store, key, rows, rewrite=False):
        calls.append("log")
        if len(calls) % 3:
            raise sqlite3.OperationalError("database is locked")
        log(store, key, rows, rewrite)

    monkeypatch.setattr(Store, "log", locked)
    monkeypatch.setattr(Background, "_pause", lambda *_: None)
    said: list[str] = []
    tracking = _tracking(uri, ledger, said=said)
    tracking.study_started(graph, {})
    tracking.cell_started(cell, Reason.NEW)
    for step in (1, 2, 3):
        tracking.cell_progress(cell, step, 40, {"train_loss": 1.0 / step})
    tracking._do("points", tracking._flush)
    tracking.study_finished(_outcome(stopped=True, exit_code=130))
    tracking.close()
    assert said == []
    run = _runs(uri)[cell.name]
    points = _client(uri).get_metric_history(run.info.run_id, "train_loss")
    assert sorted(point.step for point in points) == [1, 2, 3]
    assert run.info.status == "KILLED"


def test_runs_of_a_living_driver_are_left_alone(uri):
    graph, ledger = _small(eeg=False)
    cell = next(cell for cell in graph if cell.stage == "flow")
    one = _tracking(uri, ledger, "living")
    one.study_started(graph, {})
    one.cell_started(cell, Reason.NEW)
    assert one._writer.drain(60)
    ledger.alive.add("living")
    two = _tracking(uri, ledger, "second")
    two.study_started(graph, {})
    assert two._writer.drain(60)
    assert _runs(uri)[cell.name].info.status == "RUNNING"


def test_stop_kills_what_runs(uri):
    graph, ledger = _small(eeg=False)
    cell = next(cell for cell in graph if cell.stage == "flow")
    tracking = _tracking(uri, ledger)
    tracking.study_started(graph, {})
    tracking.cell_started(cell, Reason.NEW)
    tracking.study_finished(_outcome(stopped=True, exit_code=130))
    tracking.close()
    runs = _runs(uri)
    assert {runs[STUDY].info.status, runs[cell.name].info.status} == {"KILLED"}
    assert runs[cell.name].data.tags["stop_reason"] == "stopped"


def test_failed_training_is_a_failed_run_and_then_the_same_run_finished(uri):
    graph, ledger = _small(eeg=False)
    cell = next(cell for cell in graph if cell.stage == "flow")
    done = ledger.statuses[cell.signature]
    for status, expected in ((ledger.fail(cell, "loss is NaN"), "FAILED"), (done, "FINISHED")):
        ledger.statuses[cell.signature] = status
        tracking = _tracking(uri, ledger)
        tracking.study_started(graph, {})
        tracking.cell_started(cell, Reason.RETRY_REQUESTED)
        tracking.cell_finished(cell, status, False)
        tracking.study_finished(_outcome(exit_code=int(expected == "FAILED")))
        tracking.close()
        run = _runs(uri)[cell.name]
        assert run.info.status == expected
        assert run.data.tags.get("failure") == (None if expected == "FINISHED" else "loss is NaN")


def test_training_of_another_study_is_tagged_reused(uri):
    graph, ledger = _small(eeg=False)
    _all_cached(_tracking(uri, ledger, study="first"), graph, ledger)
    _all_cached(_tracking(uri, ledger, study="second"), graph, ledger)
    assert _runs(uri, "second")["base layernorm"].data.tags["reused_from"] == "first"
    assert _runs(uri, "first")["base layernorm"].data.tags["rebuilt"] == "true"


def test_nothing_changed_opens_nothing(uri, study):
    graph, ledger, report = study
    _all_cached(_tracking(uri, ledger), graph, ledger, report)
    path = Path(uri.removeprefix("sqlite:///"))
    before = path.stat().st_mtime_ns
    again = _tracking(uri, ledger, "two")
    since = time.monotonic()
    _all_cached(again, graph, ledger, report)
    assert not again._writer.started
    assert path.stat().st_mtime_ns == before
    assert time.monotonic() - since < 3


@pytest.mark.parametrize("change", ["store gone", "store written", "new result", "new report"])
def test_any_change_is_mirrored(uri, study, change):
    graph, ledger, report = study
    _all_cached(_tracking(uri, ledger), graph, ledger, report)
    path = Path(uri.removeprefix("sqlite:///"))
    cell = next(cell for cell in graph if cell.stage == "pitch")
    attempt = ledger.statuses[cell.signature].attempt
    if change == "store gone":
        path.unlink()
    elif change == "store written":
        _client(uri).delete_run(_runs(uri)["base layernorm"].info.run_id)
    elif change == "new result":
        ledger.statuses[cell.signature].attempt = "later"
    else:
        table = report.paths["pitch.csv"].with_name("other.csv")
        table.write_text("other")
        report = Report({**report.paths, "other.csv": table}, report.text, report.headline, report.results)
    again = _tracking(uri, ledger, "two")
    _all_cached(again, graph, ledger, report)
    ledger.statuses[cell.signature].attempt = attempt
    assert again._writer.started
    assert "base layernorm" in _runs(uri)


def test_unreachable_store_is_said_once_and_stops_nothing(tmp_path):
    graph, ledger = _small(eeg=False)
    (tmp_path / "file").write_text("")
    said: list[str] = []
    tracking = _tracking(f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}", ledger, said=said)
    _all_cached(tracking, graph, ledger)
    assert len(said) == 1
    assert "The ledger has everything" in said[0]


@pytest.mark.parametrize(
    "address", ["http://no-such-host.invalid:5000", "http://", "ftp://127.0.0.1/x", "nonsense://x", "{refusing}"]
)
def test_mistake_in_the_address_is_said_at_once(address, refusing):
    graph, ledger = _small(eeg=False)
    said: list[str] = []
    since = time.monotonic()
    _all_cached(_tracking(address.format(refusing=refusing), ledger, said=said), graph, ledger)
    assert len(said) == 1, said
    assert "is left behind" in said[0]
    assert time.monotonic() - since < 20


@pytest.fixture
def refusing():
    """A server that lets nobody in."""

    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_password_of_a_store_is_not_shown():
    said: list[str] = []
    uri = "postgresql://lab:hush-hush@127.0.0.1:9/mlflow"
    tracking = _tracking(uri, made_up_study.FakeLedger(), said=said)
    for tell in (tracking.away, tracking.failed):
        tell(OSError(f"cannot connect to {uri}"))
    tracking.back()
    assert len(said) == 3
    assert "hush" not in "".join(said)


def test_no_connection_leaves_this_machine(uri, study, monkeypatch):
    graph, ledger, report = study

    def refuse(*_args, **_options):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    said: list[str] = []
    _all_cached(_tracking(uri, ledger, said=said), graph, ledger, report)
    assert said == []


def test_only_one_room_knows_mlflow():
    importing = [
        path.name
        for path in (ROOT / "orchestrator").rglob("*.py")
        if "import mlflow" in path.read_text() or "from mlflow" in path.read_text()
    ]
    assert importing == ["tracking.py"]
    code = "import sys, orchestrator.tracker; assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# What runs hold


def test_configs_are_flattened_by_dots():
    assert mirror.flatten({"a": {"b": 1.0, "c": [1, 2]}, "d": "inf", "e": None, "f": True}) == {
        "a.b": "1", "a.c": "[1,2]", "d": "inf", "e": "null", "f": "true"}  # fmt: skip


def test_curves_leave_out_what_is_no_number():
    assert mirror.curve("step,a,b\n1,0.5,\n2,nan,3\n3,,\n") == [(1, {"a": 0.5}), (2, {"b": 3.0})]


def test_best_level_is_that_of_the_largest_excess():
    curves = {"delta_r": {0: 0.3, 400: 0.1}, "excess_delta_r": {0: 0.0, 400: 0.05}, "p_stimulus": {0: 0.01, 400: 0.2},
              "p_subject": {400: 0.3}, "pitch_rho": {0: 0.4, 400: 0.2}}  # fmt: skip
    assert mirror.best(curves) == {"noise_level_best": 0.4, "delta_r_best": 0.1, "p_best": 0.3, "pitch_rho_best": 0.4}
    assert mirror.best({}) == {}


# The thread


class Diary:
    """Judges by the kind of an error, and remembers what it is told."""

    def __init__(self):
        self.told = []

    def judge(self, error):
        kinds = {ConnectionError: Trouble.AWAY, PermissionError: Trouble.REFUSED}
        return kinds.get(type(error), Trouble.UNCLEAR)

    def away(self, error):
        self.told.append("away")

    def back(self):
        self.told.append("back")

    def failed(self, error):
        self.told.append(type(error).__name__)


def _background(open_it, diary, pauses_s=(0.0, 0.0, 0.0)):
    return Background(open_it, lambda _: None, diary, pauses_s=pauses_s)


def test_jobs_run_in_order_and_an_error_that_lasts_ends_them():
    done, tries, diary = [], [], Diary()
    background = _background(lambda: done, diary)
    for i in range(3):
        background.do(lambda opened, i=i: opened.append(i))
    assert background.drain(10)
    background.do(lambda _: tries.append(1) or 1 / 0)
    background.do(lambda opened: opened.append(3))
    assert background.drain(10)
    background.do(lambda opened: opened.append(4))
    assert background.drain(10)
    assert done == [0, 1, 2]
    assert len(tries) == 4
    assert (diary.told, background.broken) == (["ZeroDivisionError"], True)


def test_job_that_fails_once_is_done_again_on_what_is_opened_anew():
    opened, diary = [], Diary()

    def open_it():
        opened.append([])
        return opened[-1]

    def job(store):
        store.append("written")
        if len(opened) == 1:
            raise OSError("database is locked")

    background = _background(open_it, diary)
    background.do(job)
    background.do(lambda store: store.append("more"))
    assert background.drain(10)
    assert opened == [["written"], ["written", "more"]]
    assert (diary.told, background.broken) == ([], False)


def test_what_is_away_is_waited_for_and_the_last_job_of_each_key_is_done(monkeypatch):
    monkeypatch.setattr("orchestrator.background.LONGEST_PAUSE_S", 0.02)
    up, done, tries, diary = threading.Event(), [], [], Diary()

    def open_it():
        tries.append(1)
        if not up.is_set():
            raise ConnectionError("refused")
        return done

    background = _background(open_it, diary)
    background.do(lambda opened: opened.append("first"), "first")
    while len(tries) < 12:
        time.sleep(0.01)
    for number in range(1000):
        for key in ("a", "b"):
            background.do(lambda opened, what=(key, number): opened.append(what), key)
    assert background.left() == ["first", "a", "b"]
    assert not background.drain(0.2)
    up.set()
    assert background.drain(10)
    assert done == ["first", ("a", 999), ("b", 999)]
    assert diary.told == ["away", "back"]


def test_what_refuses_is_not_asked_again():
    tries, diary = [], Diary()

    def open_it():
        tries.append(1)
        raise PermissionError("403")

    background = _background(open_it, diary, pauses_s=(60.0,))
    background.do(lambda _: None)
    assert background.drain(10)
    assert (len(tries), diary.told) == (1, ["PermissionError"])


def test_drain_waits_while_there_is_headway_and_gives_up_after_its_time():
    done, hold = [], threading.Event()
    background = _background(lambda: done, Diary())
    for _ in range(8):
        background.do(lambda opened: opened.append(time.sleep(0.1)))
    assert background.drain(0.4)
    assert len(done) == 8
    background.do(lambda _: hold.wait(10))
    assert not background.drain(0.05)
    hold.set()
    assert background.drain(10)
    background.do(lambda _: time.sleep(0.2))
    background.do(lambda _: time.sleep(0.2))
    assert not background.drain(10, 0.05)


def test_the_audit_of_the_solver_has_curves_over_noise_level(tmp_path):
    arms, levels = {"none": ("none", 0.0)}, made_up_study.LEVELS
    graph, ledger = made_up_study.make(("layernorm",), arms, eeg=False, audited=levels)
    curves = mirror.by_level(build(graph, ledger, "demo", tmp_path), "layernorm none")
    assert curves["ic_reliability_melodies"] == dict.fromkeys((round(1000 * s) for s in levels), 0.92)
    assert curves["ic_doubling_nats_melodies"] == dict.fromkeys((round(1000 * s) for s in levels), 0.5)
    assert curves["solver_rmse_nats_melodies"] == {round(1000 * s): 0.8 + s for s in levels}
    assert curves["solver_rmse_over_sd_melodies"] == {round(1000 * s): 0.08 + s / 2 for s in levels}
