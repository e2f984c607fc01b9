"""A lab: a desk where a person types, three hosts that clusters/onprem.yaml makes a cluster, and what they lean on."""

from __future__ import annotations

import json
import os
import pwd
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from homes import clone_of_the_checkout, lend_environment, private
from hosts import NETWORK, Machine, Switch, new_key, wait_until
from services import BUCKET, ROOT, SWIFT_VENV, Services, end

HERE = Path(__file__).parent
REPOSITORY = "noise-levels"
HOME = pwd.getpwuid(0).pw_dir
"""Of the only user that the hosts have."""
TRACKING = "http://127.0.0.1:5000"
ADDRESSES = {"services": f"{NETWORK}.2", "desk": f"{NETWORK}.3"} | {
    name: f"{NETWORK}.{number}" for number, name in enumerate(("head", "alpha", "beta"), 11)
}
SHORT = ("eeg=null", "data.stimuli=null")
"""Overrides of the sweep that leave out the listeners, whose cells are many and short."""

SWEEP_AT_MOST_S = 900.0
CPUS = {"alpha": "0", "beta": "1"}
"""One CPU for each worker: `nproc` says so there, and with it the on-prem yaml."""


@dataclass(frozen=True)
class Ended:
    """A job that has ended: its name, its exit code (None: it had no chance to give one), and what it printed."""

    name: str
    state: str
    exit_code: int | None
    seconds: float
    log: str


class Lab:
    """Everything that runs for a test; `close` leaves nothing behind."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="lab-", dir="/var/tmp"))
        self.base.chmod(0o755)
        self.switch = Switch()
        self.seconds: dict[str, float] = {}
        everywhere = f"0-{(os.cpu_count() or 1) - 1}"
        kept = [ROOT, (ROOT / ".venv").resolve(), SWIFT_VENV, Path(sys.base_prefix)]
        self.machines = {
            name: Machine(
                name, int(address.rpartition(".")[2]), self.switch, self.base, kept, CPUS.get(name, everywhere)
            )
            for name, address in ADDRESSES.items()
        }
        self.desk, self.head = self.machines["desk"], self.machines["head"]
        self.workers = [self.machines["alpha"], self.machines["beta"]]
        self.services = Services(self.machines["services"])
        self._tunnel: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        for machine in self.machines.values():
            machine.kill()
        self.switch.close()
        shutil.rmtree(self.base, ignore_errors=True)

    # Machines as a person would find them: sshd, a home, Python

    def start(self) -> None:
        """Boot all machines and start the services."""
        began = time.monotonic()
        key = new_key(self.base / "key")
        token = secrets.token_hex(32)
        for machine in self.machines.values():
            machine.prepare(ADDRESSES, key)
        for machine in (self.desk, self.head, *self.workers):
            self._give_credentials(machine)
        for machine in (self.head, *self.workers):
            lend_environment(machine.home / "study/.venv", f"{HOME}/study")
        self._set_the_desk(token)
        self._prepare_mlflow()
        for machine in self.machines.values():
            machine.start()
        self.seconds["boot"] = time.monotonic() - began
        began = time.monotonic()
        self.services.start()
        self.desk.run(f"cd {REPOSITORY} && .venv/bin/python tunes.py s3://{BUCKET}/midi", check=True)
        self.seconds["services"] = time.monotonic() - began

    def _give_credentials(self, machine: Machine) -> None:
        text = (
            f"[default]\naws_access_key_id = {self.services.key_id}\naws_secret_access_key = {self.services.secret}\n"
        )
        private(machine.home / ".aws/credentials", text)
        region = f"[default]\nregion = us-east-1\nendpoint_url = {self.services.endpoint}\n"
        private(machine.home / ".aws/config", region)

    def _set_the_desk(self, token: str) -> None:
        """The desk has the key, the token, a checkout with its environment, and the cluster's yaml."""
        home = self.desk.home
        shutil.copytree(
            self.base, home / ".ssh", ignore=lambda folder, names: [n for n in names if not n.startswith("key")]
        )
        (home / ".ssh").chmod(0o700)
        private(home / ".ray/auth_token", token)
        clone_of_the_checkout(home / REPOSITORY)
        lend_environment(home / REPOSITORY / ".venv", f"{HOME}/{REPOSITORY}")
        shutil.copy(HERE / "sweep.yaml", home / REPOSITORY / "experiments/sweep.yaml")
        for script in ("tunes.py", "ledger_facts.py", "at_work.py"):
            shutil.copy(HERE / script, home / REPOSITORY / script)
        (home / REPOSITORY / "clusters/lab.yaml").write_text(yaml.safe_dump(self.cluster_yaml(), sort_keys=False))
        (home / ".profile").write_text("export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0\n")

    def cluster_yaml(self) -> dict[str, Any]:
        """clusters/onprem.yaml with the addresses, user and key of these hosts, and nothing else changed."""
        cluster: dict[str, Any] = yaml.safe_load((ROOT / "clusters/onprem.yaml").read_text())
        cluster["provider"] |= {"head_ip": self.head.address, "worker_ips": [w.address for w in self.workers]}
        cluster["auth"] |= {"ssh_user": "root", "ssh_private_key": "~/.ssh/key"}
        return cluster

    def _prepare_mlflow(self) -> None:
        settings = {
            "MLFLOW_BACKEND_STORE_URI": self.services.database_uri,
            "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{BUCKET}/mlflow",
            "AWS_ENDPOINT_URL_S3": self.services.endpoint,
        }
        private(self.head.home / ".mlflow.env", "".join(f"{name}={value}\n" for name, value in settings.items()))
        shutil.copy(HERE / "mlflow_facts.py", self.head.home / "mlflow_facts.py")

    # The cluster

    def up(self) -> None:
        """What `make up` does, and wait until all nodes have joined and MLflow answers."""
        began = time.monotonic()
        self.at_desk("make token .commit && ray up --yes clusters/lab.yaml", check=True, seconds=400)
        self.seconds["make up"] = time.monotonic() - began
        self.open_tunnel()
        wait_until("three nodes", lambda: len(self.nodes()) == 1 + len(self.workers), 200, 2)
        self.seconds["all joined"] = time.monotonic() - began
        self.wait_for_mlflow()
        self.seconds["MLflow"] = time.monotonic() - began

    def open_tunnel(self) -> None:
        """What `ray dashboard` does: the head's loopback at the desk."""
        if self._tunnel is not None:
            self._tunnel.kill()
            self._tunnel.wait()
            end(self.desk, ("ssh -N",), "KILL")
        options = (
            "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ServerAliveInterval=5"
        )
        forward = f"ssh -N {options} -i ~/.ssh/key -L 8265:127.0.0.1:8265 root@{self.head.address}"
        self._tunnel = self.desk.start_process(forward, self.base / "tunnel.log")
        wait_until("the tunnel", lambda: self.desk.run("exec 3<>/dev/tcp/127.0.0.1/8265").returncode == 0, 60)

    def nodes(self) -> list[str]:
        """Addresses of the nodes that are alive, as the cluster's head knows them."""
        asked = "ray list nodes --format json --filter state=ALIVE --limit 100 2>/dev/null"
        found = self.head.run(f"{ON_A_NODE}; {asked}", seconds=60)
        return sorted(node["node_ip"] for node in json.loads(found.stdout or "[]")) if found.returncode == 0 else []

    def wait_for_mlflow(self, seconds: float = 120) -> None:
        probe = "exec 3<>/dev/tcp/127.0.0.1/5000"
        wait_until("MLflow", lambda: self.head.run(probe).returncode == 0, seconds, 1)

    def stop_mlflow(self, signal: str = "KILL") -> None:
        end(self.head, ("orchestrator ui --serve", "mlflow server", "mlflow.server"), signal)

    def start_mlflow(self) -> None:
        """By the line of the yaml that starts it at `ray up`."""
        line = next(line for line in self.cluster_yaml()["head_start_ray_commands"] if ".mlflow.env" in line)
        self.head.run(line, check=True)
        self.wait_for_mlflow()

    # The desk

    def at_desk(
        self, command: str, check: bool = False, seconds: float = 300, environment: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """A command typed in the checkout, with its environment first on the path."""
        path = f"export PATH=$HOME/{REPOSITORY}/.venv/bin:$PATH {environment}"
        return self.desk.run(f"{path}; cd {REPOSITORY} && {command}", check=check, seconds=seconds)

    def settings(self, study: str) -> list[str]:
        """What names one run of the sweep: all else is in its file."""
        return [
            f"name={study}",
            f"execution.ledger=s3://{BUCKET}/{study}",
            f"execution.s3_endpoint_url={self.services.endpoint}",
            f"execution.tracking_uri={TRACKING}",
        ]

    def submit(self, study: str, *more: str) -> str:
        """Submit the sweep as `study`; returns the job's name."""
        words = " ".join([*self.settings(study), *more])
        done = self.at_desk(f"orchestrator submit experiments/sweep.yaml {words}", check=True)
        return done.stdout.split()[0]

    def job(self, name: str) -> tuple[str, int | None]:
        """State and exit code of a job, as `orchestrator status` says them at the desk."""
        said = self.at_desk(f"orchestrator status {name}", seconds=90).stdout
        found = re.search(r"^job \S+: (\w+)(?: after \d+ s)?(?:, the driver ended with exit code (\d+))?", said, re.M)
        return (found[1], int(found[2]) if found[2] else None) if found else ("unknown", None)

    def wait(self, name: str, seconds: float) -> Ended:
        """The job once it has ended."""
        began = time.monotonic()
        follow = f"timeout {seconds:.0f} orchestrator logs {name} --follow > /dev/null 2>&1"
        self.at_desk(follow, seconds=seconds + 30)
        state, exit_code = self.job(name)
        while state not in ("succeeded", "failed", "stopped"):
            if time.monotonic() - began > seconds:
                raise TimeoutError(f"{name} is still {state} after {seconds:g} s")
            time.sleep(2)
            state, exit_code = self.job(name)
        log = self.at_desk(f"orchestrator logs {name}").stdout
        return Ended(name, state, exit_code, time.monotonic() - began, log)

    # What is left of a study

    def ledger(self, study: str) -> dict[str, Any]:
        """Every cell with its attempts: see ledger_facts.py."""
        words = f"python ledger_facts.py s3://{BUCKET}/{study} {self.services.endpoint}"
        return dict(json.loads(self.at_desk(words, check=True).stdout))

    def tables(self, study: str, *more: str) -> dict[str, bytes]:
        """The tables of the report, made at the desk from the ledger."""
        words = " ".join([*self.settings(study), *more])
        self.at_desk(f"orchestrator report experiments/sweep.yaml {words}", check=True)
        folder = self.desk.home / REPOSITORY / "results/reports" / study / "tables"
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

    def runs(self, study: str) -> list[dict[str, Any]]:
        """The study's MLflow runs: see mlflow_facts.py."""
        done = self.head.run(f"{ON_A_NODE}; python ~/mlflow_facts.py {TRACKING} {study}", check=True)
        return list(json.loads(done.stdout))

    # What happens to it

    def wait_for_training(self, study: str, stage: str, seconds: float) -> Machine:
        """The host where a training of `stage` is at work that has saved a checkpoint, as soon as there is one."""
        words = f"s3://{BUCKET}/{study} {self.services.endpoint} {stage} {seconds:.0f}"
        done = self.at_desk(f"python at_work.py {words}", check=True, seconds=seconds + 30)
        return self.machines[done.stdout.strip()]

    def kill_driver(self) -> None:
        """kill -9 of the process that drives the study, if it still does."""
        end(self.head, ("-m orchestrator run",), "KILL")

    def wait_until_whole(self, seconds: float = 240) -> None:
        """All nodes are there again, for whatever comes next."""
        wait_until("three nodes", lambda: len(self.nodes()) == 1 + len(self.workers), seconds, 3)


ON_A_NODE = "export PATH=$HOME/study/.venv/bin:$PATH RAY_AUTH_MODE=token; cd ~/study"
