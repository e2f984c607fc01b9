"""A result is whole or it is none."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from ledger_cells import cell, out, outcomes, publish, state

from orchestrator.ledger import CorruptArtefact, Ledger, Status, StatusDamaged
from orchestrator.reasons import Reason, State
from orchestrator.storage import Storage


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
