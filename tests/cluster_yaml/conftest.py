"""An EC2 of our own on loopback, in which Ray's AWS provider finds what a new account has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ec2_endpoint() -> Iterator[str]:
    """A throw-away AWS on loopback, as empty as a new account; it takes any key and starts nothing."""
    from moto.moto_api._internal.models import moto_api_backend
    from moto.server import ThreadedMotoServer

    moto_api_backend.reset()

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def ec2(ec2_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of it; Ray's provider in this process, and the key files it writes, belong to it alone."""
    import boto3
    from ray.autoscaler._private.aws import utils

    for name, value in {
        "AWS_ENDPOINT_URL": ec2_endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".ssh").mkdir()
    utils.resource_cache.cache_clear()
    utils.client_cache.cache_clear()
    yield boto3.client("ec2")
    utils.resource_cache.cache_clear()
    utils.client_cache.cache_clear()


@pytest.fixture
def roles(ec2: Any) -> None:
    """The roles and instance profiles of clusters/aws/README.md, by the policies that lie there."""
    import boto3

    iam, policies = boto3.client("iam"), ROOT / "clusters/aws"
    trust = (policies / "trust.json").read_text()
    for name, given in {"noise-levels-head": ("ledger", "head"), "noise-levels-worker": ("ledger",)}.items():
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
        for policy in given:
            text = (policies / f"{policy}-policy.json").read_text()
            assert json.loads(text)["Statement"]
            iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=text)
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
