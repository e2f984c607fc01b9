"""The driver loop on a real Ray of its own: processes are killed, drivers are killed, people press Ctrl-C."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_driver import chain
from fake_stages import STAGES, cell, graph
from heard_study import EEG_STAGES, heard_study
from test_study_inline import Diary, driver, start_driver, statuses, without_failed

from orchestrator import schedule
from orchestrator.backends import RayBackend
from orchestrator.graph import CellSpec, Graph
from orchestrator.ledger import Ledger, Status
from orchestrator.planner_eeg_group import reduce
from orchestrator.reasons import Reason
from orchestrator.stages import Stage
from orchestrator.storage import Storage
from orchestrator.study import Execution, open_cluster, run_study

pytestmark = pytest.mark.processes

LOCAL = Execution(cpus=2)


def contents(ledger: Ledger, planned: Graph) -> dict[str, str]:
    found = {}
    for spec in planned:
        status = ledger.status(spec.stage, spec.signature)
        if status is not None and status.state == "done":
            found[spec.name] = status.files["out.txt"].sha256
    return found


def test_lost_processes_failures_and_damage_cost_only_what_they_touch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trainings that wait for fan-out that waits for trainings, with one of everything that goes wrong on the way."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    ledger = Ledger(Storage(str(tmp_path / "ledger")))
    planned = chain(tmp_path)
    damaged: list[str] = []

    class Vandal(Diary):
        def cell_finished(self, spec: CellSpec, status: Status, cached: bool) -> None:
            super().cell_finished(spec, status, cached)
            if spec.name == "l" and not damaged:
                (file,) = Path(ledger.storage.root).glob(f"arm/{arm}/attempts/*/out/out.txt")
                file.write_text("?")
                damaged.append(spec.name)

    arm = next(spec.signature for spec in planned if spec.name == "a")
    diary = Vandal()
    outcome = run_study(planned, ledger, LOCAL, [diary], reduce=without_failed, stages=STAGES)
    by_name = {spec.signature: spec.name for spec in planned}
    failed = {by_name[signature]: why for signature, why in outcome.failed.items()}
    assert sorted(failed) == ["killer", "level 1"]
    assert failed["level 1"] == "ValueError: on purpose"
    assert failed["killer"].startswith("its process was lost again and again: WorkerCrashedError")
    assert (outcome.exit_code, outcome.blocked, outcome.left) == (1, {}, [])
    assert len(outcome.done) >= len(planned) - 2

    (base,) = statuses(tmp_path, "base")
    assert base.metrics["began_at"] > 0, "a killed training goes on from its checkpoint"
    assert [(record.reason, record.outcome) for record in base.attempts] == [
        (Reason.NEW, "interrupted"),
        (Reason.LOST_PROCESS, "done"),
    ]
    nap = next(status for status in statuses(tmp_path, "nap") if status.name == "dies once")
    assert [record.outcome for record in nap.attempts] == ["interrupted", "done"]
    assert {status.metrics["threads"] for status in statuses(tmp_path, "nap") if status.state == "done"} == {1}
    arms = ledger.status("arm", arm)
    assert arms is not None
    assert [record.reason for record in arms.attempts] == [Reason.NEW, Reason.SIZE_MISMATCH]

    inline = Ledger(Storage(str(tmp_path / "inline")))
    spared = graph(*(spec for spec in planned if spec.name != "killer"))
    run_study(spared, inline, Execution(inline=True), reduce=without_failed, stages=STAGES)
    here, there = contents(inline, spared), contents(ledger, spared)
    assert here == there
    assert len(here) >= len(spared) - 2


@pytest.fixture(scope="class")
def one_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RayBackend, Path]]:
    """A Ray for several studies, and the folder whose files cost processes of the stage `late` their lives."""
    unfit = tmp_path_factory.mktemp("unfit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        patch.setenv("UNFIT_NODE", str(unfit))
        backend = open_cluster(Ledger(Storage(str(unfit.parent / "ledger"))), LOCAL, 0)
        yield backend, unfit
        backend.close()


class TestStudiesOnOneRay:
    def test_a_node_that_cannot_start_processes_fails_no_cell(
        self, one_ray: tuple[RayBackend, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Such a node loses processes faster than any cell that is to blame for it: the cell waits, no loss counts."""
        monkeypatch.setattr(schedule, "FIRST_PAUSE_S", 0.01)
        backend, unfit = one_ray
        for number in range(schedule.LOSSES_ALLOWED + 2):
            (unfit / str(number)).touch()
        planned = graph(cell("late", "late"))
        ledger = Ledger(Storage(str(tmp_path / "ledger")))
        stages = STAGES | {"late": Stage("late", "unfit_stage:run", "late")}
        outcome = run_study(planned, ledger, LOCAL, stages=stages, backend=backend)
        assert outcome.exit_code == 0, outcome.failed
        (status,) = statuses(tmp_path, "late")
        assert [(record.reason, record.outcome) for record in status.attempts] == [(Reason.NOT_BEGUN, "done")]

    def test_eeg_on_ray_has_the_bits_of_eeg_computed_serially(
        self, one_ray: tuple[RayBackend, Path], tmp_path: Path
    ) -> None:
        """Every file of every EEG stage, from the listeners to the verdicts."""
        planned, ledger = heard_study(tmp_path / "ray")
        shutil.copytree(tmp_path / "ray", tmp_path / "serial")
        serial = Ledger(Storage(str(tmp_path / "serial")))
        found = []
        for book, execution, backend in ((ledger, LOCAL, one_ray[0]), (serial, Execution(inline=True), None)):
            outcome = run_study(planned, book, execution, reduce=reduce, backend=backend)
            assert (outcome.exit_code, outcome.failed) == (0, {})
            done = {spec.name: book.status(spec.stage, spec.signature) for spec in planned if spec.stage in EEG_STAGES}
            found.append(
                {
                    name: {file: facts.sha256 for file, facts in status.files.items()} if status else {}
                    for name, status in done.items()
                }
            )
        assert found[0] == found[1]
        assert set(EEG_STAGES) == {spec.stage for spec in planned if spec.name in found[0]}
        assert all(found[0].values())


def test_ctrl_c_among_500_waiting_tasks_saves_the_checkpoint(tmp_path: Path) -> None:
    """A training released among 500 waiting tasks starts within 30 s on two CPUs, and Ctrl-C reaches all processes."""
    process = start_driver(tmp_path, "crowded")
    assert process.stdout is not None
    released = started = 0.0
    for line in process.stdout:
        released = time.monotonic() if line == "b done\n" else released
        if line == "a 3\n":
            started = time.monotonic()
            break
    assert 0 < started - released < 30
    before = descendants(process.pid)
    pressed = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=40)
    assert process.returncode == 130, err
    assert time.monotonic() - pressed < 30
    assert err.strip() == "stopping: checkpoints are being written; again to leave at once"
    assert not still_there(before)
    ledger = Ledger(Storage(str(tmp_path / "ledger")))
    (arm,) = ledger.signatures("arm")
    latest = ledger.checkpoints("arm", arm, tmp_path / "scratch").latest()
    assert latest is not None
    assert latest[0] >= 3
    assert 0 < len(statuses(tmp_path, "nap")) < 500
    assert not ledger.alive_drivers(60.0)


def test_after_kill_9_of_the_driver_the_same_command_goes_on(tmp_path: Path) -> None:
    process = start_driver(tmp_path, "mixed")
    assert process.stdout is not None
    seen: set[str] = set()
    for line in process.stdout:
        seen.add(line.strip())
        if {"b 5", "n0 done", "n1 done"} <= seen:
            break
    workers = descendants(process.pid)
    assert workers
    process.kill()
    process.communicate(timeout=20)
    kept = {status.signature: status for stage in STAGES for status in statuses(tmp_path, stage)}
    again = driver(tmp_path, "mixed")  # at once: what is left of the first Ray is not in its way
    assert again.returncode == 0, again.stderr
    assert not still_there(workers)
    after = {status.signature: status for stage in STAGES for status in statuses(tmp_path, stage)}
    assert len(after) == 16
    assert {key: after[key] for key in kept} == kept, "nothing done is done again"
    for status in after.values():
        assert [record.outcome for record in status.attempts].count("done") == 1
        assert all(record.reason is Reason.INTERRUPTED for record in status.attempts[1:])
    (base,) = statuses(tmp_path, "base")
    assert base.metrics["began_at"] >= 4, "it goes on from its checkpoint"
    assert [record.outcome for record in base.attempts] == ["interrupted", "done"]


def test_a_request_that_no_node_can_hold_is_refused_with_the_numbers(tmp_path: Path) -> None:
    from dataclasses import replace

    from orchestrator.cluster import refusals

    nodes = [{"CPU": 2.0}, {"CPU": 4.0, "GPU": 1.0}]
    fits, too_big = replace(STAGES["base"], gpus=1.0), replace(STAGES["nap"], cpus=8.0)
    (sentence,) = refusals([fits, too_big], nodes)
    assert "'nap' asks for 8 CPUs and 0 GPUs" in sentence
    assert "2 CPUs and 0 GPUs; 4 CPUs and 1 GPUs" in sentence


def test_a_ray_that_cannot_be_started_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def broken(**settings: object) -> None:
        raise RuntimeError("the object store does not fit\ninto /dev/shm")

    monkeypatch.setattr(ray, "init", broken)
    ledger = Ledger(Storage(str(tmp_path / "ledger")))
    outcome = run_study(chain(tmp_path), ledger, LOCAL, stages=STAGES)
    assert outcome.exit_code == 3
    assert outcome.refused == [
        "Ray can't be started here: RuntimeError: the object store does not fit into /dev/shm; --inline does without it"
    ]
    assert not ledger.alive_drivers(60.0)


@pytest.mark.parametrize(
    ("own", "nodes", "folder"), [(False, 2, "/r"), (False, 1, "/r"), (True, 2, "/r"), (False, 2, None)]
)
def test_several_nodes_need_a_ledger_that_all_of_them_see(
    own: bool, nodes: int, folder: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator import cluster
    from orchestrator.backends import RayBackend

    there = cluster.Cluster.__new__(cluster.Cluster)
    there.is_own = own
    monkeypatch.setattr(cluster, "_nodes", lambda: [{"CPU": 8.0}] * nodes)
    monkeypatch.setattr(cluster, "bootstrapped", lambda: None)
    refused = RayBackend(there, 0, folder).preflight([STAGES["nap"]])
    assert len(refused) == (not own and nodes == 2 and folder is not None)
    assert all("its own disk below /r" in sentence for sentence in refused)


def descendants(pid: int) -> set[tuple[int, str]]:
    """All processes below `pid`, each with its start time."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        facts = stat(int(entry.name))
        if facts:
            parents.setdefault(int(facts[1]), []).append(int(entry.name))
    found, left = set(), [pid]
    while left:
        for child in parents.get(left.pop(), []):
            facts = stat(child)
            if facts and not is_helper(child):
                found.add((child, facts[19]))
                left.append(child)
    return found


def is_helper(pid: int) -> bool:
    """Two helpers of Ray, which compute nothing, notice the death of their head only after about a minute."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith((b"ray::DashboardAgent", b"ray::RuntimeEnvAgent"))
    except OSError:
        return False


def stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def still_there(processes: set[tuple[int, str]], seconds: float = 15.0) -> set[tuple[int, str]]:
    """Those of `processes` that live on for `seconds`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        left = {
            (pid, start) for pid, start in processes if (facts := stat(pid)) and facts[19] == start and facts[0] != "Z"
        }
        if not left:
            break
        time.sleep(0.2)
    return left
