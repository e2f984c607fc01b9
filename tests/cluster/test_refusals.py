"""A store that says no: one line that says what to do, exit 3, and nothing was started. Needs the store alone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from lab import HOME, Lab
from services import BUCKET

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

EXPIRED = (
    '{"Version": 1, "AccessKeyId": "lab:writer", "SecretAccessKey": "of-yesterday", "SessionToken": "of-yesterday", '
    '"Expiration": "2020-01-01T00:00:00Z"}'
)


@dataclass(frozen=True)
class Refusal:
    """How a person gets it wrong, and words that the one line must have."""

    environment: str
    settings: str
    words: tuple[str, ...]


REFUSALS = {
    "wrong secret": Refusal("AWS_ACCESS_KEY_ID=lab:writer AWS_SECRET_ACCESS_KEY=not-the-secret", "", ("secret",)),
    "expired secret": Refusal(
        f"AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_CONFIG_FILE={HOME}/.aws/expired", "", ("expired", "renew")
    ),
    "missing bucket": Refusal("", "execution.ledger=s3://no-such-bucket/refused", ("no such bucket",)),
    "read-only prefix": Refusal(
        "AWS_ACCESS_KEY_ID=lab:reader AWS_SECRET_ACCESS_KEY={reader_secret}", "", ("access is denied", "s3:PutObject")
    ),
    "unknown host": Refusal(
        "", "execution.s3_endpoint_url=http://nowhere.example:8080", ("can't be resolved", "s3_endpoint_url")
    ),
}


READING = {("read-only prefix", "plan")}
"""Reading is allowed there, and a plan needs no more."""


@pytest.fixture(scope="module")
def desk(lab: Lab) -> Lab:
    """A lab whose desk has a provider of credentials that have expired."""
    (lab.desk.home / ".aws/expired_credentials").write_text(EXPIRED)
    provider = f"credential_process = cat {HOME}/.aws/expired_credentials"
    (lab.desk.home / ".aws/expired").write_text(f"[default]\n{provider}\n")
    return lab


@pytest.mark.parametrize(
    ("case", "verb"), [(case, verb) for case in REFUSALS for verb in ("run", "plan") if (case, verb) not in READING]
)
def test_a_store_that_says_no(case: str, verb: str, desk: Lab) -> None:
    refusal = REFUSALS[case]
    environment = refusal.environment.format(reader_secret=desk.services.reader_secret)
    settings = " ".join(desk.settings("refused"))
    done = desk.at_desk(
        f"orchestrator {verb} experiments/sweep.yaml {settings} {refusal.settings}", environment=environment
    )
    assert done.returncode == 3, done
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("orchestrator: ")
    for word in refusal.words:
        assert word in done.stderr
    for secret in ("not-the-secret", "of-yesterday", desk.services.secret, desk.services.reader_secret):
        assert secret not in done.stderr
    assert not [words for words in desk.desk.processes().values() if "raylet" in words]
    assert desk.services.objects(BUCKET, "refused/") == []
