"""python -m src.compare RUN RUN: `deconfuse compare` in a checkout, installed or not."""

import os
import sys
from pathlib import Path

HERE = str(Path(__file__).resolve().parent)
sys.path.insert(0, HERE)
# Processes that a job starts find the code too, and messages name the command that the user knows.
os.environ["PYTHONPATH"] = os.pathsep.join([HERE, *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ["DECONFUSE_COMMAND"] = "python -m src."

from deconfuse.__main__ import subcommand  # noqa: E402

if __name__ == "__main__":
    subcommand("compare")
