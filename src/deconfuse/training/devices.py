"""Turn the trainer's settings into Lightning's Trainer, its device, and its group of processes."""

import inspect
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from pytorch_lightning.trainer.connectors.accelerator_connector import _AcceleratorConnector
from pytorch_lightning.utilities.argparse import _parse_env_variables
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from deconfuse.system import distributed
from deconfuse.system.errors import UserError, did_you_mean
from deconfuse.training.trainer_keys import OURS, refusal

LEAVES_SOME_UNUSED = "ddp_find_unused_parameters_true"
PATIENCE = timedelta(days=7)  # timeout of processes that wait; lost ones are noticed in other ways


def check(trainer) -> None:
    """Raise UserError if a partial of Lightning's Trainer has unknown arguments or ones users can't set."""
    valid = inspect.signature(pl.Trainer.__init__).parameters.keys() - OURS.keys() - {"self"}
    for name in getattr(trainer, "keywords", {}):
        if name in OURS:
            raise UserError(refusal(name))
        if name not in valid:
            raise UserError(f"there is no key trainer.{name}; {did_you_mean(name, valid)}")


def trainer_of(trainer, **settings) -> pl.Trainer:
    """Lightning's Trainer; UserError if it can't work here, as trainer.accelerator=gpu without a GPU."""
    check(trainer)
    with _refusals():
        return trainer(**settings)


def strategy_of(trainer, **settings) -> Strategy:
    """The strategy that Lightning's Trainer would have, without a Trainer.

    It comes from Lightning's accelerator connector, which the Trainer gives the arguments that choose devices
    and strategy, after those that PL_TRAINER_... variables set. As in a Trainer, trainer.deterministic and
    trainer.benchmark hold for the process from then on, and Lightning logs nothing but errors. UserError as
    `trainer_of` has it.
    """
    check(trainer)
    _hush()
    given = vars(_parse_env_variables(pl.Trainer)) | trainer.keywords | settings
    known = inspect.signature(_AcceleratorConnector).parameters
    with _refusals():
        return _AcceleratorConnector(**{key: value for key, value in given.items() if key in known}).strategy


def _hush() -> None:
    """Let Lightning log nothing but errors, and keep back a warning of Lightning 2.6 with torch 2.14."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")


@contextmanager
def _refusals() -> Iterator[None]:
    """What Lightning refuses is a UserError of one line."""
    try:
        yield
    except (MisconfigurationException, ModuleNotFoundError, ValueError) as error:
        raise UserError(f"trainer: {str(error).strip().splitlines()[0]}") from None


def device(trainer) -> torch.device:
    """The device that a partial of Lightning's Trainer works on."""
    return strategy(trainer).root_device


def strategy(trainer) -> Strategy:
    """Lightning's strategy for a partial of its Trainer: one process, or several with a device each."""
    found = strategy_of(trainer)
    if not isinstance(found, (SingleDeviceStrategy, DDPStrategy)):
        raise UserError(
            f"trainer: {type(found).__name__} shares a model out in a way that is not known here; take "
            "trainer=auto for one process or trainer=ddp for several"
        )
    return found


def joint(trainer) -> Strategy | str:
    """Lightning's strategy for this process, alone or among others.

    Buffers are not synchronised: they are equal, as BatchNorm sees the whole batch, and processes may
    validate different numbers of batches.
    """
    if distributed.world() == 1:
        return "auto"
    unused = trainer.keywords.get("strategy") == LEAVES_SOME_UNUSED
    return DDPStrategy(forward_sync_buffers=False, find_unused_parameters=unused, timeout=PATIENCE)


def join(trainer) -> None:
    """Make this process a member of the process group; Lightning finds its rank in the environment.

    Raises UserError if the number of started processes is not that of the trainer's settings.
    """
    several = DDPStrategy(timeout=PATIENCE)
    strategy_of(trainer, strategy=several)
    try:
        several.cluster_environment.validate_settings(several.num_processes, several.num_nodes)
    except ValueError:
        started = several.cluster_environment.world_size()
        raise UserError(
            f"trainer: {started} processes were started, but trainer.devices={several.num_processes} x "
            f"trainer.num_nodes={several.num_nodes}; give the numbers of those"
        ) from None
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // several.num_processes))
    several.setup_environment()
