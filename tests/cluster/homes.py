"""What a machine's home holds before anybody types: secrets, the checkout, and the project's environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from services import ROOT


def private(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    path.write_text(text)


def clone_of_the_checkout(target: Path) -> None:
    """A clone of this repository, with the working tree's changes to files that git knows or would add."""
    git = ["git", "-C", str(ROOT)]
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{ROOT}", str(target)], check=True)
    listing = [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ":!.venv"]
    listed = subprocess.run(listing, capture_output=True, check=True).stdout
    copy = ["rsync", "-a", "--from0", "--files-from=-", "--ignore-missing-args", f"{ROOT}/", f"{target}/"]
    subprocess.run(copy, input=listed, check=True)


def lend_environment(place: Path, code: str) -> None:
    """This checkout's packages as an environment of a machine: what `make .venv/.ready` would install there.

    Packages are links; scripts start the machine's own Python, and the project is installed from `code`.
    """
    source = (ROOT / ".venv").resolve()
    own = f"{code}/.venv"
    packages = place / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    packages.mkdir(parents=True)
    for entry in (source / packages.relative_to(place)).iterdir():
        if "noise_level_orchestrator" not in entry.name and entry.name != "__pycache__":
            (packages / entry.name).symlink_to(entry)
    (packages / "project.pth").write_text(f"{code}\n")
    (place / "bin").mkdir()
    for script in (source / "bin").iterdir():
        target = place / "bin" / script.name
        if script.name.startswith("python"):
            target.symlink_to((source / "bin/python").resolve())
        elif script.is_file() and script.read_bytes().startswith(b"#!" + str(source).encode()):
            target.write_bytes(script.read_bytes().replace(str(source).encode(), own.encode(), 1))
            target.chmod(0o755)
    shutil.copy(source / "pyvenv.cfg", place / "pyvenv.cfg")
    digest = subprocess.run(["sha256sum", str(ROOT / "requirements.lock")], capture_output=True, text=True, check=True)
    (place / ".ready").write_text(digest.stdout.split()[0] + "\n")
