"""A job of two processes, in a module that other processes import quickly."""

import multiprocessing
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from deconfuse import CONF
from deconfuse.launch.workers import together
from deconfuse.system import distributed

TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


def composed(*words):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", list(words), return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    return config


def names_itself(cfg):
    """A job whose result is the number of its process."""
    return Path(f"process {distributed.rank()} of {distributed.world()}")


def in_two():
    """(the result of the job in two processes, the start method that this process has afterwards)."""
    return together(names_itself, composed(*TWO)), multiprocessing.get_start_method(allow_none=True)
