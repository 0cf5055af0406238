"""Initial weights by three named rules, the same for expander, grouped and dense layers.

The rule is a factor of every experiment: it moves results by points, and in the authors' code expander and grouped
layers did not start from the same variance. With D inputs per output and a window of k^2:

    torch         uniform, variance 1 / (3 D k^2): what nn.Conv2d does, at the layer's true fan-in (default)
    sparse-aware  normal, variance 2 / (D k^2): He's rule at the true fan-in
    authors       expander convolution: normal, variance 2 / (n_out k^2), the fan-out of the dense shape;
                  expander linear: normal, variance 2 / n_in; grouped convolution: uniform, variance 1 / (3 n_in k^2),
                  PyTorch 0.3's rule, which does not divide by the groups. That is nn.Conv2d; an expander layer with
                  the graph "grouped" starts as any expander layer, so that a study of graphs compares nothing else
"""

import math

import torch
from torch import Tensor, nn

from xnets.errors import XNetsError

INITS = ("torch", "sparse-aware", "authors")


def checked_init(rule: str) -> str:
    """Return `rule` if it is one of INITS; raise XNetsError otherwise."""
    if rule not in INITS:
        raise XNetsError(f"Unknown initialisation {rule!r}; there are {', '.join(INITS)}.")
    return rule


@torch.no_grad()
def initialise_expander(weight: Tensor, bias: Tensor | None, rule: str, fan_in: float | Tensor, dense_fan: int) -> None:
    """Fill a condensed weight; fan_in is D k^2, or (M,) where outputs differ; `authors` divides by dense_fan."""
    per_edge = fan_in if isinstance(fan_in, (int, float)) else fan_in.view(-1, *[1] * (weight.dim() - 1))
    if checked_init(rule) == "torch":
        weight.uniform_(-1.0, 1.0).mul_(1 / per_edge**0.5)
    elif rule == "sparse-aware":
        weight.normal_().mul_((2 / per_edge) ** 0.5)
    else:
        weight.normal_(std=math.sqrt(2 / dense_fan))
    if bias is not None:
        mean_fan = float(torch.as_tensor(fan_in, dtype=torch.float64).mean())
        bias.uniform_(-1.0, 1.0).mul_(mean_fan**-0.5)


@torch.no_grad()
def initialise_convolution(layer: nn.Conv2d, rule: str) -> None:
    """Fill a dense or grouped nn.Conv2d by the same rules; `authors` is PyTorch 0.3's."""
    window = math.prod(layer.kernel_size)
    fan_in = layer.in_channels // layer.groups * window
    bound = (layer.in_channels * window if rule == "authors" else fan_in) ** -0.5
    if checked_init(rule) == "sparse-aware":
        layer.weight.normal_(std=math.sqrt(2 / fan_in))
    else:
        layer.weight.uniform_(-bound, bound)
    if layer.bias is not None:
        layer.bias.uniform_(-bound, bound)
