"""Full-size networks without values, and their layers."""

from functools import cache

from torch import nn

from xnets.layers import ExpanderLayer
from xnets.models import build


@cache
def full(name, rule="paper") -> nn.Module:
    """The full-size network, without values."""
    return build(name, rule=rule, device="meta")


def weighted(model) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear, ExpanderLayer))]


def expanders(model) -> list[ExpanderLayer]:
    return [m for m in model.modules() if isinstance(m, ExpanderLayer)]


def hashes(model) -> list[str]:
    return [layer.graph.hash for layer in expanders(model)]


def dense_convs(model) -> list[tuple[str, nn.Conv2d]]:
    """Named convolutions that are neither expander nor depthwise or grouped."""
    return [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.groups == 1]


def sizes(layer) -> tuple[int, int]:
    return layer.weight.shape[1], layer.weight.shape[0]
