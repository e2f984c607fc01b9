"""Recordings and other files of the outside world, in a folder or behind a URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO, cast

from orchestrator.local_files import files_below
from orchestrator.node_cache import NodeCache, default_folder
from orchestrator.paths import local_folder
from orchestrator.redaction import redact
from orchestrator.remote import connect
from orchestrator.trouble import ANSWER_PATIENCE_S, PATIENCE_S, patiently

STREAM_TRIES = 8


@dataclass(frozen=True)
class OutsideFile:
    """A file of the outside world: `version` is its ETag, or its modification time in nanoseconds."""

    path: str
    size: int
    version: str


def list_files(url: str, suffixes: tuple[str, ...], options: Mapping[str, Any] | None = None) -> list[OutsideFile]:
    """All visible files below a folder or URL that end in one of `suffixes` (in any case), sorted by path.

    Raises
    ------
    FileNotFoundError
        There is no such folder.
    """
    if local_folder(url):
        found = _local_files(url)
    else:
        found = patiently(lambda: _remote_files(url, options or {}), ANSWER_PATIENCE_S, redact(url))
    endings = tuple(suffix.lower() for suffix in suffixes)
    return sorted((file for file in found if file.path.lower().endswith(endings)), key=lambda file: file.path)


def _local_files(url: str) -> list[OutsideFile]:
    folder = local_folder(url)
    assert folder is not None
    if folder.is_file():
        about = folder.stat()
        return [OutsideFile(str(folder), about.st_size, str(about.st_mtime_ns))]
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    return [OutsideFile(f"{folder}/{name}", info.st_size, str(info.st_mtime_ns)) for name, info in files_below(folder)]


def _remote_files(url: str, options: Mapping[str, Any]) -> list[OutsideFile]:
    fs, base = connect(url, options)
    found = fs.find(base, detail=True, withdirs=False)
    if not found:
        raise FileNotFoundError(f"there is nothing at {redact(url)}")
    start = url.rstrip("/")
    visible = {name[len(base.rstrip("/")) :]: info for name, info in found.items()}
    return [
        OutsideFile(start + name, int(info["size"]), _version(info))
        for name, info in visible.items()
        if not any(part.startswith(".") for part in name.split("/"))
    ]


def _version(info: Mapping[str, Any]) -> str:
    for key in ("ETag", "etag", "mtime", "LastModified", "created"):
        if info.get(key) is not None:
            return str(info[key]).strip('"')
    return "unknown"


@lru_cache(maxsize=1)
def _outside_cache() -> NodeCache:
    return NodeCache(default_folder() / "outside")


def open_outside(url: str, cache: NodeCache | None = None, options: Mapping[str, Any] | None = None) -> BinaryIO:
    """A local file, or a remote one through a bounded cache on this node; a new version at the same URL is fetched."""
    folder = local_folder(url)
    if folder is not None:
        return folder.open("rb")
    cache = cache or _outside_cache()

    def fetched() -> BinaryIO:
        fs, path = connect(url, options or {})
        info = fs.info(path)
        if int(info.get("size") or 0) > cache.limit_bytes:
            fs, path = connect(url, options or {}, fresh=True)
            fs.retries = STREAM_TRIES  # read as the task goes on: nobody else can ask again
            return cast(BinaryIO, fs.open(path, "rb"))
        return cache.open(f"{url} {info.get('size')} {_version(info)}", lambda part: fs.get_file(path, str(part)))

    return patiently(fetched, PATIENCE_S, redact(url))
