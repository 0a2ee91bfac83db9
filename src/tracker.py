"""Where training metrics and tables are followed: nowhere, in a CSV, or in Weights & Biases."""

import logging
import netrc
import os
from pathlib import Path
from urllib.parse import urlparse

import pandas as pd
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger

from src.progress import console

ROWS = 1000  # of each table that W&B is sent; the files on disk have all


def none(folder: Path, name: str, config: dict) -> None:
    """Follow nothing."""
    return None


def csv(folder: Path, name: str, config: dict) -> Logger:
    """Lightning's CSV logger, beside the checkpoint."""
    return CSVLogger(folder, name="log")


def wandb(folder: Path, name: str, config: dict, project: str, patience: float = 20) -> Logger:
    """A W&B run: online where the user is logged in, else offline; never asks, never waits for long.

    WANDB_MODE decides where a key is at hand. patience: seconds to wait for the server before going offline.
    """
    import wandb as library

    logging.getLogger("wandb").setLevel(logging.ERROR)
    mode = os.environ.get("WANDB_MODE") or "online"
    if mode not in ("offline", "disabled", "dryrun") and not _logged_in(library):
        mode = "offline"  # whatever else was asked for: without a key W&B would ask for one
    arguments = {
        "project": os.environ.get("WANDB_PROJECT", project),
        "name": name,
        "dir": folder,
        "config": config,
        "group": name.rsplit("-seed", 1)[0],
        "tags": [f"{key}:{value}" for key, value in config.get("choices", {}).items()],
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


def _logged_in(library) -> bool:
    """True where an API key is at hand for W&B's server, in the environment or in netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(library.setup().settings.base_url).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def publish(logger: Logger | None, metrics: dict, tables: dict[str, pd.DataFrame]) -> None:
    """Send a finished run's numbers and tables to W&B, if that is what follows it, and end its run."""
    if not isinstance(logger, WandbLogger):
        return
    import wandb as library

    run = logger.experiment
    run.summary.update(_flat(metrics))
    for name, table in tables.items():
        rows = table.head(ROWS)
        run.log(
            {
                name.removesuffix(".csv"): library.Table(
                    dataframe=rows.astype(object).where(rows.notna(), None)
                )
            }
        )
    run.finish()
    if run.settings.mode == "offline":
        console.print(f"W&B kept this run offline; send it with: wandb sync {Path(run.dir).parent}")


def _flat(value: dict, prefix: str = "") -> dict[str, float | str]:
    """{'a': {'b': 1}} -> {'a/b': 1}, numbers and words only."""
    flat = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{key}/")
        elif isinstance(item, (int, float, str)):
            flat[f"{prefix}{key}"] = item
    return flat
