"""The initial weights of networks."""

import math

import pytest
import torch

from tests.xnets.networks import weighted
from xnets.layers import ExpanderConv2d
from xnets.models import PAPER_MODELS, ModelSpec, build


def spread(layer) -> float:
    return layer.weight.detach().double().std(correction=0).item()


# the standard deviation of weights with that fan-in
STDS = {
    "torch": lambda fan: (3 * fan) ** -0.5,
    "sparse-aware": lambda fan: (2 / fan) ** 0.5,
}


@pytest.mark.parametrize("init", ["torch", "sparse-aware", "authors"])
@pytest.mark.parametrize("name", ["X-MobileNet-0.5-4", "G-MobileNet-0.5-4", "MobileNet-0.5"])
def test_convolutions_start_by_the_named_rule(name, init):
    torch.manual_seed(0)
    for layer in weighted(build(name, init=init))[:-1]:
        window = math.prod(layer.weight.shape[2:])
        fan = layer.weight.shape[1] * window
        if init != "authors":
            std = STDS[init](fan)
        elif isinstance(layer, ExpanderConv2d):
            std = (2 / (layer.n_out * window)) ** 0.5
        else:
            std = (3 * layer.in_channels * window) ** -0.5  # PyTorch 0.3's, which does not divide by the groups
        assert spread(layer) == pytest.approx(std, rel=5 / layer.weight.numel() ** 0.5)


def test_vgg_starts_by_he_at_the_true_fan_but_for_its_linear_layers():
    for name in ("VGG16", "X-VGG16-2"):
        torch.manual_seed(0)
        for layer in weighted(build(name, narrow=2)):
            fan = math.prod(layer.weight.shape[1:])
            std = STDS["sparse-aware" if layer.weight.dim() == 4 else "torch"](fan)
            assert spread(layer) == pytest.approx(std, rel=5 / layer.weight.numel() ** 0.5)
    assert ModelSpec("VGG16").init == "sparse-aware"
    assert {ModelSpec(name).init for name in PAPER_MODELS if "VGG" not in name} == {"torch"}
