"""The command: python -m src.run dataset=cub loss=softtriple influence=eif. What it does: src/story.py.

The story is imported when there is a job to do: torch and Lightning take seconds, and a misspelt word or
--help is answered without them.
"""

import functools
import importlib
import sys

import hydra
from omegaconf import DictConfig

from src import sweep
from src.command_line import CONF


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(cfg: DictConfig) -> None:
    """One job of the command line, in one process or several."""
    from src import processes, story

    sweep.job(functools.partial(processes.together, story.run), cfg)


if __name__ == "__main__":
    # Jobs in other processes look `main` up in src.run, which __main__ is not.
    sys.exit(sweep.command(importlib.import_module("src.run").main))
