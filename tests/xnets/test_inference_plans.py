"""Plans against model.eval(): every family, batches, threads, vector widths, steps, what the planner does not know."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import xnets
from tests.xnets.direct_cases import needs_llvmlite, on_threads
from tests.xnets.inference_cases import (
    NETWORKS,
    assert_same,
    built,
    for_inference_direct,
    output,
    plans,
    with_statistics,
)
from xnets import ExpanderConv2d, ExpanderLinear


@pytest.mark.parametrize("name", NETWORKS)
def test_every_family_by_every_plan(name):
    model, x = built(name)
    expected = output(model, x)
    for plan in plans(model, x):
        assert_same(plan.run(x), expected)


@needs_llvmlite
def test_layers_on_their_edges():
    """Nothing falls back in silence: all of a VGG16 and a DenseNet is direct, all but the stem of a ResNet."""
    for name, dense in {"X-VGG16-1": 0, "X-DenseNet-BC-2-40-24": 0, "X-ResNet-2-50": 1}.items():
        plan = plans(*built(name))[-1]
        assert sum(type(step).__name__ == "Plain" for step in plan.layers.values()) == dense
        assert not plan.whole


@needs_llvmlite
@pytest.mark.parametrize("name", ["X-VGG16-1", "X-ResNet-2-50", "X-MobileNet-0.5-4", "X-DenseNet-BC-2-40-24"])
def test_any_batch(name):
    model, x = built(name)
    plan = plans(model, x)[-1]
    expected = output(model, x)
    for n in range(1, 18):
        assert_same(plan.run(x[:n]), expected[:n])


@needs_llvmlite
@pytest.mark.parametrize("name", ["X-VGG16-1", "X-ResNet-2-50", "X-MobileNet-0.5-4", "X-DenseNet-BC-2-40-24"])
def test_same_bits_from_run_to_run_and_for_any_number_of_threads(name, monkeypatch):
    from xnets.layers.direct import threads

    monkeypatch.setattr(threads, "FOR_ONE_THREAD", 0)
    model, x = built(name)
    network = for_inference_direct(model, x)
    first = network(x)
    for number in (1, 2, 3):
        with on_threads(number):
            again = network(x)
        assert torch.equal(first, again)
    assert_same(first, output(model, x))


@needs_llvmlite
@pytest.mark.parametrize(
    ("width", "features"),
    [(16, None), (8, "+avx2,+fma,-avx512f"), (4, "+sse2,-avx,-avx2,-fma,-avx512f")],
)
def test_narrower_vectors(width, features, monkeypatch):
    from xnets.layers.direct import jit

    monkeypatch.setattr(jit, "_forced", [(width, jit._host()[1] if features is None else features)])
    for name in ("X-VGG16-1", "X-ResNet-2-50", "X-MobileNet-0.5-4", "X-DenseNet-BC-2-40-24"):
        model, x = built(name)
        plan = plans(model, x)[-1]
        for n in (1, 3, 17):
            assert_same(plan.run(x[:n]), output(model, x[:n]))


# (inputs, outputs, window, stride, height, width, degree)
LAYERS = [
    (9, 7, 3, 1, 4, 4, 4), (9, 7, 3, 1, 1, 1, 4), (9, 7, 3, 2, 1, 1, 4), (9, 7, 3, 2, 4, 4, 9),
    (9, 7, 3, 1, 5, 31, 4), (9, 7, 3, 2, 5, 31, 4), (9, 7, 3, 2, 32, 7, 1), (9, 7, 3, 1, 1, 33, 2),
    (9, 7, 3, 2, 33, 1, 2), (9, 7, 3, 1, 13, 16, 3), (9, 7, 3, 2, 14, 14, 3), (9, 7, 3, 2, 15, 15, 3),
    (9, 7, 1, 1, 5, 7, 4), (9, 7, 1, 2, 5, 7, 4), (9, 7, 1, 1, 1, 1, 9), (9, 130, 1, 1, 3, 3, 2),
    (130, 9, 1, 1, 9, 9, 5), (9, 7, 1, 1, 1, 3, 3), (9, 7, 1, 2, 32, 32, 3), (60, 9, 1, 1, 3, 1, 30),
]  # fmt: skip


@needs_llvmlite
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("graph", ["random", "random-with-replacement", "random-by-input"])
def test_layers(layer, graph):
    """Sizes no network of the paper has; with bias, residual, ReLU and none of them."""
    n_in, n_out, window, stride, height, width, degree = layer
    degree = min(degree, n_out) if graph == "random-by-input" else degree
    conv = lambda seed: ExpanderConv2d(  # noqa: E731
        n_in, n_out, window, stride, window // 2, degree=degree, seed=seed, graph=graph, bias=seed != 1
    )

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.norm = conv(0), conv(1), nn.BatchNorm2d(n_out)

        def forward(self, x):
            return F.relu(self.norm(self.a(x)) + self.b(x)), self.a(x)

    torch.manual_seed(0)
    model, x = with_statistics(Two()), torch.randn(19, n_in, height, width)
    for plan in plans(model, x):
        for mine, right in zip(plan.run(x), output(model, x), strict=True):
            assert_same(mine, right)


@needs_llvmlite
@pytest.mark.parametrize("size", [(2, 2), (4, 4), (2, 10), (6, 14), (8, 34), (5, 8), (28, 28)])
@pytest.mark.parametrize("after", [(nn.BatchNorm2d(7), nn.ReLU()), (), (nn.ReLU(),)])
def test_maxima_in_the_convolution(size, after):
    layer = ExpanderConv2d(5, 7, 3, padding=1, degree=3, seed=0)
    torch.manual_seed(0)
    for layers in ((layer, *after, nn.MaxPool2d(2)), (layer, nn.MaxPool2d(2), *after)):
        model, x = with_statistics(nn.Sequential(*copy.deepcopy(layers))), torch.randn(19, 5, *size)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.data[::2] *= -1  # the greatest becomes the least
        for plan in plans(model, x):
            assert_same(plan.run(x), output(model, x))
        assert any(type(step).__name__ == "Pool" for step in plan.steps) == (size[0] % 2 == 1)


@needs_llvmlite
def test_inputs_in_chunks(monkeypatch):
    from xnets.inference import packed

    monkeypatch.setattr(packed, "CACHE", 1000)
    for layer in (ExpanderConv2d(40, 13, 1, degree=20, seed=0), ExpanderConv2d(40, 13, 1, degree=2, seed=0)):
        model, x = nn.Sequential(layer, nn.ReLU(), ExpanderConv2d(13, 5, 1, degree=7, seed=1)), torch.randn(5, 40, 6, 6)
        assert_same(plans(model, x)[-1].run(x), output(model, x))


class Mixed(nn.Module):
    """What the planner knows, what it does not, and operations in place."""

    def __init__(self):
        super().__init__()
        self.a = ExpanderConv2d(8, 12, 3, padding=1, degree=3, seed=0)
        self.b = ExpanderConv2d(12, 12, 1, degree=3, seed=1)
        self.norm, self.relu, self.pool = nn.BatchNorm2d(12), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        self.group = nn.GroupNorm(3, 12)
        self.silu, self.drop = nn.SiLU(), nn.Dropout(0.5)
        self.last = ExpanderLinear(24 * 16, 10, degree=17, seed=2)
        self.scale = nn.Parameter(torch.rand(12, 1, 1))

    def forward(self, x: Tensor):
        y = self.a(x)
        z = self.relu(y)  # y too is now positive
        z = self.norm(z + y)
        z += self.b(self.silu(z))
        z = self.group(z) * self.scale
        z = z - z.mean(0, keepdim=True)  # mixes the images of a batch
        z = torch.cat([self.pool(z), F.avg_pool2d(self.b(z), 2)], 1)
        z = F.relu(z, inplace=True)
        return {"logits": self.last(self.drop(torch.flatten(z, 1))), "maps": [z, y.size(0)]}


def test_what_the_planner_does_not_know_stays_as_it_is():
    torch.manual_seed(0)
    model, x = with_statistics(Mixed()), torch.randn(21, 8, 8, 8)
    expected = output(model, x)
    for plan in plans(model, x):
        for _ in range(2):
            mine = plan.run(x)
            assert_same(mine["logits"], expected["logits"])
            assert_same(mine["maps"][0], expected["maps"][0])
            assert mine["maps"][1] == 21


@needs_llvmlite
@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v2", "squeezenet1_1"])
def test_networks_of_torchvision(name):
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    model = xnets.expand_model(getattr(models, name)(num_classes=10), compression=4, seed=0, keep=["first", "last"])
    model, x = with_statistics(model), torch.randn(5, 3, 64, 64)
    plan = plans(model, x)[-1]
    assert_same(plan.run(x), output(model, x))
    if name == "densenet121":  # one buffer for each dense block
        assert not any(type(step).__name__ == "Copy" for step in plan.steps)


@needs_llvmlite
def test_weights_are_proportional_to_edges():
    layer = ExpanderConv2d(64, 64, 3, padding=1, degree=4, seed=0, bias=False)
    network = for_inference_direct(nn.Sequential(layer, nn.ReLU()), torch.randn(4, 64, 8, 8))
    (step,) = network.plan.layers.values()
    held = sum(v.numel() for v in vars(step).values() if isinstance(v, Tensor))
    assert held <= 64 * 4 * (9 + 1) + 3 * 64


@needs_llvmlite
def test_nan_passes_through():
    model = nn.Sequential(ExpanderConv2d(4, 4, 3, padding=1, degree=2, seed=0), nn.ReLU(), nn.MaxPool2d(2))
    x = torch.randn(3, 4, 8, 8)
    x[1, :, 2, 2] = torch.nan
    plan, expected = plans(model, x)[-1], output(model, x)
    assert expected.isnan().any()
    assert torch.equal(plan.run(x).isnan(), expected.isnan())
