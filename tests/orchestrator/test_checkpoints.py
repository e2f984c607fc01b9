"""Checkpoints in the ledger: whole or not there, whoever writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ledger_cells import cell, state

from orchestrator.ledger import Ledger
from orchestrator.reasons import Reason, State
from orchestrator.storage import Storage
from orchestrator.trouble import StorageAway


@pytest.fixture
def ledger(root: str) -> Ledger:
    return Ledger(Storage(root))


def saved(step: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "weights.bin").write_bytes(f"step {step}".encode())
        (folder / "deep" / "optimiser.bin").write_bytes(b"o")

    return write


def test_the_last_two_checkpoints_stay_until_the_result(ledger: Ledger, tmp_path: Path) -> None:
    spec = cell(stage="flow")
    attempt = ledger.begin(spec, Reason.NEW, "driver")
    checkpoints = ledger.checkpoints("flow", spec.signature, tmp_path / "scratch")
    assert checkpoints.latest() is None
    for step in (90, 100, 1000):
        checkpoints.save(step, saved(step))
    base = f"flow/{spec.signature}/checkpoints"
    assert [int(name.partition("-")[0]) for name in ledger.storage.names(base)] == [100, 1000]
    elsewhere = ledger.checkpoints("flow", spec.signature, tmp_path / "other node")
    found = elsewhere.latest()
    assert found is not None
    assert found[0] == 1000
    assert (found[1] / "weights.bin").read_bytes() == b"step 1000"
    assert (found[1] / "deep" / "optimiser.bin").read_bytes() == b"o"
    assert sorted(path.name for path in found[1].iterdir()) == ["deep", "weights.bin"]
    ledger.publish(attempt, attempt.out_dir, {}, 1.0)
    assert ledger.storage.names(base) == []


def test_a_checkpoint_that_is_being_read_may_go(ledger: Ledger, tmp_path: Path) -> None:
    checkpoints = ledger.checkpoints("flow", "ab", tmp_path / "scratch")
    checkpoints.save(1, saved(1))
    found = checkpoints.latest()
    assert found is not None
    for step in (2, 3):
        ledger.checkpoints("flow", "ab", tmp_path / "other").save(step, saved(step))
    assert (found[1] / "weights.bin").read_bytes() == b"step 1"


def place(ledger: Ledger, step: int) -> str:
    """Where the checkpoint of a step lies."""
    base = "flow/ab/checkpoints"
    (name,) = (name for name in ledger.storage.names(base) if int(name.partition("-")[0]) == step)
    return f"{base}/{name}"


def test_two_processes_at_one_cell_never_mix_their_checkpoints(ledger: Ledger, tmp_path: Path) -> None:
    mine, theirs = (ledger.checkpoints("flow", "ab", tmp_path / who) for who in ("mine", "theirs"))

    def write(folder: Path) -> None:
        (folder / "weights.bin").write_bytes(b"mine")
        theirs.save(5, lambda other: (other / "weights.bin").write_bytes(b"their"))  # in the midst of this save
        (folder / "moments.bin").write_bytes(b"mine")

    mine.save(5, write)
    found = mine.latest()
    assert found is not None
    assert found[0] == 5
    contents = {file.name: file.read_bytes() for file in found[1].iterdir()}
    assert contents in ({"weights.bin": b"mine", "moments.bin": b"mine"}, {"weights.bin": b"their"})


def test_a_store_that_is_away_is_no_damage_to_a_checkpoint(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = ledger.checkpoints("flow", "ab", tmp_path / "scratch")
    checkpoints.save(3, saved(3))

    def away(*values: object) -> None:
        raise StorageAway("it does not answer")

    monkeypatch.setattr(Storage, "get_file", away)
    with pytest.raises(StorageAway):
        checkpoints.latest()
    monkeypatch.undo()
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == 3


def test_a_damaged_checkpoint_gives_way_to_the_one_before(ledger: Ledger, tmp_path: Path) -> None:
    checkpoints = ledger.checkpoints("flow", "ab", tmp_path / "scratch")
    for step in (1, 2):
        checkpoints.save(step, saved(step))
    ledger.storage.write(f"{place(ledger, 2)}/files/weights.bin", b"step X")
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == 1
    checkpoints.save(2, saved(2))
    ledger.storage.delete(f"{place(ledger, 2)}/complete.json")
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == 1
    ledger.storage.write(f"{place(ledger, 1)}/complete.json", b"[")
    assert checkpoints.latest() is None
    checkpoints.save(1, saved(1))
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == 1


def test_a_checkpoint_that_fails_half_way_is_none(ledger: Ledger, tmp_path: Path) -> None:
    checkpoints = ledger.checkpoints("flow", "ab", tmp_path / "scratch")
    checkpoints.save(1, saved(1))

    def broken(folder: Path) -> None:
        (folder / "weights.bin").write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoints.save(2, broken)
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == 1


def test_a_training_killed_with_a_checkpoint_is_interrupted(ledger: Ledger, tmp_path: Path) -> None:
    spec = cell(stage="flow")
    ledger.checkpoints("flow", spec.signature, tmp_path).save(3, saved(3))
    assert state(ledger, spec) == (State.TO_DO, Reason.INTERRUPTED)


def test_a_checkpoint_of_an_earlier_ledger_is_gone_on_from(ledger: Ledger, tmp_path: Path) -> None:
    """They were named by their step alone."""
    checkpoints = ledger.checkpoints("flow", "ab", tmp_path / "scratch")
    checkpoints.save(7, saved(7))
    new, old = place(ledger, 7), "flow/ab/checkpoints/000000000007"
    for file in ("complete.json", "files/weights.bin", "files/deep/optimiser.bin"):
        ledger.storage.write(f"{old}/{file}", ledger.storage.read(f"{new}/{file}"))
    ledger.storage.delete(new, recursive=True)
    found = checkpoints.latest()
    assert found is not None
    assert (found[0], (found[1] / "weights.bin").read_bytes()) == (7, b"step 7")
    checkpoints.save(8, saved(8))
    checkpoints.save(9, saved(9))
    assert not ledger.storage.exists(f"{old}/complete.json")
