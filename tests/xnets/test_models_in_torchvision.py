"""The dense networks against torchvision's."""

from collections import Counter

import pytest
import torch
import torchvision.models as tv
from torch import nn

from tests.xnets.networks import full
from xnets.models import build

TWINS = {
    "ResNet-18": tv.resnet18, "ResNet-34": tv.resnet34, "ResNet-50": tv.resnet50, "ResNet-101": tv.resnet101,
    "ResNet-152": tv.resnet152, "DenseNet-BC-121": tv.densenet121, "DenseNet-BC-169": tv.densenet169,
    "DenseNet-BC-201": tv.densenet201, "DenseNet-BC-161": tv.densenet161, "AlexNet": tv.alexnet,
}  # fmt: skip


@pytest.mark.parametrize("name", TWINS)
def test_dense_networks_have_torchvisions_layers(name):
    with torch.device("meta"):
        theirs = TWINS[name]()

    def described(model):
        convs = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        geometry = [(tuple(m.weight.shape), getattr(m, "stride", 0), getattr(m, "padding", 0)) for m in convs]
        return Counter(geometry), sum(p.numel() for p in model.parameters())

    assert described(full(name)) == described(theirs)


def test_vgg16_has_torchvisions_convolutions():
    with torch.device("meta"):
        theirs = tv.vgg16_bn().features
    ours = full("VGG16").features
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]


@pytest.mark.parametrize("name", ["ResNet-18", "ResNet-34", "ResNet-50", "DenseNet-BC-121", "AlexNet"])
def test_with_torchvisions_weights_outputs_are_the_same(name):
    torch.manual_seed(0)
    theirs, ours = TWINS[name](num_classes=10).eval(), build(name, num_classes=10).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):  # norms that do something, each its own thing
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    values = list(theirs.state_dict().values())
    keys = list(ours.state_dict())
    assert len(keys) == len(values)
    ours.load_state_dict(dict(zip(keys, values, strict=True)))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
