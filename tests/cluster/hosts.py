"""Hosts on this machine for tests of a cluster: each a network, mount, pid and uts namespace with an sshd of its own.

A host has its own address, name, home, /tmp (of a fixed size) and /dev/shm, and sees this machine's other files. What a
host does goes to the addresses of this network alone; when it ends, all its processes end with it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

SUBNET = "10.77.0"
HOME = "/home/node"
TMP_BYTES = 2 * 2**30
PACKAGES = "apt-get install openssh-server rsync iproute2 postgresql memcached liberasurecode1"
_NEEDED = {"ip": "iproute2", "sshd": "openssh-server", "rsync": "rsync", "memcached": "memcached"}


def why_not() -> str | None:
    """Why there can be no such hosts here, None when there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    lacking = sorted(package for program, package in _NEEDED.items() if shutil.which(program, path=path) is None)
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        lacking.append("postgresql")
    if lacking:
        return f"{', '.join(lacking)}: not installed ({PACKAGES})"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"the kernel allows no namespaces here: {tried.stderr.strip()}" if tried.returncode else None


class Network:
    """A bridge and its hosts; `folder` holds their homes and keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts: dict[str, Host] = {}
        self._bridge = f"nlo{os.getpid() % 100000}"
        self.key = folder / "id_ed25519"
        folder.mkdir(parents=True, exist_ok=True)
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key))
        _run("ip", "link", "add", self._bridge, "type", "bridge")
        _run("ip", "addr", "add", f"{SUBNET}.1/24", "dev", self._bridge)
        _run("ip", "link", "set", self._bridge, "up")

    def add(self, name: str, number: int) -> Host:
        """A host at `SUBNET`.`number`, running."""
        host = self.hosts[name] = Host(self, name, f"{SUBNET}.{number}", f"{self._bridge}-{number}")
        host.start()
        return host

    def attach(self, link: str) -> None:
        _run("ip", "link", "set", link, "master", self._bridge)

    def close(self) -> None:
        """End all hosts and remove the network."""
        for host in self.hosts.values():
            host.kill()
        subprocess.run(["ip", "link", "del", self._bridge], check=False, capture_output=True)


class Host:
    """One host. `kill` is a plug pulled; `cut` a cable; after either, `start` or `mend` brings it back."""

    def __init__(self, network: Network, name: str, address: str, label: str) -> None:
        self.network, self.name, self.address = network, name, address
        self._namespace = self._link = label
        self._folder = network.folder / name
        self.home = self._folder / "home"
        self._first: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Boot: a fresh /tmp, the home as it was left."""
        self._prepare()
        _run("ip", "netns", "add", self._namespace)
        _run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self._namespace)
        self.network.attach(self._link)
        _run("ip", "link", "set", self._link, "up")
        for words in (
            ("link", "set", "lo", "up"),
            ("addr", "add", f"{self.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("route", "add", "default", "via", f"{SUBNET}.1"),
        ):
            _run("ip", "-n", self._namespace, *words)
        inside = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command = ["ip", "netns", "exec", self._namespace, *inside, "bash", str(self._folder / "boot.sh")]
        log = (self._folder / "boot.log").open("ab")
        self._first = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        until = time.monotonic() + 20
        while self.run("true", check=False).returncode and time.monotonic() < until:
            time.sleep(0.1)

    def _prepare(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / ".bashrc").touch()
        (self._folder / "passwd").write_text(
            "".join(
                f"root:x:0:0:root:{HOME}:/bin/bash\n" if line.startswith("root:") else line + "\n"
                for line in Path("/etc/passwd").read_text().splitlines()
            )
        )
        (self._folder / "hosts").write_text(f"127.0.0.1 localhost\n{self.address} {self.name}\n")
        key = self._folder / "host_key"
        if not key.exists():
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
        (self._folder / "sshd_config").write_text(
            f"ListenAddress {self.address}\nHostKey {key}\nAuthorizedKeysFile {self.network.key}.pub\nStrictModes no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nPidFile none\nMaxStartups 50\n"
            "MaxSessions 50\nUseDNS no\n"
        )
        (self._folder / "boot.sh").write_text(
            "set -e\n"
            "mount --make-rprivate /\n"
            f"hostname {self.name}\n"
            f"mkdir -p {HOME} /run/sshd\n"
            f"mount --bind {self.home} {HOME}\n"
            f"mount --bind {self._folder}/passwd /etc/passwd\n"
            f"mount --bind {self._folder}/hosts /etc/hosts\n"
            f"mount -t tmpfs -o size=512m tmpfs /dev/shm\n" + self._tmp() + f"cd {HOME}\n"
            f"exec env -i HOME={HOME} PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "
            f"LANG=C.UTF-8 /usr/sbin/sshd -D -e -f {self._folder}/sshd_config\n"
        )

    def _tmp(self) -> str:
        """A /tmp of its own, below which this network's folder is still seen where it lies in this machine's /tmp."""
        kept = f"/mnt{self.network.folder}"
        lines = f"mount -t tmpfs -o size=64m tmpfs /mnt\nmkdir -p {kept}\nmount --bind {self.network.folder} {kept}\n"
        lines += f"mount -t tmpfs -o size={TMP_BYTES} tmpfs /tmp\nchmod 1777 /tmp\n"
        return lines + f"mkdir -p {self.network.folder}\nmount --move {kept} {self.network.folder}\numount /mnt\n"

    @property
    def pid(self) -> int | None:
        """The first process of the host, as this machine numbers it."""
        if self._first is None or self._first.poll() is not None:
            return None
        children = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def kill(self) -> None:
        """SIGKILL to the first process, and with it to all others; the network card goes, too."""
        if self._first is not None:
            pid = self.pid
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
            self._first.kill()
            self._first.wait()
            self._first = None
        subprocess.run(["ip", "link", "del", self._link], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", self._namespace], check=False, capture_output=True)

    def cut(self) -> None:
        _run("ip", "link", "set", self._link, "down")

    def mend(self) -> None:
        _run("ip", "link", "set", self._link, "up")

    def fill_disk(self) -> None:
        """Leave no room in /tmp."""
        self.inside("sh", "-c", "dd if=/dev/zero of=/tmp/filler bs=1M 2>/dev/null; true")

    def free_disk(self) -> None:
        self.inside("rm", "-f", "/tmp/filler")

    def ssh(self) -> list[str]:
        """The words of an ssh command to this host."""
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=5")
        return ["ssh", "-i", str(self.network.key), *(w for o in options for w in ("-o", o)), f"root@{self.address}"]

    def run(self, command: str, check: bool = True, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """A shell command over ssh, as a person would type it there."""
        words = [*self.ssh(), f"bash -ic {_quoted(command)}"]
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=timeout_s, stdin=subprocess.DEVNULL
        )
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def inside(self, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """A command in the host's namespaces, without ssh."""
        return subprocess.run(self.enter(*words), capture_output=True, text=True, check=False, env=env)

    def spawn(self, words: Sequence[str], log: IO[Any], env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """A process of the host that outlives the call."""
        return subprocess.Popen(
            self.enter(*words), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
        )

    def enter(self, *words: str) -> list[str]:
        return ["nsenter", "--target", str(self.pid), "--net", "--mount", "--uts", "--pid", "--", *words]

    def processes(self) -> list[str]:
        """Command lines of all processes of the host but the first."""
        listed = self.inside("ps", "-eo", "pid,args", "--no-headers").stdout.splitlines()
        return [line.strip() for line in listed if "ps -eo" not in line and "sshd" not in line]


def _quoted(command: str) -> str:
    return "'" + command.replace("'", "'\\''") + "'"


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
