"""Stores that go away and come back, and stores that say no."""

from __future__ import annotations

import errno
import http.server
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from shaky_proxy import ShakyProxy, later

from orchestrator import trouble
from orchestrator.graph import CellSpec
from orchestrator.ledger import Ledger
from orchestrator.opening import LedgerTrouble, check_writable, open_ledger
from orchestrator.reasons import Reason, State
from orchestrator.signals import stop_on_signals
from orchestrator.storage import Storage
from orchestrator.trouble import StorageAway, StorageRefused

CELL = CellSpec("latents", "latents made up", {"a": 1}, {}, "ab" * 16)


def test_every_operation_waits_for_a_store_that_comes_back(shaky: Storage, proxy: ShakyProxy, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    operations = [
        lambda: shaky.write("a/b", b"1"),
        lambda: shaky.read("a/b"),
        lambda: shaky.put_file(tmp_path / "file", "a/file"),
        lambda: shaky.get_file("a/file", tmp_path / "copy"),
        lambda: shaky.names("a"),
        lambda: shaky.find("a"),
        lambda: shaky.size("a/b"),
        lambda: shaky.exists("a/b"),
        lambda: shaky.delete("a/b"),
        lambda: shaky.delete("a", recursive=True),
    ]
    results = []
    for operation in operations:
        proxy.cut()
        later(0.5, proxy.mend)
        results.append(operation())
    assert results[1] == b"1"
    assert results[4:8] == [["b", "file"], {"a/b": 1, "a/file": 7}, 1, True]
    assert (tmp_path / "copy").read_bytes() == b"content"
    assert shaky.find("a") == {}


def test_patience_ends_with_one_kind_of_error(proxy: ShakyProxy, s3_root: str) -> None:
    storage = Storage(s3_root, {"endpoint_url": proxy.url}, patience_s=1.0)
    proxy.cut()
    began = time.monotonic()
    with pytest.raises(StorageAway, match="does not answer"):
        storage.read("a")
    assert 0.5 < time.monotonic() - began < 30


def test_a_process_that_was_asked_to_stop_waits_no_longer(proxy: ShakyProxy, s3_root: str) -> None:
    storage = Storage(s3_root, {"endpoint_url": proxy.url}, patience_s=300.0)
    proxy.cut()
    later(0.5, trouble.hurry)
    began = time.monotonic()
    try:
        with pytest.raises(StorageAway):
            storage.write("a", b"")
    finally:
        trouble.calm()
    assert time.monotonic() - began < 30


def test_a_block_within_a_block_has_its_flag_and_does_not_calm() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with stop_on_signals() as flag:
            with stop_on_signals() as first:
                os.kill(os.getpid(), signal.SIGTERM)
            with stop_on_signals() as second:
                assert trouble._Process.hurried
            assert first is second is flag
            assert flag.signum == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is before
        with stop_on_signals() as other:
            assert not other.is_set()
            assert not trouble._Process.hurried
    finally:
        trouble.calm()


@pytest.mark.parametrize("requests", range(9))
def test_a_store_that_goes_away_while_a_result_is_published(shaky: Storage, proxy: ShakyProxy, requests: int) -> None:
    ledger = Ledger(shaky)
    attempt = ledger.begin(CELL, Reason.NEW, "driver")
    (attempt.out_dir / "one.bin").write_bytes(b"1" * 1000)
    (attempt.out_dir / "two.bin").write_bytes(b"2" * 1000)
    proxy.cut_after(requests, away_s=1.0)
    status = ledger.publish(attempt, attempt.out_dir, {"x": 1.0}, 0.1)
    assert status.attempt == attempt.id
    assert ledger.survey([CELL], full=True)[CELL.signature][:2] == (State.CACHED, Reason.DONE)
    assert ledger.artefact("latents", CELL.signature, None).read_bytes("two.bin") == b"2" * 1000


def test_away_for_good_leaves_no_result(proxy: ShakyProxy, s3_root: str) -> None:
    ledger = Ledger(Storage(s3_root, {"endpoint_url": proxy.url}, patience_s=1.0))
    attempt = ledger.begin(CELL, Reason.NEW, "driver")
    (attempt.out_dir / "one.bin").write_bytes(b"1")
    proxy.cut()
    with pytest.raises(StorageAway):
        ledger.publish(attempt, attempt.out_dir, {}, 0.1)
    proxy.mend()
    assert ledger.survey([CELL], full=True)[CELL.signature][:2] == (State.TO_DO, Reason.INTERRUPTED)


def test_a_missing_bucket_and_an_unknown_host_are_refused_at_once(
    s3_root: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()
    with pytest.raises(LedgerTrouble, match="no such bucket; create it"):
        open_ledger("s3://nobody-made-this/x")
    with pytest.raises(LedgerTrouble, match="host name can't be resolved"):
        open_ledger(s3_root, "http://no-such-host.invalid:9000")
    with pytest.raises(LedgerTrouble, match="endpoint looks like"):
        open_ledger(s3_root, "nonsense")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
    monkeypatch.setenv("AWS_CONFIG_FILE", "none")
    with pytest.raises(LedgerTrouble, match="no credentials were found"):
        check_writable(open_ledger(s3_root))
    assert time.monotonic() - began < 30


class _Says(http.server.BaseHTTPRequestHandler):
    """Answers every request with one error of S3."""

    code, status = "", 403

    def _answer(self) -> None:
        body = f"<Error><Code>{self.code}</Code><Message>no</Message></Error>".encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def says() -> Iterator[tuple[type[_Says], str]]:
    kind = type("Says", (_Says,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield kind, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("SignatureDoesNotMatch", 403, "secret key is wrong"),
        ("InvalidAccessKeyId", 403, "does not know this access key"),
        ("ExpiredToken", 400, "have expired; renew them"),
        ("AccessDenied", 403, "access is denied"),
    ],
)
def test_what_a_store_refuses_for_good(
    code: str, status: int, words: str, says: tuple[type[_Says], str], s3_root: str
) -> None:
    says[0].code, says[0].status = code, status
    with pytest.raises(LedgerTrouble, match=words) as caught:
        open_ledger(s3_root, says[1])
    assert "\n" not in str(caught.value)
    with pytest.raises(StorageRefused, match=words):
        Storage(s3_root, {"endpoint_url": says[1]}, patience_s=100.0).write("a", b"")


@pytest.mark.parametrize(("code", "status"), [("SlowDown", 503), ("InternalError", 500), ("", 502), ("", 504)])
def test_what_a_store_may_say_for_a_moment(code: str, status: int, says: tuple[type[_Says], str], s3_root: str) -> None:
    says[0].code, says[0].status = code, status
    with pytest.raises(StorageAway):
        Storage(s3_root, {"endpoint_url": says[1]}, patience_s=0.5).write("a", b"")


def test_a_full_disk_is_told_from_other_errors() -> None:
    inner = OSError(errno.ENOSPC, "No space left on device")
    wrapped = RuntimeError("SafetensorError: I/O error")
    wrapped.__cause__ = inner
    assert trouble.no_room(wrapped)
    assert trouble.no_room(RuntimeError("Error opening: No space left on device (os error 28)"))
    assert not trouble.no_room(ValueError("no"))
    assert not trouble.away(inner)


def test_patience_and_endpoint_travel_and_secrets_are_not_shown() -> None:
    storage = Storage("s3://bucket/prefix", {"endpoint_url": "http://127.0.0.1:1", "secret": "hush"})
    storage.be_patient()
    copy = pickle.loads(pickle.dumps(storage))
    assert (copy.patience_s, copy.options["endpoint_url"]) == (trouble.PATIENCE_S, "http://127.0.0.1:1")
    assert "hush" not in repr(copy)


def test_credentials_that_their_provider_gives_expired_are_refused_for_good() -> None:
    error = RuntimeError("Credentials were refreshed, but the refreshed credentials are still expired.")
    assert not trouble.transient(error)
    assert "have expired; renew them" in trouble.described(error)
