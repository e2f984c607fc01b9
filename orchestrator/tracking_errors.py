"""What an error of an MLflow store means, by its name and its words: knows no MLflow."""

from __future__ import annotations

import re

from orchestrator import trouble
from orchestrator.background import Trouble

_STATUS = re.compile(r"error code (\d{3})")
_BAD_ADDRESS = {
    "InvalidSchema", "InvalidURL", "InvalidUrlException", "MissingSchema", "NoSuchModuleError", "SSLError",
    "UnsupportedModelRegistryStoreURIException",
}  # fmt: skip
_BROKEN_LINE = {
    "ChunkedEncodingError", "ConnectionError", "ConnectTimeout", "InterfaceError", "MaxRetryError", "ProtocolError",
    "ReadTimeout", "RemoteDisconnected", "RetryError", "Timeout",
}  # fmt: skip
_NO_DATABASE = ("authentication failed", "does not exist", "readonly database", "unable to open")


def judge(error: Exception, answered: bool) -> Trouble:
    """What an error of a store means; once it has `answered`, its name and its place are right."""
    links = list(trouble.chain(error))
    names, words = {type(link).__name__ for link in links}, " ".join(map(str, links))
    status = _status(error)
    if status in (401, 403) or (names & _BAD_ADDRESS and not answered):
        return Trouble.REFUSED
    if trouble.unknown_host(error):
        return Trouble.AWAY if answered else Trouble.REFUSED
    if "OperationalError" in names:
        return Trouble.REFUSED if any(what in words for what in _NO_DATABASE) else Trouble.AWAY
    broken = names & _BROKEN_LINE or any(isinstance(link, ConnectionError | TimeoutError) for link in links)
    if broken or trouble.away(error) or status == 429 or status >= 500:
        return Trouble.AWAY
    return Trouble.UNCLEAR


def _status(error: Exception) -> int:
    """The HTTP status of an MLflow server's answer, 0 where there was none."""
    if type(error).__name__ == "RestException":
        return int(error.get_http_status_code())  # type: ignore[attr-defined]
    found = _STATUS.search(str(error))
    return int(found.group(1)) if found else 0
