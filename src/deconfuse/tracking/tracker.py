"""Loggers of training: none, CSV, TensorBoard, MLflow, or Weights & Biases; how a W&B run begins and ends."""

import functools
import logging
import netrc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar
from urllib.parse import urlparse

from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from deconfuse.system.errors import UserError
from deconfuse.system.progress import console

GROUPED = ("dataset", "noise", "model", "loss")  # what is trained: seeds and methods are compared within it
TAGGED = (*GROUPED, "target", "influence", "detector", "experiment")
TAG = 64  # characters that W&B takes

P, T = ParamSpec("P"), TypeVar("T")


def none(folder: Path, name: str, config: dict) -> None:
    """No logger."""
    return None


def csv(folder: Path, name: str, config: dict) -> Logger:
    """Lightning's CSV logger, beside the checkpoint."""
    return CSVLogger(folder, name="log")


def wandb(folder: Path, name: str, config: dict, project: str, patience: float = 20) -> Logger:
    """A W&B run: online where the user is logged in, else offline; it never asks and never waits for long.

    config: the settings, with `choices`. Where an API key is found, WANDB_MODE decides. patience: seconds to
    wait for the server before the run goes offline.
    """
    import wandb as library

    logging.getLogger("wandb").setLevel(logging.ERROR)
    mode = os.environ.get("WANDB_MODE") or "online"
    if mode not in ("offline", "disabled", "dryrun") and not logged_in(library):
        mode = "offline"  # without a key, W&B would ask for one in any other mode
    arguments = {
        "project": os.environ.get("WANDB_PROJECT", project),
        "name": name,
        "dir": folder.resolve(),  # the process that writes may have been started elsewhere
        **labels(name, config),
        "reinit": "finish_previous",
    }
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"silent": True, "init_timeout": patience, "login_timeout": patience}
    try:
        run = library.init(mode=mode, settings=library.Settings(**settings), **arguments)
    except (library.errors.Error, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        console.print(f"W&B could not be reached ({reason}); this run is kept offline, wandb sync sends it")
        run = library.init(mode="offline", settings=library.Settings(**settings), **arguments)
    return WandbLogger(experiment=run, save_dir=folder)


def tensorboard(folder: Path, name: str, config: dict) -> Logger:
    """TensorBoard's files in FOLDER/tensorboard, with the settings; UserError where it is not installed."""
    try:
        logger = TensorBoardLogger(folder / "tensorboard", name=None, version=name, default_hp_metric=False)
        logger.log_hyperparams(_settings(config))
    except ModuleNotFoundError:
        raise _not_installed("tensorboard") from None
    return logger


def mlflow(folder: Path, name: str, config: dict, project: str, uri: str | None = None) -> Logger:
    """A run of an MLflow experiment, with the settings; UserError where MLflow is not installed.

    uri: of the server; None: MLFLOW_TRACKING_URI, or else a database in FOLDER.
    """
    place = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    folder.mkdir(parents=True, exist_ok=True)
    files = None if uri or os.environ.get("MLFLOW_TRACKING_URI") else (folder.resolve() / "mlflow").as_uri()
    try:
        logger = MLFlowLogger(project, name, tracking_uri=place, artifact_location=files)
    except ModuleNotFoundError:
        raise _not_installed("mlflow") from None
    logger.log_hyperparams(_settings(config))
    return logger


def _not_installed(extra: str) -> UserError:
    return UserError(f"logger={extra} needs {extra}; pip install 'deconfuse[{extra}]'")


def numbers(logger: Logger | None, found: dict[str, float]) -> None:
    """Log the numbers that a run has found to TensorBoard or MLflow, and end the MLflow run."""
    if isinstance(logger, (TensorBoardLogger, MLFlowLogger)):
        named = {key.replace("@", "_at_"): value for key, value in found.items()}
        logger.log_metrics(named)
        logger.finalize("success")


def logged_in(library) -> bool:
    """Whether there is an API key for W&B's server, in the environment or in netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(library.setup().settings.base_url).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def labels(name: str, config: dict) -> dict:
    """What W&B groups and filters runs by: group, job_type, tags, and config without Hydra's keys."""
    choices = config["choices"]
    chosen = [(key, choices[key]) for key in TAGGED if choices.get(key)]
    return {
        "group": "-".join(choices[key] for key in GROUPED),
        "job_type": choices["influence"],
        "tags": [f"{key}:{value}"[:TAG] for key, value in chosen],
        "config": {**_settings(config), "run": name},
    }


def _settings(config: dict) -> dict:
    """The settings without the keys that only instantiate them (_target_, _partial_)."""
    return {
        key: _settings(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if not key.startswith("_")
    }


def page(logger: Logger | None):
    """The logger's W&B run; None where there is none, as with WANDB_MODE=disabled."""
    run = logger.experiment if isinstance(logger, WandbLogger) else None
    return None if run is None or run.disabled else run


def end(run, code: int = 0) -> None:
    """End a W&B run as finished (code 0) or failed, and print where it is."""
    run.finish(exit_code=code)
    if run.offline:
        console.print(f"W&B kept this run offline; send it with: wandb sync {Path(run.dir).parent}")
    elif run.url:
        console.print(f"W&B: {run.url}")


def followed(job: Callable[P, T]) -> Callable[P, T]:
    """Wrap a job so that its W&B run ends as failed where an error or Ctrl-C ends the job."""

    @functools.wraps(job)
    def ended(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return job(*args, **kwargs)
        except BaseException as error:
            library = sys.modules.get("wandb")
            if library is not None and library.run is not None and not library.run.disabled:
                end(library.run, 130 if isinstance(error, KeyboardInterrupt) else 1)
            raise

    return ended
