"""Which kernel each sparse layer of a network uses on this machine, and why."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xnets.layers.choice import Choice, choose
from xnets.layers.expander import ExpanderLayer


class Explained(NamedTuple):
    """One sparse layer."""

    name: str
    layer: ExpanderLayer
    shape: tuple[int, ...]  # of its input
    choice: Choice


def explain(model: nn.Module, example: Tensor, training: bool = True) -> list[Explained]:
    """The choice for every X-Conv and X-Linear, in the order they are computed; measures what was not measured before.

    Args:
        model: any network; a copy of it is run.
        example: a batch for it.
        training: a forward and backward pass, or one in evaluation mode without gradients.
    """
    model = copy.deepcopy(model).train(training)
    found: list[Explained] = []

    def look(name: str, layer: ExpanderLayer, x: Tensor) -> None:
        found.append(Explained(name, layer, tuple(x.shape), choose(layer.kernel, layer.call(x))))

    for name, layer in model.named_modules():
        if isinstance(layer, ExpanderLayer):
            layer.register_forward_pre_hook(lambda layer, args, name=name: look(name, layer, args[0]))
    with torch.set_grad_enabled(training):
        model(example)
    return found


def describe(found: list[Explained]) -> str:
    """As a table for people, a line for each layer."""
    names = list(dict.fromkeys(kernel for e in found for kernel in e.choice.milliseconds))
    head = f"{'layer':36}{'input':>18}{'outputs':>9}{'degree':>8}  {'kernel':10}"
    lines = [head + "".join(f"{name + ' ms':>12}" for name in names) + "  why"]
    for e in found:
        degree = e.layer.degree if e.layer.regular else f"{e.layer.weight.shape[0]} e."
        took = e.choice.milliseconds
        times = "".join(f"{took[name]:12.3f}" if name in took else f"{'-':>12}" for name in names)
        reasons = [e.choice.why, *(f"{kernel}: {why}" for kernel, why in e.choice.refusals.items())]
        shape = "x".join(map(str, e.shape))
        lines.append(
            f"{e.name:36}{shape:>18}{e.layer.n_out:>9}{degree:>8}  {e.choice.kernel:10}{times}  {'; '.join(reasons)}"
        )
    return "\n".join(lines)
