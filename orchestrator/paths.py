"""Which names may become paths, and which URLs mean a local folder."""

from __future__ import annotations

import re
from pathlib import Path

_NOT_IN_NAMES = re.compile(r"[/\\*?\[\]\x00-\x1f\x7f]")


class UnsafePath(ValueError):
    """A name that could lead out of the ledger, or that some file systems read as a pattern."""


def check_path(path: str) -> str:
    """`path` itself, when every component is a plain visible name; "" is the root.

    Raises
    ------
    UnsafePath
        For "..", empty and hidden components, absolute paths, backslashes, control and wildcard characters.
    """
    for name in path.split("/") if path else ():
        if not name or name.startswith(".") or _NOT_IN_NAMES.search(name):
            raise UnsafePath(
                f"{path!r} cannot be a path in the ledger: {name!r} is not a plain name. Allowed are names without "
                "slashes, wildcards and control characters that do not start with a dot."
            )
    return path


def check_name(name: str) -> str:
    """`name` itself, when it is one plain component of a path; raises `UnsafePath`."""
    if not name or "/" in name:
        raise UnsafePath(f"{name!r} cannot be a name in the ledger: it must not be empty and not contain a slash.")
    return check_path(name)


def local_folder(url: str) -> Path | None:
    """The absolute folder that a plain path or a ``file://`` URL means; None for other URLs."""
    if "://" in url and not url.startswith("file://"):
        return None
    return Path(url.removeprefix("file://")).expanduser().absolute()
