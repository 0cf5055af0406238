"""Turn any network into an X-Net, and an X-Net back into an ordinary one."""

import copy
from collections.abc import Sequence

from torch import nn

from xnets.errors import XNetsError
from xnets.graphs import find_construction
from xnets.layers.expander import ExpanderConv2d, ExpanderLayer, ExpanderLinear
from xnets.layers.initialise import checked_init
from xnets.seeds import checked_seed, derive_seed


def expand_model(
    model: nn.Module,
    compression: int = 4,
    seed: int = 0,
    keep: Sequence[str] = ("first", "last"),
    graph: str = "random",
    init: str = "torch",
) -> nn.Module:
    """A copy of `model` whose convolutions and linear layers are X-Conv and X-Linear with D = floor(n_in / C).

    As in the paper (section 5.2) the first and the last layer stay dense. Grouped and depthwise convolutions are left
    alone, and so are subclasses of nn.Conv2d and nn.Linear (attention reads their dense weight directly). The new
    weights are freshly initialised: an X-Net is trained from the start. Layer `name` gets a graph of its own, from
    the seed derived from (seed, name).

    Args:
        model: any network, e.g. torchvision.models.resnet50().
        compression: C, at least 1.
        seed: graph seed.
        keep: names of modules that stay dense, as named_modules() gives them; "first" and "last" stand for the first
            and last convolution or linear layer. A name also keeps what lies inside it.
        graph: a name in xnets.graphs.CONSTRUCTIONS.
        init: a rule of xnets.layers.initialise.

    Raises:
        XNetsError: a name in `keep` that the model lacks; a layer whose fan-in is below `compression`.
    """
    find_construction(graph)  # a wrong name or seed is not the fault of the layer that meets it first
    checked_seed(seed, "graph seed")
    checked_init(init)
    model = copy.deepcopy(model)
    modules = list(model.named_modules(remove_duplicate=False))
    layers = [(name, m) for name, m in modules if type(m) in (nn.Conv2d, nn.Linear)]
    unknown = [name for name in keep if name not in {"first", "last", *(name for name, _ in modules)}]
    if unknown:
        raise XNetsError(f"keep names {unknown[0]!r}, and the model has no such module; print(model) shows its names.")
    kept = set(keep)
    if layers and "first" in kept:
        kept.add(layers[0][0])
    if layers and "last" in kept:
        kept.add(layers[-1][0])
    dense = {layer for name, layer in layers if any(name == k or name.startswith(f"{k}.") for k in kept)}
    new = {}
    for name, layer in layers:
        if layer in dense or getattr(layer, "groups", 1) > 1 or layer in new:
            continue
        try:
            expanded = _expanded(layer, compression, derive_seed(seed, name), graph, init)
        except XNetsError as error:
            raise XNetsError(f"Layer {name!r}: {error} To leave it as it is, add its name to keep.") from None
        new[layer] = expanded.train(layer.training)
    for module in model.modules():  # torch's fused inference for these reads a dense linear1.weight
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
    return replaced(model, new)


def to_dense(model: nn.Module) -> nn.Module:
    """A copy of `model` whose X-Conv and X-Linear layers are nn.Conv2d and nn.Linear that compute the same."""
    model = copy.deepcopy(model)
    return replaced(model, {m: m.to_dense() for m in model.modules() if isinstance(m, ExpanderLayer)})


def _expanded(layer: nn.Conv2d | nn.Linear, compression: int, seed: int, graph: str, init: str) -> ExpanderLayer:
    place = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    how = {"compression": compression, "seed": seed, "graph": graph, "init": init}
    if isinstance(layer, nn.Linear):
        return ExpanderLinear(layer.in_features, layer.out_features, layer.bias is not None, **how, **place)
    return ExpanderConv2d(
        layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
        layer.bias is not None, layer.padding_mode, **how, **place,
    )  # fmt: skip


def replaced(model: nn.Module, new: dict[nn.Module, nn.Module]) -> nn.Module:
    """`model` with new[layer] wherever a layer stands, be it under several names or the model itself."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in new:
                setattr(parent, name, new[child])
    return new.get(model, model)
