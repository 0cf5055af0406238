"""for_inference: a trained network as a module made for running it."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from xnets.errors import XNetsError
from xnets.inference.choose import Choice, choose
from xnets.inference.fold import fold
from xnets.inference.graph import traced
from xnets.layers.direct import missing
from xnets.layers.expander import ExpanderLayer


class InferenceNetwork(nn.Module):
    """What for_inference returns: computes what the network did in eval mode, for images of the example's size.

    Holds weights of its own (by edges where a layer is direct), which are no parameters: it is not for training.
    """

    def __init__(self, name: str, choice: Choice, image: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
        super().__init__()
        self.name, self.image, self.dtype, self.device_type = name, image, dtype, device
        self.plan, self.layers, self.times = choice.plan, choice.layers, choice.times
        self.training = False

    @torch.compiler.disable  # there is nothing left to compile
    def forward(self, x: Tensor) -> Any:
        """(N, *image) -> the network's output."""
        if not isinstance(x, Tensor):
            raise XNetsError(f"This network takes a batch of images, a tensor, not {type(x).__name__}.")
        if tuple(x.shape[1:]) != self.image or x.dim() != len(self.image) + 1 or not x.shape[0]:
            raise XNetsError(
                f"This network was made for images of {self.image}, with the batch in front, not {tuple(x.shape)}; "
                "call for_inference again for another size."
            )
        if x.dtype != self.dtype or x.device.type != self.device_type:
            raise XNetsError(
                f"This network was made for {self.dtype} on {self.device_type}, not {x.dtype} on {x.device.type}."
            )
        # its memory is used again in later calls, which may be in another mode
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(self.device_type, enabled=False):
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
    fastest may be another. Before it is returned its outputs are compared with the model's, on the example, and on a
    random batch of one image more.

    Args:
        model: a network that torch.fx can trace, with one input, a batch of images. It is not changed.
        example: a batch (N, C, H, W).

    Raises:
        XNetsError: no batch of images; a network that cannot be traced, or whose trace computes something else (hooks
            on the whole model, in-place changes of a part of a map).
    """
    if not isinstance(model, nn.Module):
        raise XNetsError(f"for_inference takes a network, an nn.Module, not {type(model).__name__}.")
    if not isinstance(example, Tensor) or example.dim() != 4 or not example.numel() or not example.is_floating_point():
        raise XNetsError("for_inference needs an example: a batch of images (N, C, H, W), a tensor of floats.")
    network_of = copy.deepcopy(model).eval()
    torchs_own = type(model).__module__.startswith("torch.nn.modules")
    if not any(model.children()) and (torchs_own or isinstance(model, ExpanderLayer)):
        # torch.fx looks into what it is given, a single layer too
        network_of = nn.Sequential(network_of)
    places = {(p.device, p.dtype) for p in network_of.parameters()}
    if len(places) > 1 or (places and places != {(example.device, example.dtype)}):
        raise XNetsError("for_inference needs a network and an example of one dtype on one device.")
    with torch.no_grad():
        network = traced(network_of, example.clone())
        fold(network)
        choice = choose(network, example, _why_not(example))
        made = InferenceNetwork(
            type(model).__name__, choice, tuple(example.shape[1:]), example.dtype, example.device.type
        )
        draws, sizes = torch.Generator("cpu").manual_seed(0), (example.shape[0] + 1, *example.shape[1:])
        other = torch.randn(sizes, generator=draws, dtype=torch.float32, device="cpu").to(example)
        for batch in (example, other):
            if not _computes(made, network_of, batch):
                raise XNetsError(
                    "for_inference cannot follow this network: what it traced computes something else (a hook on the "
                    "whole model, or an in-place change of a part of a map, is not seen). Use the network itself."
                )
    return made


def _computes(made: InferenceNetwork, model: nn.Module, batch: Tensor) -> bool:
    """Whether it gives what the model gives; True where the model itself takes no such batch."""
    try:
        with torch.autocast(batch.device.type, enabled=False):
            right, form = tree_flatten(model(batch.clone()))
    except Exception:  # the model's own code, which may know but one batch size
        return True
    try:
        mine, my_form = tree_flatten(made(batch.clone()))
    except Exception:  # torch's, where a value of another batch size than the images' was taken for theirs
        return False
    return form == my_form and all(_close(a, b) for a, b in zip(mine, right, strict=True))


def _close(a: Any, b: Any) -> bool:
    if not isinstance(b, Tensor) or not isinstance(a, Tensor):
        return a == b
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not b.numel():
        return True
    if not b.is_floating_point():  # such as a class: rounding may move a few
        return float((a == b).double().mean()) > 0.99
    size = float(b[b.isfinite()].abs().max()) if b.isfinite().any() else 0.0
    return torch.allclose(a, b, rtol=1e-3, atol=1e-3 * size, equal_nan=True)


def _why_not(example: Tensor) -> str:
    if example.device.type != "cpu":
        return f"the direct kernels are for a CPU, not {example.device.type}"
    if example.dtype != torch.float32:
        return f"the direct kernels are for float32, not {example.dtype}"
    return missing()
