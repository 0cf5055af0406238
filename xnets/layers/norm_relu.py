"""for_training: the same network with what is beside its X-layers computed faster, on CPUs.

Batch norms and the ReLUs after them are computed together; max pooling is that of max_pool.py, depthwise convolutions
are those of depthwise.py.
"""

from collections import Counter
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xnets.layers.choice import other_kernel_in_force
from xnets.layers.convert import replaced
from xnets.layers.depthwise import DepthwiseConv2d, is_depthwise
from xnets.layers.direct import MOST, missing
from xnets.layers.kernels import FEWEST_NUMBERS, is_transformed
from xnets.layers.max_pool import MaxPool, is_replaceable


class NormReLU(nn.Module):
    """nn.BatchNorm2d and, with relu, nn.ReLU after it; the parameters, buffers and their names are the norm's.

    In training on a CPU, in float32, a channel is summed, normalised and cut off at 0 while it is in the cache, unless
    xnets.kernels("dense") is in force. Everywhere else torch's own operators compute it. Either way only the input is
    kept for the backward pass.
    """

    def __init__(self, norm: nn.BatchNorm2d, relu: bool) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum, self.relu = norm.num_features, norm.eps, norm.momentum, relu
        for name, parameter in norm.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in norm.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        share = self.momentum or 0.0
        if self.training:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                share = 1 / float(self.num_batches_tracked)
        if not self.training or self.why_not(x):
            y = F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, self.training, share, self.eps
            )
            return F.relu(y, inplace=True) if self.relu else y
        from xnets.layers.direct.norm_op import apply

        y, mean, _, _, _, var = apply(x, self.weight, self.bias, self.eps, self.relu)
        n = x.numel() // x.shape[1]
        with torch.no_grad():
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(var.mul_(n / (n - 1)), share)
        return y

    def why_not(self, x: Tensor) -> str:
        """Why torch's operators compute this batch, in a few words; "" if ours do."""
        if other := other_kernel_in_force():
            return other
        if {x.device.type, self.weight.device.type} != {"cpu"}:
            return f"only on a CPU, not on {x.device.type}"
        if x.dim() != 4 or x.shape[1] != self.num_features:
            return f"only for images of {self.num_features} channels"
        if not x.is_contiguous() and not x.is_contiguous(memory_format=torch.channels_last):
            return "only for contiguous or channels_last images"
        if {x.dtype, self.weight.dtype} != {torch.float32}:
            return f"only float32, not {str(x.dtype).removeprefix('torch.')}"
        if x.numel() < FEWEST_NUMBERS or x.numel() >= MOST or x.numel() == x.shape[1]:
            return "not for small, very large or constant batches"
        if is_transformed() or torch.compiler.is_compiling():
            return "not under torch.compile, torch.func, forward-mode gradients or torch.jit.trace"
        return missing()

    def extra_repr(self) -> str:
        """Shown when the module is printed."""
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, relu={self.relu}"


def for_training(model: nn.Module) -> nn.Module:
    """`model` itself, its batch norms, max pools and depthwise convolutions made for training on a CPU; elsewhere it
    computes what it did.

    Maps are best contiguous; they may be channels_last too (the model by model.to(memory_format=torch.channels_last),
    and its images).

    Each nn.BatchNorm2d becomes a NormReLU, together with an nn.ReLU that follows it in an nn.Sequential. Parameters
    and the names in the state_dict stay: save that, and load it into the network as it was. A norm without affine
    parameters or running statistics stays, and so do both if the norm or the ReLU has hooks. Each nn.MaxPool2d(2)
    becomes a MaxPool, each depthwise 3x3 nn.Conv2d a DepthwiseConv2d, which are such still.

    What looks for nn.BatchNorm2d does not see a NormReLU: nn.SyncBatchNorm's conversion, or code that picks the
    parameters without weight decay; and the ReLU's place in an nn.Sequential is empty, so that what is cut off before
    it has the ReLU in it.
    """
    uses = Counter(child for parent in model.modules() for child in parent._modules.values())
    new = {norm: NormReLU(norm, relu=False) for norm in model.modules() if _replaceable(norm)}
    for parent in list(model.modules()):
        if type(parent) is nn.Sequential:
            for (_, norm), (name, relu) in pairwise(list(parent._modules.items())):
                if norm in new and uses[norm] == 1 and type(relu) is nn.ReLU and not _hooked(relu):
                    new[norm].relu = True
                    parent._modules[name] = nn.Identity()
    new |= {pool: MaxPool() for pool in model.modules() if is_replaceable(pool) and not _hooked(pool)}
    new |= {conv: DepthwiseConv2d(conv) for conv in model.modules() if is_depthwise(conv) and not _hooked(conv)}
    return replaced(model, new)


def _replaceable(norm: nn.Module) -> bool:
    if type(norm) is not nn.BatchNorm2d or _hooked(norm):
        return False
    return None not in (norm.weight, norm.bias, norm.running_mean, norm.running_var)


def _hooked(module: nn.Module) -> bool:
    hooks = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    return any(hooks)
