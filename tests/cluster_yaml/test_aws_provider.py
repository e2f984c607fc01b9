"""Ray's own AWS provider with cluster.yaml against an EC2 on loopback: what it makes, and that it takes it away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler.tags import (
    NODE_KIND_HEAD,
    NODE_KIND_WORKER,
    STATUS_UP_TO_DATE,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)

ROOT = Path(__file__).parents[2]


def bootstrapped(ec2: Any) -> dict[str, Any]:
    """The configuration as `ray up` resolves it, with an image that this EC2 has."""
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config, validate_config

    config: dict[str, Any] = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8")))
    image = ec2.describe_images()["Images"][0]["ImageId"]
    for kind in config["available_node_types"].values():
        assert kind["node_config"]["ImageId"].startswith("resolve:ssm:/aws/service/deeplearning/")
        kind["node_config"]["ImageId"] = image
    config = AWSNodeProvider.fillout_available_node_types_resources(config)
    validate_config(config)
    return dict(AWSNodeProvider.bootstrap_config(config))


def group(ec2: Any) -> list[dict[str, Any]]:
    """What may come in."""
    (found,) = ec2.describe_security_groups(GroupNames=["noise-levels"])["SecurityGroups"]
    return list(found["IpPermissions"])


def from_outside(rules: list[dict[str, Any]]) -> set[tuple[int, int, str]]:
    return {(rule["FromPort"], rule["ToPort"], net["CidrIp"]) for rule in rules for net in rule["IpRanges"]}


@pytest.mark.usefixtures("roles")
def test_nodes_are_made_listed_tagged_and_ended(ec2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    monkeypatch.chdir(ROOT)
    config = bootstrapped(ec2)
    resources = {name: kind["resources"] for name, kind in config["available_node_types"].items()}
    assert resources["head"]["CPU"] == 0
    assert resources["gpu_worker"]["GPU"] == 1
    assert from_outside(group(ec2)) == {(22, 22, "0.0.0.0/0")}, "SSH only"
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for name, kind in (("head", NODE_KIND_HEAD), ("gpu_worker", NODE_KIND_WORKER), ("cpu_worker", NODE_KIND_WORKER)):
        settings = config["available_node_types"][name]["node_config"]
        provider.create_node(settings, {TAG_RAY_NODE_KIND: kind, TAG_RAY_USER_NODE_TYPE: name}, 1)
    (head,) = provider.non_terminated_nodes({TAG_RAY_NODE_KIND: NODE_KIND_HEAD})
    workers = provider.non_terminated_nodes({TAG_RAY_NODE_KIND: NODE_KIND_WORKER})
    assert {provider.node_tags(node)[TAG_RAY_USER_NODE_TYPE] for node in workers} == {"gpu_worker", "cpu_worker"}
    provider.set_node_tags(head, {TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE})
    assert provider.non_terminated_nodes({TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE}) == [head]

    made = {node: about(ec2, node) for node in (head, *workers)}
    assert made[head]["profile"] == "noise-levels-head"
    assert made[head]["spot"] is False
    assert all(made[node]["profile"] == "noise-levels-worker" and made[node]["spot"] for node in workers)
    assert all(node["groups"] == ["noise-levels"] and node["tokens"] == "required" for node in made.values())

    provider.terminate_nodes([head, *workers])
    assert provider.non_terminated_nodes({}) == []


def about(ec2: Any, node: str) -> dict[str, Any]:
    (found,) = ec2.describe_instances(InstanceIds=[node])["Reservations"][0]["Instances"]
    return {
        "profile": found["IamInstanceProfile"]["Arn"].rpartition("/")[2],
        "spot": found.get("InstanceLifecycle") == "spot",
        "groups": [one["GroupName"] for one in found["SecurityGroups"]],
        "tokens": found["MetadataOptions"]["HttpTokens"],
    }


def test_a_group_that_was_made_beforehand_keeps_its_own_rules(ec2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    made = ec2.create_security_group(GroupName="noise-levels", Description="Ray")["GroupId"]
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "203.0.113.7/32"}]}
    within = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": made}]}
    ec2.authorize_security_group_ingress(GroupId=made, IpPermissions=[ssh, within])
    config = bootstrapped(ec2)
    assert from_outside(group(ec2)) == {(22, 22, "203.0.113.7/32")}
    assert all(kind["node_config"]["SecurityGroupIds"] == [made] for kind in config["available_node_types"].values())
