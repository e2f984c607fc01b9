"""Runs an IDyOM that is installed on this machine (SBCL, and `start-idyom` in its init file, as IDyOM's wiki has it).

Nothing here needs it: `tasks.ppm.idyom` computes the same. It is for those who want IDyOM's own word on their melodies.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import mido

from tasks.contract import TaskError
from tasks.ppm.idyom import Expectation, Melody, Memory
from tasks.ppm.idyom_files import IdyomMelody, read_dat
from tasks.ppm.viewpoints import Viewpoint

SOURCES: dict[Viewpoint, str] = {"cpitch": "cpitch", "cpint": "cpint", "cpintfref x cpint": "(cpintfref cpint)"}
KEYS = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
DATA_SETS = (880_000_001, 880_000_002)
"""Numbers of the training and the test set in IDyOM's database, where they stay only while it runs."""


def find_idyom() -> str:
    """Path of SBCL.

    Raises
    ------
    TaskError
        When there is none. Whether IDyOM is installed in it shows when it runs.
    """
    found = shutil.which("sbcl")
    if found is None:
        raise TaskError("IDyOM is not installed here (no sbcl on the PATH); the pitch models of this project need none")
    return found


def score(
    training: Sequence[Melody],
    tested: Sequence[Melody],
    memory: Memory = "both+",
    viewpoint: Viewpoint = "cpitch",
    timeout_s: float = 3600,
) -> list[Expectation]:
    """Let the installed IDyOM predict melodies after it has learnt others.

    Parameters
    ----------
    training, tested : sequence of Melody
        Tested ones are one fold, in this order: with a ``+`` IDyOM goes on learning from each to the next.
    memory, viewpoint
        As in `PitchModel`.
    timeout_s : float
        How long it may take.

    Returns
    -------
    list of Expectation
        One for each tested melody. The alphabet is that of all pitches in `training` and `tested`.

    Raises
    ------
    TaskError
        When there is no IDyOM, or it fails, or takes longer.
    """
    program = find_idyom()
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for name, melodies in (("training", training), ("tested", tested)):
            _write_midi(melodies, root / name)
        script = root / "run.lisp"
        script.write_text(lisp(root, memory, viewpoint), encoding="utf-8")
        _run([program, "--noinform", "--non-interactive", "--load", str(script)], timeout_s)
        tables = list((root / "out").glob("*.dat"))
        if len(tables) != 1:
            raise TaskError(f"IDyOM ended without a fault but wrote {len(tables)} tables instead of one")
        with tables[0].open(encoding="utf-8") as stream:
            return _in_order(read_dat(stream, tables[0].name), tested)


def lisp(root: Path, memory: Memory, viewpoint: Viewpoint) -> str:
    """What IDyOM is told; its database holds the two sets only while it runs."""
    train, test = DATA_SETS
    clean = f"(ignore-errors (idyom-db:delete-dataset {train})) (ignore-errors (idyom-db:delete-dataset {test}))"
    return "\n".join(
        (
            "(start-idyom)",
            clean,
            "(unwind-protect (progn",
            f'(idyom-db:import-data :mid "{root}/training/" "training" {train})',
            f'(idyom-db:import-data :mid "{root}/tested/" "tested" {test})',
            f"(idyom:idyom {test} '(cpitch) '({SOURCES[viewpoint]}) :models :{memory} :k 1 :pretraining-ids '({train})",
            f'  :detail 3 :output-path "{root}/out/" :use-resampling-set-cache? nil :use-ltms-cache? nil))',
            f"{clean})",
            "",
        )
    )


def _run(command: list[str], timeout_s: float) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise TaskError(f"IDyOM took longer than {timeout_s:g} s") from None
    if done.returncode != 0:
        said = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        reason = next(
            (line for line in said if "error" in line.lower() or "undefined" in line.lower()), "no reason given"
        )
        raise TaskError(f"IDyOM failed ({reason}); start-idyom must be defined in ~/.sbclrc, as its wiki says")


def _write_midi(melodies: Sequence[Melody], folder: Path) -> None:
    """One file per melody, in quarter notes: only pitches and the key matter."""
    folder.mkdir()
    for number, melody in enumerate(melodies):
        track = mido.MidiTrack([mido.MetaMessage("key_signature", key=KEYS[melody.tonic])])
        for pitch in melody.pitches:
            track.append(mido.Message("note_on", note=pitch, velocity=80, time=0))
            track.append(mido.Message("note_off", note=pitch, velocity=0, time=480))
        mido.MidiFile(type=0, ticks_per_beat=480, tracks=[track]).save(folder / f"{number:06d}.mid")


def _in_order(found: Sequence[IdyomMelody], tested: Sequence[Melody]) -> list[Expectation]:
    by_name = {melody.name: melody for melody in found}
    results = []
    for number, melody in enumerate(tested):
        own = by_name.get(f"{number:06d}")
        if own is None or list(own.pitches) != list(melody.pitches):
            raise TaskError(f"IDyOM's table has other notes than melody {number + 1} of those given")
        results.append(Expectation(own.bits, own.entropy_bits))
    return results
