"""The command `deconfuse`, with its subcommands; also `python -m deconfuse`.

    deconfuse run dataset=cub loss=softtriple influence=eif

What `run` does is in story.py. A subcommand is imported when it is called, as torch and Lightning take
seconds to import, and a misspelt word or --help is answered without them.
"""

import importlib
import os
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from deconfuse import CONF, __version__
from deconfuse.launch import sweep
from deconfuse.system import errors
from deconfuse.system.errors import did_you_mean

COMMANDS = {  # name: (module, what it does, what Ctrl-C says)
    "run": ("", "train a model, or find its checkpoint, and explain its confusions; run --help", ""),
    "tables": ("deconfuse.launch.tables", "collect finished runs into tables and figures", "interrupted"),
    "clean": (
        "deconfuse.runs.clean",
        "link a run's images into folders by their corrected labels",
        "interrupted; nothing was written",
    ),
    "compare": (
        "deconfuse.report.compare",
        "make a page of what came and went between two runs",
        "interrupted; nothing was written",
    ),
    "export": (
        "deconfuse.report.export",
        "write a run's samples for Label Studio, FiftyOne, or a file browser",
        "interrupted; nothing was written",
    ),
    "prepare": (
        "deconfuse.subcommands.prepare",
        "unpack a data set's archives, and check that all is there",
        "interrupted; nothing was kept",
    ),
    "draw": (
        "deconfuse.subcommands.draw",
        "draw letters, some of them mislabelled, to try things on",
        "interrupted",
    ),
    "doctor": (
        "deconfuse.subcommands.doctor",
        "say what is installed, which devices there are, and what is missing",
        "interrupted",
    ),
}
COMPLETION = ("-sc", "--shell-completion")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def run(cfg: DictConfig) -> None:
    """Run one job, in one process or several."""
    sweep.job(_run, cfg)


def _run(cfg: DictConfig) -> Path:
    """Look for the data, then import torch and Lightning, and run the job."""
    from deconfuse.launch import data_folder

    data_folder.check(cfg)
    from deconfuse import story
    from deconfuse.launch import workers

    return workers.together(story.run, cfg)


def command() -> None:
    """Run the subcommand that the command line names, and end the process with its exit code."""
    name, *words = sys.argv[1:] or ["--help"]
    if name in COMPLETION:
        complete()
    elif name in ("-h", "--help"):
        print(usage())
    elif name == "--version":
        print(f"deconfuse {__version__}")
    elif name not in COMMANDS:
        sys.exit(f"error: there is no deconfuse {name}; {did_you_mean(name, COMMANDS)}")
    else:
        sys.argv[1:] = words
        subcommand(name)


def subcommand(name: str) -> None:
    """Run a subcommand with the words of sys.argv."""
    if name == "run":
        # Other processes find the function by its module's name, which must not be __main__.
        sys.exit(sweep.command(importlib.import_module("deconfuse.__main__").run))
    module, _, interrupted = COMMANDS[name]
    errors.command(importlib.import_module(module).main, interrupted)


def usage() -> str:
    """What `deconfuse --help` prints."""
    lines = [f"  {errors.invoked(name):<18} {what}" for name, (_, what, _) in COMMANDS.items()]
    return "\n".join(
        [
            "deconfuse finds the training samples and labels that make an embedding model confuse classes.",
            "",
            *lines,
            "",
            'Shell completion: eval "$(deconfuse -sc install=bash)"; also zsh and fish. deconfuse --version',
        ]
    )


def complete() -> None:
    """Complete a line in a shell: the subcommand's name, or with Hydra the words of `run`."""
    line = os.environ.get("COMP_LINE", "").split(" ")
    if any("query" in word for word in sys.argv) and len(line) < 3:
        print(" ".join(name for name in COMMANDS if name.startswith(line[-1] if len(line) > 1 else "")))
        return
    if len(line) > 2 and line[1] != "run":
        return
    if len(line) > 2:
        os.environ["COMP_LINE"] = " ".join([line[0], *line[2:]])
    run()


if __name__ == "__main__":
    command()
