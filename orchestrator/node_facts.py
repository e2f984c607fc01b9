"""What a node says of itself: versions, whether the ledger answers there, its token file, its scratch space."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from orchestrator.node_cache import default_folder
from orchestrator.provenance import installed_lock, process_facts
from orchestrator.storage import Storage
from orchestrator.trouble import described

KNOWN = "drivers/probe"


class Nodes(Protocol):
    """What asks a function of every node: `orchestrator.cluster.Cluster` does."""

    def on_every_node(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]: ...


@dataclass(frozen=True)
class NodeFacts:
    """One node's answers; `ledger` and `token` are empty where all is well, else sentences."""

    python: str
    ray: str
    packages: str
    commit: str
    code: str
    ledger: str
    token: str
    scratch: str
    scratch_free_bytes: int


def node_facts(storage: Storage | None, known: str) -> NodeFacts:
    """Asked on the node itself; `known` is a file of the ledger that the driver wrote."""
    scratch, own = default_folder(), process_facts()
    return NodeFacts(
        python=own["python"],
        ray=_version("ray"),
        packages=installed(),
        commit=own["commit"] + ("+dirty" if own["dirty"] == "true" else ""),
        code=own["source"][:12],
        ledger="" if storage is None else ledger_trouble(storage, known),
        token=token_trouble(),
        scratch=str(scratch.parent),
        scratch_free_bytes=shutil.disk_usage(scratch).free,
    )


def ledger_on_nodes(nodes: Nodes, storage: Storage) -> tuple[list[str], list[str]]:
    """A sentence for each node from which the ledger can't be used, and one for each that gave no answer.

    A file written here is read there. A node without an answer may be one that just died: its work goes elsewhere.
    """
    with known_file(storage) as known:
        answers = nodes.on_every_node(ledger_trouble, storage, known)
    refused = [f"node {name}: {found}" for name, found in answers.items() if isinstance(found, str) and found]
    silent = [f"node {name}: {one_line(found)}" for name, found in answers.items() if isinstance(found, Exception)]
    return refused, silent


def ledger_trouble(storage: Storage, known: str = "") -> str:
    """Write, read, list and delete a file of the ledger, and look for the file `known`; one sentence when that fails.

    A node's own trouble is told at once, not waited for as long as a running study would.
    """
    here = Storage(storage.root, storage.options)
    try:
        if known and not here.exists(known):
            return f"ledger {here.shown}: this is another folder than the driver's; all nodes must share it"
        here.probe()
    except Exception as error:  # each file system has errors of its own
        return f"ledger {here.shown}: {described(error).removeprefix(f'{here.shown}: ')}"
    return ""


@contextmanager
def known_file(storage: Storage) -> Iterator[str]:
    """The path of a file that the ledger has while the block runs."""
    path = f"{KNOWN}-{secrets.token_hex(8)}"
    storage.write(path, b"known")
    try:
        yield path
    finally:
        with suppress(Exception):
            storage.delete(path)


def token_file() -> Path:
    """Where Ray looks for the token."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()


def token_trouble() -> str:
    """A sentence when the token's file can be read by others, or isn't there although the mode asks for it."""
    if os.environ.get("RAY_AUTH_MODE") != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return ""
    path = token_file()
    try:
        mode = path.stat().st_mode & 0o777
    except OSError:
        return f"{path}: no token there; copy the cluster's, chmod 600"
    return f"{path}: others may read it (mode {mode:04o}); chmod 600 {path}" if mode & 0o077 else ""


def installed() -> str:
    """The lock file that this environment was installed from, as the Makefile noted it; else a digest of packages."""
    if lock := installed_lock():
        return f"lock {lock[:12]}"
    names = sorted(f"{found.metadata['Name']}=={found.version}".lower() for found in metadata.distributions())
    return "packages " + hashlib.sha256(" ".join(names).encode()).hexdigest()[:12]


def one_line(error: BaseException) -> str:
    """An exception as one line for people."""
    text = next(iter(str(error).strip().splitlines()), "")[:300]
    return f"{type(error).__name__}: {text}".rstrip(": ")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
