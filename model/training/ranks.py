"""Distributed training of one network by processes started with torchrun; one process by default.

Every process holds the whole history and draws the same lanes from the same seed; each advances its
own share of every group. Processes exchange sums: gradients (by DistributedDataParallel), the total
weight of a mean, and a few numbers that must be the same everywhere.

Axes: G = groups, N = lanes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model.errors import InvalidValues


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together: `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Ranks":
        """The group opened by `process_group`; a single process outside of it."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def first(self) -> bool:
        """True for the process that prints, saves and publishes for all."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device of this process; `cuda` selects its own GPU of the machine.

        >>> Ranks().device("cpu")
        device(type='cpu')
        """
        if name != "cuda":
            return torch.device(name)
        local = dist.get_node_local_rank(0) if self.size > 1 else 0
        return torch.device("cuda", local)

    def share(self, size: int) -> slice:
        """This process' part of `size` lanes. Raises InvalidValues if they cannot be shared evenly.

        >>> Ranks(1, 2).share(6)
        slice(3, 6, None)
        """
        part, rest = divmod(size, self.size)
        if rest or not part:
            raise InvalidValues(
                f"{size} lanes of a group cannot be shared by {self.size} processes; "
                f"start a number of processes that divides {size}"
            )
        return slice(self.rank * part, (self.rank + 1) * part)

    def sum(self, value: Tensor) -> Tensor:
        """Sum over all processes, without a gradient."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total

    def broadcast(self, value: float, device: torch.device) -> float:
        """The first process' value on every process, so that all take the same decisions."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=device)
        dist.broadcast(shared, src=0)
        return float(shared.item())

    def gather(self, part_NX: Tensor, groups: int) -> Tensor:
        """Gather rows [groups · B, …] from each process' share [groups · B / size, …]."""
        if self.size == 1:
            return part_NX
        parts = [torch.empty_like(part_NX) for _ in range(self.size)]
        dist.all_gather(parts, part_NX.contiguous())
        by_group = [part.view(groups, -1, *part.shape[1:]) for part in parts]
        return torch.cat(by_group, dim=1).flatten(0, 1)

    def wrap(self, module: nn.Module) -> nn.Module:
        """A module whose gradients are averaged over the processes."""
        return module if self.size == 1 else DistributedDataParallel(module)


@contextmanager
def process_group(device: str) -> Iterator[Ranks]:
    """Join the processes started by torchrun; yield a single process without torchrun."""
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        yield Ranks()
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    try:
        yield Ranks.current()
    finally:
        dist.destroy_process_group()
