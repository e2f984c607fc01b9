"""The rules of the house: who may import what, and how light the light verbs are."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.graph import CellSpec
from orchestrator.ledger import Ledger
from orchestrator.reasons import Reason
from orchestrator.stages import table
from orchestrator.storage import Storage

ROOT = Path(__file__).parents[1]
FORBIDDEN_IN_TASKS = {"orchestrator", "ray", "mlflow", "optuna", "fsspec", "s3fs"}
ONE_ROOM = {
    "fsspec": {"orchestrator/remote.py"},
    "s3fs": {"orchestrator/remote.py"},
    "mlflow": {"orchestrator/tracking.py"},
    "optuna": {"orchestrator/search/sampler.py"},
    "ray": {
        "orchestrator/cluster.py",
        "orchestrator/jobs.py",
        "orchestrator/training.py",
        "orchestrator/search/tune.py",
    },
}
HEAVY = {"torch", "mne", "scipy", "ray", "mlflow", "matplotlib"}


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere in it."""
    packages: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            packages.add(node.module.split(".")[0])
    return packages


def sources(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, folder
    return found


@pytest.mark.parametrize("path", sources("tasks"), ids=lambda path: str(path.relative_to(ROOT)))
def test_tasks_are_pure_science(path: Path) -> None:
    assert not imported(path) & FORBIDDEN_IN_TASKS


@pytest.mark.parametrize("path", sources("orchestrator"), ids=lambda path: str(path.relative_to(ROOT)))
def test_each_service_is_known_in_one_room(path: Path) -> None:
    here = str(path.relative_to(ROOT))
    strangers = {package for package in imported(path) & set(ONE_ROOM) if here not in ONE_ROOM[package]}
    assert not strangers


@pytest.mark.parametrize("path", sorted(ROOT.glob("tasks/**/config.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_configs_are_light(path: Path) -> None:
    assert not imported(path) & HEAVY


def modules_after(arguments: list[str], cwd: Path) -> set[str]:
    """The modules in memory after a verb ran in a process of its own."""
    script = (
        "import sys\n"
        "from orchestrator.cli import app\n"
        f"sys.argv = ['orchestrator', *{arguments!r}]\n"
        "try:\n    app()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print('\\n' + 'MODULES ' + ' '.join(sorted(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rsplit("MODULES ", 1)[1].split())


@pytest.mark.parametrize("verb", ["plan", "status"])
@pytest.mark.parametrize("experiment", ["demo", "search_noise_level"])
def test_planning_loads_nothing_heavy(verb: str, experiment: str, tmp_path: Path) -> None:
    path = str(ROOT / f"experiments/{experiment}.yaml")
    modules = modules_after([verb, path, "--ledger", str(tmp_path / "results")], tmp_path)
    assert not modules & {"torch", "ray", "mlflow", "mne", "optuna"}


def test_explaining_loads_nothing_heavy(tmp_path: Path) -> None:
    ledger = Ledger(Storage(str(tmp_path / "results")))
    attempt = ledger.begin(CellSpec("tunes", "tunes made up", {}, {}, "ab" * 16), Reason.NEW, "driver")
    ledger.publish(attempt, attempt.out_dir, {"n_tunes": 1}, 0.0)
    modules = modules_after(["explain", "abab", "--ledger", str(tmp_path / "results")], tmp_path)
    assert not modules & {"torch", "ray", "mlflow", "mne"}


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    modules = modules_after(["--help"], tmp_path)
    assert not modules & {"torch", "ray", "mlflow", "mne", "numpy", "pydantic"}


def test_no_registry_address_in_the_lock() -> None:
    assert "://" not in (ROOT / "requirements.lock").read_text(encoding="utf-8")


def test_the_table_of_stages_is_current() -> None:
    assert (ROOT / "docs/stages.md").read_text(encoding="utf-8") == table()
