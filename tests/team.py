"""Several processes that do the same, joined as a job's are, without the command line."""

import warnings
from pathlib import Path

import torch
import torch.distributed as dist


def member(rank: int, n: int, folder: Path, function, arguments: tuple) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'group'}", rank=rank, world_size=n)
    torch.save(function(*arguments), folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def team(folder: Path, n: int, function, *arguments) -> list:
    """What a function of a module returns in each of n processes."""
    with warnings.catch_warnings():  # forked, as starting anew costs seconds; Python 3.12 warns of it
        warnings.simplefilter("ignore")
        torch.multiprocessing.start_processes(
            member, (n, folder, function, arguments), nprocs=n, start_method="fork"
        )
    return [torch.load(folder / f"{i}.pt", weights_only=False) for i in range(n)]
