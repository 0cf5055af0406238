"""Costs, counted another way; what count and cost do besides."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.xnets.counting import counted, layer_macs
from xnets.cost import COUNTING_RULES, Cost, cost, count
from xnets.errors import XNetsError
from xnets.layers import ExpanderConv2d, ExpanderLayer
from xnets.models import build, parse_name

# --- the same counts, made another way -------------------------------------------------------------------------------

DENSE = [
    ("VGG16", 32), ("DenseNet-BC-40-24", 32), ("DenseNet-BC-100-12", 16), ("ResNet-34", 64), ("ResNet-50", 64),
    ("DenseNet-BC-121", 64), ("MobileNet-0.5", 96), ("AlexNet", 96), ("G-MobileNet-0.5-4", 64),
]  # fmt: skip


@pytest.mark.parametrize(("name", "size"), DENSE)
def test_torch_counts_the_same_flops(name, size):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build(name).eval()(torch.zeros(1, 3, size, size))
    assert counter.get_total_flops() == cost(name, image_size=size).flops


SPARSE = [
    ("X-ResNet-2-50", "paper", 8), ("X-ResNet-4-34", "authors", 8), ("X-DenseNet-BC-3-40-24", "paper", 8),
    ("X-DenseNet-BC-2-40-24", "authors", 8), ("X-MobileNet-0.5-4", "paper", 4), ("X-MobileNet-0.5-4", "authors", 4),
    ("G-MobileNet-0.5-4", "paper", 4), ("X-VGG16-1", "paper", 8), ("X-VGG16-2", "authors", 8),
    ("X-AlexNet-1", "paper", 16), ("X-AlexNet-2", "authors", 16),
]  # fmt: skip


@pytest.mark.parametrize(("name", "rule", "narrow"), SPARSE)
def test_each_edge_works_once_for_each_tap_and_output_position(name, rule, narrow):
    model = build(name, rule=rule, narrow=narrow, drop_strides=1)
    c = count(model, 24)
    work = layer_macs(model, 24)
    assert c.macs == sum(macs for _, macs in work)
    assert c.weights == sum(int(layer.weight.count_nonzero()) for layer, _ in work)
    assert c.biases == sum(layer.bias.numel() for layer, _ in work if layer.bias is not None)
    norms = [m for m in model.modules() if "BatchNorm" in type(m).__name__]
    assert c.norms == 2 * sum(norm.num_features for norm in norms)
    assert c.parameters == c.weights + c.biases + c.norms == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["X-ResNet-2-34", "X-DenseNet-BC-3-40-24", "X-MobileNet-0.5-4"])
def test_algorithm_1_really_does_that_many_operations(name):
    model = build(name, narrow=8, drop_strides=2).eval()
    for layer in model.modules():
        if isinstance(layer, ExpanderConv2d):
            layer.kernel = "algorithm1"
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 8, 8))
    assert counter.get_total_flops() == count(model, 8).flops


def densenet_by_formula(depth, k, c, classes) -> tuple[int, int]:
    """Parameters and multiply-adds of X-DenseNet-BC-c-depth-k, from the definition alone."""
    channels, side = 2 * k, 32
    parameters = 27 * channels
    macs = parameters * side**2
    for block in range(3):
        for _ in range((depth - 4) // 6):
            weights = channels // c * 4 * k + 4 * k // c * k * 9
            parameters += weights + 2 * channels + 2 * 4 * k
            macs += weights * side**2
            channels += k
        if block < 2:
            weights = channels // c * (channels // 2)
            parameters += weights + 2 * channels
            macs += weights * side**2
            channels, side = channels // 2, side // 2
    return parameters + 2 * channels + (channels + 1) * classes, macs + channels * classes


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(2, 40), st.data(), st.integers(1, 100))
def test_densenets_of_any_size_cost_what_their_definition_says(layers, growth, data, classes):
    depth, c = 4 + 6 * layers, data.draw(st.integers(1, growth))
    got = cost(f"X-DenseNet-BC-{c}-{depth}-{growth}", num_classes=classes)
    assert (got.parameters, got.macs) == densenet_by_formula(depth, growth, c, classes)


# --- count and cost themselves ---------------------------------------------------------------------------------------


def test_a_network_counted_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, stride=2), nn.BatchNorm2d(4), nn.ReLU(),
        ExpanderConv2d(4, 6, 3, padding=1, bias=False, degree=2, seed=0), nn.Flatten(), nn.Linear(6 * 16, 5),
    )  # fmt: skip
    weights, positions = (108, 108, 480), (16, 16, 1)
    macs = sum(w * p for w, p in zip(weights, positions, strict=True))
    assert count(model, 8) == Cost(sum(weights) + 9 + 8, sum(weights), 8, 9, macs, 4 * (3 * 64 + 6 * 16 + 5))
    assert count(model, 8).flops == 2 * macs


def test_a_layer_used_twice_works_twice():
    conv = nn.Conv2d(3, 3, 1, bias=False)
    c = count(nn.Sequential(conv, conv), 4)
    assert (c.parameters, c.macs) == (9, 2 * 9 * 16)


@pytest.mark.parametrize("size", [8, 2])
def test_counting_leaves_the_model_as_it_was(size):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    model[1].eval()  # a frozen norm
    before = {key: value.clone() for key, value in model.state_dict().items()}
    if size == 2:
        with pytest.raises(XNetsError, match="does not take 2x2 images"):
            count(model, size)
    else:
        count(model, size)
    assert [m.training for m in model] == [True, False, True]
    assert not any(m._forward_hooks or "forward" in vars(m) for m in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_parameters_it_cannot_place_are_not_passed_over():
    with pytest.raises(XNetsError, match="parameters outside"):
        count(nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU()), 8)


def test_meta_counts_as_the_real_network_does():
    for rule in ("paper", "authors"):
        real = build("X-MobileNet-0.5-4", rule=rule)
        assert any(isinstance(m, ExpanderLayer) for m in real.modules())
        assert count(real, 64) == cost("X-MobileNet-0.5-4", rule, image_size=64)


def test_dense_over_c_divides_everything():
    for name, factor in (("X-ResNet-2-34", 2), ("G-MobileNet-0.5-8", 8), ("ResNet-34", 1)):
        dense, over_c = vars(counted(parse_name(name).dense_twin)), vars(counted(name, "dense/C"))
        assert over_c == {key: value / factor for key, value in dense.items()}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("X-VGG16-1", "dense/C"), "no single C"), (("X-AlexNet-2", "dense/C"), "no single C"),
        (("ResNet-34", "dense"), "dense/C"), (("ResNet-35",), "ResNet-34"), (("X-VGG16-1", "authors"), "X-VGG16-2"),
        *((("AlexNet", rule, 0), "num_classes") for rule in COUNTING_RULES),
        *((("ResNet-34", rule, None, size), "image_size") for rule in COUNTING_RULES for size in (0, -8)),
        (("AlexNet", "paper", None, 8), "does not take 8x8 images"),
    ],
)  # fmt: skip
def test_what_cannot_be_counted_is_said(arguments, words):
    with pytest.raises(XNetsError, match=re.escape(words)):
        cost(*arguments)
