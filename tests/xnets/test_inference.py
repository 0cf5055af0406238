"""for_inference against model.eval(): every family, batches, threads, vector widths, what it cannot take."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import xnets
from xnets import ExpanderConv2d, ExpanderLinear, XNetsError, for_inference
from xnets.inference import choose
from xnets.inference.fold import fold
from xnets.inference.graph import traced
from xnets.inference.plan import Plan
from xnets.inference.weights import why_dense
from xnets.layers.direct import AVAILABLE

needs_llvmlite = pytest.mark.skipif(not AVAILABLE, reason="llvmlite is not installed")

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
    return [*found, Plan(network, layers)] if AVAILABLE else found


def assert_same(mine, right):
    scale = float(right.abs().max())
    assert scale > 1e-3
    torch.testing.assert_close(mine, right, rtol=1e-4, atol=2e-5 * scale)


def output(model, x):
    with torch.no_grad():
        return model(x)


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
    from xnets.layers.direct import pool

    monkeypatch.setattr(pool, "SMALL", 0)
    model, x = built(name)
    network = for_inference_direct(model, x)
    first = network(x)
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            again = network(x)
        finally:
            torch.set_num_threads(before)
        assert torch.equal(first, again)
    assert_same(first, output(model, x))


def for_inference_direct(model, x):
    """for_inference where the direct plan wins, whatever the clock says."""
    with pytest.MonkeyPatch.context() as patch:
        times = {"dense": 3.0, "dense, channels_last": 3.0, "direct": 1.0, "direct where faster": 2.0}
        patch.setattr(choose, "_race", lambda runs: {name: times[name] for name in runs})
        return for_inference(model, x)


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


def test_public_call():
    model, x = built("X-DenseNet-BC-2-40-24")
    kept = copy.deepcopy(model.state_dict())
    network = for_inference(model.train(), x)
    assert model.training
    assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())
    expected = output(model.eval(), x)
    assert_same(network(x), expected)
    names = [n for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear, ExpanderConv2d))]
    assert [name for name, _, _ in network.explain()] == names
    assert all(kernel in ("direct", "dense") and why for _, kernel, why in network.explain())
    assert names[3] in repr(network)
    assert_same(pickle.loads(pickle.dumps(network))(x), expected)
    assert_same(copy.deepcopy(network)(x), expected)
    assert not network(x).requires_grad
    nn.init.zeros_(model.classifier.weight)  # the network has weights of its own
    assert_same(network(x), expected)


@needs_llvmlite
def test_the_fastest_plan_is_kept(monkeypatch):
    model, x = built("X-VGG16-1")
    for name, kernels in (("dense", {"dense"}), ("direct", {"direct"})):
        monkeypatch.setattr(choose, "_race", lambda runs, name=name: {n: 1.0 if n == name else 2.0 for n in runs})
        network = for_inference(model, x)
        assert {kernel for _, kernel, _ in network.explain()} == kernels
        assert_same(network(x), output(model, x))
    monkeypatch.setattr(choose, "_layout_change", lambda: -1e3)  # changing the layout is more than free
    monkeypatch.setattr(choose, "_race", lambda runs: {n: float(n == "direct") for n in runs})
    assert {kernel for _, kernel, _ in for_inference(model, x).explain()} == {"dense"}


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


def test_dtypes_without_direct_kernels():
    model, x = built("X-VGG16-1")
    model, x = model.double(), x.double()
    network = for_inference(model, x)
    assert_same(network(x), output(model, x))
    assert all(kernel == "dense" and "float64" in why for _, kernel, why in network.explain())
    with pytest.raises(XNetsError, match="float64"):
        network(x.float())


def test_layers_left_as_they_are():
    """Another border, a hook: they run as the network has them, and explain says so."""
    model = nn.Sequential(
        ExpanderConv2d(4, 6, 3, padding=1, degree=2, seed=0, padding_mode="reflect"),
        ExpanderConv2d(6, 6, 3, padding=1, degree=2, seed=1), nn.Sequential(nn.Conv2d(6, 5, 1)),
    )  # fmt: skip
    model[2][0].register_forward_hook(lambda module, args, y: 2 * y)
    x = torch.randn(18, 4, 6, 6)
    network = for_inference(model, x)
    assert_same(network(x), output(model, x))
    assert [kernel == "as it is" for _, kernel, _ in network.explain()] == [True, False, True]


def test_autocast_is_not_followed():
    model, x = built("X-ResNet-2-50")
    for network in (for_inference(model, x), *([for_inference_direct(model, x)] if AVAILABLE else [])):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mine = network(x)
        assert mine.dtype == torch.float32
        assert_same(mine, output(model, x))


def test_errors():
    model, x = built("X-VGG16-1")
    for wrong in (x[0], x[:0], "no tensor", x.long()):
        with pytest.raises(XNetsError, match="batch of images"):
            for_inference(model, wrong)
    with pytest.raises(XNetsError, match="one dtype"):
        for_inference(model, x.double())

    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    with pytest.raises(XNetsError, match="cannot trace"):
        for_inference(Branches(), x)
    with pytest.raises(XNetsError, match="one input"):
        for_inference(Two(), x)
    network = for_inference(model, x)
    with pytest.raises(XNetsError, match="made for images"):
        network(x[:, :, :16, :16])
    with pytest.raises(XNetsError, match="cannot be trained"):
        network.train()
    assert network.eval() is network


def test_without_llvmlite():
    script = """
import sys
sys.modules["llvmlite"] = None
import torch, xnets
torch.manual_seed(0)
model = xnets.models.build("X-MobileNet-0.5-4", 10, narrow=4).eval()
x = torch.randn(3, 3, 64, 64)
network = xnets.for_inference(model, x)
torch.testing.assert_close(network(x), model(x).detach())
print({(kernel, why) for _, kernel, why in network.explain()})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "{('dense', 'llvmlite is not installed')}"


def test_importing_costs_nothing():
    script = "import sys, xnets; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


class _Odd(nn.Module):
    """Networks whose trace is not what they compute, or not for every batch."""

    def __init__(self, how):
        super().__init__()
        self.how, self.conv, self.again = how, nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.map = nn.Parameter(torch.randn(1, 32, 8, 8))

    def forward(self, x):
        y = self.conv(x)
        if self.how == "parameter":
            return F.relu(y + self.map)
        if self.how == "over the batch":
            return y + y.mean(0, keepdim=True)
        if self.how == "first image":
            return y + self.conv(x[:1])
        if self.how == "part in place":
            y[:, :4].relu_()
            return y
        z = y
        y += self.again(y)
        return torch.cat([y, z], 1)


@pytest.mark.parametrize("images", [1, 6])
@pytest.mark.parametrize("how", ["parameter", "over the batch", "first image", "part in place", "alias in place"])
def test_right_or_refused(how, images):
    torch.manual_seed(0)
    model = _Odd(how).eval()
    try:
        made = xnets.for_inference(model, torch.randn(images, 3, 8, 8))
    except XNetsError:
        return
    x = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(made(x), model(x), rtol=1e-4, atol=1e-4)


def test_hooks_on_the_whole_are_refused():
    model = nn.Sequential(nn.Conv2d(3, 8, 3))
    model.register_forward_hook(lambda module, args, output: output + 2)
    with pytest.raises(XNetsError, match="Use the network itself"):
        xnets.for_inference(model, torch.randn(2, 3, 8, 8))


def test_a_single_layer_and_things_that_are_none():
    x = torch.randn(3, 16, 8, 8)
    for layer in (xnets.ExpanderConv2d(16, 16, 3, padding=1, compression=2), nn.BatchNorm2d(16).eval()):
        with torch.no_grad():
            torch.testing.assert_close(xnets.for_inference(layer, x)(x), layer(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(XNetsError, match="not NoneType"):
        xnets.for_inference(None, x)
    with pytest.raises(XNetsError, match="not NoneType"):
        xnets.for_inference(nn.BatchNorm2d(16), x)(None)


def test_inference_mode_and_no_grad_take_turns():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.Conv2d(8, 8, 1, stride=2)).eval()
    x = torch.randn(2, 3, 8, 8)
    made = xnets.for_inference(model, x)
    with torch.inference_mode():
        first = made(x)
    torch.testing.assert_close(made(x), first, rtol=0, atol=0)


class _InPlaceFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.conv(x.relu_())


def test_the_example_stays_as_it_is_and_autocast_does_not_matter():
    x = torch.randn(2, 3, 8, 8)
    before = x.clone()
    with torch.autocast("cpu", torch.bfloat16):
        made = for_inference(_InPlaceFirst().eval(), x)
    assert torch.equal(x, before)
    assert made(x).dtype == torch.float32


def test_what_the_comparison_must_see():
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False)).eval()
    for hook in (lambda m, i, o: o * 2, lambda m, i, o: (o, o), lambda m, i, o: o.argmax(1)):
        model = copy.deepcopy(plain)
        model.register_forward_hook(hook)
        with pytest.raises(XNetsError, match="Use the network itself"):
            for_inference(model, torch.zeros(2, 3, 8, 8))
    broken = torch.full((2, 3, 8, 8), float("nan"))
    assert for_inference(plain, broken)(broken).isnan().all()
