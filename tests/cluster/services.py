"""A real object store (OpenStack Swift with its S3 layer) and PostgreSQL on a machine of their own."""

from __future__ import annotations

import hashlib
import os
import pwd
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

from hosts import Machine, wait_until

ROOT = Path(__file__).parents[2]
LOCK = Path(__file__).with_name("swift.lock")
SWIFT_VENV = ROOT / ".venv-swift"
S3_PORT = 8080
BUCKET = "lab"
S3_USER, DATABASE_USER = "nobody", "postgres"

SWIFT = "[swift-hash]\nswift_hash_path_prefix = lab\nswift_hash_path_suffix = lab\n"
COMMON = """[DEFAULT]
bind_ip = {address}
bind_port = {port}
workers = 0
user = {user}
swift_dir = {etc}
devices = {devices}
mount_check = false
disable_fallocate = true
log_udp_host = 127.0.0.1
log_udp_port = 9
"""
STORAGE = "[pipeline:main]\npipeline = {kind}-server\n[app:{kind}-server]\nuse = egg:swift#{kind}\n"
PROXY = """[pipeline:main]
pipeline = catch_errors cache listing_formats s3api tempauth slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:11211
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
s3_acl = false
check_bucket_owner = false
[filter:tempauth]
use = egg:swift#tempauth
user_lab_writer = {secret} .admin
user_lab_reader = {reader_secret}
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""
PORTS = {"account": 6202, "container": 6201, "object": 6200}
LAUNCH = (
    "import sys; from swift.common.utils import set_swift_dir; set_swift_dir(sys.argv.pop(1)); "
    "from swift.{module}.server import main; main()"
)
MODULES = {"account": "account", "container": "container", "object": "obj", "proxy": "proxy"}
ENTER = """
import sys, urllib.request as web
url, secret, bucket = sys.argv[1:]
asked = web.Request(url + "/auth/v1.0", headers={"X-Storage-User": "lab:writer", "X-Storage-Pass": secret})
with web.urlopen(asked) as answer:
    token, store = answer.headers["X-Auth-Token"], answer.headers["X-Storage-Url"]
"""
GRANT = f"""{ENTER}
rights = {{"X-Auth-Token": token, "X-Container-Read": "lab:reader,.rlistings"}}
web.urlopen(web.Request(f"{{store}}/{{bucket}}", method="PUT", headers=rights)).close()
"""
LIST = f"""{ENTER}
with web.urlopen(web.Request(f"{{store}}/{{bucket}}", headers={{"X-Auth-Token": token}})) as answer:
    print(answer.read().decode())
"""


def swift_python() -> Path:
    """Python of the store's own environment, which is made once for each version of its lock file."""
    ready, python = SWIFT_VENV / ".ready", SWIFT_VENV / "bin/python"
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if not ready.exists() or ready.read_text() != wanted:
        shutil.rmtree(SWIFT_VENV, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(SWIFT_VENV)], check=True)
        install = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--require-hashes",
            "-r",
            str(LOCK),
        ]
        subprocess.run([str(python), *install], check=True, capture_output=True)
        ready.write_text(wanted)
    return python


class Services:
    """Both services on `machine`; each can be stopped, killed and started again, and forgets nothing."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.endpoint = f"http://{machine.address}:{S3_PORT}"
        self.key_id, self.secret = "lab:writer", secrets.token_hex(20)
        self.reader_key_id, self.reader_secret = "lab:reader", secrets.token_hex(20)
        self.database_secret = secrets.token_hex(20)
        self.database_uri = f"postgresql://mlflow:{self.database_secret}@{machine.address}:5432/mlflow"
        self._python = swift_python()
        self._etc = machine.base / "swift"
        self._disk = machine.base / "disk"
        self._database = machine.base / "postgres"
        self._logs = machine.base / "logs"

    def start(self) -> None:
        """Build what both need, start them, make the bucket and the database of MLflow."""
        self._logs.mkdir()
        self._build_store()
        self._build_database()
        self.start_s3()
        self.start_database()
        self.machine.run(f"{self._python} - {self.endpoint} {self.secret} {BUCKET} <<'END'{GRANT}END", check=True)
        create = f"CREATE ROLE mlflow LOGIN PASSWORD '{self.database_secret}'; CREATE DATABASE mlflow OWNER mlflow;"
        for statement in create.split("; "):
            self.machine.run(f'{_postgres()}/psql -h /tmp -qc "{statement}"', check=True, user=DATABASE_USER)

    # The object store

    def start_s3(self) -> None:
        self.machine.start_process(f"memcached -u {S3_USER} -l 127.0.0.1 -p 11211 -m 64", self._logs / "memcached.log")
        for kind, module in MODULES.items():
            launch = f'{self._python} -c "{LAUNCH.format(module=module)}" {self._etc} {self._etc}/{kind}.conf -v'
            self.machine.start_process(launch, self._logs / f"{kind}.log")
        for port in (*PORTS.values(), S3_PORT):
            self._wait_for(port, 30)

    def stop_s3(self, signal: str = "TERM") -> None:
        """End its five processes; with KILL as in a power failure."""
        end(self.machine, ("memcached -u", "set_swift_dir"), signal)

    def objects(self, bucket: str, prefix: str) -> list[str]:
        """Names in a bucket that begin with `prefix`, by Swift's own protocol."""
        script = f"{self._python} - {self.endpoint} {self.secret} '{bucket}?prefix={prefix}' <<'END'{LIST}END"
        return self.machine.run(script, check=True).stdout.split()

    def _build_store(self) -> None:
        self._etc.mkdir()
        (self._disk / "disk").mkdir(parents=True)
        about = pwd.getpwnam(S3_USER)
        for folder in (self._disk, self._disk / "disk"):
            os.chown(folder, about.pw_uid, about.pw_gid)
        settings = {"etc": self._etc, "devices": self._disk, "user": S3_USER}
        for kind, port in PORTS.items():
            common = COMMON.format(address="127.0.0.1", port=port, **settings)
            (self._etc / f"{kind}.conf").write_text(common + STORAGE.format(kind=kind))
        proxy = PROXY.format(secret=self.secret, reader_secret=self.reader_secret)
        common = COMMON.format(address=self.machine.address, port=S3_PORT, **settings)
        (self._etc / "proxy.conf").write_text(common + proxy)
        (self._etc / "swift.conf").write_text(SWIFT)
        builder = self._python.with_name("swift-ring-builder")
        for kind, port in PORTS.items():
            ring = f"{builder} {self._etc}/{kind}.builder"
            steps = f"{ring} create 6 1 1 && {ring} add r1z1-127.0.0.1:{port}/disk 1 && {ring} rebalance"
            self.machine.run(steps, check=True)

    # The database

    def start_database(self) -> None:
        settings = f"-c listen_addresses={self.machine.address} -c unix_socket_directories=/tmp"
        start = f"{_postgres()}/postgres -D {self._database} {settings}"
        self.machine.start_process(start, self._logs / "postgres.log", user=DATABASE_USER)
        ready = f"{_postgres()}/pg_isready -q -h {self.machine.address}"
        wait_until("PostgreSQL", lambda: self.machine.run(ready).returncode == 0, 30)

    def stop_database(self, signal: str = "INT") -> None:
        """INT ends it in order, KILL as in a power failure."""
        end(self.machine, (f"postgres -D {self._database}",), signal)

    def count_runs(self) -> int:
        """Runs in MLflow's own table."""
        asked = f"{_postgres()}/psql -h /tmp -d mlflow -Atc 'SELECT count(*) FROM runs'"
        return int(self.machine.run(asked, check=True, user=DATABASE_USER).stdout)

    def _build_database(self) -> None:
        self._database.mkdir(mode=0o700)
        about = pwd.getpwnam(DATABASE_USER)
        os.chown(self._database, about.pw_uid, about.pw_gid)
        make = f"{_postgres()}/initdb -D {self._database} --auth=trust --encoding=UTF8 --no-instructions"
        self.machine.run(make, check=True, user=DATABASE_USER)
        rules = "local all all peer\nhost all all samenet scram-sha-256\n"
        (self._database / "pg_hba.conf").write_text(rules)

    def _wait_for(self, port: int, seconds: float) -> None:
        addresses = (self.machine.address,) if port == S3_PORT else ("127.0.0.1",)
        probe = f"exec 3<>/dev/tcp/{addresses[0]}/{port}"
        wait_until(f"port {port}", lambda: self.machine.run(probe).returncode == 0, seconds)


def end(machine: Machine, matching: tuple[str, ...], signal: str = "TERM", seconds: float = 20) -> list[int]:
    """End the processes of a machine whose command line has one of `matching` in it, and wait until they are gone."""

    def found() -> list[int]:
        return [pid for pid, words in machine.processes().items() if any(part in words for part in matching)]

    pids = found()
    if pids:
        machine.run(f"kill -{signal} {' '.join(map(str, pids))}")
        wait_until(f"the end of {matching[0]}", lambda: not set(pids) & set(found()), seconds)
    return pids


def _postgres() -> Path:
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
