"""A network on several processes, one GPU each: the global batch stays the protocol's, and so does the result."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from xnets.group import Group
from xnets.layers.convert import replaced


def wrap(model: nn.Module, device: torch.device, group: Group) -> nn.Module:
    """`model` for training steps: gradients are averaged over the ranks, batch norms see the global batch.

    The batch norms of `model` itself are replaced. It keeps its parameters and the names in its state_dict, so save
    and evaluate `model`, not what is returned.
    """
    if group.size == 1:
        return model
    _replace_batch_norms(model)
    devices = [device] if device.type == "cuda" else None
    parallel = nn.parallel.DistributedDataParallel(model, device_ids=devices)
    # Rank 0's buffers have been sent to all; from here on every rank computes them from the same sums. Set here,
    # because the argument has another name from one torch to the next.
    parallel.broadcast_buffers = False
    return parallel


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
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    new = {norm: GlobalBatchNorm(norm.num_features, norm.eps, norm.momentum, device="meta") for norm in norms}
    for norm, its in new.items():
        for key, tensor in (*norm.named_parameters(), *norm.named_buffers()):
            setattr(its, key, tensor)  # not copies: an optimizer may hold the parameters already
        its.train(norm.training)
    replaced(model, new)
