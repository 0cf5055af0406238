"""The public call for_inference: what it gives, chooses, refuses, and its comparison with the model."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import xnets
from tests.xnets.direct_cases import needs_llvmlite
from tests.xnets.inference_cases import assert_same, built, for_inference_direct, output
from xnets import ExpanderConv2d, XNetsError, for_inference
from xnets.inference import choose
from xnets.layers.direct import missing


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
        monkeypatch.setattr(choose, "_race", lambda runs, clock, name=name: {n: float(n != name) for n in runs})
        network = for_inference(model, x)
        assert {kernel for _, kernel, _ in network.explain()} == kernels
        assert_same(network(x), output(model, x))
    monkeypatch.setattr(choose, "_layout_change", lambda: -1e3)  # changing the layout is more than free
    monkeypatch.setattr(choose, "_race", lambda runs, clock: {n: float(n == "direct") for n in runs})
    assert {kernel for _, kernel, _ in for_inference(model, x).explain()} == {"dense"}


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
    for network in (for_inference(model, x), *([for_inference_direct(model, x)] if not missing() else [])):
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
