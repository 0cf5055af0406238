"""The paper's networks by the paper's names."""

from typing import TYPE_CHECKING, Any

from xnets.errors import XNetsError
from xnets.models.names import PAPER_MODELS, ModelName, parse_name
from xnets.models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

__all__ = ["PAPER_MODELS", "ModelName", "ModelSpec", "build", "build_spec", "parse_name"]


def build(
    name: str,
    num_classes: int | None = None,
    rule: str = "paper",
    graph_seed: int = 0,
    *,
    graph: str | None = None,
    init: str | None = None,
    narrow: int = 1,
    drop_strides: int = 0,
    device: Any = None,
) -> "nn.Module":
    """Build a network, e.g. `build("X-DenseNet-BC-2-40-24", num_classes=10)`; its weights follow torch.manual_seed.

    Args:
        name: in the paper's notation; any C, and any depth and growth rate a DenseNet-BC can have.
        num_classes: 10 for VGG and CIFAR DenseNets, 1000 for the others, unless given.
        rule: "paper" (every layer but the first and last, D = floor(n_in / C) inputs for each output), or "authors"
            (the network of their logs: dense shortcuts or transitions, the wider MobileNet, the released X-VGG16).
        graph_seed: the seed all layers' graphs are derived from.
        graph: a name in xnets.graphs.CONSTRUCTIONS; "random" unless given (the authors' MobileNet: "random-by-input").
        init: a rule of xnets.layers.initialise for all X-, G- and dense convolutions; "torch" unless given, and He's
            at the true fan for the convolutions of VGG16.
        narrow, drop_strides: for small machines and small images; see xnets.models.builder.Builder.
        device: where to put the parameters; "meta" for counting.

    Raises:
        XNetsError: an unknown name (with the nearest ones), rule, graph or init; C above a layer's fan-in.
    """
    spec = ModelSpec(name, num_classes, rule, graph, init, narrow, drop_strides)
    return build_spec(spec, graph_seed, device)


def build_spec(spec: ModelSpec, graph_seed: int, device: Any = None) -> "nn.Module":
    """Build the network a ModelSpec describes, with graphs derived from graph_seed."""
    from xnets.models.assemble import assemble

    try:
        return assemble(spec, graph_seed, device)
    except XNetsError as error:
        raise XNetsError(f"{spec.name}: {error}") from None
