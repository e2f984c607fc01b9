"""Files of weights that others have made."""

from __future__ import annotations

import re
from typing import Any, BinaryIO

import torch

from tasks.contract import TaskError


def load_checkpoint(stream: BinaryIO) -> dict[str, Any]:
    """The content of a checkpoint that torch wrote: tensors and plain values, nothing that could run.

    Raises
    ------
    TaskError
        The file is truncated or no checkpoint, or holds pickled code.
    """
    try:
        content = torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler and its zip reader met
        raise TaskError(_unreadable(str(error))) from error
    if not isinstance(content, dict):
        raise TaskError(f"a checkpoint is a mapping, this file holds a {type(content).__name__}")
    return content


def _unreadable(message: str) -> str:
    code = re.search(r"GLOBAL ([\w.]+)", message)
    if code is not None:
        return f"holds pickled code ({code[1]}), which is refused: only tensors and plain values are read"
    return "not a checkpoint that torch can read: truncated, damaged, or another kind of file"
