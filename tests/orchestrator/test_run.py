"""What `run` says at its end, and with which code it ends."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_stages import cell, graph

from orchestrator.experiment import ExecutionConfig
from orchestrator.ledger import Ledger
from orchestrator.opening import Study
from orchestrator.storage import Storage
from orchestrator.study import Outcome
from orchestrator.verbs import run as verb

COMMAND = [".venv/bin/orchestrator", "run", "my study.yaml", "--inline"]
GO_ON = "To go on: .venv/bin/orchestrator run 'my study.yaml' --inline"


class Tracking:
    """Stands for MLflow; `close` may be interrupted."""

    def __init__(self, on_close: Callable[[], None] = lambda: None) -> None:
        self._on_close = on_close

    def __call__(self, *values: Any, **named: Any) -> Tracking:
        return self

    def report_built(self, report: Any) -> None: ...

    def close(self) -> None:
        print("closed", file=sys.stderr)
        self._on_close()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The verb on a study whose outcome, report and tracking are given; exceptions among them are raised."""
    ledger = Ledger(Storage(str(tmp_path / "ledger")))
    settings = ExecutionConfig(cpus=1, ledger="ledger")
    experiment = SimpleNamespace(name="s", execution=settings, search=None)
    study = Study(experiment, {}, graph(cell("source", "s")), ledger)  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "argv", COMMAND)

    def give(value: Any) -> Callable[..., Any]:
        def function(*values: Any, **named: Any) -> Any:
            if isinstance(value, BaseException):
                raise value
            return value

        return function

    def call(outcome: Any, report: Any = None, on_close: Any = None) -> int:
        monkeypatch.setattr(verb, "run_study", give(outcome))
        monkeypatch.setattr(verb, "report_of", give(report or SimpleNamespace(text="the report")))
        monkeypatch.setattr(verb, "Tracking", Tracking(give(on_close)))
        return verb.run(study, inline=True, address=None, retry_failed=False)

    call.ledger = ledger  # type: ignore[attr-defined]
    return call


def test_what_was_left_out_is_named_at_the_end(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    excluded = {f"{number}.wav: silent": ["corpus train", "corpus validation"] for number in range(25)}
    assert run(Outcome(cached=["a"], excluded=excluded)) == 1
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "the report\n"
    assert lines[0] == "left out: 0.wav: silent (corpus train, corpus validation)"
    assert lines[20:22] == [
        "and 5 more; the report names them all",
        "1 cells cached, 0 computed, 25 parts of the data left out in 0 s",
    ]


def test_a_stop_says_how_to_go_on_before_it_waits_for_mlflow(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Outcome(signum=15)) == 143
    assert capsys.readouterr().err.splitlines() == [f"stopped; nothing done is lost. {GO_ON}", "closed"]


@pytest.mark.parametrize("place", ["outcome", "report", "on_close"])
def test_ctrl_c_at_any_time_says_how_to_go_on(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], place: str
) -> None:
    assert run(**{"outcome": Outcome(), place: KeyboardInterrupt()}) == 130
    assert capsys.readouterr().err.count(f"stopped; nothing done is lost. {GO_ON}\n") == 1


def test_an_error_is_one_line_and_the_way_to_go_on(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Outcome(aborted="OSError: disk full")) == 1
    assert capsys.readouterr().err.splitlines() == [GO_ON, "closed"]  # the console has said what happened
    assert run(Outcome(), report=KeyError("x")) == 1
    error, *rest = capsys.readouterr().err.splitlines()
    assert error.startswith("orchestrator: KeyError: 'x' [test_run.py:")
    assert rest == [GO_ON, "closed"]


def test_a_refusal_is_not_said_twice(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Outcome(refused=["no node has 8 GPUs"])) == 3
    assert capsys.readouterr().err == "closed\n"


def test_another_driver_at_work_is_said(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    run.ledger.heartbeat("20260501T120000-4711-0f3a5c")  # type: ignore[attr-defined]
    run(Outcome())
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("note: 20260501T120000-4711-0f3a5c also at work on this ledger")
