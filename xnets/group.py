"""The processes that train one run together, and how they join."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """The processes that train one run together: the rank of this one, and how many there are."""

    rank: int
    size: int

    def share(self, n: int) -> slice:
        """This rank's part of a global batch of n: the parts are contiguous, in the order of ranks, may be empty."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether any rank raised it; no rank gets the answer before all have asked."""
        if self.size == 1:
            return list(flags)
        raised = torch.tensor(flags, dtype=torch.int32)  # on the CPU, so that no rank waits for its GPU here
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return [bool(flag) for flag in raised.tolist()]

    def wait(self) -> None:
        """Go on when all ranks have come here."""
        self.any(False)

    def sum_(self, x: Tensor) -> Tensor:
        """The sum of all ranks' x, in place."""
        if self.size > 1:
            dist.all_reduce(x)
        return x


ALONE = Group(0, 1)


@contextmanager
def joined(device: torch.device, timeout_seconds: float = 600.0) -> Iterator[tuple[Group, torch.device]]:
    """Join the processes that the environment names, as torchrun sets it; yields the group and this rank's device.

    WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are read; without a WORLD_SIZE above 1 the process is
    ALONE. "cuda" becomes the GPU of the local rank. A process that waits for another longer than `timeout_seconds`, or
    for one that has ended, raises RuntimeError.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE, device
        return
    if device.type == "cuda":
        # under Slurm a process may see no GPU but its own, which is then cuda:0 whatever its local rank
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    # gloo on GPU machines too: it carries the flags, which live on the CPU
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds))
    try:
        yield Group(dist.get_rank(), size), device
    finally:
        dist.destroy_process_group()
