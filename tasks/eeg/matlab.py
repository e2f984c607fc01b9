"""Structs of MATLAB files, versions 5 to 7.3, from bytes; whatever is wrong with a file is said in a sentence."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tasks.contract import OpenFile, TaskError


def read_mat(path: str, open_file: OpenFile, variable: str) -> dict[str, Any]:
    """The struct `variable` of a MATLAB file, versions 5 to 7.3, as a dict of arrays.

    Raises
    ------
    TaskError
        If there is no such file, it isn't a whole MATLAB file, or it has no struct of that name.
    """
    try:
        with open_file(path) as stream:
            content = stream.read()
    except FileNotFoundError:
        raise TaskError(f"{path}: there is no such file; check cnd.path") from None
    except OSError as error:
        raise TaskError(f"{path}: can't be opened ({error.strerror or error})") from None
    if content[:10] == b"MATLAB 5.0":
        loaded = _read_v5(path, content)
    elif content[:10] == b"MATLAB 7.3" or content[:4] == b"\x89HDF":
        loaded = _read_v73(path, content)
    else:
        raise TaskError(f"{path}: not a MATLAB file of version 5 to 7.3; CND data are .mat files saved by MATLAB")
    found = loaded.get(variable)
    if not isinstance(found, dict):
        raise TaskError(f"{path}: not a CND file: it has no struct named {variable} (it has: {_names(loaded)})")
    return found


def _names(loaded: Mapping[str, Any]) -> str:
    return ", ".join(sorted(name for name in loaded if not name.startswith(("__", "#")))) or "nothing"


def _read_v5(path: str, content: bytes) -> dict[str, Any]:
    import scipy.io

    try:
        return dict(scipy.io.loadmat(io.BytesIO(content), simplify_cells=True))
    except Exception as error:  # the reader raises whatever the broken bytes lead it to
        raise TaskError(f"{path}: truncated or damaged ({type(error).__name__}: {error}); copy it again") from None


def _read_v73(path: str, content: bytes) -> dict[str, Any]:
    import pymatreader

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.mat"
        copy.write_bytes(content)
        try:
            _check_self_contained(copy)
            return dict(pymatreader.read_mat(str(copy)))
        except _LeadsOutside:
            raise TaskError(f"{path}: it shows contents of other files; a CND file holds its data itself") from None
        except Exception as error:  # as above
            reason = f"{type(error).__name__}: {error}".replace(str(copy), "the file")
            raise TaskError(f"{path}: truncated or damaged ({reason}); copy it again") from None


def is_self_contained(path: Path) -> bool:
    """Whether a local file, if it is HDF5, shows nothing of other files."""
    import h5py

    if not h5py.is_hdf5(path):
        return True
    try:
        _check_self_contained(path)
    except _LeadsOutside:
        return False
    except Exception:  # damaged: whoever reads it will say how
        return True
    return True


class _LeadsOutside(Exception):
    """HDF5 can name other files of the machine that reads it as part of its own content."""


def _check_self_contained(copy: Path) -> None:
    import h5py

    def link_out(name: str, link: object) -> bool | None:
        return isinstance(link, h5py.ExternalLink) or None  # anything but None ends the visit

    def data_outside(name: str, found: object) -> bool | None:
        return (isinstance(found, h5py.Dataset) and bool(found.external or found.is_virtual)) or None

    with h5py.File(copy, "r") as file:
        if file.visititems_links(link_out) or file.visititems(data_outside):
            raise _LeadsOutside


def cells_of(value: Any) -> list[Any]:
    """The entries of a cell array, whichever way the reader simplified it; a lone matrix is a cell of one."""
    if isinstance(value, np.ndarray) and value.dtype != object and value.ndim <= 2:
        return [value]
    return [value] if isinstance(value, str | Mapping) or not isinstance(value, Iterable) else list(value)


def scalar(eeg: Mapping[str, Any], name: str) -> float | None:
    value = np.asarray(eeg.get(name, ()), dtype=object).ravel()
    try:
        return float(value[0]) if value.size else None
    except (TypeError, ValueError):
        return None
