"""Counts that several tests of costs compare."""

from functools import cache

import torch
from torch import nn

from xnets.cost import Cost, cost, count
from xnets.layers import to_dense
from xnets.models import build, parse_name


@cache
def counted(name, rule="paper", classes=None, graph=None) -> Cost:
    if graph is None:
        return cost(name, rule, classes)
    return count(build(name, classes, rule, graph=graph, device="meta"), parse_name(name).image_size)


def layer_macs(model, size) -> list[tuple[nn.Module, int]]:
    """Multiply-adds of each layer: the edges' weights in the equal dense network times its output positions."""
    found = []

    def after(layer, inputs, y):
        work = int(layer.weight.count_nonzero()) * (y[0, 0].numel() if y.dim() == 4 else 1)
        found.append((layer, work))

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)  # no weight is zero by chance, and what has no edge stays zero
        model = to_dense(model).eval()
        for layer in model.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.register_forward_hook(after)
        model(torch.zeros(1, 3, size, size))
    return found
