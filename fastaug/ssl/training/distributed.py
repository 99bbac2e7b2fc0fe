"""The few things a recipe needs to know about torchrun."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among all: ``rank`` of ``size``, and the device it computes on."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wrap(self, model: nn.Module, compiled: bool = False) -> nn.Module:
        """DistributedDataParallel when there are several processes, with batch norm over all of them on CUDA.

        ``compiled``: through torch.compile, in place, so that parameter names stay.
        """
        if self.size > 1 and self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        if compiled:
            if any(getattr(module, "recomputes", False) for module in model.modules()):
                raise ValueError(
                    "--compile and --recompute exclude each other: torch.compile chooses itself what to keep"
                )
            model.compile()
        if self.size == 1:
            return model
        if self.device.type == "cuda":
            return nn.parallel.DistributedDataParallel(model, device_ids=[self.device.index])
        return nn.parallel.DistributedDataParallel(model)  # gloo: each process keeps its own batch statistics

    def any(self, flag: bool) -> bool:
        """True on every process as soon as one says True, so that all leave a loop at the same step."""
        if self.size == 1:
            return flag
        shared = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return bool(shared.item())

    def barrier(self) -> None:
        """Wait for all."""
        if self.size > 1:
            dist.barrier()

    def once(self, make: Callable[[], T]) -> T:
        """What ``make`` gives, called on the first process before the others, which find on the disk what it left."""
        made = make() if self.first else None
        self.barrier()
        return make() if made is None else made

    def say(self, text: str) -> None:
        """Print, on the first process only."""
        if self.first:
            print(text, flush=True)

    def close(self) -> None:
        if self.size > 1:
            dist.barrier()  # whoever leaves first takes gloo's connections along and aborts the others
            dist.destroy_process_group()


def start(device: str = "auto") -> World:
    """Join the process group that torchrun announces in the environment; alone without it.

    Args:
        device: "auto" (CUDA if usable, else the CPU), "cpu", "cuda" or "cuda:1".

    Raises:
        ValueError: no such device here.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    where = choose_device(device, local_rank)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    return World(rank, size, where)


def choose_device(device: str = "auto", local_rank: int = 0) -> torch.device:
    """What ``--device`` says; "cuda" is the one of ``local_rank``.

    Raises:
        ValueError: no such device here.
    """
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {device}: this torch ({torch.__version__}) sees no CUDA device")
    try:
        return torch.device(f"cuda:{local_rank}" if name == "cuda" else name)
    except RuntimeError as error:
        raise ValueError(f"--device {device}: {error}") from error
