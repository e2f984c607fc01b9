"""S3 through connections that break, fall silent and lie; what is said of it, and how long anybody waits."""

from __future__ import annotations

import errno
import hashlib
import http.server
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_stages import cell
from shaky_proxy import ShakyProxy, later
from typer.testing import CliRunner

from orchestrator import outside, remote, trouble
from orchestrator.cli import app
from orchestrator.ledger import Ledger
from orchestrator.orders import Event, WorkOrder
from orchestrator.reasons import Reason
from orchestrator.signals import stop_on_signals
from orchestrator.stages import Stage
from orchestrator.storage import Storage
from orchestrator.trouble import StorageAway, StorageRefused
from orchestrator.worker import execute, stop_marker
from tasks.contract import Result

DEMO = str(Path(__file__).parents[2] / "experiments" / "demo.yaml")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    trouble.calm()


# Connections


def test_a_store_that_falls_silent_is_asked_again(
    shaky: Storage, proxy: ShakyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "READ_TIMEOUT_S", 0.5)
    shaky.write("a", b"1")
    proxy.silent = True
    later(2.0, lambda: setattr(proxy, "silent", False))
    assert shaky.read("a") == b"1"


def test_an_answer_that_breaks_off_is_read_again(shaky: Storage, proxy: ShakyProxy, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    shaky.write("big", content)
    proxy.break_off_after(1_000_000)
    assert shaky.read("big") == content
    proxy.break_off_after(1_000_000)
    shaky.get_file("big", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content


@pytest.mark.parametrize("requests", [0, 1, 2, 4])
def test_an_upload_in_parts_that_breaks_is_whole_in_the_end(
    shaky: Storage, proxy: ShakyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requests: int
) -> None:
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda size, chunksize=None, max_parts=0: 5 * 2**20)
    (tmp_path / "big").write_bytes(os.urandom(12 * 2**20))
    digest = hashlib.sha256((tmp_path / "big").read_bytes()).hexdigest()
    proxy.cut_after(requests, away_s=1.0)
    shaky.adopt(tmp_path / "big", "kept/big")
    assert not (tmp_path / "big").exists()
    assert hashlib.sha256(shaky.read("kept/big")).hexdigest() == digest


def test_a_file_is_kept_until_it_is_there(proxy: ShakyProxy, s3_root: str, tmp_path: Path) -> None:
    storage = Storage(s3_root, {"endpoint_url": proxy.url}, patience_s=0.5)
    (tmp_path / "file").write_bytes(b"only copy")
    proxy.cut()
    with pytest.raises(StorageAway):
        storage.adopt(tmp_path / "file", "a/file")
    assert (tmp_path / "file").read_bytes() == b"only copy"


# What is missing, and what is wrong here


def test_a_bucket_that_is_gone_is_not_a_file_that_is_not_there(s3_root: str) -> None:
    storage = Storage("s3://nobody-made-this/x", patience_s=100.0)
    operations: list[Any] = [storage.read, storage.size, storage.exists, storage.names, storage.find, storage.open]
    operations += [storage.modified, storage.delete, lambda path: storage.delete(path, recursive=True)]
    operations += [lambda path: storage.write(path, b""), lambda path: storage.read_many([path])]
    began = time.monotonic()
    for operation in operations:
        with pytest.raises(StorageRefused, match="no such bucket"):
            operation("a")
    assert time.monotonic() - began < 20


def test_errors_of_this_machine_are_not_the_stores(shaky: Storage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        shaky.put_file(tmp_path / "missing", "a")
    shaky.write("a", b"1")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        shaky.get_file("a", tmp_path / "file" / "b")


def test_a_host_that_is_unknown_for_a_moment_is_waited_for_in_the_midst_of_work(s3_root: str) -> None:
    options = {"endpoint_url": "http://no-such-host.invalid:9000"}
    with pytest.raises(StorageRefused, match="can't be resolved"):
        Storage(s3_root, options).read("a")
    began = time.monotonic()
    later(1.0, trouble.hurry)
    with pytest.raises(StorageAway):
        Storage(s3_root, options, patience_s=100.0).read("a")
    assert 1.0 < time.monotonic() - began < 20


# Waiting


def test_a_signal_ends_the_waiting(proxy: ShakyProxy, s3_root: str) -> None:
    storage = Storage(s3_root, {"endpoint_url": proxy.url}, patience_s=300.0)
    proxy.cut()
    began = time.monotonic()
    with stop_on_signals() as flag:
        later(1.0, lambda: os.kill(os.getpid(), signal.SIGTERM))
        for _ in range(20):  # the second one isn't waited for at all
            with pytest.raises(StorageAway):
                storage.read_many(f"a{number}" for number in range(50))
    assert flag.signum == signal.SIGTERM
    assert time.monotonic() - began < 30


def test_a_store_that_was_given_up_is_waited_for_less_long(
    proxy: ShakyProxy, s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trouble, "ANSWER_PATIENCE_S", 0.1)
    storage = Storage(s3_root, {"endpoint_url": proxy.url}, patience_s=4.0)
    proxy.cut()
    took = []
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(StorageAway):
            storage.read("a")
        took.append(time.monotonic() - began)
    assert took[0] > 3.5
    assert took[1] < 3.5
    proxy.mend()
    assert not storage.exists("a")
    assert s3_root not in trouble._Process.given_up


def test_who_waits_says_so_once_and_when_it_is_over(
    shaky: Storage, proxy: ShakyProxy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trouble, "ANNOUNCED_AFTER_S", 0.5)
    proxy.cut()
    later(3.0, proxy.mend)
    shaky.read_many(f"a{number}" for number in range(20))
    first, last = capsys.readouterr().err.splitlines()
    assert "does not answer" in first
    assert "It is waited for" in first
    assert last.endswith("it answers again.")


def test_a_training_is_not_held_up_by_the_question_whether_to_stop(shaky: Storage, proxy: ShakyProxy) -> None:
    shaky.patience_s = 300.0
    should_stop = stop_marker(shaky, "drivers/d.stop")
    assert not should_stop()
    proxy.cut()
    began = time.monotonic()
    time.sleep(1.1)
    for _ in range(100):
        assert not should_stop()
    assert time.monotonic() - began < 8


def test_a_pickle_takes_the_endpoint_along_and_no_secret() -> None:
    options = {"endpoint_url": "http://127.0.0.1:1", "key": "AKIA-hush", "client_kwargs": {"secret": "hush"}}
    data = pickle.dumps(Storage("s3://bucket/prefix", options))
    assert b"hush" not in data
    assert pickle.loads(data).options == {"endpoint_url": "http://127.0.0.1:1"}


def test_a_checkpoint_is_not_dropped_because_the_store_is_away(
    proxy: ShakyProxy, s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(s3_root, {"endpoint_url": proxy.url}, patience_s=0.5)
    checkpoints = Ledger(storage).checkpoints("flow", "ab" * 16, tmp_path / "scratch")
    checkpoints.save(1, lambda folder: (folder / "count.txt").write_text("1"))
    checkpoints.save(2, lambda folder: (folder / "count.txt").write_text("2"))
    with monkeypatch.context() as patched:
        read = Storage.read

        def cut_then_read(this: Storage, path: str) -> bytes:
            proxy.cut()
            try:
                return read(this, path)
            finally:
                proxy.mend()

        patched.setattr(Storage, "read", cut_then_read)
        with pytest.raises(StorageAway):
            checkpoints.latest()
    with monkeypatch.context() as patched:
        patched.setattr(Storage, "get_file", lambda *_: _raise(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            checkpoints.latest()
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == 2


def _raise(error: Exception) -> None:
    raise error


# A stage that makes light of it


def run_lightly(cells: Any, context: Any) -> Iterator[Result]:
    """Says of what it can't read that it is broken."""
    for one in cells:
        try:
            context.open_file(one.config["recording"]).close()
            yield Result(one.signature, metrics={})
        except OSError as error:
            yield Result(one.signature, failure=f"broken: {error}")


def test_a_recording_that_cannot_be_fetched_is_no_broken_recording(
    shaky: Storage, proxy: ShakyProxy, s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "PATIENCE_S", 0.5)
    ledger = Ledger(Storage(str(tmp_path / "ledger"), {"endpoint_url": proxy.url}))
    spec = cell("latents", "l", recording=f"{s3_root}/a.wav")
    stage = Stage("latents", "test_storage_away:run_lightly", "")
    events: list[Event] = []
    order = WorkOrder(ledger.storage, stage, (spec,), {spec.signature: Reason.NEW}, {}, "d")
    proxy.cut()
    execute(order, events.append, lambda: False)
    assert [(event.kind, event.reason) for event in events[1:]] == [("lost", Reason.STORAGE_AWAY)]
    assert ledger.status("latents", spec.signature) is None
    proxy.mend()
    shaky.write("a.wav", b"1")
    execute(order, events.append, lambda: False)
    assert events[-1].status is not None
    assert events[-1].status.state == "done"


# Refused before anything is started


class _ReadOnly(http.server.BaseHTTPRequestHandler):
    """An empty bucket that may be listed and read, with `code` for all else; without `reads` for that too."""

    protocol_version = "HTTP/1.1"
    reads, code = True, "AccessDenied"
    asked: list[str]

    def _answer(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        listing = b"<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"
        refused = f"<Error><Code>{self.code}</Code><Message>no</Message></Error>".encode()
        allowed = self.reads and self.command == "GET" and "list-type" in self.path
        missing = self.reads and self.command == "GET" and not allowed
        gone = b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>"
        self.send_response(200 if allowed else 404 if missing or (self.reads and self.command == "HEAD") else 403)
        body = listing if allowed else gone if missing else refused
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def read_only() -> Iterator[tuple[type[_ReadOnly], str]]:
    kind = type("ReadOnly", (_ReadOnly,), {"asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield kind, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("reads", "code", "words"),
    [
        (True, "AccessDenied", "can't be written to: access is denied"),
        (False, "SignatureDoesNotMatch", "the secret key is wrong"),
        (False, "ExpiredToken", "the credentials have expired"),
        (False, "NoSuchBucket", "there is no such bucket"),
    ],
)
def test_run_refuses_in_one_line_before_anything_is_started(
    s3_root: str,
    read_only: tuple[type[_ReadOnly], str],
    reads: bool,
    code: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    server, url = read_only
    server.reads, server.code = reads, code
    began = time.monotonic()
    result = CliRunner().invoke(app, ["run", DEMO, f"execution.s3_endpoint_url={url}", "--ledger", s3_root, "--inline"])
    assert result.exit_code == 3, result.output
    (line,) = [line for line in result.output.splitlines() if not line.startswith("note: ")]
    assert words in line
    assert time.monotonic() - began < 30
    assert not any("drivers/" in what for what in server.asked)
    assert list(tmp_path.iterdir()) == []


def test_an_endpoint_with_a_password_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["plan", DEMO, "execution.s3_endpoint_url=http://me:hush-hush@127.0.0.1:1"])
    assert result.exit_code == 2
    assert "hush-hush" not in result.output
