"""What the errors of a store mean: wait and try again, or say in one sentence what is wrong and what to do."""

from __future__ import annotations

import errno
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import ClassVar, TypeVar

from orchestrator.redaction import redact

T = TypeVar("T")

PATIENCE_S = 300.0
"""How long an operation of a running study waits for a store that is away."""

ANSWER_PATIENCE_S = 15.0
"""The same where a person waits for an answer."""

HURRY_PATIENCE_S = 3.0
"""The same in a process that was asked to stop: what is saved then may meet a store that stumbles."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
ANNOUNCED_AFTER_S = 5.0
_GLANCE_S = 0.1

_REMEDIES = {
    "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY, ~/.aws/credentials or the role",
    "InvalidAccessKeyId": "the store does not know this access key; check AWS_ACCESS_KEY_ID or ~/.aws/credentials",
    "ExpiredToken": "the credentials have expired; renew them (a new session token, or aws sso login)",
    "ExpiredTokenException": "the credentials have expired; renew them (a new session token, or aws sso login)",
    "RequestExpired": "the credentials have expired; renew them (a new session token, or aws sso login)",
    "InvalidToken": "the session token is not valid; check AWS_SESSION_TOKEN, or unset it",
    "NoSuchBucket": "there is no such bucket; create it, or correct the URL",
    "InvalidBucketName": "this cannot be the name of a bucket; correct the URL",
    "AccessDenied": "access is denied; these credentials need s3:ListBucket on the bucket, and s3:GetObject, "
    "s3:PutObject and s3:DeleteObject below the prefix",
    "AllAccessDisabled": "all access to this bucket is disabled",
    "AccountProblem": "the store refuses this account",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it (NTP)",
    "PermanentRedirect": "the bucket lies in another region; set AWS_DEFAULT_REGION to it",
    "AuthorizationHeaderMalformed": "the bucket lies in another region; set AWS_DEFAULT_REGION to it",
    "403": "access is denied, or the key or secret is wrong; check the credentials and their rights on this prefix",
}
_NO_CREDENTIALS = (
    "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials or a role"
)
_NAMES = {
    "NoCredentialsError": _NO_CREDENTIALS,
    "PartialCredentialsError": "the credentials are incomplete; both a key and a secret are needed",
    "ProfileNotFound": "AWS_PROFILE names a profile that ~/.aws does not have",
    "UnauthorizedSSOTokenError": "the SSO session has expired; run aws sso login",
    "SSOTokenLoadError": "there is no SSO session; run aws sso login",
    "InvalidRegionError": "AWS_DEFAULT_REGION is not the name of a region",
}
_TRANSIENT_NAMES = (
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ConnectionClosedError",
    "HTTPClientError",
    "ClientConnectorError",
    "ClientOSError",
    "ClientPayloadError",
    "ServerDisconnectedError",
    "ServerTimeoutError",
    "FSTimeoutError",
    "IncompleteRead",
    "ResponseParserError",
    "ResponseStreamingError",
    "CredentialRetrievalError",
    "MetadataRetrievalError",
)
_TRANSIENT_CODES = {
    "BadDigest",
    "BandwidthLimitExceeded",
    "IncompleteBody",
    "InvalidPart",
    "NoSuchUpload",
    "SlowDown",
    "ServiceUnavailable",
    "InternalError",
    "RequestTimeout",
    "RequestTimeoutException",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequests",
    "OperationAborted",
    "XAmzContentSHA256Mismatch",
    "500",
    "502",
    "503",
    "504",
    "429",
}
_UNKNOWN_HOST = (
    "ClientConnectorDNSError",
    "Name or service not known",
    "nodename nor servname",
    "No address associated with hostname",
    "Temporary failure in name resolution",
    "Domain name not found",
    "getaddrinfo failed",
)
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_FULL = ("No space left on device", "Disk quota exceeded")


class StorageAway(OSError):
    """The store did not answer for as long as patience lasts."""


class StorageRefused(OSError):
    """The store answered, and will go on answering, that it won't: one sentence with the remedy."""


def no_room(error: BaseException) -> bool:
    """True when a disk or quota of this node is full, however the library that met it wraps that."""
    return any(
        (isinstance(link, OSError) and link.errno in _NO_ROOM) or any(words in str(link) for words in _FULL)
        for link in chain(error)
    )


def away(error: BaseException) -> bool:
    """True when a store did not answer."""
    return any(isinstance(link, StorageAway) for link in chain(error))


def transient(error: BaseException) -> bool:
    """True when the same request may succeed later."""
    for link in chain(error):
        code, status = _code(link)
        if code in _TRANSIENT_CODES or (status is not None and status >= 500 and status != 501):
            return True
        if isinstance(link, TimeoutError | ConnectionError) or type(link).__name__ in _TRANSIENT_NAMES:
            return True
    return False


def refusal(error: BaseException) -> str | None:
    """What is wrong for good, and the remedy, in one sentence; None when waiting may help or nothing is known."""
    for link in chain(error):
        code, status = _code(link)
        if code in _REMEDIES:
            return f"{_REMEDIES[code]} ({code})"
        if status in (401, 403):
            return _REMEDIES["403"]
        if type(link).__name__ in _NAMES:
            return _NAMES[type(link).__name__]
        if "credentials are still expired" in str(link):  # botocore has no type for it
            return _REMEDIES["ExpiredToken"]
        if "Invalid endpoint" in str(link) or "not a supported" in str(link):
            return "this is no address of a store; an endpoint looks like https://host:port"
    return None


def has_no_reason(error: BaseException) -> bool:
    """True for an answer that refuses without a body, as all to HEAD are: a listing refused says why."""
    return any(_code(link)[0] in ("400", "401", "403", "BadRequest", "Forbidden") for link in chain(error))


def unknown_host(error: BaseException) -> bool:
    """True when a host name could not be resolved: a slip of the pen, or a network that is down."""
    words = " ".join(f"{type(link).__name__} {link}" for link in chain(error))
    return any(word in words for word in _UNKNOWN_HOST)


def described(error: BaseException) -> str:
    """One line about any error of a store, for people: no secrets, no line breaks, the remedy where one is known."""
    if isinstance(error, StorageAway | StorageRefused):
        return _line(error)
    said = refusal(error)
    if said is None and unknown_host(error):
        said = "the host name can't be resolved; check the endpoint (execution.s3_endpoint_url) and the network"
    if said is None and (transient(error) or away(error)):
        said = f"it does not answer ({_last(error)}); is the endpoint right, and is the store up?"
    return said or f"{type(error).__name__}: {_line(error)}"


class _Process:
    """What this process knows. `hurried` is a plain flag: it is set by a signal's handler, which must take no lock."""

    hurried = False
    given_up: ClassVar[set[str]] = set()
    announced: ClassVar[set[str]] = set()
    lock = threading.Lock()


def hurry() -> None:
    """End all long waiting for stores in this process: it was asked to stop."""
    _Process.hurried = True


def hurried() -> bool:
    """True once this process was asked to stop."""
    return _Process.hurried


def calm() -> None:
    """Waiting is allowed again: a new study begins in this process."""
    _Process.hurried = False


def patiently(call: Callable[[], T], patience_s: float, where: str) -> T:
    """The result of `call`, tried again with longer and longer pauses while its errors are transient.

    A store that was given up is waited for less long until it answers once, and not asked by a process that stops.

    Raises
    ------
    StorageAway
        They stayed so for `patience_s`, or the process was asked to stop meanwhile.
    StorageRefused
        The store says that this will never work.
    """
    if _Process.hurried and where in _Process.given_up:
        raise StorageAway(f"{where}: it did not answer, and this process was asked to stop")
    began, pause_s = time.monotonic(), FIRST_PAUSE_S
    while True:
        try:
            found = call()
        except Exception as error:
            _raise_lasting(error, patience_s, where)
            waited_s = time.monotonic() - began
            left_s = _patience_s(patience_s, where) - waited_s
            if left_s <= 0:
                if waited_s >= (HURRY_PATIENCE_S if _Process.hurried else ANSWER_PATIENCE_S):
                    _Process.given_up.add(where)
                raise StorageAway(f"{where}: {described(error)}") from error
            if waited_s > ANNOUNCED_AFTER_S and patience_s > ANSWER_PATIENCE_S:
                _announce(where, f"{described(error)} It is waited for.")
        else:
            _answers(where)
            return found
        _pause(min(left_s, pause_s * (0.5 + random.random())))
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _raise_lasting(error: Exception, patience_s: float, where: str) -> None:
    """Raise what waiting does not mend."""
    if transient(error) and not (patience_s <= ANSWER_PATIENCE_S and unknown_host(error)):
        return
    if refusal(error) is not None or (unknown_host(error) and not isinstance(error, FileNotFoundError)):
        raise StorageRefused(f"{where}: {described(error)}") from error
    if isinstance(error, FileNotFoundError):
        _answers(where)
    raise error


def _patience_s(patience_s: float, where: str) -> float:
    if _Process.hurried:
        return min(patience_s, HURRY_PATIENCE_S)
    return min(patience_s, ANSWER_PATIENCE_S) if where in _Process.given_up else patience_s


def _pause(seconds: float) -> None:
    """Sleep, but not on once the process is asked to stop."""
    until, hurried = time.monotonic() + seconds, _Process.hurried
    while (left_s := until - time.monotonic()) > 0 and _Process.hurried is hurried:
        time.sleep(min(left_s, _GLANCE_S))


def _announce(where: str, what: str) -> None:
    with _Process.lock:
        if where not in _Process.announced:
            _Process.announced.add(where)
            sys.stderr.write(f"orchestrator: {where}: {what}\n")


def _answers(where: str) -> None:
    _Process.given_up.discard(where)
    if where in _Process.announced:
        with _Process.lock:
            if where in _Process.announced:
                _Process.announced.discard(where)
                sys.stderr.write(f"orchestrator: {where}: it answers again.\n")


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came from, each once."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _code(error: BaseException) -> tuple[str | None, int | None]:
    """Error code and HTTP status of an S3 store's answer."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return None, None
    code = response.get("Error", {}).get("Code")
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return (str(code) if code else None), (int(status) if isinstance(status, int) else None)


def _last(error: BaseException) -> str:
    """What lies at the bottom of an error, in a few words."""
    *_, last = (link for link in chain(error))
    return f"{type(last).__name__}: {_line(last)}" if _line(last) else type(last).__name__


def _line(error: BaseException) -> str:
    return redact(" ".join(str(error).split()))[:300]
