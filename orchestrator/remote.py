"""Files behind a URL: the only room that knows fsspec, s3fs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar, cast

from orchestrator.trouble import has_no_reason, patiently, refusal

ENDPOINT_VARIABLES = ("ORCHESTRATOR_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 15.0
T = TypeVar("T")


class Files(Protocol):
    """What `Storage` asks of a folder and of an fsspec file system alike; paths are checked and relative."""

    def read(self, path: str) -> bytes: ...
    def open(self, path: str) -> BinaryIO: ...
    def write(self, path: str, data: bytes) -> None: ...
    def put_file(self, local: Path, path: str) -> None: ...
    def adopt(self, local: Path, path: str) -> None: ...
    def get_file(self, path: str, local: Path) -> None: ...
    def size(self, path: str) -> int | None: ...
    def modified(self, path: str) -> float: ...
    def exists(self, path: str) -> bool: ...
    def delete(self, path: str, recursive: bool) -> None: ...
    def names(self, path: str) -> list[str]: ...
    def find(self, path: str) -> dict[str, int]: ...


class PatientFiles:
    """The methods of `RemoteFiles`, each tried again while the store `where` is away; all bear repetition."""

    def __init__(self, connected: Callable[[], RemoteFiles], patience_s: Callable[[], float], where: str) -> None:
        self._connect, self._patience_s, self._where = connected, patience_s, where
        self._remote: RemoteFiles | None = None

    def __getattr__(self, name: str) -> Any:
        def call(*values: Any) -> Any:
            return patiently(lambda: getattr(self._connected(), name)(*values), self._patience_s(), self._where)

        return call

    def _connected(self) -> RemoteFiles:
        if self._remote is None:
            self._remote = self._connect()
        return self._remote


class RemoteFiles:
    """Files of one fsspec file system below a prefix."""

    def __init__(self, root: str, options: Mapping[str, Any]) -> None:
        self.fs, base = connect(root, options, fresh=True)
        self.base = base.rstrip("/")
        self.is_s3 = is_s3(root)
        self.in_one_request = {"max_concurrency": 1} if self.is_s3 else {}

    def at(self, path: str) -> str:
        return f"{self.base}/{path}" if path else self.base

    def read(self, path: str) -> bytes:
        return cast(bytes, self.fs.cat_file(self.at(path), **self.in_one_request))

    def open(self, path: str) -> BinaryIO:
        return cast(BinaryIO, self.fs.open(self.at(path), "rb"))

    def write(self, path: str, data: bytes) -> None:
        self.fs.pipe_file(self.at(path), data)

    def put_file(self, local: Path, path: str) -> None:
        self.fs.put_file(str(local), self.at(path))

    def adopt(self, local: Path, path: str) -> None:
        self.put_file(local, path)
        local.unlink(missing_ok=True)

    def get_file(self, path: str, local: Path) -> None:
        self.fs.get_file(self.at(path), str(local))

    def size(self, path: str) -> int | None:
        info = self._info(path)
        return int(info["size"]) if info is not None and info["type"] == "file" else None

    def _info(self, path: str) -> dict[str, Any] | None:
        """What the store says of a path, None when it isn't there."""
        try:
            return dict(self.fs.info(self.at(path)))
        except FileNotFoundError as error:
            return _absent(error, None)
        except OSError as error:
            if self.is_s3 and has_no_reason(error):
                bucket, _, prefix = self.base.partition("/")
                self.fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)  # this one says why
            raise

    def modified(self, path: str) -> float:
        return float(self.fs.modified(self.at(path)).timestamp())

    def exists(self, path: str) -> bool:
        return self._info(path) is not None

    def delete(self, path: str, recursive: bool) -> None:
        try:
            if recursive:
                self.fs.rm(self.at(path), recursive=True)
            else:
                self.fs.rm_file(self.at(path))
        except FileNotFoundError as error:
            _absent(error, None)

    def names(self, path: str) -> list[str]:
        try:
            found = self.fs.ls(self.at(path), detail=False)
        except FileNotFoundError as error:
            return _absent(error, [])
        except NotADirectoryError:
            return []
        inside = {name.rstrip("/")[len(self.at(path)) + 1 :] for name in found}
        return sorted(name for name in inside if name and not name.startswith("."))

    def find(self, path: str) -> dict[str, int]:
        found = self.fs.find(self.at(path), detail=True, withdirs=False)
        start = len(self.base) + 1
        return {name[start:]: int(info["size"]) for name, info in found.items() if name != self.at(path)}


def _absent(error: FileNotFoundError, found: T) -> T:
    """`found` where a file is not there; that a bucket isn't is an error."""
    if refusal(error) is not None:
        raise error
    return found


def is_s3(url: str) -> bool:
    return url.startswith(("s3://", "s3a://"))


def s3_endpoint(given: str | None = None) -> str | None:
    """The server that ``s3://`` means: as given, else by the environment, else None: AWS."""
    return given or next((value for name in ENDPOINT_VARIABLES if (value := os.environ.get(name))), None)


def connect(url: str, options: Mapping[str, Any], fresh: bool = False) -> tuple[Any, str]:
    """The fsspec file system of `url` and the path in it; listings are never cached, for others write there too."""
    from fsspec.core import url_to_fs

    logging.getLogger("aiobotocore.credentials").setLevel(logging.CRITICAL)  # what it would print is raised, too
    own = _s3_settings(options) if is_s3(url) else {k: v for k, v in options.items() if k != "endpoint_url"}
    fs, path = url_to_fs(url, **{"use_listings_cache": False, "skip_instance_cache": fresh, **own})
    if is_s3(url):
        fs.retries = 1  # `patiently` does that, and knows which errors are worth it
    return fs, str(path)


def _s3_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Limits, and what stores other than AWS need: buckets by path, and no checksums that only AWS knows."""
    found = dict(options)
    endpoint = s3_endpoint(found.get("endpoint_url") or found.get("client_kwargs", {}).get("endpoint_url"))
    config: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "retries": {"max_attempts": 1},
    }
    if endpoint is not None:
        found["endpoint_url"] = endpoint
        config["s3"] = {"addressing_style": "path"}
        config["request_checksum_calculation"] = config["response_checksum_validation"] = "when_required"
    found["config_kwargs"] = {**config, **found.get("config_kwargs", {})}
    return found
