"""From a ModelSpec to a network."""

from typing import Any

from torch import nn

from xnets.models.alexnet import DEGREES as ALEXNET_DEGREES
from xnets.models.alexnet import AlexNet
from xnets.models.builder import Builder
from xnets.models.densenet import DenseNetBC, authors_kept_transitions_dense
from xnets.models.mobilenet import MobileNet
from xnets.models.resnet import ResNet
from xnets.models.spec import ModelSpec
from xnets.models.vgg import DEGREES as VGG_DEGREES
from xnets.models.vgg import VGG16


def assemble(spec: ModelSpec, graph_seed: int, device: Any = None) -> nn.Module:
    """Build the network; see xnets.models.build."""
    name, authors = spec.parsed, spec.rule == "authors"
    dense_roles = {"first", "last"}
    if authors and name.family == "resnet":
        dense_roles.add("shortcut")
    logged_x = authors and name.kind and name.family == "densenet"
    if logged_x and authors_kept_transitions_dense(name.depth, name.growth, name.compression):
        dense_roles.add("transition")
    # VGG16's hidden linear layer keeps nn.Linear's rule, in the dense network and in the X-Nets.
    linear_init = "torch" if name.family == "vgg" and spec.init == "sparse-aware" else spec.init
    builder = Builder(
        name.kind, name.compression, frozenset(dense_roles), spec.graph, graph_seed, spec.init, linear_init,
        spec.narrow, spec.drop_strides, device,
    )  # fmt: skip
    if name.family == "vgg":
        return VGG16(builder, spec.num_classes, VGG_DEGREES.get((name.variant, spec.rule)))
    if name.family == "densenet":
        return DenseNetBC(builder, spec.num_classes, name.depth, name.growth)
    if name.family == "resnet":
        return ResNet(builder, spec.num_classes, name.depth)
    if name.family == "mobilenet":
        return MobileNet(builder, spec.num_classes, authors)
    return AlexNet(builder, spec.num_classes, ALEXNET_DEGREES.get((name.variant, spec.rule)))
