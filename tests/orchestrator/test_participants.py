"""The table of participants: found at planning, and signed by what it says of the study's own subjects alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.graph import CellSpec, Graph
from orchestrator.manifest import resolve
from orchestrator.planner import build
from orchestrator.planner_eeg_group import reduce
from orchestrator.reading import load_experiment
from orchestrator.storage import Storage

GOLDEN_STUDY = Path(__file__).with_name("golden.yaml")
HEAD = "participant_id\tmusician\tage\n"
ROWS = "sub-S01\tyes\t30\nsub-S02\tno\t31\nS03\tno\t31\nsub-S99\tperhaps\t20\n"


def graph(tmp_path: Path, rows: str | None, *overrides: str) -> Graph:
    table = tmp_path / "participants.tsv"
    table.unlink(missing_ok=True)
    if rows is not None:
        table.write_text(HEAD + rows)
        overrides = (f"eeg.participants={{path: {table}, column: musician}}", *overrides)
    experiment = load_experiment(str(GOLDEN_STUDY), ("eeg.simulation.n_subjects=4", *overrides)).experiment
    return build(experiment, resolve(experiment, Storage(str(tmp_path / "results"))))


def judged(planned: Graph) -> CellSpec:
    return next(cell for cell in planned if cell.stage == "group" and cell.labels["tested"] == "true")


def test_only_the_group_knows_who_is_compared(tmp_path: Path) -> None:
    without, planned = graph(tmp_path, None), graph(tmp_path, ROWS)
    assert {cell.stage for cell in planned if cell.signature not in without.cells} == {"group"}
    cell = judged(planned)
    assert cell.config["participants"] == {"column": "musician", "values": {"S01": "yes", "S02": "no", "S03": "no"}}
    assert [note for note in planned.notes if "participants" in note] == [
        f"eeg.participants: {tmp_path / 'participants.tsv'}: no musician for S04"
    ]
    other = graph(tmp_path, ROWS.replace("perhaps", "never").replace("\t30", "\t33"))
    assert judged(other).signature == cell.signature
    left = reduce(cell, {cell.inputs["trf"][0]: "S01 is lost"})
    assert left is not None
    assert left.config["participants"] == cell.config["participants"]


def test_a_column_with_more_than_two_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"eeg.participants: .*musician has 3 values \(a little, no, yes\).*exactly 2"):
        graph(tmp_path, ROWS + "S04\ta little\t20\n")


def test_a_table_that_is_not_there_is_told_of_the_group_alone(tmp_path: Path) -> None:
    planned = graph(tmp_path, None, "eeg.participants={path: nowhere.tsv, column: musician}")
    assert judged(planned).missing == "nowhere.tsv: no such table of participants (eeg.participants.path)"
    assert {cell.stage for cell in planned if cell.missing} == {"group"}
    column = "eeg.participants.column=sex"
    said = judged(graph(tmp_path, ROWS, column)).missing
    assert said is not None
    assert said.endswith("no column 'sex' to compare (eeg.participants.column); allowed: musician, age")
