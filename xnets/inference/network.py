"""for_inference: a trained network as a module made for running it."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from xnets.errors import XNetsError
from xnets.inference.choose import Choice, choose
from xnets.inference.fold import fold
from xnets.inference.graph import traced
from xnets.layers.direct import AVAILABLE


class InferenceNetwork(nn.Module):
    """What for_inference returns: computes what the network did in eval mode, for images of the example's size.

    Holds weights of its own (by edges where a layer is direct), which are no parameters: it is not for training.
    """

    def __init__(self, name: str, choice: Choice, image: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
        super().__init__()
        self.name, self.image, self.dtype, self.device_type = name, image, dtype, device
        self.plan, self.layers, self.times = choice.plan, choice.layers, choice.times
        self.training = False

    def forward(self, x: Tensor) -> Any:
        """(N, *image) -> the network's output."""
        if tuple(x.shape[1:]) != self.image or x.dim() != len(self.image) + 1 or not x.shape[0]:
            raise XNetsError(
                f"This network was made for images of {self.image}, with the batch in front, not {tuple(x.shape)}; "
                "call for_inference again for another size."
            )
        if x.dtype != self.dtype or x.device.type != self.device_type:
            raise XNetsError(
                f"This network was made for {self.dtype} on {self.device_type}, not {x.dtype} on {x.device.type}."
            )
        with torch.autocast(self.device_type, enabled=False):
            return self.plan.run(x)

    def explain(self) -> list[tuple[str, str, str]]:
        """(layer, "direct", "dense" or "as it is", why) for each convolution and linear layer, in order."""
        return list(self.layers)

    def train(self, mode: bool = True) -> "InferenceNetwork":
        """Only eval mode; XNetsError for anything else."""
        if mode:
            raise XNetsError("A network from for_inference cannot be trained: train the one it was made of.")
        return self

    def extra_repr(self) -> str:
        """Shown when the module is printed."""
        widest = max((len(name) for name, _, _ in self.layers), default=0)
        head = f"{self.name} for images of {self.image}; " + ", ".join(f"{k} {v:.1f} ms" for k, v in self.times.items())
        return "\n".join([head, *(f"{name:{widest}}  {kernel:6}  {why}" for name, kernel, why in self.layers)])


def for_inference(model: nn.Module, example: Tensor) -> InferenceNetwork:
    """A copy of `model` that computes model.eval()'s output as fast as this machine can, for images like example's.

    Batch norms are folded. On a CPU, in fp32 and with llvmlite, X-layers may run along their edges, with maps that
    stay packed from layer to layer; how much of the network does is decided by timing it on `example`, with the
    number of threads torch has now. Give a batch as large as those to come: any batch is computed, but what is
    fastest may be another.

    Args:
        model: a network that torch.fx can trace, with one input, a batch of images. It is not changed.
        example: a batch (N, C, H, W).

    Raises:
        XNetsError: no batch of images; a network that cannot be traced.
    """
    if not isinstance(example, Tensor) or example.dim() != 4 or not example.numel() or not example.is_floating_point():
        raise XNetsError("for_inference needs an example: a batch of images (N, C, H, W), a tensor of floats.")
    network_of = copy.deepcopy(model).eval()
    places = {(p.device, p.dtype) for p in network_of.parameters()}
    if len(places) > 1 or (places and places != {(example.device, example.dtype)}):
        raise XNetsError("for_inference needs a network and an example of one dtype on one device.")
    with torch.no_grad():
        network = traced(network_of, example)
        fold(network)
        choice = choose(network, example, _why_not(example))
    return InferenceNetwork(type(model).__name__, choice, tuple(example.shape[1:]), example.dtype, example.device.type)


def _why_not(example: Tensor) -> str:
    if example.device.type != "cpu":
        return f"the direct kernels are for a CPU, not {example.device.type}"
    if example.dtype != torch.float32:
        return f"the direct kernels are for float32, not {example.dtype}"
    return "" if AVAILABLE else "llvmlite is not installed"
