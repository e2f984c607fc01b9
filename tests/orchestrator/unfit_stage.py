"""A stage on a node that cannot start processes: each file in $UNFIT_NODE costs one of them its life."""

import os
import signal
from pathlib import Path

from fake_stages import run

__all__ = ["run"]

for lives in Path(os.environ["UNFIT_NODE"]).iterdir():
    lives.unlink()
    os.kill(os.getpid(), signal.SIGKILL)
