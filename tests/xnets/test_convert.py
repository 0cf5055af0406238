"""Whole networks to X-Nets and back: which layers change, which do not, and that it still computes the same."""

import copy
import math

import pytest
import torch
import torchvision
from torch import nn

from xnets import ExpanderConv2d, ExpanderLinear, XNetsError, expand_model, to_dense
from xnets.layers import ExpanderLayer


def small_vit():
    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=10)
    nn.init.normal_(model.heads.head.weight)  # torchvision starts it at zero, which would hide what lies before it
    return model


NETWORKS = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(width_mult=0.5, num_classes=10),
    "densenet121": lambda: torchvision.models.DenseNet(16, (2, 3), 32, num_classes=10),
    "vit": small_vit,
}
every_network = pytest.mark.parametrize("network", NETWORKS)


def image():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def expanders(model):
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, ExpanderLayer)}


def outermost(model):
    """Names of the plain convolutions and linear layers, and of the first and last of them."""
    names = [name for name, layer in model.named_modules() if type(layer) in (nn.Conv2d, nn.Linear)]
    return names, {names[0], names[-1]}


class Plain(nn.Module):
    """Layers by themselves and in a block, one of them under two names."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.block = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
        self.blocks = nn.Linear(8, 8)  # its name begins as the block's
        self.again = self.blocks
        self.last = nn.Linear(8, 8)

    def forward(self, x):
        return self.last(self.again(self.blocks(self.block(self.first(x)))))


@every_network
def test_every_layer_but_the_first_the_last_and_the_grouped_has_its_edges(network):
    dense = NETWORKS[network]()
    sparse = expand_model(dense, compression=4, seed=1)
    names, ends = outermost(dense)
    expected = {n for n in names if n not in ends and getattr(dense.get_submodule(n), "groups", 1) == 1}
    layers = expanders(sparse)
    assert set(layers) == expected
    for name, layer in layers.items():
        old = dense.get_submodule(name)
        n_out, n_in = old.weight.shape[:2]
        assert layer.weight.numel() == n_in // 4 * n_out * math.prod(old.weight.shape[2:])
        assert (layer.bias is None) == (old.bias is None)
    for name, old in dense.named_modules():
        if name not in expected:
            assert type(sparse.get_submodule(name)) is type(old)
    untouched = {k: v for k, v in dense.state_dict().items() if k.rpartition(".")[0] not in expected}
    assert all((sparse.state_dict()[k] == v).all() for k, v in untouched.items())


@every_network
def test_an_x_net_computes_and_learns(network):
    sparse = expand_model(NETWORKS[network](), compression=4)
    y = sparse(image())
    assert y.shape == (2, 10)
    y.square().sum().backward()
    for name, layer in expanders(sparse).items():
        assert layer.weight.grad.isfinite().all(), name
        assert layer.weight.grad.any(), name


@every_network
def test_to_dense_computes_the_same_without_our_layers(network):
    sparse = expand_model(NETWORKS[network](), compression=3, seed=2).eval()
    for norm in (m for m in sparse.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_mean, -0.1, 0.1)
    dense = to_dense(sparse)
    assert not expanders(dense)
    assert expanders(sparse)
    assert len(dense.state_dict()) == len(NETWORKS[network]().state_dict())
    with torch.no_grad():
        y = sparse(image())
        assert y.std() > 0
        torch.testing.assert_close(dense(image()), y, rtol=1e-4, atol=1e-5 * y.abs().max().item())


@every_network
def test_one_seed_one_network_and_every_layer_its_own_graph(network):
    model = NETWORKS[network]()
    draws = [expanders(expand_model(model, 4, seed)) for seed in (0, 0, 1)]
    graphs = [[layer.graph for layer in draw.values()] for draw in draws]
    assert graphs[0] == graphs[1]
    assert all(a != b for a, b in zip(graphs[0], graphs[2], strict=True))
    assert len(set(graphs[0])) == len({layer.seed for layer in draws[0].values()}) == len(graphs[0])


@every_network
def test_the_original_stays_as_it_was(network):
    model = NETWORKS[network]()
    kinds = [type(m) for m in model.modules()]
    state = copy.deepcopy(model.state_dict())
    sparse = expand_model(model, 4)
    for parameter in sparse.parameters():
        nn.init.zeros_(parameter)
    assert [type(m) for m in model.modules()] == kinds
    assert all((model.state_dict()[k] == v).all() for k, v in state.items())


@pytest.mark.parametrize(
    ("keep", "expanded"),
    [
        (("first", "last"), {"block.0", "block.2", "blocks"}),
        ((), {"first", "block.0", "block.2", "blocks", "last"}),
        (["last"], {"first", "block.0", "block.2", "blocks"}),
        (["block.2"], {"first", "block.0", "blocks", "last"}),
        (["block"], {"first", "blocks", "last"}),
        (["again"], {"first", "block.0", "block.2", "last"}),
    ],
)
def test_keep_names_layers_and_what_holds_them(keep, expanded):
    model = expand_model(Plain(), 2, keep=[*keep])
    assert set(expanders(model)) == expanded


def test_first_and_last_are_the_outermost_layers():
    """Whatever they are called."""
    model = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.ReLU())
    assert set(expanders(expand_model(model, 2))) == {"2"}


def test_a_layer_under_two_names_stays_one_layer():
    sparse = expand_model(Plain(), 2)
    assert isinstance(sparse.again, ExpanderLinear)
    assert sparse.again is sparse.blocks
    dense = to_dense(sparse)
    assert type(dense.again) is nn.Linear
    assert dense.again is dense.blocks
    x = torch.randn(3, 8)
    torch.testing.assert_close(dense(x), sparse(x))


def test_a_network_that_is_one_layer():
    assert type(expand_model(nn.Conv2d(8, 8, 3), 2)) is nn.Conv2d
    sparse = expand_model(nn.Conv2d(8, 8, 3), 2, keep=())
    assert type(sparse) is ExpanderConv2d
    assert type(to_dense(sparse)) is nn.Conv2d


@pytest.mark.parametrize("nested", [False, True])
def test_torchs_fused_transformer_inference_is_not_fooled(nested):
    """In eval mode nn.TransformerEncoder hands linear1.weight to one fused function, which takes it for dense."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = expand_model(nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested), 2).eval()
    assert len(expanders(model)) == 2
    x, padding = torch.randn(2, 5, 16), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    expected = model(x, src_key_padding_mask=padding)  # with gradients torch takes the plain path
    with torch.no_grad():
        for fused in (model, to_dense(model)):
            torch.testing.assert_close(fused(x, src_key_padding_mask=padding)[~padding], expected[~padding])


@pytest.mark.parametrize(
    "geometry",
    [
        {"kernel_size": 3, "padding": "same", "padding_mode": "circular"},
        {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "bias": False},
    ],
)
def test_geometry_place_dtype_and_mode_are_kept(geometry):
    """With all weights 1 and D = n_in a layer and its conversion compute the same."""
    dense = nn.Conv2d(4, 6, **geometry, dtype=torch.float64).eval()
    sparse = expand_model(dense, 1, keep=())
    assert (type(sparse), sparse.weight.dtype, sparse.training) == (ExpanderConv2d, torch.float64, False)
    assert expand_model(copy.deepcopy(dense).to("meta"), 1, keep=()).weight.is_meta
    for parameter in (*dense.parameters(), *sparse.parameters()):
        nn.init.ones_(parameter)
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(sparse(x), dense(x))
    torch.testing.assert_close(to_dense(sparse)(x), dense(x))


def test_graph_and_init_reach_every_layer():
    model = expand_model(Plain(), 2, graph="matchings", init="sparse-aware")
    assert {(m.construction, m.init) for m in expanders(model).values()} == {("matchings", "sparse-aware")}


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"keep": ["first", "blok"]}, "keep names 'blok', and the model has no such module"),
        ({"compression": 9}, r"Layer 'block\.0': compression 9 does not fit .* add its name to keep\.$"),
        ({"compression": 0}, r"Layer 'block\.0': compression 0 does not fit"),
        ({"seed": -1}, "^(graph )?seed must be a whole number >= 0, not -1"),
        ({"graph": "ring"}, "^Unknown graph 'ring'"),
        ({"init": "zero"}, "^Unknown initialisation 'zero'"),
    ],
)
def test_what_cannot_be_converted_is_refused(how, says):
    with pytest.raises(XNetsError, match=says):
        expand_model(Plain(), **{"compression": 2, **how})
