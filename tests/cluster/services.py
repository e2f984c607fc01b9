"""What a cluster leans on, on a host of its own: Swift as an S3 store that checks signatures, and PostgreSQL."""

from __future__ import annotations

import getpass
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from hosts import Host

ROOT = Path(__file__).parents[2]
SWIFT_ENV = ROOT / ".venv-swift"
KEY_ID, SECRET = "test:tester", "testing-" + "s3cret"
READER_ID, READER_SECRET = "test:reader", "reading-" + "s3cret"
BUCKET = "studies"
S3_PORT, DB_PORT = 8080, 5432
_RINGS = {"account": 6202, "container": 6201, "object": 6200}
_SERVER = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
devices = {folder}/devices
mount_check = false
swift_dir = {folder}/etc
user = {user}
log_udp_host = 127.0.0.1
log_udp_port = 9
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""
_PROXY = """[DEFAULT]
bind_ip = 0.0.0.0
bind_port = {port}
workers = 0
swift_dir = {folder}/etc
user = {user}
log_udp_host = 127.0.0.1
log_udp_port = 9
[pipeline:main]
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
dns_compliant_bucket_names = false
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
user_test_reader = {reader}
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""


def install_swift() -> None:
    """Swift's packages in an environment of their own, once."""
    lock = Path(__file__).with_name("swift.lock")
    ready = SWIFT_ENV / ".ready"
    if ready.exists() and ready.read_text() == lock.read_text():
        return
    subprocess.run([sys.executable, "-m", "venv", str(SWIFT_ENV)], check=True)
    pip = [str(SWIFT_ENV / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-qqq"]
    subprocess.run([*pip, "--require-hashes", "-r", str(lock)], check=True)
    ready.write_text(lock.read_text())


class Store:
    """Swift with its S3 layer on a host; what it holds outlives its restarts."""

    def __init__(self, host: Host, folder: Path) -> None:
        self._host, self._folder = host, folder
        self._running: list[subprocess.Popen[bytes]] = []
        self.endpoint = f"http://{host.address}:{S3_PORT}"
        self._configure()

    def _configure(self) -> None:
        etc, user = self._folder / "etc", getpass.getuser()
        for device in _RINGS:
            (self._folder / "devices" / device).mkdir(parents=True)
        etc.mkdir()
        (etc / "swift.conf").write_text(
            f"[swift-hash]\nswift_hash_path_prefix = {secrets.token_hex(8)}\n"
            f"swift_hash_path_suffix = {secrets.token_hex(8)}\n[storage-policy:0]\nname = only\ndefault = yes\n"
        )
        for name, port in _RINGS.items():
            builder = [str(SWIFT_ENV / "bin/swift-ring-builder"), str(etc / f"{name}.builder")]
            for words in (("create", "4", "1", "0"), ("add", f"r1z1-127.0.0.1:{port}/{name}", "1"), ("rebalance",)):
                subprocess.run([*builder, *words], check=True, capture_output=True)
            text = _SERVER.format(name=name, port=port, folder=self._folder, user=user)
            (etc / f"{name}.conf").write_text(text)
        text = _PROXY.format(folder=self._folder, port=S3_PORT, user=user, secret=SECRET, reader=READER_SECRET)
        (etc / "proxy.conf").write_text(text)

    def start(self) -> None:
        log = (self._folder / "swift.log").open("ab")
        env = {**os.environ, "SWIFT_DIR": str(self._folder / "etc")}
        for name in (*_RINGS, "proxy"):
            words = [str(SWIFT_ENV / f"bin/swift-{name}-server"), str(self._folder / "etc" / f"{name}.conf")]
            self._running.append(self._host.spawn(words, log, env))
        memcached = [shutil.which("memcached") or "memcached", "-u", "nobody", "-l", "127.0.0.1", "-p", "11211"]
        self._running.append(self._host.spawn(memcached, log))
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with suppress(Exception):
                self.client().list_buckets()
                return
            time.sleep(0.5)
        raise RuntimeError(f"Swift does not answer: {(self._folder / 'swift.log').read_text()[-2000:]}")

    def stop(self) -> None:
        """At once, as when its machine dies."""
        self._host.inside("pkill", "-9", "-f", "bin/swift-|memcached")
        _reap(self._running)

    def client(self, key: str = KEY_ID, secret: str = SECRET) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(
            s3={"addressing_style": "path"}, retries={"max_attempts": 1}, connect_timeout=5, read_timeout=20
        )
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            region_name="us-east-1",
            config=config,
        )


class Database:
    """PostgreSQL on a host, under a user that is not root, with one database and a password."""

    def __init__(self, host: Host, folder: Path) -> None:
        self._host, self._folder = host, folder
        self._running: list[subprocess.Popen[bytes]] = []
        self._bin = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        self._user = pwd.getpwnam("postgres")
        self.password = "db-" + secrets.token_hex(8)
        self.url = f"postgresql://mlflow:{self.password}@{host.address}:{DB_PORT}/mlflow"
        folder.mkdir(parents=True)
        os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        (folder / "password").write_text(self.password)
        self._as_user(
            str(self._bin / "initdb"), "-D", f"{folder}/data", "-U", "mlflow", "--auth=scram-sha-256",
            f"--pwfile={folder}/password", "--no-sync",
        )  # fmt: skip
        with (folder / "data/pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet scram-sha-256\n")

    def _as_user(self, *words: str) -> None:
        drop = ["setpriv", f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}", "--clear-groups"]
        done = self._host.inside(*drop, *words)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")

    def start(self) -> None:
        drop = ["setpriv", f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}", "--clear-groups"]
        settings = ("listen_addresses=*", f"port={DB_PORT}", "unix_socket_directories=", "fsync=off")
        words = [str(self._bin / "postgres"), "-D", f"{self._folder}/data", *(w for s in settings for w in ("-c", s))]
        log = (self._folder / "postgres.log").open("ab")
        self._running.append(self._host.spawn([*drop, *words], log))
        import psycopg

        admin = self.url.rpartition("/")[0] + "/postgres"
        until = time.monotonic() + 30
        while True:
            try:
                with psycopg.connect(admin, autocommit=True, connect_timeout=3) as connection:
                    if not connection.execute("select 1 from pg_database where datname = 'mlflow'").fetchone():
                        connection.execute("create database mlflow")
                return
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.3)

    def stop(self) -> None:
        """At once; the next start recovers from its log."""
        self._host.inside("pkill", "-9", "-u", "postgres")
        _reap(self._running)


def _reap(running: list[subprocess.Popen[bytes]]) -> None:
    for process in running:
        process.wait(20)
    running.clear()
