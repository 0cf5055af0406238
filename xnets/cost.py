"""What a network costs: parameters, multiply-adds, activations, under the counting rules that the paper mixes.

The paper's "FLOPs" are multiply-adds (MACs) in Figs. 3, 4, 6 and section 5.5 but 2 MACs in Table 1 and Fig. 5; its
X- rows count the dense network divided by C, not the network itself. Norms, activations and pooling are not counted.
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from xnets.errors import XNetsError
from xnets.models.names import parse_name
from xnets.models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

COUNTING_RULES = ("paper", "authors", "dense/C")


@dataclass(frozen=True)
class Cost:
    """Of one image through one network. Under "dense/C" every figure is the dense network's, divided by C.

    parameters: all that is trained; weights: those of convolutions and linear layers alone (one per edge and tap);
    norms: scales and shifts of batch norms; biases: of convolutions and linear layers; macs: multiply-adds;
    activation_bytes: fp32 outputs of all layers of the network; what a kernel keeps beside them is not counted.
    """

    parameters: float
    weights: float
    norms: float
    biases: float
    macs: float
    activation_bytes: float

    @property
    def flops(self) -> float:
        """2 MACs: a multiplication and an addition, the unit of the paper's Table 1."""
        return 2 * self.macs


def count(model: "nn.Module", image_size: int) -> Cost:
    """Count `model` on one (3, image_size, image_size) image. A model on the meta device is counted without memory.

    Raises:
        XNetsError: parameters in layers it does not know; images of a size that the network cannot take.
    """
    import torch
    from torch import nn

    from xnets.layers import ExpanderLayer

    weighted = (nn.Conv2d, nn.Linear, ExpanderLayer)
    norm_types = (nn.BatchNorm1d, nn.BatchNorm2d)
    totals = {"weights": 0, "norms": 0, "biases": 0, "macs": 0, "elements": 0}

    def after(layer: nn.Module, inputs: object, y: torch.Tensor) -> None:
        totals["elements"] += y.numel()
        if isinstance(layer, weighted):
            positions = y.shape[2] * y.shape[3] if y.dim() == 4 else 1
            totals["macs"] += layer.weight.numel() * positions  # each weight works once at each output position

    if image_size < 1:
        raise XNetsError(f"image_size must be at least 1, not {image_size}.")
    leaves = [m for m in model.modules() if not list(m.children()) and not isinstance(m, (nn.Flatten, nn.Identity))]
    for layer in leaves:
        kind = "norms" if isinstance(layer, norm_types) else "biases"
        if isinstance(layer, weighted):
            totals["weights"] += layer.weight.numel()
        if isinstance(layer, norm_types):
            totals["norms"] += layer.weight.numel()
        if getattr(layer, "bias", None) is not None:
            totals[kind] += layer.bias.numel()
    parameters = sum(p.numel() for p in model.parameters())
    if parameters != totals["weights"] + totals["norms"] + totals["biases"]:
        raise XNetsError("The network has parameters outside convolutions, linear layers and batch norms.")
    handles = [layer.register_forward_hook(after) for layer in leaves]
    modes = [(module, module.training) for module in model.modules()]
    # These keep their input's shape, and on the meta device they are slow to say so.
    keep_shape = [m for m in leaves if isinstance(m, (*norm_types, nn.ReLU, nn.Dropout))]
    for layer in keep_shape:
        layer.forward = lambda x: x
    try:
        place = next(model.parameters())
        with torch.no_grad():
            model.eval()(torch.empty(1, 3, image_size, image_size, device=place.device, dtype=place.dtype))
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise XNetsError(f"The network does not take {image_size}x{image_size} images: {reason}") from error
    finally:
        for module, training in modes:
            module.training = training
        for layer in keep_shape:
            del layer.forward
        for handle in handles:
            handle.remove()
    return Cost(
        parameters, totals["weights"], totals["norms"], totals["biases"], totals["macs"], 4 * totals["elements"]
    )


def cost(name: str, counting: str = "paper", num_classes: int | None = None, image_size: int | None = None) -> Cost:
    """The cost of a network by name.

    Args:
        name: in the paper's notation.
        counting: "paper" and "authors" count the network that rule builds; "dense/C" divides the dense network by C,
            as the paper's X- rows do (nothing kept dense).
        num_classes, image_size: the data set's, unless given.

    Raises:
        XNetsError: an unknown name or counting rule; "dense/C" of a network that states degrees instead of C; a
            number of classes or an image size that it cannot have.
    """
    parsed = parse_name(name)
    size = parsed.image_size if image_size is None else image_size
    if counting not in COUNTING_RULES:
        raise XNetsError(f"Unknown counting rule {counting!r}; there are {', '.join(COUNTING_RULES)}.")
    if counting != "dense/C":
        return _count_spec(ModelSpec(name, num_classes, counting), size)
    if parsed.kind and parsed.compression is None:
        raise XNetsError(f"{name} has degrees layer by layer and no single C to divide by.")
    dense = _count_spec(ModelSpec(parsed.dense_twin, num_classes), size)
    factor = parsed.compression or 1
    return Cost(**{key: value / factor for key, value in vars(dense).items()})


@cache
def _count_spec(spec: ModelSpec, image_size: int) -> Cost:
    """Kept, since a table asks for the same dense network once for each C."""
    from xnets.models import build_spec

    return count(build_spec(spec, 0, device="meta"), image_size)
