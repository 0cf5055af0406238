"""Every network of the paper: the layers it is made of, against the paper's words."""

from collections import Counter

import pytest
import torch
from torch import nn

from tests.xnets.networks import full, sizes, weighted
from xnets.layers import ExpanderConv2d, ExpanderLayer
from xnets.models import PAPER_MODELS, build, parse_name


def narrowing(name) -> int:
    """As narrow as C or g still fits."""
    return 2 if name.endswith("MobileNet-0.5-16") else 4


@pytest.mark.parametrize("name", PAPER_MODELS)
def test_every_network_of_the_paper_trains_a_step_on_tiny_images(name):
    torch.manual_seed(0)
    model = build(name, num_classes=7, narrow=narrowing(name), drop_strides=2)
    logits = model(torch.randn(2, 3, 8, 8))
    assert logits.shape == (2, 7)
    nn.functional.cross_entropy(logits, torch.tensor([1, 6])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    assert weighted(model)[-1].weight.grad.any()


@pytest.mark.parametrize("name", PAPER_MODELS)
def test_all_layers_but_first_and_last_are_sparse_by_the_paper(name):
    """C: D = floor(n_in / C), no bias; depthwise convolutions and MobileNet's first pointwise one stay."""
    parsed, layers = parse_name(name), weighted(full(name))
    twin = weighted(full(parsed.dense_twin))
    assert len(layers) == len(twin)
    sparse = [isinstance(layer, ExpanderLayer) for layer in layers]
    if parsed.kind != "X":
        assert not any(sparse)
    if parsed.family in ("vgg", "alexnet"):
        return  # degrees layer by layer, below
    depthwise = [getattr(old, "groups", 1) > 1 for old in twin]
    first = {0, 2} if parsed.family == "mobilenet" else {0}
    for i, (layer, old) in enumerate(zip(layers, twin, strict=True)):
        stays = depthwise[i] or i in first or i == len(layers) - 1
        if stays or not parsed.kind:
            assert type(layer) is type(old)
            assert layer.weight.shape == old.weight.shape
        elif parsed.kind == "X":
            n_in, n_out = sizes(old)
            assert isinstance(layer, ExpanderConv2d)
            assert (layer.n_in, layer.n_out, layer.bias) == (n_in, n_out, None)
            assert layer.weight.shape == (n_out, n_in // parsed.compression, *old.kernel_size)
            assert (layer.stride, layer.padding) == (old.stride, old.padding)
        else:
            n_in, n_out = sizes(old)
            assert layer.groups == parsed.compression
            assert layer.weight.shape == (n_out, n_in // parsed.compression, *old.kernel_size)


def test_a_group_network_has_as_many_parameters_as_the_expander_network():
    for g in (2, 4, 8, 16):
        counts = [sum(p.numel() for p in full(f"{kind}-MobileNet-0.5-{g}").parameters()) for kind in "XG"]
        assert counts[0] == counts[1]
    assert Counter(m.groups for m in weighted(full("G-MobileNet-0.5-4")) if isinstance(m, nn.Conv2d))[4] == 12


def test_degrees_of_vgg16_and_alexnet():
    """None: dense, since its degree reaches its fan-in or it has none."""
    vgg = {
        ("X-VGG16-1", "paper"): [None] * 3 + [64] * 4 + [32] * 6 + [256, None],
        ("X-VGG16-2", "paper"): [None] * 3 + [64] * 4 + [16] * 6 + [128, None],
        ("X-VGG16-2", "authors"): [None] * 3 + [64] + [16] * 9 + [128, None],
        ("X-AlexNet-1", "paper"): [None] * 5 + [128, 128, None],
        ("X-AlexNet-2", "paper"): [None] * 5 + [256, 512, None],
        ("X-AlexNet-1", "authors"): [None] * 5 + [256, 256, 512],
        ("X-AlexNet-2", "authors"): [None] * 5 + [256, 256, 512],
    }
    for (name, rule), degrees in vgg.items():
        assert [getattr(layer, "degree", None) for layer in weighted(full(name, rule))] == degrees, (name, rule)


def test_alexnet_has_dropout_and_x_alexnet_norms_instead():
    for name, dropouts, norms in (("AlexNet", 2, 0), ("X-AlexNet-1", 0, 7), ("X-AlexNet-2", 0, 7)):
        kinds = Counter(type(m) for m in full(name).modules())
        assert (kinds[nn.Dropout], kinds[nn.BatchNorm1d] + kinds[nn.BatchNorm2d]) == (dropouts, norms)
