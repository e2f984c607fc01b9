"""Secrets never reach what people read: everything that is shown or written goes through `redact`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote, urlsplit

HIDDEN = "***"
SHORTEST = 8
"""A secret of fewer characters may be any word: it is hidden in URLs only."""

_USER = re.compile(r"(?<=://)(?:[^\s/@:'\"]*:[^\s'\"]*|[^\s/@'\"]+)@")
_QUERY = re.compile(
    r"([?&][\w.-]*(?:password|passwd|pwd|secret|token|signature|credential|access_?key)[\w.-]*=)[^&\s'\"]+", re.I
)
_SECRET_NAME = re.compile(r"(PASSWORD|PASSWD|SECRET|TOKEN|ACCESS_KEY|ACCESS_KEY_ID|API_KEY)$")
_PASSWORD_IN_URL = re.compile(r"://[^\s/@:]*:([^\s@]+)@")


def redact(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """`text` without users and passwords in URLs, and without the values of this process' secret variables."""
    text = _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(f"{HIDDEN}@", text))
    for secret in sorted(set(_secrets(environment)), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def has_user(url: str) -> bool:
    """True when a URL carries a user, a password or a token."""
    return "@" in urlsplit(url).netloc or bool(_QUERY.search(url))


def _secrets(environment: Mapping[str, str]) -> Iterator[str]:
    for name, value in environment.items():
        found = [value] if _SECRET_NAME.search(name) else _PASSWORD_IN_URL.findall(value)
        for secret in found:
            yield from (form for form in (secret, unquote(secret)) if len(form) >= SHORTEST)
