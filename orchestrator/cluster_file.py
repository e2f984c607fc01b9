"""A Ray cluster YAML as far as a study needs it: which nodes there should be, and which can be started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where ``ray up`` leaves its resolved configuration on the head node."""


class ClusterFileMistake(ValueError):
    """A cluster YAML that is not one: one sentence."""


@dataclass(frozen=True)
class NodeType:
    """One row of ``available_node_types``: `most` counts the workers of this type that may be started."""

    name: str
    resources: Mapping[str, float]
    most: int
    is_head: bool = False


@dataclass(frozen=True)
class ClusterFile:
    """Node types, and how many nodes (head included) there are as soon as the cluster is up."""

    path: str
    types: tuple[NodeType, ...]
    at_least: int
    grows: bool

    def nodes(self) -> list[dict[str, float]]:
        """One node's resources for each type that says them: the head, and workers that may be started."""
        return [dict(kind.resources) for kind in self.types if kind.resources and (kind.is_head or kind.most)]

    def potential(self) -> dict[str, float]:
        """All that workers which may be started would bring."""
        total: dict[str, float] = {}
        for kind in self.types:
            for name, amount in () if kind.is_head else kind.resources.items():
                total[name] = total.get(name, 0.0) + kind.most * amount
        return total


def read_cluster_file(path: str) -> ClusterFile:
    """Read the file; `ClusterFileMistake` in one sentence when it is none."""
    try:
        content = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ClusterFileMistake(f"execution.cluster: {path}: no such file; name the YAML given to ray up") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        line = " ".join(str(error).split())
        raise ClusterFileMistake(f"execution.cluster: {path}: cannot be read as YAML: {line}") from None
    if not isinstance(content, dict) or not isinstance(content.get("provider"), dict):
        raise ClusterFileMistake(f"execution.cluster: {path}: it has no provider; name the YAML given to ray up")
    if content["provider"].get("type") == "local":
        workers = len(content["provider"].get("worker_ips") or ())
        return ClusterFile(path, (), 1 + workers, grows=False)
    try:
        return _with_types(path, content)
    except (TypeError, ValueError, AttributeError) as error:
        raise ClusterFileMistake(f"execution.cluster: {path}: not as Ray writes node types: {error}") from None


def _with_types(path: str, content: Mapping[str, Any]) -> ClusterFile:
    head, limit = content.get("head_node_type"), int(content.get("max_workers", 0))
    types, at_least = [], 1
    for name, row in (content.get("available_node_types") or {}).items():
        least, most = int(row.get("min_workers", 0)), min(int(row.get("max_workers", limit)), limit)
        resources = {str(key): float(amount) for key, amount in (row.get("resources") or {}).items()}
        types.append(NodeType(str(name), resources, 0 if name == head else max(least, most), name == head))
        at_least += 0 if name == head else least
    return ClusterFile(path, tuple(types), at_least, grows=any(kind.most for kind in types))


def bootstrapped() -> ClusterFile | None:
    """What ``ray up`` was given, on the head node of such a cluster."""
    path = BOOTSTRAP.expanduser()
    return read_cluster_file(str(path)) if path.exists() else None
