"""Max pooling by a kernel of ours, against torch's own to the last bit, and inside PyTorch."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.xnets.direct_cases import computes_any_size, needs_llvmlite, on_threads
from xnets import for_inference, for_training, kernels
from xnets.layers import MaxPool, max_pool
from xnets.layers.direct import jit
from xnets.models import build

pytestmark = needs_llvmlite


any_size = computes_any_size(max_pool)


def drawn(size, seed=0):
    """Few different numbers, so that many are equal, some infinite, some no numbers."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(-3, 4, size, generator=g).float()
    odd = torch.rand(size, generator=g)
    return x.masked_fill(odd < 0.05, float("nan")).masked_fill(odd > 0.95, float("inf"))


def same_bits(a, b):
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


def assert_as_torch(x):
    ours = MaxPool()
    assert not ours.why_not(x)
    x = x.clone().requires_grad_()
    mine, torchs = ours(x), F.max_pool2d(x, 2)
    assert same_bits(mine.detach(), torchs.detach())
    dy = torch.randn(mine.shape)
    mine, torchs = (torch.autograd.grad(y, x, dy)[0] for y in (mine, torchs))
    assert same_bits(mine, torchs)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 5), st.integers(1, 20), st.integers(2, 40), st.integers(2, 70), st.integers(0, 99))
def test_the_bits_of_torch_for_any_size(images, channels, height, width, seed):
    assert_as_torch(drawn((images, channels, height, width), seed))


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("size", [(2, 3, 2, 2), (2, 3, 5, 7), (1, 2, 8, 16), (3, 2, 4, 33)])
def test_the_bits_of_torch_with_narrow_vectors(width, size, monkeypatch):
    monkeypatch.setattr(jit, "_forced", [(width, {4: "", 8: "+avx,+avx2,+fma"}[width])])
    assert_as_torch(drawn(size))


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_nothing(threads):
    with on_threads(threads):
        assert_as_torch(drawn((32, 70, 33, 34)))  # large enough to be shared, and no multiple of anything


def test_gradients_of_gradients():
    x = torch.randn(2, 3, 5, 6, requires_grad=True)
    found = []
    for pool in (MaxPool(), nn.MaxPool2d(2)):
        (first,) = torch.autograd.grad(pool(x).pow(3).sum(), x, create_graph=True)
        found.append((first, *torch.autograd.grad(first.square().sum(), x)))
    for mine, torchs in zip(*found, strict=True):
        torch.testing.assert_close(mine, torchs)


def test_batches_of_gradients():
    x, found = torch.randn(2, 3, 5, 6, requires_grad=True), []
    upstream = torch.randn(4, 2, 3, 2, 3)
    for pool in (MaxPool(), nn.MaxPool2d(2)):
        found.append(torch.autograd.grad(pool(x), x, upstream, is_grads_batched=True)[0])
    assert torch.equal(*found)


def test_gradients_compiled_by_torch():
    x, found = torch.randn(2, 3, 5, 6, requires_grad=True), []
    for pool in (MaxPool(), nn.MaxPool2d(2)):
        with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
            found.append(torch.autograd.grad(pool(x).square().sum(), x)[0])
    assert torch.equal(*found)


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last), torch.randn(2, 3, 8, 8).double(),
        torch.randn(3, 8, 8), torch.randn(2, 3, 8, 8).bfloat16(),
    ],
)  # fmt: skip
def test_what_it_does_not_compute_is_torchs(x):
    assert MaxPool().why_not(x)
    assert torch.equal(MaxPool()(x), F.max_pool2d(x, 2))


def test_torch_is_asked_where_someone_looks():
    x = torch.randn(2, 3, 8, 8)
    with kernels("dense"):
        assert "dense" in MaxPool().why_not(x)
    with torch.profiler.profile() as seen:
        MaxPool()(x)
    assert "aten::max_pool2d" in {event.name for event in seen.events()}
    compiled = torch.compile(MaxPool(), backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), F.max_pool2d(x, 2))
    assert torch.equal(torch.func.vmap(MaxPool())(x[None])[0], F.max_pool2d(x, 2))


def test_for_training_replaces_what_computes_the_same():
    pools = [
        nn.MaxPool2d(2), nn.MaxPool2d((2, 2), 2, (0, 0)), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, 1),
        nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(2, return_indices=True), nn.MaxPool2d(2, dilation=2),
    ]  # fmt: skip
    found = for_training(nn.ModuleList(pools))
    assert [type(pool) is MaxPool for pool in found] == [True, True, False, False, False, False, False]
    hooked = nn.MaxPool2d(2)
    hooked.register_forward_hook(lambda *_: None)
    assert type(for_training(nn.Sequential(hooked))[0]) is nn.MaxPool2d


def test_a_network_with_it_trains_and_infers_as_without():
    x, found = torch.randn(2, 3, 32, 32), []
    for change in (lambda network: network, for_training):
        torch.manual_seed(0)
        network = change(build("X-VGG16-1")).eval()
        found.append((network(x), for_inference(network, x)(x)))
    assert any(type(m) is MaxPool for m in network.modules())
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)


def test_one_byte_is_kept_for_each_maximum():
    x = torch.randn(4, 8, 32, 32, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = MaxPool()(x)
    assert [t.nbytes for t in kept] == [y.numel()]
