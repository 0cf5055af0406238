"""Depthwise convolutions by the direct kernels, against torch's own in float64, and where torch computes them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.xnets.direct_cases import computes_any_size, needs_llvmlite
from xnets import for_training, kernels
from xnets.layers import DepthwiseConv2d, depthwise
from xnets.layers.direct import jit
from xnets.models import build

pytestmark = needs_llvmlite


any_size = computes_any_size(depthwise)


def torchs(channels, stride=1, bias=False):
    return nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=bias)


def assert_as_torch(conv, x):
    """Output and all gradients, to the rounding of sums as long as these."""
    ours, right = DepthwiseConv2d(conv), copy.deepcopy(conv).double()
    assert not ours.why_not(x)
    x, exact = x.clone().requires_grad_(), x.double().requires_grad_()
    y, z = ours(x), right(exact)
    dy = torch.randn(y.shape)
    mine = torch.autograd.grad(y, (x, *ours.parameters()), dy)
    theirs = torch.autograd.grad(z, (exact, *right.parameters()), dy.double())
    for a, b in zip((y.detach(), *mine), (z.detach(), *theirs), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=3e-6 * (float(b.abs().max()) + 1))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 40), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2]),
    st.booleans(),
)  # fmt: skip
def test_any_size(images, channels, height, width, stride, bias):
    assert_as_torch(torchs(channels, stride, bias), torch.randn(images, channels, height, width))


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(2, 3, 2, 2), (2, 3, 5, 7), (1, 2, 8, 16), (3, 2, 4, 33)])
def test_narrow_vectors(width, stride, size, monkeypatch):
    monkeypatch.setattr(jit, "_forced", [(width, {4: "", 8: "+avx,+avx2,+fma"}[width])])
    assert_as_torch(torchs(size[1], stride), torch.randn(size))


@pytest.mark.parametrize(
    ("conv", "why"),
    [
        (nn.Conv2d(4, 8, 3, 1, 1, groups=4), "more outputs than inputs"),
        (nn.Conv2d(4, 4, 3, 1, 1, groups=2), "groups of two"),
        (nn.Conv2d(4, 4, 3, 1, 0, groups=4), "no padding"),
        (nn.Conv2d(4, 4, 3, 1, 1, groups=4, padding_mode="reflect"), "other padding"),
        (nn.Conv2d(4, 4, 5, 1, 2, groups=4), "5x5"),
        (nn.Conv2d(4, 4, 3, 3, 1, groups=4), "stride 3"),
        (nn.Conv2d(4, 4, 3, 1, 2, 2, groups=4), "dilation"),
    ],
)
def test_others_stay(conv, why):
    assert type(for_training(nn.Sequential(conv))[0]) is nn.Conv2d, why


def test_a_hooked_one_stays():
    conv = torchs(4)
    conv.register_forward_hook(lambda *given: None)
    assert for_training(nn.Sequential(conv))[0] is conv


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda x: x.to(memory_format=torch.channels_last), "contiguous"),
        (lambda x: x.double(), "float32"),
        (lambda x: x[0], "contiguous batches"),
    ],
)
def test_the_rest_is_torchs(change, why):
    conv, x = torchs(4), change(torch.randn(3, 4, 9, 9))
    conv = conv.to(x.dtype)
    ours = DepthwiseConv2d(conv)
    assert why in ours.why_not(x)
    assert torch.equal(ours(x), F.conv2d(x, conv.weight, None, 1, 1, 1, 4))


def test_kernel_in_force_and_small_batches(monkeypatch):
    ours, x = DepthwiseConv2d(torchs(4)), torch.randn(3, 4, 9, 9)
    with kernels("dense"):
        assert "in force" in ours.why_not(x)
    monkeypatch.setattr(depthwise, "FEWEST_NUMBERS", x.numel() + 1)
    assert "small" in ours.why_not(x)


def test_in_a_network():
    """Every depthwise convolution of a MobileNet, by the names it had; copies and saved weights too."""
    torch.manual_seed(0)
    network = build("X-MobileNet-0.5-2").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.randn(4, 3, 64, 64)
    plain = copy.deepcopy(network)
    ours = for_training(network)
    assert sum(isinstance(m, DepthwiseConv2d) for m in ours.modules()) == 13
    assert all(torch.equal(before[name], value) for name, value in ours.state_dict().items())
    plain.load_state_dict(copy.deepcopy(ours).state_dict())
    torch.testing.assert_close(ours(x), plain(x), rtol=1e-3, atol=1e-4)


def test_compiled_and_with_gradients_of_gradients():
    conv, x = torchs(3, bias=True), torch.randn(2, 3, 6, 7, requires_grad=True)
    ours = DepthwiseConv2d(conv)
    torch.testing.assert_close(torch.compile(ours, backend="aot_eager")(x), conv(x))
    found = []
    for layer in (ours, conv):
        (first,) = torch.autograd.grad(layer(x).pow(3).sum(), x, create_graph=True)
        found.append((first, *torch.autograd.grad(first.square().sum(), x)))
    for mine, right in zip(*found, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-4)


def test_moved_emptied_averaged_and_traced():
    """The graph is no state: what happens to a layer's buffers leaves it as it was."""
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    x, plain = torch.randn(2, 4, 9, 9), nn.Sequential(torchs(4))
    ours = for_training(copy.deepcopy(plain))
    emptied = copy.deepcopy(ours).to("meta").to_empty(device="cpu")
    emptied.load_state_dict(plain.state_dict())
    assigned = copy.deepcopy(ours).to("meta")
    assigned.load_state_dict(plain.state_dict(), assign=True)
    averaged = AveragedModel(ours, use_buffers=True, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    averaged.update_parameters(ours)
    averaged.update_parameters(ours)
    dynamic = [{0: torch.export.Dim("batch", min=1, max=64)}]
    exported = torch.export.export(ours, (x,), dynamic_shapes=dynamic).module()
    for other in (emptied, assigned, averaged, torch.fx.symbolic_trace(ours), exported):
        torch.testing.assert_close(other(x), plain(x))


def test_a_parametrised_weight_is_computed_once():
    class Counted(nn.Module):
        calls = 0

        def forward(self, weight):
            Counted.calls += 1
            return weight

    layer = DepthwiseConv2d(torchs(4))
    nn.utils.parametrize.register_parametrization(layer, "weight", Counted())
    Counted.calls = 0
    layer(torch.randn(2, 4, 9, 9))
    assert Counted.calls == 1


def test_a_padding_mode_that_was_changed():
    layer, right = DepthwiseConv2d(torchs(4)), nn.Conv2d(4, 4, 3, 1, 1, groups=4, padding_mode="circular", bias=False)
    right.load_state_dict(layer.state_dict())
    layer.padding_mode, layer._reversed_padding_repeated_twice = "circular", right._reversed_padding_repeated_twice
    x = torch.randn(2, 4, 9, 9)
    torch.testing.assert_close(layer(x), right(x))


def test_first_met_in_inference_mode_or_with_fake_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode

    channels = 37  # of no other test, so that the graph is made here
    conv, x = torchs(channels), torch.randn(2, channels, 9, 9)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert DepthwiseConv2d(conv)(mode.from_tensor(x)).shape == x.shape
    with torch.inference_mode():
        DepthwiseConv2d(conv)(x)
    assert_as_torch(conv, x)
