"""Machines of a test on this one: each with its own network, processes, mounts and name, all on one switch.

Nothing of them shows outside: addresses are those of their own namespaces, and a machine is gone, with everything that
ran on it, when its first process ends. All of them end with the process that started them.
"""

from __future__ import annotations

import ctypes.util
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

NETWORK = "10.77.0"
SWITCH_ADDRESS = f"{NETWORK}.1"
PACKAGES = {
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "rsync": "rsync",
    "ip": "iproute2",
    "memcached": "memcached",
    "liberasurecode": "liberasurecode1",
    "postgres": "postgresql",
}
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HIDDEN = ("/root", "/tmp", "/run")
"""What a machine has of its own in place of what this one has there."""

BOOT = """set -e
hostname {name}
for path in {kept}; do mkdir -p "{base}/kept$path"; mount --bind "$path" "{base}/kept$path"; done
mount --bind {base}/home /root
mount -t tmpfs -o mode=1777,size={scratch_mb}m scratch /tmp
mount -t tmpfs -o mode=1777,size={shared_memory_mb}m shm /dev/shm
mount -t tmpfs -o mode=755 run /run
for path in {kept}; do mkdir -p "$path"; mount --bind "{base}/kept$path" "$path"; done
for file in hosts resolv.conf nsswitch.conf; do mount --bind {base}/$file /etc/$file; done
mkdir -p /run/sshd
read plugged_in
exec /usr/sbin/sshd -D -e -f {base}/sshd_config
"""

SSHD = """ListenAddress {address}
Port 22
HostKey {base}/host_key
AuthorizedKeysFile {base}/authorized_keys
PidFile none
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
MaxStartups 50
Subsystem sftp internal-sftp
"""


def why_not() -> str | None:
    """Why machines cannot be made here, in words that say what to do; None when they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "it starts hosts in Linux namespaces: run it as root on Linux"
    missing = sorted(package for tool, package in PACKAGES.items() if not _is_installed(tool))
    if missing:
        return f"packages are missing: apt-get install --yes {' '.join(missing)}"
    links = "ip link add br0 type bridge && ip link add port0 type veth peer name port1"
    trial = f"{links} && mount -t tmpfs trial /mnt && hostname trial"
    asked = ["unshare", "--net", "--mount", "--uts", "--pid", "--ipc", "--fork", "--mount-proc", "sh", "-c", trial]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    if found.returncode:
        return f"this kernel or container allows no network and mount namespaces: {found.stderr.strip()}"
    return None


def _is_installed(tool: str) -> bool:
    if tool == "liberasurecode":
        return ctypes.util.find_library("erasurecode") is not None
    if tool == "postgres":
        return any(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return shutil.which(tool, path=SYSTEM_PATH) is not None


def spawn(command: Sequence[str], **options: object) -> subprocess.Popen[bytes]:
    """A process that is killed when this one ends, however it ends."""
    return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *command], **options)  # type: ignore[call-overload, no-any-return]


def wait_until(what: str, test: object, seconds: float, every: float = 0.2) -> float:
    """Wait until `test()` is true; returns how long that took, and says `what` did not come in time."""
    assert callable(test)
    began = time.monotonic()
    while not test():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(every)
    return time.monotonic() - began


class Switch:
    """A bridge in a network namespace of its own; machines plug in."""

    def __init__(self) -> None:
        setup = (
            "ip link set lo up; ip link add br0 type bridge; ip link set br0 up; "
            f"ip addr add {SWITCH_ADDRESS}/24 dev br0; echo ready; exec sleep infinity"
        )
        self._process = spawn(["unshare", "--net", "sh", "-ec", setup], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "the switch did not start"

    def plug(self, pid: int, port: str, address: str) -> None:
        """Connect the network namespace of `pid` through `port`."""
        mac = f"02:00:00:77:00:{int(address.rpartition('.')[2]):02x}"  # kept over a reboot: others know it
        self._ip(f"link add {port} type veth peer name eth0 address {mac} netns {pid}")
        self._ip(f"link set {port} master br0 up")
        for words in (
            "link set lo up",
            f"addr add {address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {SWITCH_ADDRESS}",
        ):
            _in_network(pid, words)

    def set_link(self, port: str, up: bool) -> None:
        self._ip(f"link set {port} {'up' if up else 'down'}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _ip(self, words: str) -> None:
        _in_network(self._process.pid, words)


def _in_network(pid: int, words: str) -> None:
    subprocess.run(["nsenter", "--net", "--target", str(pid), "ip", *words.split()], check=True, capture_output=True)


class Machine:
    """One host: `start` boots it, `kill` is its power cord, `cut` its network cable."""

    def __init__(
        self,
        name: str,
        number: int,
        switch: Switch,
        base: Path,
        kept: Iterable[Path],
        cpus: str,
        scratch_mb: int = 2048,
        shared_memory_mb: int = 512,
    ) -> None:
        self.name = name
        self.address = f"{NETWORK}.{number}"
        self.base = base / name
        self.home = self.base / "home"
        self._switch = switch
        self._cpus = cpus
        self._kept = [path for path in kept if str(path).startswith(tuple(f"{top}/" for top in HIDDEN))]
        self._sizes = (scratch_mb, shared_memory_mb)
        self._process: subprocess.Popen[bytes] | None = None
        self._first = 0
        self.home.mkdir(parents=True)

    def prepare(self, names: Mapping[str, str], authorized_key: str) -> None:
        """Write what the machine boots from; its host key is new."""
        scratch_mb, shared_memory_mb = self._sizes
        kept = " ".join(shlex.quote(str(path)) for path in self._kept)
        texts = {
            "boot": BOOT.format(
                name=self.name, base=self.base, kept=kept, scratch_mb=scratch_mb, shared_memory_mb=shared_memory_mb
            ),
            "sshd_config": SSHD.format(address=self.address, base=self.base),
            "authorized_keys": authorized_key,
            "hosts": "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in names.items()),
            "resolv.conf": "",
            "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
        }
        for file, text in texts.items():
            (self.base / file).write_text(text)
        new_key(self.base / "host_key")

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Boot, and wait until SSH answers."""
        assert not self.is_up
        namespaces = ["--net", "--mount", "--uts", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc"]
        with (self.base / "console.log").open("ab") as log:
            self._process = spawn(
                ["taskset", "--cpu-list", self._cpus, "unshare", *namespaces, "sh", str(self.base / "boot")],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        try:
            wait_until(f"first process of {self.name}", self._find_first, 10, 0.01)
            self._switch.plug(self._first, self.name, self.address)
            assert self._process.stdin is not None
            self._process.stdin.write(b"go\n")
            self._process.stdin.close()
            wait_until(
                f"sshd of {self.name}", lambda: self.run("exec 3<>/dev/tcp/$0/22", self.address).returncode == 0, 10
            )
        except BaseException:
            self.kill()
            raise

    def _find_first(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.name} did not boot: {(self.base / 'console.log').read_text()[-500:]}")
        try:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        except OSError:
            return False
        self._first = int(children[0]) if children else 0
        return bool(children) and Path(f"/proc/{self._first}/root").exists()

    def kill(self) -> None:
        """kill -9 of its first process: the kernel ends all the others with it."""
        if self._process is None:
            return
        if self._first and self.is_up:
            os.kill(self._first, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._process, self._first = None, 0

    def cut(self) -> None:
        """Pull the network cable."""
        self._switch.set_link(self.name, up=False)

    def restore(self) -> None:
        self._switch.set_link(self.name, up=True)

    def fill_scratch(self) -> None:
        """Leave not a byte on the disk of temporary files."""
        self.run(
            "fallocate -l $(df --output=avail -B1 /tmp | tail -n 1) /tmp/filler; cat /dev/zero >> /tmp/filler",
            check=False,
        )

    def free_scratch(self) -> None:
        self.run("rm -f /tmp/filler", check=True)

    def command(self, script: str, *arguments: str, user: str | None = None) -> list[str]:
        """What to start on this machine to have bash run `script` there, as at its console."""
        assert self._first, f"{self.name} is down"
        inside = ["--net", "--mount", "--uts", "--pid", "--ipc", f"--target={self._first}", "--wdns=/root"]
        as_user = ["setpriv", f"--reuid={user}", f"--regid={_group(user)}", "--clear-groups"] if user else []
        home = ["env", "-i", "HOME=/root", f"PATH={SYSTEM_PATH}", "LANG=C.UTF-8", "USER=root", "TERM=dumb"]
        return [
            "taskset",
            "--cpu-list",
            self._cpus,
            "nsenter",
            *inside,
            *as_user,
            *home,
            "bash",
            "-c",
            f"source ~/.profile 2>/dev/null; {script}",
            *arguments,
        ]

    def run(
        self, script: str, *arguments: str, check: bool = False, seconds: float = 300, user: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a script here to its end, its output caught."""
        done = subprocess.run(
            self.command(script, *arguments, user=user),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if check and done.returncode:
            raise RuntimeError(
                f"{self.name}: {script}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            )
        return done

    def start_process(self, script: str, log: Path, user: str | None = None) -> subprocess.Popen[bytes]:
        """Run a script here and leave it running."""
        with log.open("ab") as stream:
            return spawn(
                self.command(f"exec {script}", user=user), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )

    def processes(self) -> dict[int, str]:
        """Command lines by process id, as seen on the machine."""
        listed = self.run("ps -eo pid=,args= -ww").stdout.splitlines()
        return {int(pid): words for pid, _, words in (line.strip().partition(" ") for line in listed)}


def _group(user: str) -> int:
    return pwd.getpwnam(user).pw_gid


def new_key(path: Path) -> str:
    """Make a key pair at `path`; returns the public half."""
    path.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text() if path.suffix == "" else Path(f"{path}.pub").read_text()
