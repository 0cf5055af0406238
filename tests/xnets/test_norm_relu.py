"""Batch norms with ReLU in one pass, against torch's own operators in float64, and inside PyTorch."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.xnets.direct_cases import computes_any_size, needs_llvmlite, on_threads
from xnets import for_inference, for_training, kernels
from xnets.layers import NormReLU, norm_relu
from xnets.layers.direct import jit
from xnets.models import build

pytestmark = needs_llvmlite


any_size = computes_any_size(norm_relu)


def drawn(images, channels, height, width, seed=0, mean=3.0, sd=2.0):
    """A norm in training whose parameters are no zeros and ones, a batch, and the gradient of its output."""
    g = torch.Generator().manual_seed(seed)
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(channels, generator=g))
        norm.bias.copy_(torch.randn(channels, generator=g))
    x = torch.randn(images, channels, height, width, generator=g) * sd + mean
    return norm, x, torch.randn(x.shape, generator=g)


def passed(layer, x, upstream, relu=False):
    """Output, then perhaps ReLU by torch, gradients of x, weight and bias, and running statistics."""
    x = x.clone().requires_grad_()
    y = F.relu(layer(x)) if relu else layer(x)
    return y.detach(), *torch.autograd.grad(y, (x, layer.weight, layer.bias), upstream), layer.running_mean.clone(), \
        layer.running_var.clone()  # fmt: skip


def in_float64(norm, relu, x, upstream):
    return passed(copy.deepcopy(norm).double(), x.double(), upstream.double(), relu)


def assert_right(norm, relu, x, upstream):
    layer = NormReLU(copy.deepcopy(norm), relu)
    assert not layer.why_not(x)
    names = ("y", "dx", "d_weight", "d_bias", "running_mean", "running_var")
    # what is within rounding of 0 may be let through by the one and not by the other
    edge = F.batch_norm(x.double(), None, None, norm.weight.double(), norm.bias.double(), True).abs() < 1e-5
    upstream = upstream.masked_fill(edge, 0)
    for name, mine, right in zip(names, passed(layer, x, upstream), in_float64(norm, relu, x, upstream), strict=True):
        assert mine.dtype == torch.float32
        scale = float(right.abs().max()) + 1  # numbers of size 1 that cancel leave their rounding
        torch.testing.assert_close(
            mine.double(), right, rtol=1e-5, atol=1e-5 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert int(layer.num_batches_tracked) == 1


def laid_out(x, last):
    return x.contiguous(memory_format=torch.channels_last) if last else x


def assert_no_worse_than_torch(norm, x, upstream, of_all):
    """By the largest or the median error; ours and what is right are returned."""
    right = in_float64(norm, False, x, upstream)
    mine = passed(NormReLU(copy.deepcopy(norm), False), x, upstream)
    torchs = passed(copy.deepcopy(norm), x, upstream)
    for name, a, b, exact in zip(("y", "dx", "dw", "db", "mean", "var"), mine, torchs, right, strict=True):
        scale = float(of_all(exact.abs()))
        assert of_all((a - exact).abs()) < 2 * of_all((b - exact).abs()) + 1e-5 * scale, name
    return mine, right


@settings(deadline=None, max_examples=80)
@given(
    st.integers(1, 19), st.integers(1, 150), st.integers(1, 9), st.integers(1, 9), st.booleans(), st.booleans(),
    st.integers(0, 99),
)  # fmt: skip
def test_right_for_any_size(images, channels, height, width, relu, last, seed):
    if images * height * width > 1:
        norm, x, upstream = drawn(images, channels, height, width, seed)
        assert_right(norm, relu, laid_out(x, last), upstream)


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("size", [(5, 7, 1, 1), (6, 9, 2, 1), (4, 6, 2, 2), (3, 5, 3, 3), (2, 3, 8, 8), (2, 3, 13, 7)])
def test_right_with_narrow_vectors(width, size, monkeypatch):
    features = {4: "", 8: "+avx,+avx2,+fma"}[width]
    monkeypatch.setattr(jit, "_forced", [(width, features)])
    norm, x, upstream = drawn(*size)
    for relu in (False, True):
        for last in (False, True):
            assert_right(norm, relu, laid_out(x, last), upstream)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("size", [(128, 3, 32, 32), (32, 40, 28, 28), (64, 300, 4, 4)])
def test_right_beyond_one_block(size, last):
    norm, x, upstream = drawn(*size)
    assert_right(norm, True, laid_out(x, last), upstream)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("size", [(128, 3, 32, 32), (64, 300, 4, 4)])
def test_with_a_mean_far_off_no_worse_than_torch(size, last):
    """The variance of numbers around 1000 is that of their deviations."""
    norm, x, upstream = drawn(*size, mean=1000.0, sd=1.0)
    x = laid_out(x, last)
    mine, right = assert_no_worse_than_torch(norm, x, upstream, torch.max)
    torch.testing.assert_close(mine[0].double(), right[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("threads", [2, 3, 5])
def test_the_number_of_threads_changes_no_bit(threads, last):
    norm, x, upstream = drawn(64, 83, 16, 16)  # large enough to be shared
    x = laid_out(x, last)
    alone = passed(NormReLU(copy.deepcopy(norm), True), x, upstream)
    with on_threads(threads):
        together = passed(NormReLU(copy.deepcopy(norm), True), x, upstream)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_the_dense_kernel_means_the_very_bits_of_torch():
    norm, x, upstream = drawn(4, 6, 5, 5)
    with kernels("dense"):
        mine = passed(NormReLU(copy.deepcopy(norm), True), x, upstream)
    assert all(torch.equal(a, b) for a, b in zip(mine, passed(norm, x, upstream, relu=True), strict=True))


@pytest.mark.parametrize("momentum", [0.3, None])
def test_running_statistics_over_some_batches_and_evaluation(momentum):
    norm, *_ = drawn(4, 6, 5, 5)
    norm.momentum = momentum
    mine = NormReLU(copy.deepcopy(norm), True)
    untrained = drawn(2, 6, 5, 5)[1]
    assert torch.equal(mine.eval()(untrained), F.relu(norm.eval()(untrained)))
    mine.train(), norm.train()
    for seed in range(3):
        x = drawn(4, 6, 5, 5, seed)[1]
        torch.testing.assert_close(mine(x), F.relu(norm(x)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mine.state_dict(), norm.state_dict(), rtol=1e-5, atol=1e-5)
    x = drawn(2, 6, 5, 5, 9)[1]
    mine.load_state_dict(norm.state_dict())
    assert torch.equal(mine.eval()(x), F.relu(norm.eval()(x)))


def test_numbers_that_are_none_stay_so():
    norm, x, _ = drawn(4, 3, 5, 5)
    x[1, 1, 2, 2] = float("nan")
    y = NormReLU(norm, True)(x)
    assert y[:, 1].isnan().all()
    assert y[:, ::2].isfinite().all()


def test_a_constant_channel():
    norm, x, upstream = drawn(4, 3, 5, 5)
    x[:, 1] = 7.25
    assert_right(norm, False, x, upstream)
    dead = NormReLU(copy.deepcopy(norm), True)
    assert torch.isfinite(torch.cat([t.flatten() for t in passed(dead, x, upstream)])).all()


def test_one_number_a_channel_is_refused_as_by_torch():
    norm, x, _ = drawn(1, 3, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value"):
        NormReLU(norm, True)(x)


@pytest.mark.parametrize("last", [False, True])
def test_gradients_that_are_expanded_or_laid_out_otherwise(last):
    norm, x, _ = drawn(4, 6, 5, 5)
    x = laid_out(x, last)
    mine, right = NormReLU(copy.deepcopy(norm), False), copy.deepcopy(norm)
    for loss in (lambda y: y.square().mean((2, 3)).sum(), lambda y: y.permute(0, 2, 3, 1).contiguous().square().sum()):
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        torch.testing.assert_close(
            torch.autograd.grad(loss(mine(a)), a), torch.autograd.grad(loss(right(b)), b), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("last", [False, True])
def test_gradients_of_gradients(last):
    norm, x, _ = drawn(4, 3, 3, 3)
    x = laid_out(x, last)
    found = []
    for layer, relu in ((NormReLU(copy.deepcopy(norm), True), nn.Identity()), (norm, nn.ReLU())):
        a = x.clone().requires_grad_()
        inputs = (a, layer.weight, layer.bias)
        first = torch.autograd.grad(relu(layer(a)).pow(3).sum(), inputs, create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), inputs))
    torch.testing.assert_close(*found, rtol=2e-3, atol=2e-3 * float(found[1][0].abs().max()))


@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_of_gradients_where_not_all_are_wanted(frozen):
    """A gradient penalty with a frozen norm, and a norm of images, which need no gradient."""
    norm, x, _ = drawn(4, 3, 3, 3)
    norm.requires_grad_(not frozen)
    found = []
    for layer in (NormReLU(copy.deepcopy(norm), False), norm):
        a = x.clone().requires_grad_(frozen)
        inputs = [a] if frozen else [layer.weight, layer.bias]
        first = torch.autograd.grad(layer(a).pow(3).sum(), inputs, create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), inputs))
    torch.testing.assert_close(*found, rtol=2e-3, atol=2e-3 * float(found[1][0].abs().max()))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("place", [(0, 0, 0), (16, 28, 28), (31, 55, 55)])
def test_one_outlier_costs_no_more_than_with_torch(place, last):
    """Sums of squares of deviations from it would lose all others'."""
    norm, x, upstream = drawn(32, 5, 56, 56, mean=0.0, sd=1.0)
    n, i, j = place
    x[n, :, i, j] = 1e3
    x = laid_out(x, last)
    assert_no_worse_than_torch(norm, x, upstream, torch.median)


@pytest.mark.parametrize("last", [False, True])
def test_operator_is_registered_whole(last):
    norm, x, _ = drawn(4, 6, 5, 5)
    x = laid_out(x, last)
    arguments = x.requires_grad_(), norm.weight, norm.bias, 1e-5, True
    from xnets.layers.direct import norm_op

    torch.library.opcheck(torch.ops.xnets.norm.default, arguments)
    _, *of_channels = norm_op.norm(*(a.detach() if isinstance(a, torch.Tensor) else a for a in arguments))
    torch.library.opcheck(torch.ops.xnets.norm_gradient.default, (x.detach(), x.detach(), *of_channels[:4], True))


def test_the_operator_is_right_in_any_layout():
    from xnets.layers.direct.norm_op import norm as op

    norm, x, _ = drawn(4, 6, 5, 7)
    for other in (x.transpose(2, 3), x.permute(1, 0, 2, 3), x[:, :, ::2], x.expand(2, -1, -1, -1, -1)[1]):
        norm = nn.BatchNorm2d(other.shape[1])
        y = op(other, norm.weight, norm.bias, norm.eps, True)[0]
        torch.testing.assert_close(y, F.relu(norm(other)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (lambda x: x.transpose(2, 3), "contiguous or channels_last"),
        (lambda x: x.double(), "float64"),
        (lambda x: x.bfloat16(), "bfloat16"),
        (lambda x: x.to("meta"), "meta"),
    ],
)
def test_what_torch_computes_instead(changed, why):
    norm, x, _ = drawn(4, 6, 5, 5)
    x = changed(x)
    layer = NormReLU(norm.to(x.device), True).to(torch.float64 if why == "float64" else torch.float32)
    assert why in layer.why_not(x)
    y = layer(x)
    assert (y.dtype, y.shape) == (x.dtype, x.shape)


def test_under_vmap_autocast_and_compile():
    norm, x, _ = drawn(4, 6, 5, 5)
    layer = NormReLU(norm.requires_grad_(False), True)
    expected = F.relu(F.batch_norm(x, None, None, norm.weight, norm.bias, True))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(x), expected)
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(x), expected)
    layer.eval()
    batched = torch.func.vmap(layer, randomness="error")(x.unsqueeze(1))
    torch.testing.assert_close(batched.squeeze(1), layer(x))


# --- whole networks ---

NAMES = ["X-VGG16-2", "X-DenseNet-BC-2-10-24", "X-ResNet-2-50", "X-MobileNet-0.5-8"]


def small(name):
    torch.manual_seed(1)
    return build(name, num_classes=10, narrow=4, drop_strides=3)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_networks_train_as_before(name, last):
    """Gradients have errors like torch's. A ReLU near 0 that tips over makes one of 0.01, by either, in some draws of
    x: what is compared is the draw in which each errs least."""
    before, after, exact = small(name), for_training(small(name)), small(name).double()
    if last:
        before, after = (network.to(memory_format=torch.channels_last) for network in (before, after))
    assert list(before.state_dict()) == list(after.state_dict())
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in after.modules())

    def gradients(network, x):
        network.zero_grad()
        F.cross_entropy(network(x.to(next(network.parameters()).dtype)), torch.arange(8)).backward()
        return [p.grad.double() for p in network.parameters()]

    errors = []
    for _ in range(4):
        x = laid_out(torch.randn(8, 3, 16, 16), last)
        torchs, ours, right = (gradients(network, x) for network in (before, after, exact))
        whole = sum(float(b.norm()) for b in right)
        errors.append([sum(float((a - b).norm()) for a, b in zip(g, right, strict=True)) for g in (torchs, ours)])
        errors[-1] = [error / whole for error in errors[-1]]
        assert errors[-1][1] < 0.05
    least, ours = (min(column) for column in zip(*errors, strict=True))
    assert ours < 3 * least + 1e-5
    before.load_state_dict(after.state_dict())
    torch.testing.assert_close(before.eval()(x), after.eval()(x))


@pytest.mark.parametrize("name", NAMES)
def test_for_inference_knows_them(name):
    network = for_training(small(name))
    x = torch.randn(4, 3, 16, 16)
    network(x)
    fast = for_inference(network.eval(), x)
    torch.testing.assert_close(fast(x), network(x), rtol=1e-3, atol=1e-4)


def test_which_are_replaced():
    shared = nn.BatchNorm2d(4)
    watched = nn.BatchNorm2d(4)
    watched.register_forward_hook(lambda *_: None)
    listened = nn.ReLU()
    listened.register_forward_hook(lambda *_: None)
    unbiased = nn.BatchNorm2d(4)
    unbiased.bias = None
    network = nn.Sequential(
        nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), shared, nn.ReLU(), shared,
        watched, nn.ReLU(), nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, track_running_stats=False),
        nn.BatchNorm2d(4), listened, nn.BatchNorm1d(4), unbiased,
    )  # fmt: skip
    assert for_training(network) is network
    kinds = [
        f"both {layer.relu}" if isinstance(layer, NormReLU) else type(layer).__name__ for layer in network
    ]  # fmt: skip
    assert kinds == [
        "both True", "Identity", "both False", "Conv2d", "both False", "ReLU", "both False", "BatchNorm2d", "ReLU",
        "BatchNorm2d", "BatchNorm2d", "both False", "ReLU", "BatchNorm1d", "BatchNorm2d",
    ]  # fmt: skip
    assert network[4] is network[6]
    assert for_training(nn.BatchNorm2d(3)).training  # a norm by itself stays what it is


def test_an_optimizer_made_before_goes_on():
    network = small("X-VGG16-2")
    held = list(network.parameters())
    assert all(a is b for a, b in zip(held, for_training(network).parameters(), strict=True))
    again = copy.deepcopy(network)
    x = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(again(x), network(x))
