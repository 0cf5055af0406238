"""What seeds, narrowing and dropped strides do to a network."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.xnets.networks import expanders, full, hashes, sizes, weighted
from xnets.errors import XNetsError
from xnets.models import build

SEEDED = [("X-DenseNet-BC-2-40-24", "paper", 4), ("X-VGG16-2", "paper", 8), ("X-ResNet-2-50", "authors", 8)]


@pytest.mark.parametrize(("name", "rule", "narrow"), SEEDED)
def test_graphs_follow_graph_seed_and_weights_follow_torch(name, rule, narrow):
    def made(graph_seed, torch_seed):
        torch.manual_seed(torch_seed)
        model = build(name, rule=rule, graph_seed=graph_seed, narrow=narrow)
        return model, torch.get_rng_state()

    (a, after_a), (b, after_b), (c, _), (again, _) = made(0, 0), made(1, 0), made(0, 1), made(0, 0)
    assert hashes(a) == hashes(c) == hashes(again)
    assert not set(hashes(a)) & set(hashes(b))
    for left, other, right in zip(a.parameters(), b.parameters(), again.parameters(), strict=True):
        assert torch.equal(left, other)  # the graphs draw from a stream of their own
        assert torch.equal(left, right)
    assert torch.equal(after_a, after_b)
    random = [(p, q) for p, q in zip(a.parameters(), c.parameters(), strict=True) if p.dim() > 1]
    assert not any(torch.equal(p, q) for p, q in random)


def test_layers_of_equal_shape_have_graphs_of_their_own():
    for name, rule in (("X-DenseNet-BC-2-40-24", "paper"), ("X-MobileNet-0.5-4", "authors")):
        found = hashes(build(name, rule=rule))
        assert len(set(found)) == len(found) > 10


def test_the_global_generators_do_not_move_graphs():
    torch.manual_seed(5)
    first = hashes(build("X-MobileNet-0.5-4"))
    torch.rand(100)
    assert hashes(build("X-MobileNet-0.5-4")) == first


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.sampled_from([1, 2, 4, 8]))
def test_narrowing_divides_widths_and_keeps_c(c, narrow):
    narrowest = 64 // narrow
    if c > narrowest:
        with pytest.raises(XNetsError, match=f"compression {c} .* fan-in {narrowest}"):
            build(f"X-ResNet-{c}-34", narrow=narrow, device="meta")
        return
    wide, thin = full("ResNet-34"), build(f"X-ResNet-{c}-34", narrow=narrow, device="meta")
    for layer, old in zip(weighted(thin)[1:-1], weighted(wide)[1:-1], strict=True):
        n_in, n_out = sizes(old)
        assert (layer.n_in, layer.n_out) == (n_in // narrow, n_out // narrow)
        assert layer.degree == layer.n_in // c


def test_narrowing_divides_stated_degrees():
    for name, narrow in (("X-VGG16-2", 4), ("X-AlexNet-2", 8)):
        pairs = zip(expanders(full(name)), expanders(build(name, narrow=narrow, device="meta")), strict=True)
        assert all(thin.degree == wide.degree // narrow for wide, thin in pairs)


@pytest.mark.parametrize("name", ["VGG16", "DenseNet-BC-40-24", "DenseNet-BC-121", "ResNet-34", "MobileNet-0.5"])
@pytest.mark.parametrize("dropped", [0, 1, 2])
def test_dropped_strides_keep_the_map_larger(name, dropped):
    model = build(name, narrow=16, drop_strides=dropped).eval()
    maps = []
    layers = list(model.features)
    pooled = next(i for i, layer in enumerate(layers) if isinstance(layer, nn.AdaptiveAvgPool2d))
    layers[pooled].register_forward_pre_hook(lambda layer, inputs: maps.append(inputs[0].shape[-1]))
    with torch.no_grad():
        model(torch.zeros(1, 3, 64, 64))
    halvings = 2 if name == "DenseNet-BC-40-24" else 5
    assert maps == [64 // 2 ** (halvings - dropped)]
