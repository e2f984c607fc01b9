"""Stores that are locked, away, mistaken or refuse; and what they never see."""

from __future__ import annotations

import http.server
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import made_up_study
import pytest
from tracked import ROOT, client_of, mirror_all, outcome, runs_of, small_study, tracking_of

from orchestrator.background import Background
from orchestrator.reasons import Reason


def test_store_that_is_locked_for_a_moment_is_written_in_the_end(uri, monkeypatch):
    from orchestrator.tracking import Store

    graph, ledger = small_study(eeg=False)
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
    tracking = tracking_of(uri, ledger, said=said)
    tracking.study_started(graph, {})
    tracking.cell_started(cell, Reason.NEW)
    for step in (1, 2, 3):
        tracking.cell_progress(cell, step, 40, {"train_loss": 1.0 / step})
    tracking._do("points", tracking._flush)
    tracking.study_finished(outcome(stopped=True, exit_code=130))
    tracking.close()
    assert said == []
    run = runs_of(uri)[cell.name]
    points = client_of(uri).get_metric_history(run.info.run_id, "train_loss")
    assert sorted(point.step for point in points) == [1, 2, 3]
    assert run.info.status == "KILLED"


def test_unreachable_store_is_said_once_and_stops_nothing(tmp_path):
    graph, ledger = small_study(eeg=False)
    (tmp_path / "file").write_text("")
    said: list[str] = []
    tracking = tracking_of(f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}", ledger, said=said)
    mirror_all(tracking, graph, ledger)
    assert len(said) == 1
    assert "The ledger has everything" in said[0]


@pytest.mark.parametrize(
    "address", ["http://no-such-host.invalid:5000", "http://", "ftp://127.0.0.1/x", "nonsense://x", "{refusing}"]
)
def test_mistake_in_the_address_is_said_at_once(address, refusing):
    graph, ledger = small_study(eeg=False)
    said: list[str] = []
    since = time.monotonic()
    mirror_all(tracking_of(address.format(refusing=refusing), ledger, said=said), graph, ledger)
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
    tracking = tracking_of(uri, made_up_study.FakeLedger(), said=said)
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
    mirror_all(tracking_of(uri, ledger, said=said), graph, ledger, report)
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
