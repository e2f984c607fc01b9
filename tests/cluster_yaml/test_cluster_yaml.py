"""Every cluster yaml of the repository, by Ray's own schema and by the rules of SECURITY.md."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cluster import refusals
from orchestrator.stages import STAGES

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "cluster.yaml", *sorted((ROOT / "clusters").glob("*.yaml"))]
SECRET = re.compile(r"AKIA[0-9A-Z]{12}|aws_secret|secret_access|password|[0-9a-f]{40}", re.IGNORECASE)
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def content(path: Path) -> dict[str, Any]:
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def commands(config: dict[str, Any]) -> list[str]:
    """Every shell command in it."""
    return [line for key, value in config.items() if key.endswith("_commands") for line in value]


@every_file
def test_ray_takes_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    monkeypatch.chdir(ROOT)
    validate_config(prepare_config(content(path)))


@every_file
def test_no_secret_is_in_it_and_nothing_listens_to_the_outside(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not SECRET.search(text)
    assert not re.search(r"0\.0\.0\.0|--dashboard-host[= ](?!127\.0\.0\.1)|::/0", text)


@every_file
def test_every_ray_starts_with_the_token(path: Path) -> None:
    config = content(path)
    starts = [line for line in commands(config) if "ray start" in line]
    assert any("--head" in line for line in starts)
    assert any("--address" in line for line in starts)
    for line in starts:
        assert re.search(r"export [^;&]*\bRAY_AUTH_MODE=token\b", line.split("ray start")[0]), line
    assert "~/.ray/auth_token" in config["file_mounts"], "every node needs the token"


@every_file
def test_code_travels_but_never_data(path: Path) -> None:
    config = content(path)
    for local in config["file_mounts"].values():
        place = Path(local).expanduser()
        if place.name in (".commit", "auth_token"):  # made by `make up`
            continue
        inside = (ROOT / place).resolve().relative_to(ROOT)
        assert inside != Path(), "Ray reads all files below a mounted folder: .venv and results would be among them"
        assert inside.parts[0] not in ("results", ".venv", ".git")
        assert (ROOT / inside).exists(), local


def test_aws_nodes_hold_every_request_of_a_study_and_the_head_holds_none() -> None:
    types = {name: kind["resources"] for name, kind in content(ROOT / "cluster.yaml")["available_node_types"].items()}
    assert types.pop("head") == {"CPU": 0}
    stages = [replace(stage, gpus=1.0, cpus=8.0) if stage.training else stage for stage in STAGES.values()]
    assert not refusals(stages, list(types.values()))
    assert types["gpu_worker"]["training"] == types["gpu_worker"]["CPU"]
    assert types["cpu_worker"]["fan_out"] == types["cpu_worker"]["CPU"]
    assert "GPU" not in types["cpu_worker"]


def test_aws_workers_come_from_nothing_on_spot_and_all_nodes_are_alike() -> None:
    config = content(ROOT / "cluster.yaml")
    kinds = config["available_node_types"]
    workers = {name: kind for name, kind in kinds.items() if name != "head"}
    assert sum(kind["max_workers"] for kind in workers.values()) <= config["max_workers"]
    for kind in workers.values():
        assert (kind["min_workers"], kind["node_config"]["InstanceMarketOptions"]) == (0, {"MarketType": "spot"})
        assert kind["node_config"]["IamInstanceProfile"] == {"Name": "noise-levels-worker"}
    assert len({kind["node_config"]["ImageId"] for kind in kinds.values()}) == 1
    assert all(kind["node_config"]["MetadataOptions"]["HttpTokens"] == "required" for kind in kinds.values())
    assert config["idle_timeout_minutes"] > 0


def test_the_image_installs_the_same_lock_with_the_same_uv_and_is_nobody_special() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^FROM python:3\.\d+\.\d+-slim-\w+$", lines, re.MULTILINE), "pinned by its whole version"
    (pin,) = re.findall(r"uv==[\d.]+", lines)
    assert pin in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--require-hashes -r requirements.lock" in lines
    assert re.search(r"^USER (?!root)\w+$", lines, re.MULTILINE)
    assert not SECRET.search(lines)
    ignored, *allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert ignored == "*", "whatever is not named stays outside"
    for line in re.findall(r"^COPY (?:--\S+ )*(.+)$", lines, re.MULTILINE):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists(), name
            assert f"!{name}" in allowed, name
