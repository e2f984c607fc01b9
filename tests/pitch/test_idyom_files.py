"""IDyOM's own tables, and an IDyOM that is not there or fails."""

from __future__ import annotations

import io
import os
from pathlib import Path

import mido
import numpy as np
import pytest

from tasks.contract import TaskError
from tasks.ppm import installed
from tasks.ppm.idyom import Melody
from tasks.ppm.idyom_files import read_dat

HEAD = "dataset.id melody.id note.id melody.name cpitch onset probability cpitch.information.content cpitch.entropy "
ROWS = (
    '7 2 1 "a tune, in two parts" 60 0 0.25 2.0 3.5 ',
    '7 2 2 "a tune, in two parts" 62 24 0.5d0 1.0d0 NA ',
    '7 1 2 "first" 67 12 0.125 3.0 3.25 ',
    '7 1 1 "first" 65 0 0.0625 4.0 3.0 ',
)


def table(rows: tuple[str, ...] = ROWS, head: str = HEAD) -> io.StringIO:
    return io.StringIO("\n".join([head, *rows, ""]))


def test_a_table_as_idyom_writes_it() -> None:
    first, second = read_dat(table(), "x.dat")
    assert (first.id, first.name) == (1, "first")
    np.testing.assert_array_equal(first.pitches, [65, 67])
    np.testing.assert_array_equal(first.bits, [4, 3])
    np.testing.assert_array_equal(first.onset_ticks, [0, 12])
    assert (second.id, second.name) == (2, "a tune, in two parts")
    np.testing.assert_array_equal(second.bits, [2, 1])
    np.testing.assert_array_equal(second.entropy_bits, [3.5, np.nan])


@pytest.mark.parametrize("separator", ["\t", ","])
def test_other_separators(separator: str) -> None:
    rows = tuple(row.strip().replace('"a tune, in two parts"', "x").replace(" ", separator) for row in ROWS)
    first, second = read_dat(table(rows, HEAD.strip().replace(" ", separator)), "x.dat")
    assert (first.name, second.name) == ("first", "x")
    np.testing.assert_array_equal(second.bits, [2, 1])


def test_the_target_is_chosen_where_there_are_several() -> None:
    head = (
        "melody.id note.id melody.name cpitch cpitch.information.content onset.information.content information.content"
    )
    rows = ('1 1 "x" 60 2.0 5.0 7.0',)
    assert read_dat(table(rows, head), "x.dat")[0].bits[0] == 2
    assert read_dat(table(rows, head), "x.dat", "onset")[0].bits[0] == 5
    assert read_dat(table(rows, head), "x.dat", "bioi")[0].bits[0] == 7
    assert np.isnan(read_dat(table(rows, head), "x.dat")[0].onset_ticks[0])


@pytest.mark.parametrize(
    ("head", "rows", "sentence"),
    [
        (HEAD, (), "x.dat: an IDyOM table without notes"),
        (
            "melody.id melody.name mean.information.content",
            ('1 "x" 2.5',),
            "no column note.id; run IDyOM with :detail 3",
        ),
        ("melody.id note.id cpitch", ("1 1 60",), "no column information.content; run IDyOM with :detail 3"),
        (HEAD, (*ROWS, '7 3 1 "y" 60 0 0.5 much 1.0'), "melody 3, note 1: cpitch.information.content is 'much'"),
        (HEAD, (*ROWS, '7 3 1 "y" 60 0 0.5 NA 1.0'), "melody 3, note 1: cpitch.information.content is missing"),
        (HEAD, (*ROWS, "7 3 1 y 60"), "x.dat: line 6 has 5 cells for 9 columns"),
    ],
)
def test_what_is_no_table_of_notes_is_refused(head: str, rows: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(TaskError) as refused:
        read_dat(table(rows, head), "x.dat")
    assert sentence in str(refused.value)


def a_program(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Put a program called sbcl in front of all others."""
    program = folder / "sbcl"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_without_idyom_one_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TaskError, match="IDyOM is not installed here"):
        installed.score([], [Melody([60, 62])])


def test_a_fault_of_idyom_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_program(tmp_path, monkeypatch, "echo 'The function START-IDYOM is undefined.' >&2; exit 1")
    with pytest.raises(TaskError, match=r"IDyOM failed \(The function START-IDYOM is undefined\.\)"):
        installed.score([Melody([60])], [Melody([60, 62])])
    a_program(tmp_path, monkeypatch, "exec sleep 30")
    with pytest.raises(TaskError, match=r"longer than 0\.2 s"):
        installed.score([Melody([60])], [Melody([60, 62])], timeout_s=0.2)
    a_program(tmp_path, monkeypatch, "exit 0")
    with pytest.raises(TaskError, match="wrote 0 tables"):
        installed.score([Melody([60])], [Melody([60, 62])])


def test_what_idyom_is_given_and_what_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept"
    body = f"""for last; do :; done; root=$(dirname "$last"); cp -r "$root" {kept}; mkdir "$root/out"
cat > "$root/out/x.dat" <<'END'
melody.id note.id melody.name cpitch information.content entropy
1 1 "000000" 60 4.0 3.0
1 2 "000000" 62 2.0 1.0
END"""
    a_program(tmp_path, monkeypatch, body)
    (found,) = installed.score([Melody([60, 64, 67], tonic=7)], [Melody([60, 62])], "ltm+", "cpintfref x cpint")
    np.testing.assert_array_equal(found.bits, [4, 2])
    np.testing.assert_array_equal(found.entropy_bits, [3, 1])
    midi = mido.MidiFile(kept / "training/000000.mid")
    assert [message.note for message in midi if message.type == "note_on"] == [60, 64, 67]
    assert [message.key for message in midi if message.type == "key_signature"] == ["G"]
    script = (kept / "run.lisp").read_text()
    assert script.count("(") == script.count(")")
    for told in (
        "'(cpitch) '((cpintfref cpint)) :models :ltm+ :k 1",
        f'"{tmp_path.anchor}',
        "delete-dataset 880000001",
    ):
        assert told in script
    with pytest.raises(TaskError, match="other notes than melody 1"):
        installed.score([Melody([60])], [Melody([60, 63])])
