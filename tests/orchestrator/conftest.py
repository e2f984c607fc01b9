"""Stores of three kinds for the same tests: a folder, fsspec's memory, and S3 as moto serves it on loopback."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from shaky_proxy import ShakyProxy

from orchestrator.ledger import Ledger
from orchestrator.storage import Storage

if TYPE_CHECKING:
    from surprisal_house import House

    from orchestrator.report import Report

BUCKET = "studies"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A throw-away S3 server on loopback; it takes any key."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_root(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh prefix in a bucket; the process finds the server by its environment, as users' processes do."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    return f"s3://{BUCKET}/{secrets.token_hex(8)}"


@pytest.fixture
def proxy(s3_endpoint: str, s3_root: str) -> Iterator[ShakyProxy]:
    """A way to the S3 server that can be cut."""
    proxy = ShakyProxy(s3_endpoint)
    yield proxy
    proxy.cut()


@pytest.fixture
def shaky(proxy: ShakyProxy, s3_root: str) -> Storage:
    """A fresh prefix, reached by that way."""
    return Storage(s3_root, {"endpoint_url": proxy.url}, patience_s=20.0)


@pytest.fixture(params=["local", "memory", "s3"])
def root(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The root of an empty store, once of each kind; temporary files of the test lie in its own folder."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    if request.param == "local":
        return str(tmp_path / "ledger")
    if request.param == "memory":
        return f"memory://{secrets.token_hex(8)}"
    return str(request.getfixturevalue("s3_root"))


@pytest.fixture
def ledger(root: str) -> Ledger:
    """An empty ledger, once in each kind of store."""
    return Ledger(Storage(root))


@pytest.fixture
def local(tmp_path: Path) -> Ledger:
    """An empty ledger in a folder."""
    return Ledger(Storage(str(tmp_path / "ledger")))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of MLflow whose schema exists."""
    from tracked import empty_store

    return empty_store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path) -> str:
    """An empty store of MLflow of the test's own."""
    from tracked import copy_of

    return copy_of(empty_store, tmp_path)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished study that is made up, its ledger and its report."""
    from tracked import reported_study

    return reported_study(tmp_path_factory.mktemp("report"))


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A ledger with an autoencoder in it, and a file of published weights beside it."""
    from surprisal_house import made_house

    return made_house(tmp_path)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """The report of a made-up study, and the folder it lies in; for reading alone."""
    import made_up_study

    from orchestrator.report import build

    graph, ledger = made_up_study.make()
    folder = tmp_path_factory.mktemp("report")
    return build(graph, ledger, "demo", folder, tracking_uri="sqlite:///here/mlflow.db"), folder
