from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from orchestrator.graph import CellSpec, Graph
from orchestrator.progress import EVERY_S, Progress
from orchestrator.reasons import Reason, State

DONE = SimpleNamespace(state="done", failure=None)


def _cell(stage: str, i: int) -> CellSpec:
    return CellSpec(stage, f"{stage} {i}", {}, {}, f"{stage}{i:04d}".ljust(32, "0"))


def _graph(*cells: CellSpec) -> Graph:
    return Graph({cell.signature: cell for cell in cells})


def _outcome(**changes: object) -> SimpleNamespace:
    empty = {
        "stopped": False,
        "refused": [],
        "aborted": None,
        "done": [],
        "cached": [],
        "failed": {},
        "blocked": {},
        "left": [],
        "seconds": 75.0,
    }
    return SimpleNamespace(**{**empty, **changes})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def plain(clock):
    stream = io.StringIO()
    return Progress(stream, terminal=False, clock=clock), stream


def _states(cells, state=State.TO_DO, reason=Reason.NEW):
    return {cell.signature: (state, reason, None) for cell in cells}


def test_a_thousand_cells_are_a_few_lines(plain, clock):
    progress, stream = plain
    cells = [_cell("trf", i) for i in range(1000)]
    progress.study_started(_graph(*cells), _states(cells))
    for cell in cells:
        clock.now += 0.05
        progress.cell_started(cell, Reason.NEW)
        progress.cell_finished(cell, DONE, False)
    progress.study_finished(_outcome(done=[cell.signature for cell in cells]))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "1000 cells: 1000 to do"
    assert lines[-1] == "finished after 1 min 15 s: 1000 computed, 0 cached"
    assert len(lines) <= 3 + 1000 * 0.05 / EVERY_S


def test_a_new_stage_is_said_at_once(plain):
    progress, stream = plain
    cells = [_cell("tunes", 0), _cell("corpus", 0)]
    progress.study_started(_graph(*cells), _states(cells))
    for cell in cells:
        progress.cell_started(cell, Reason.NEW)
        progress.cell_finished(cell, DONE, False)
    assert [line.split(":")[0] for line in stream.getvalue().splitlines()[1:]] == ["tunes", "corpus"]


def test_stages_that_run_side_by_side_do_not_flood(plain, clock):
    progress, stream = plain
    one, others = _cell("flow", 0), [_cell("trf", i) for i in range(200)]
    progress.study_started(_graph(one, *others), _states([one, *others]))
    progress.cell_started(one, Reason.NEW)
    for i, cell in enumerate(others):
        clock.now += 0.01
        progress.cell_started(cell, Reason.NEW)
        progress.cell_progress(one, i, 200, {"train_loss": 1.0})
        progress.cell_finished(cell, DONE, False)
    assert len(stream.getvalue().splitlines()) <= 4


def test_every_recomputation_is_said_with_its_reason(plain):
    progress, stream = plain
    cells = [_cell("surprisal", i) for i in range(5)]
    progress.study_started(_graph(*cells), _states(cells))
    for cell in cells[:4]:
        progress.cell_started(cell, Reason.CHECKSUM_MISMATCH)
    progress.cell_started(cells[4], Reason.INTERRUPTED)
    progress.study_finished(_outcome())
    text = stream.getvalue()
    assert text.count("another checksum than was published") == 2
    assert "surprisal 0 (surprisal000" in text
    assert "surprisal 1" in text
    assert "surprisal 4 (" in text
    assert "an attempt began and its process died" in text


def test_new_cells_have_no_reason_to_say(plain):
    progress, stream = plain
    cell = _cell("flow", 0)
    progress.study_started(_graph(cell), _states([cell]))
    progress.cell_started(cell, Reason.NEW)
    progress.study_finished(_outcome())
    assert "again" not in stream.getvalue()


def test_failures_are_said_and_counted(plain):
    progress, stream = plain
    cells = [_cell("eeg", i) for i in range(20)]
    progress.study_started(_graph(*cells), _states(cells))
    for cell in cells:
        progress.cell_finished(cell, SimpleNamespace(state="failed", failure="no trials"), False)
    lines = stream.getvalue().splitlines()
    assert sum(line.startswith("failed: eeg") for line in lines) == 5
    assert sum("the report names them all" in line for line in lines) == 1


def test_cached_studies_are_quiet(plain):
    progress, stream = plain
    cells = [_cell("trf", i) for i in range(300)]
    progress.study_started(_graph(*cells), _states(cells, State.CACHED, Reason.DONE))
    for cell in cells:
        progress.cell_finished(cell, DONE, True)
    progress.study_finished(_outcome(cached=[cell.signature for cell in cells], seconds=0.4))
    assert stream.getvalue().splitlines() == ["300 cells: 300 cached", "finished after 0.4 s: 0 computed, 300 cached"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"stopped": True}, "stopped after"),
        ({"refused": ["no node has 8 GPUs"]}, "no node has 8 GPUs"),
        ({"aborted": "OSError: disk full"}, "broken off by an error: OSError: disk full"),
    ],
)
def test_the_end_is_named(plain, change, word):
    progress, stream = plain
    progress.study_started(_graph(_cell("flow", 0)), {})
    progress.study_finished(_outcome(**change))
    assert word in stream.getvalue()


def test_terminal_shows_a_table_and_names_are_no_markup(monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    stream = io.StringIO()
    progress = Progress(stream, terminal=True)
    cell = CellSpec("flow", "flow [red]x[/red]", {}, {}, "a" * 32)
    progress.study_started(_graph(cell, _cell("trf", 1)), _states([cell]))
    progress.cell_started(cell, Reason.FILE_MISSING)
    progress.cell_progress(cell, 3, 10, {"train_loss": 0.25})
    progress._live.refresh()
    progress.cell_finished(cell, SimpleNamespace(state="failed", failure="it [bold]broke[/bold]"), False)
    progress.study_finished(_outcome())
    text = stream.getvalue()
    for shown in (
        "stage",
        "flow [red]x[/red] 3/10",
        "train_loss 0.25",
        "a file of its result is gone",
        "it [bold]broke[/bold]",
    ):
        assert shown in text


def test_a_cell_that_is_computed_again_is_counted_once(plain):
    progress, _ = plain
    cell = _cell("latents", 0)
    progress.study_started(_graph(cell), _states([cell], State.CACHED, Reason.DONE))
    progress.cell_finished(cell, DONE, True)
    progress.cell_started(cell, Reason.CHECKSUM_MISMATCH)
    progress.cell_finished(cell, DONE, False)
    assert progress._cached["latents"] + progress._done["latents"] == 1
