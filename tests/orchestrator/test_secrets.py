"""Whatever a run leaves behind, and whatever a verb prints, is searched for the secrets that it was given."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from fake_stages import STAGES, cell, graph
from leaky_driver import NAMES
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.ledger import Ledger
from orchestrator.redaction import redact
from orchestrator.storage import Storage
from orchestrator.study import Execution, run_study

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "experiments/demo.yaml")
PASSWORD = "url-p4ssw0rd-to-grep"
DATABASE = f"postgresql://lab:{PASSWORD}@db.invalid:5432/mlflow"
SECRETS = {name: f"{name.lower().replace('_', '-')}-value-to-grep" for name in NAMES}
AFAR = Execution(address="127.0.0.1:9")
SECRETS["RAY_AUTH_TOKEN"] = "0123456789abcdef" * 4


@pytest.fixture
def given(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A ledger on S3 and an environment full of secrets."""
    for name, value in {**SECRETS, "DATABASE": DATABASE}.items():
        monkeypatch.setenv(name, value)
    return s3_root


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Temporary files of a process that starts Ray: the path of a socket is short."""
    with tempfile.TemporaryDirectory(prefix="s-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def leaks(found: Mapping[str, bytes]) -> dict[str, list[str]]:
    """Secrets by the place that shows them."""
    wanted = {**SECRETS, "password": PASSWORD}
    shown = {
        place: [name for name, secret in wanted.items() if secret.encode() in data] for place, data in found.items()
    }
    return {place: names for place, names in shown.items() if names}


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield str(path), str(path).encode() + path.read_bytes()


@pytest.mark.processes
def test_nothing_that_a_run_leaves_behind_holds_a_secret(given: str, tmp_path: Path, scratch: Path) -> None:
    stores = [
        f"sqlite:///{tmp_path / 'mlflow.db'}",
        f"http://lab:{PASSWORD}@127.0.0.1:9",
        f"nosql://lab:{PASSWORD}@db/x",
    ]
    path = os.pathsep.join([str(Path(__file__).parent), str(ROOT)])
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("leaky_driver.py")), given, *stores],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(scratch), "RAY_AUTH_MODE": "token"},
    )
    out, err = process.communicate(timeout=240)
    assert process.returncode == 1, err.decode()
    storage = Storage(given)
    left = {name: name.encode() + storage.read(name) for name in storage.find("")}
    assert any(name.startswith("raises/") and name.endswith("traceback.txt") for name in left)
    assert any(name.startswith("fails/") and name.endswith("status.json") for name in left)
    left |= dict(files(tmp_path))
    assert any(name.endswith("mlflow.db") for name in left)
    left |= dict(files(scratch))
    assert any("/session_" in name and name.endswith("gcs_server.out") for name in left), "Ray's logs"
    left |= {"stdout": out, "stderr": err}
    assert b"*** refused" in out or b"***@db.invalid" in out, "there was something to hide"
    assert b"is left behind" in err
    assert not leaks(left)


@pytest.mark.parametrize(
    "words",
    [
        ("plan", DEMO, "--show-config"),
        ("plan", DEMO, "--json"),
        ("status", DEMO),
        ("status", DEMO, "--json"),
        ("report", DEMO),
        ("run", DEMO, "execution.tracking_url=" + DATABASE),
        ("run", DEMO, "execution.cpus=" + DATABASE),
        ("run", DEMO, "data.path=" + DATABASE),
        ("run", DEMO, f"execution.ledger=s3://lab:{PASSWORD}@bucket/x"),
        ("explain", "abcd", f"--ledger=s3://lab:{PASSWORD}@no-such-bucket/x"),
        ("surprisal", f"https://lab:{PASSWORD}@host.invalid/a.wav", "--model", "abcd"),
    ],
    ids=lambda words: " ".join(words).replace(PASSWORD, "PASSWORD").replace(str(ROOT), ""),
)
def test_no_verb_shows_a_secret(
    given: str, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORCHESTRATOR_TRACKING_URI", DATABASE)
    ledger = [] if "ledger=" in " ".join(words) else ["--ledger", given]
    result = CliRunner().invoke(app, [*words, *ledger])
    assert result.exit_code in ((2, 3) if words[0] in ("run", "explain", "surprisal") else (0,)), result.output
    assert result.output.count("\n") == 1 or result.exit_code == 0, "one line for people"
    assert not leaks(
        {"output": result.output.encode(), "error": repr(result.exception).encode(), **dict(files(tmp_path))}
    )


def test_a_wrong_endpoint_is_one_line_without_a_secret(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://lab:{PASSWORD}@127.0.0.1:9")
    result = CliRunner().invoke(app, ["status", DEMO, "--ledger", given])
    assert result.exit_code == 3
    assert result.output.startswith("orchestrator: ledger s3://")
    assert not leaks({"output": result.output.encode()})


def test_a_token_that_others_may_read_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text(SECRETS["RAY_AUTH_TOKEN"])
    token.chmod(0o640)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    outcome = run_study(graph(cell("source", "s")), Ledger(Storage(str(tmp_path / "ledger"))), AFAR, stages=STAGES)
    assert outcome.refused == [f"{token}: others may read it (mode 0640); chmod 600 {token}"]
    assert outcome.exit_code == 3


def test_make_token_makes_one_that_only_its_owner_may_read(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path)}
    made = []
    for _ in range(2):
        subprocess.run(["make", "--silent", "token"], cwd=ROOT, env=environment, check=True, capture_output=True)
        made.append((tmp_path / ".ray/auth_token").read_text())
    assert made[0] == made[1], "a cluster's token is not replaced"
    assert len(made[0]) == 64
    assert (tmp_path / ".ray/auth_token").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".ray").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://u:p/w@x@host:5432/db", "postgresql://***@host:5432/db"),
        ("at https://token@host/x, or", "at https://***@host/x, or"),
        ('{"a": "x://u:p@h", "b": "c@d"}', '{"a": "x://***@h", "b": "c@d"}'),
        ("https://h/x?X-Amz-Signature=abc&y=1", "https://h/x?X-Amz-Signature=***&y=1"),
        ("the key is long-enough", "the key is ***"),
        ("its password is p@ssw0rd", "its password is ***"),
        ("s3://bucket/a@b:c, file:///data/a@b, http://127.0.0.1:5000", None),
        ("short, ~/.ray/auth_token", None),
    ],
)
def test_what_is_hidden_and_what_is_not(text: str, shown: str | None) -> None:
    environment = {
        "A_SECRET": "long-enough",
        "B_PASSWORD": "short",
        "DATABASE": "postgresql://u:p%40ssw0rd@h/d",
        "RAY_AUTH_TOKEN_PATH": "~/.ray/auth_token",
    }
    assert redact(text, environment) == (text if shown is None else shown)
