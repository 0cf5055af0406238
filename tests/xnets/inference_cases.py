"""Small networks as if trained, and the plans and comparisons that tests of inference share."""

import pytest
import torch
from torch import nn

import xnets
from xnets import for_inference
from xnets.inference import choose
from xnets.inference.fold import fold
from xnets.inference.graph import traced
from xnets.inference.plan import Plan
from xnets.inference.weights import why_dense
from xnets.layers.direct import missing

# name: (image size, arguments of build)
NETWORKS = {
    "X-VGG16-1": (32, {"narrow": 8}),
    "X-DenseNet-BC-2-40-24": (16, {"narrow": 4}),
    "X-DenseNet-BC-2-121": (64, {"narrow": 8}),
    "X-ResNet-2-50": (64, {"narrow": 8}),
    "X-ResNet-2-34": (72, {"narrow": 8}),
    "X-MobileNet-0.5-4": (64, {"narrow": 2}),
    "G-MobileNet-0.5-4": (64, {"narrow": 4}),
    "X-AlexNet-1": (224, {"narrow": 32}),
    "VGG16": (32, {"narrow": 16}),
}


def with_statistics(model):
    """`model` in eval mode, as if trained: nothing about its norms is what a new one has."""
    for m in model.modules():
        if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm1d)):
            nn.init.normal_(m.running_mean, 0, 0.2)
            nn.init.uniform_(m.running_var, 0.2, 2)
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, 0.1, 0.3)
    return model.eval()


def built(name, **changes):
    size, how = NETWORKS[name]
    torch.manual_seed(0)
    return with_statistics(xnets.models.build(name, 10, **how, **changes)), torch.randn(17, 3, size, size)


def plans(model, example):
    """The plan without direct kernels, and the one with as many as there can be."""
    network = traced(model, example)
    fold(network)
    layers = {n for n in network.nodes if n.weights is not None and not why_dense(n.weights)}
    found = [Plan(network, set()), Plan(network, set(), channels_last=True)]
    return [*found, Plan(network, layers)] if not missing() else found


def for_inference_direct(model, x):
    """for_inference where the direct plan wins, whatever the clock says."""
    with pytest.MonkeyPatch.context() as patch:
        times = {"dense": 3.0, "dense, channels_last": 3.0, "direct": 1.0, "direct where faster": 2.0}
        patch.setattr(choose, "_race", lambda runs, clock: {name: times[name] for name in runs})
        return for_inference(model, x)


def assert_same(mine, right):
    scale = float(right.abs().max())
    assert scale > 1e-3
    torch.testing.assert_close(mine, right, rtol=1e-4, atol=2e-5 * scale)


def output(model, x):
    with torch.no_grad():
        return model(x)
