"""Is everything a study needs there and reachable, before a GPU-hour is spent? Each finding with its remedy."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cluster_file import ClusterFileMistake, read_cluster_file
from orchestrator.node_facts import NodeFacts, known_file, ledger_trouble, node_facts, one_line
from orchestrator.opening import LedgerTrouble, Study, ledger_storage, open_study, tracking_store
from orchestrator.provenance import UNKNOWN, lock_hash
from orchestrator.reading import load_experiment
from orchestrator.redaction import redact
from orchestrator.stages import STAGES, Stage, with_requests
from orchestrator.storage import Storage
from orchestrator.trouble import described

if TYPE_CHECKING:
    from orchestrator.cluster import Cluster
    from orchestrator.experiment import ExecutionConfig

SCRATCH_BYTES = 2**30
SAME = {
    "python": "Python",
    "ray": "Ray",
    "packages": "installed packages",
    "commit": "commit",
    "code": "code",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; a `sentence` that is not ok names the remedy."""

    check: str
    ok: bool
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine(path: str, overrides: Sequence[str], ledger: str | None, address: str | None) -> Iterator[Finding]:
    """Look at everything in turn; without an `address` at this machine alone."""
    given = [f"execution.ledger={ledger}", *overrides] if ledger is not None else list(overrides)
    settings = load_experiment(path, given).experiment.execution
    storage = ledger_storage(settings.ledger, settings.s3_endpoint_url)
    trouble = ledger_trouble(storage)
    yield Finding("ledger", not trouble, trouble or f"{storage.shown} can be written, read and listed from here")
    study = None
    if not trouble:
        try:
            study = open_study(path, given)
        except (LedgerTrouble, OSError) as error:
            yield Finding("ledger", False, str(error))
    stages = _planned(study, settings)
    if study is not None:
        yield from _data(study)
    yield _tracking(settings.tracking_uri or tracking_store(storage))
    address = address or settings.address
    if address is None:
        yield from _this_machine(settings, stages)
    else:
        yield from _cluster(address, settings, stages, None if trouble else storage)


def _planned(study: Study | None, settings: ExecutionConfig) -> list[Stage]:
    """The stages of the plan with what they ask for; all stages where there is no plan."""
    asked = with_requests(STAGES, settings.resources, settings.gpus_per_training)
    names = {cell.stage for cell in study.scope} if study is not None else set(asked)
    return [stage for name, stage in asked.items() if name in names]


def _data(study: Study) -> Iterator[Finding]:
    missing = sorted({cell.missing for cell in study.scope if cell.missing})
    for sentence in missing:
        yield Finding("data", False, f"{sentence}; put it there, or point the experiment to it (key=value)")
    if not missing:
        yield Finding("data", True, f"all that {len(study.scope)} cells need is there")


def _tracking(uri: str) -> Finding:
    """Runs and artefacts as the driver writes them; a sqlite store is made when it is first used."""
    shown = redact(uri)
    if uri.startswith("sqlite:///"):
        folder = Path(uri.removeprefix("sqlite:///")).absolute().parent
        while not folder.exists():
            folder = folder.parent
        fine = os.access(folder, os.W_OK)
        return Finding("tracking", fine, shown if fine else f"{shown}: {folder} can't be written to; chmod it")
    try:
        from orchestrator.tracking import probe

        probe(uri)
    except Exception as error:
        remedy = "is the server up (orchestrator ui --serve on the head), and execution.tracking_uri right?"
        return Finding("tracking", False, f"{shown}: {redact(one_line(error))}; {remedy}")
    return Finding("tracking", True, f"{shown}: runs and artefacts can be written and read")


def _this_machine(settings: ExecutionConfig, stages: Iterable[Stage]) -> Iterator[Finding]:
    """The laptop's case, and for a cluster that is not up yet what its YAML promises."""
    from orchestrator.cluster import refusals

    if settings.cluster is None:
        own = {"CPU": float(settings.cpus or os.cpu_count() or 1), "GPU": float(_gpus())}
        yield from _feasible(refusals(stages, [own]), f"{own['CPU']:g} CPUs and {own['GPU']:g} GPUs of this machine")
    else:
        try:
            declared = read_cluster_file(settings.cluster)
        except ClusterFileMistake as error:
            yield Finding("resources", False, str(error))
            return
        if declared.nodes():
            yield from _feasible(refusals(stages, declared.nodes()), f"the node types of {declared.path}")
        else:
            yield Finding("resources", True, f"{declared.path} says nothing of its machines: --address auto asks them")
    facts = node_facts(None, "")
    yield from _scratch({"this machine": facts})


def _gpus() -> int:
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def _feasible(refused: Sequence[str], place: str) -> Iterator[Finding]:
    for sentence in refused:
        yield Finding("resources", False, sentence)
    if not refused:
        yield Finding("resources", True, f"every stage fits into {place}")


def _cluster(
    address: str, settings: ExecutionConfig, stages: Sequence[Stage], storage: Storage | None
) -> Iterator[Finding]:
    from orchestrator.backends import Refused
    from orchestrator.cluster import Cluster

    try:
        cluster = Cluster(address, cluster_file=settings.cluster)
    except Refused as error:
        yield Finding("cluster", False, str(error))
        return
    try:
        yield from _joined(cluster)
        yield from _feasible(cluster.preflight(stages), "the nodes that joined or may be started")
        yield _token(cluster)
        yield from _nodes(cluster, settings, storage)
    finally:
        cluster.close()


def _joined(cluster: Cluster) -> Iterator[Finding]:
    missing, joined = cluster.missing_nodes(), cluster.joined()
    if missing:
        yield Finding("nodes", False, missing)
    elif cluster.declared is None:
        yield Finding("nodes", True, f"{joined} joined (execution.cluster would say how many there should be)")
    else:
        yield Finding("nodes", True, f"{joined} joined, {cluster.declared.path} asks for {cluster.declared.at_least}")


def _token(cluster: Cluster) -> Finding:
    if cluster.needs_token():
        remedy = "start Ray with RAY_AUTH_MODE=token on every node (cluster.yaml, clusters/onprem.yaml do)"
        return Finding("token", False, f"whoever reaches the head may run code on all nodes: {remedy}")
    return Finding("token", True, "asked for by the cluster" if cluster.has_token() else "not needed on one node")


def _nodes(cluster: Cluster, settings: ExecutionConfig, storage: Storage | None) -> Iterator[Finding]:
    """What each node says of itself; all have to say the same of their versions."""
    own_disks = storage is not None and storage.is_local and not settings.ledger.startswith("file://")
    if storage is not None and own_disks and cluster.has_other_nodes():
        remedy = "put execution.ledger on s3://, or name a folder that all nodes share by its URL, file:///..."
        yield Finding("ledger", False, f"{storage.shown} is on each node's own disk; {remedy}")
        storage = None
    try:
        if storage is None:
            answers = cluster.on_every_node(node_facts, None, "")
        else:
            with known_file(storage) as known:
                answers = cluster.on_every_node(node_facts, storage, known)
    except OSError as error:
        yield Finding("ledger", False, described(error))
        return
    facts: dict[str, NodeFacts] = {}
    for name, answer in answers.items():
        if isinstance(answer, NodeFacts):
            facts[name] = answer
        else:
            remedy = "has it this project's code and packages (make .venv/.ready), and a free process?"
            yield Finding("nodes", False, f"node {name}: {redact(one_line(answer))}; {remedy}")
    yield from _same(facts)
    if storage is not None:
        yield from _each(facts, "ledger", "ledger", f"{storage.shown} can be written, read and listed")
    yield from _each(facts, "token", "token", "no other user can read its file")
    yield from _scratch(facts)


def _same(facts: Mapping[str, NodeFacts]) -> Iterator[Finding]:
    for attribute, word in SAME.items():
        kinds: dict[str, list[str]] = {}
        for name, found in facts.items():
            kinds.setdefault(getattr(found, attribute), []).append(name)
        if len(kinds) > 1:
            listed = "; ".join(f"{value[:20]} on {', '.join(names)}" for value, names in kinds.items())
            remedy = "make .venv/.ready on each node" if attribute == "packages" else "run ray up again"
            yield Finding("versions", False, f"{word} differs between nodes: {listed}; {remedy}")
        elif attribute == "packages" and (trouble := _old_packages(kinds)):
            yield Finding("versions", False, trouble)
        elif kinds:
            yield Finding("versions", True, f"{word}: {next(iter(kinds))[:20]} on all nodes")


def _old_packages(kinds: Iterable[str]) -> str | None:
    """A sentence where all nodes have packages of one lock, but the code at hand has another."""
    lock = lock_hash()
    other = [kind for kind in kinds if kind.startswith("lock ") and kind != f"lock {lock[:12]}"]
    if lock == UNKNOWN or not other:
        return None
    return (
        f"the nodes' packages are those of {other[0]}, this code asks for lock {lock[:12]}; run make up (ray up) again"
    )


def _each(facts: Mapping[str, NodeFacts], check: str, attribute: str, fine: str) -> Iterator[Finding]:
    troubles = {name: getattr(found, attribute) for name, found in facts.items() if getattr(found, attribute)}
    for name, sentence in troubles.items():
        yield Finding(check, False, f"node {name}: {sentence}")
    if facts and not troubles:
        yield Finding(check, True, f"{fine} ({len(facts)} {'node' if len(facts) == 1 else 'nodes'})")


def _scratch(facts: Mapping[str, NodeFacts]) -> Iterator[Finding]:
    for name, found in facts.items():
        free = f"{found.scratch_free_bytes / 2**30:.1f} GiB free in {found.scratch} on {name}"
        if found.scratch_free_bytes >= SCRATCH_BYTES:
            yield Finding("scratch", True, free)
        else:
            wanted = f"{SCRATCH_BYTES / 2**30:g} GiB are needed"
            yield Finding("scratch", False, f"{free}, {wanted}: make room, or start Ray there with another TMPDIR")
