"""Several processes, one GPU each, for one run: the global batch stays the protocol's, and so does the result."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


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

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """`model` for training steps: gradients are averaged over the ranks, batch norms see the global batch.

        The batch norms of `model` itself are replaced. It keeps its parameters and the names in its state_dict, so save
        and evaluate `model`, not what is returned.
        """
        if self.size == 1:
            return model
        _replace_batch_norms(model)
        devices = [device] if device.type == "cuda" else None
        parallel = nn.parallel.DistributedDataParallel(model, device_ids=devices)
        # Rank 0's buffers have been sent to all; from here on every rank computes them from the same sums. Set here,
        # because the argument has another name from one torch to the next.
        parallel.broadcast_buffers = False
        return parallel


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


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """nn.BatchNorm1d or nn.BatchNorm2d with the statistics of the global batch; the ranks' shares may differ in size.

    nn.SyncBatchNorm does the same on GPUs but refuses CPUs, where the tests run.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """(N, C, *) is all that is asked."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *) -> (N, C, *); every rank must take part in training mode."""
        if not self.training:
            return super().forward(x)
        y, mean, var, n = _Normalise.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (n / (n - 1)), self.momentum)
        return y


class _Normalise(torch.autograd.Function):
    """x (N, C, *), weight and bias (C,) -> y (N, C, *), the global batch's mean and (biased) variance (C,), its count.

    The gradient of x is that of the global loss; those of weight and bias are this rank's part, to be added up by
    DistributedDataParallel. Only x is kept for the backward pass, as in nn.BatchNorm2d.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        count = weight.new_full((1,), x.numel() // x.shape[1])
        sums = torch.cat([_channel_sums(x, weight.dtype), count])
        dist.all_reduce(sums)
        mean, n = sums[:-1] / sums[-1], sums[-1]
        # the variance in a second round, about the mean: from sums of squares it could cancel
        squares = _channel_sums((x - _per_channel(mean, x)).square_(), weight.dtype)
        dist.all_reduce(squares)
        var = squares / n
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(var + eps), n)
        ctx.mark_non_differentiable(mean, var, n)
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=eps), mean, var, n

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_sd, n = ctx.saved_tensors
        normal = (x - _per_channel(mean, x)).mul_(_per_channel(inverse_sd, x))
        d_bias, d_weight = _channel_sums(dy, weight.dtype), _channel_sums(dy * normal, weight.dtype)
        sums = torch.stack([d_bias, d_weight])
        dist.all_reduce(sums)
        through_mean, through_sd = (_per_channel(total, x) for total in sums / n)
        dx = (dy - through_mean - normal * through_sd) * _per_channel(weight * inverse_sd, x)
        return dx.to(x.dtype), d_weight, d_bias, None


def _channel_sums(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, C, *) -> (C,), zero for N = 0."""
    return x.sum([0, *range(2, x.dim())], dtype=dtype)


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, ...) as x has dimensions."""
    return values.view(1, -1, *[1] * (x.dim() - 2))


def _replace_batch_norms(model: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                new = GlobalBatchNorm(layer.num_features, layer.eps, layer.momentum, device="meta")
                for key, tensor in (*layer.named_parameters(), *layer.named_buffers()):
                    setattr(new, key, tensor)  # not copies: an optimizer may hold the parameters already
                setattr(parent, name, new.train(layer.training))
