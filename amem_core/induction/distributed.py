"""The same training on several devices: each takes a share of the sequences, and the sums meet again.

Under ``torchrun`` (which sets ``RANK`` and ``WORLD_SIZE``) every process draws the same sequences, works on every
n-th of them, and loss, gradients and accuracy are averaged over all, weighted by the number of loss positions. Each
process then takes the same step. Backend: nccl on GPUs, gloo on CPUs.
"""

import atexit
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from amem_core.induction.task import Sequences
from amem_core.validation import require, require_count

Sums = tuple[Tensor, dict[str, Tensor], Tensor]  # loss, gradients by name, accuracy


@dataclass(frozen=True)
class Team:
    """Processes that train together; one alone where nothing else is said.

    Parameters
    ----------
    rank : number of this process, from 0
    size : number of processes

    Raises
    ------
    ValueError
        For a rank outside ``0 .. size - 1``.

    Examples
    --------
    >>> Team().leads, Team(1, 2).leads
    (True, False)
    """

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        require_count("size", self.size)
        require(require_count("rank", self.rank, 0) < self.size, "rank", self.rank, f"0 to size-1 = {self.size - 1}")

    @property
    def leads(self) -> bool:
        """The one process that writes checkpoints and shows progress."""
        return self.rank == 0

    def share(self, sequences: Sequences) -> Sequences:
        """Every ``size``-th sequence: those of this process.

        Raises
        ------
        ValueError
            For fewer sequences than processes.
        """
        if self.size == 1:
            return sequences
        require(len(sequences) >= self.size, "sequences", len(sequences), f"at least one for each of {self.size}")
        return sequences[self.rank :: self.size]

    def mean(self, sums: Sums, positions: int) -> Sums:
        """Loss, gradients and accuracy over all processes, from those over this one's loss positions.

        Sums are in float64: the order in which processes are added does not show in float32.
        """
        if self.size == 1:
            return sums
        loss, gradients, accuracy = sums
        parts = [loss, accuracy, *gradients.values()]
        flat = positions * torch.cat([part.flatten().double() for part in parts])
        flat = torch.cat([flat, flat.new_tensor([positions])])
        dist.all_reduce(flat)
        flat = (flat[:-1] / flat[-1].clamp(min=1)).to(loss.dtype)
        loss, accuracy, *rest = (
            x.view_as(part) for x, part in zip(flat.split([part.numel() for part in parts]), parts, strict=True)
        )
        return loss, dict(zip(gradients, rest, strict=True)), accuracy

    def require_agreement(self, argument: str, value: int, device: torch.device) -> None:
        """The same whole number in every process, or ``ValueError`` in all of them."""
        if self.size == 1:
            return
        ends = torch.tensor([value, -value], device=device)
        dist.all_reduce(ends, dist.ReduceOp.MAX)
        most, least = ends[0].item(), -ends[1].item()
        require(most == least, argument, f"{least} to {most} in different processes", "the same in all of them")

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


def team(device: torch.device | str | None = None) -> tuple[Team, torch.device]:
    """The processes that ``torchrun`` started, or this one alone, and the device of this process.

    Parameters
    ----------
    device : ``None`` for a GPU where there is one, of several the one for this process; else what is named

    Examples
    --------
    >>> team("cpu")
    (Team(rank=0, size=1), device(type='cpu'))
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if device is None:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    if size > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)  # kept: a group cannot be begun twice under one torchrun
    return Team(rank, size), device
