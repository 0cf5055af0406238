"""The networks: the layers each is made of, against the paper's words, the authors' logs and torchvision; bad input."""

import csv
import math
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import torch
import torchvision.models as tv
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from xnets.errors import XNetsError
from xnets.layers import ExpanderConv2d, ExpanderLayer, ExpanderLinear
from xnets.models import PAPER_MODELS, ModelSpec, build, build_spec, parse_name

PAPER = Path(__file__).parents[2] / "experiments" / "paper"


@cache
def full(name, rule="paper") -> nn.Module:
    """The full-size network, without values."""
    return build(name, rule=rule, device="meta")


def weighted(model) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear, ExpanderLayer))]


def expanders(model) -> list[ExpanderLayer]:
    return [m for m in model.modules() if isinstance(m, ExpanderLayer)]


def hashes(model) -> list[str]:
    return [layer.graph.hash for layer in expanders(model)]


def dense_convs(model) -> list[tuple[str, nn.Conv2d]]:
    """Named convolutions that are neither expander nor depthwise or grouped."""
    return [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.groups == 1]


def sizes(layer) -> tuple[int, int]:
    return layer.weight.shape[1], layer.weight.shape[0]


# --- all networks ----------------------------------------------------------------------------------------------------


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


# --- the authors' rule -----------------------------------------------------------------------------------------------


def logged_networks() -> list:
    with (PAPER / "author_logs.csv").open(newline="") as file:
        logs = [log for log in csv.DictReader(file) if log["n_Conv2d_printed"]]
    return [pytest.param(log, id=log["log"]) for log in logs]


def network_of_log(log) -> str:
    c = "" if log["C"] == "1" else f"{log['C']}-"
    if log["family"] == "X-VGG16":
        return "X-VGG16-2"
    if log["family"] == "MobileNet":
        return "MobileNet-0.5"
    if "DenseNet" in log["family"]:
        growth = "" if log["dataset"].startswith("imagenet") else f"-{log['growth']}"
        return f"{log['family']}-{c}{log['depth']}{growth}"
    return "VGG16" if log["family"] == "VGG16" else f"{log['family']}-{c}{log['depth']}"


@pytest.mark.parametrize("log", logged_networks())
def test_authors_networks_print_the_layers_their_logs_print(log):
    name = network_of_log(log)
    assert name in PAPER_MODELS
    layers = Counter(type(m) for m in weighted(full(name, "authors")))
    printed = [int(log[f"n_{kind}_printed"]) for kind in ("ExpanderConv", "Conv2d", "ExpanderLinear")]
    assert [layers[kind] for kind in (ExpanderConv2d, nn.Conv2d, ExpanderLinear)] == printed


# facts.md section 4, item 3, written out
DENSE_TRANSITIONS = {
    "X-DenseNet-BC-2-40-24", "X-DenseNet-BC-2-40-36", *(f"X-DenseNet-BC-{c}-58-60" for c in (2, 4, 8, 16)),
    "X-DenseNet-BC-16-70-60", *(f"X-DenseNet-BC-2-{depth}" for depth in (121, 169, 201, 161)),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in PAPER_MODELS if name.startswith("X-DenseNet")])
def test_transitions_are_dense_where_the_authors_left_them_so(name):
    transitions = {  # outside the dense layers, and to half the channels
        key for key, m in dense_convs(full(parse_name(name).dense_twin))
        if ".body." not in key and m.in_channels == 2 * m.out_channels
    }  # fmt: skip
    assert len(transitions) == (2 if parse_name(name).image_size == 32 else 3)
    dense = {key for key, _ in dense_convs(full(name, "authors"))[1:]}
    assert dense == (transitions if name in DENSE_TRANSITIONS else set())


@pytest.mark.parametrize(("name", "shortcuts"), [("X-ResNet-2-34", 3), ("X-ResNet-2-50", 4), ("X-ResNet-2-101", 4)])
def test_shortcuts_are_dense_by_the_authors_and_sparse_by_the_paper(name, shortcuts):
    names = [key for key, _ in dense_convs(full(name, "authors"))[1:]]
    assert len(names) == shortcuts
    assert all(".shortcut." in key for key in names)
    assert len(dense_convs(full(name))) == 1


@pytest.mark.parametrize("g", [2, 4, 8, 16])
def test_the_authors_mobilenet_is_wider_and_each_input_draws(g):
    for rule, stem, last in (("authors", 32, 1024), ("paper", 16, 512)):
        layers = weighted(full("MobileNet-0.5", rule))
        assert (layers[0].out_channels, layers[-2].out_channels, layers[-1].in_features) == (stem, last, last)
    layers = expanders(build(f"X-MobileNet-0.5-{g}", rule="authors"))
    assert len(layers) == 12
    for layer in layers:
        assert (layer.graph.out_degrees == layer.n_out // g).all()
        assert layer.weight.shape == (layer.n_in * (layer.n_out // g), 1, 1)
    assert any(layer.graph.degree is None for layer in layers)


# --- seeds and sizes -------------------------------------------------------------------------------------------------

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


# --- initial weights -------------------------------------------------------------------------------------------------


def spread(layer) -> float:
    return layer.weight.detach().double().std(correction=0).item()


# the standard deviation of weights with that fan-in
STDS = {
    "torch": lambda fan: (3 * fan) ** -0.5,
    "sparse-aware": lambda fan: (2 / fan) ** 0.5,
}


@pytest.mark.parametrize("init", ["torch", "sparse-aware", "authors"])
@pytest.mark.parametrize("name", ["X-MobileNet-0.5-4", "G-MobileNet-0.5-4", "MobileNet-0.5"])
def test_convolutions_start_by_the_named_rule(name, init):
    torch.manual_seed(0)
    for layer in weighted(build(name, init=init))[:-1]:
        window = math.prod(layer.weight.shape[2:])
        fan = layer.weight.shape[1] * window
        if init != "authors":
            std = STDS[init](fan)
        elif isinstance(layer, ExpanderConv2d):
            std = (2 / (layer.n_out * window)) ** 0.5
        else:
            std = (3 * layer.in_channels * window) ** -0.5  # PyTorch 0.3's, which does not divide by the groups
        assert spread(layer) == pytest.approx(std, rel=5 / layer.weight.numel() ** 0.5)


def test_vgg_starts_by_he_at_the_true_fan_but_for_its_linear_layers():
    for name in ("VGG16", "X-VGG16-2"):
        torch.manual_seed(0)
        for layer in weighted(build(name, narrow=2)):
            fan = math.prod(layer.weight.shape[1:])
            std = STDS["sparse-aware" if layer.weight.dim() == 4 else "torch"](fan)
            assert spread(layer) == pytest.approx(std, rel=5 / layer.weight.numel() ** 0.5)
    assert ModelSpec("VGG16").init == "sparse-aware"
    assert {ModelSpec(name).init for name in PAPER_MODELS if "VGG" not in name} == {"torch"}


# --- torchvision -----------------------------------------------------------------------------------------------------

TWINS = {
    "ResNet-18": tv.resnet18, "ResNet-34": tv.resnet34, "ResNet-50": tv.resnet50, "ResNet-101": tv.resnet101,
    "ResNet-152": tv.resnet152, "DenseNet-BC-121": tv.densenet121, "DenseNet-BC-169": tv.densenet169,
    "DenseNet-BC-201": tv.densenet201, "DenseNet-BC-161": tv.densenet161, "AlexNet": tv.alexnet,
}  # fmt: skip


@pytest.mark.parametrize("name", TWINS)
def test_dense_networks_have_torchvisions_layers(name):
    with torch.device("meta"):
        theirs = TWINS[name]()

    def described(model):
        convs = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        geometry = [(tuple(m.weight.shape), getattr(m, "stride", 0), getattr(m, "padding", 0)) for m in convs]
        return Counter(geometry), sum(p.numel() for p in model.parameters())

    assert described(full(name)) == described(theirs)


def test_vgg16_has_torchvisions_convolutions():
    with torch.device("meta"):
        theirs = tv.vgg16_bn().features
    ours = full("VGG16").features
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]


@pytest.mark.parametrize("name", ["ResNet-18", "ResNet-34", "ResNet-50", "DenseNet-BC-121", "AlexNet"])
def test_with_torchvisions_weights_outputs_are_the_same(name):
    torch.manual_seed(0)
    theirs, ours = TWINS[name](num_classes=10).eval(), build(name, num_classes=10).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):  # norms that do something, each its own thing
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    values = list(theirs.state_dict().values())
    keys = list(ours.state_dict())
    assert len(keys) == len(values)
    ours.load_state_dict(dict(zip(keys, values, strict=True)))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


# --- names -----------------------------------------------------------------------------------------------------------


def written(parsed) -> str:
    """The name from its parts."""
    family = {"densenet": "DenseNet-BC", "resnet": "ResNet", "vgg": "VGG16", "alexnet": "AlexNet"}
    parts = [parsed.kind, family.get(parsed.family, "MobileNet-0.5"), parsed.compression, parsed.depth, parsed.growth]
    return "-".join(str(part) for part in (*parts, parsed.variant) if part)


@pytest.mark.parametrize("name", PAPER_MODELS)
def test_names_are_read_and_written(name):
    parsed = parse_name(name)
    assert written(parsed) == parsed.text == name
    cifar = re.fullmatch(r"(X-DenseNet-BC-\d+|DenseNet-BC)-\d+-\d+|(X-)?VGG16(-\d)?", name)
    assert (parsed.image_size, parsed.num_classes) == ((32, 10) if cifar else (224, 1000))
    twin = parse_name(parsed.dense_twin)
    assert (twin.kind, twin.compression, twin.variant) == ("", None, None)
    assert (twin.family, twin.depth, twin.growth) == (parsed.family, parsed.depth, parsed.growth)
    assert twin.dense_twin == twin.text
    assert twin.text in PAPER_MODELS
    assert weighted(full(name))[-1].weight.shape[0] == parsed.num_classes


NUMBERS = st.lists(st.sampled_from(["0", "02", "2", "24", "34", "40", "50", "121", "²"]), max_size=3)
FAMILIES = st.sampled_from(["ResNet", "DenseNet-BC", "MobileNet-0.5", "VGG16", "AlexNet"])


@given(st.sampled_from([[], ["X"], ["G"]]), FAMILIES, NUMBERS)
def test_a_network_has_one_spelling_or_none(kind, family, numbers):
    text = "-".join([*kind, family, *numbers])
    try:
        parsed = parse_name(text)
    except XNetsError:
        return
    assert written(parsed) == text


@given(st.text(max_size=30).filter(lambda text: text not in PAPER_MODELS))
def test_other_text_is_no_name(text):
    with pytest.raises(XNetsError, match="the nearest names are"):
        parse_name(text)


MISSPELT = {
    "x-resnet-2-50": "X-ResNet-2-50", "resnet50": "ResNet-50", "X-Resnet-2-34": "X-ResNet-2-34", "VGG-16": "VGG16",
    "alexnet": "AlexNet", "X-MobileNet-0.5_4": "X-MobileNet-0.5-4", "densenet121": "DenseNet-BC-121",
    "X-DenseNet-BC-40-24-2": "X-DenseNet-BC-2-40-24", "X-VGG16-3": "X-VGG16-2", "X-ResNet-50": "X-ResNet-2-50",
    "X-ResNet-0-50": "X-ResNet-2-50", "X-ResNet-02-50": "X-ResNet-2-50", "X-ResNet-2-50\n": "X-ResNet-2-50",
    "DenseNet-BC-41-24": "DenseNet-BC-40-24", "DenseNet-BC-4-12": "DenseNet-BC-40-24", 
    "DenseNet-BC-40-0": "DenseNet-BC-40-60",
    "DenseNet-BC-43-24": "DenseNet-BC-40-24", "DenseNet-BC-122": "DenseNet-BC-121",
    "X-ResNet-２-50": "X-ResNet-2-50", "": "X-ResNet-2-50",
    "G-ResNet-2-50": "X-ResNet-2-50",
}  # fmt: skip


@pytest.mark.parametrize("text", MISSPELT)
def test_unknown_names_suggest_the_nearest(text):
    with pytest.raises(XNetsError) as caught:
        build(text)
    assert MISSPELT[text] in re.split(", | are ", str(caught.value).rstrip("."))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rule": "head"}, "Unknown rule 'head'; there are paper, authors"),
        ({"graph": "expander"}, "Unknown graph 'expander'; there are random"),
        ({"graph": "expander", "device": "meta"}, "Unknown graph 'expander'"),
        ({"name": "ResNet-34", "graph": "expander"}, "Unknown graph 'expander'"),
        ({"init": "he"}, "Unknown initialisation 'he'; there are torch"),
        ({"name": "ResNet-34", "init": "he", "device": "meta"}, "Unknown initialisation 'he'"),
        ({"name": "X-MobileNet-0.5-64"}, "compression 64 does not fit a layer with fan-in 32"),
        ({"name": "X-DenseNet-BC-49-40-24", "device": "meta"}, "compression 49 does not fit a layer with fan-in 48"),
        ({"name": "G-MobileNet-0.5-3"}, "3 groups do not divide a layer of 32 inputs and 64 outputs"),
        ({"name": "G-MobileNet-0.5-64"}, "64 groups do not divide"),
        ({"name": "X-VGG16-1", "rule": "authors"}, "use rule='paper', or X-VGG16-2"),
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"num_classes": -1}, "num_classes must be at least 1, not -1"),
        ({"narrow": 0}, "narrow must be >= 1"),
        ({"drop_strides": -1}, "drop_strides >= 0"),
        ({"name": "ResNet-34", "narrow": 65}, "A layer of 64 channels cannot be narrowed 65 times"),
        ({"name": "DenseNet-BC-40-24", "narrow": 100}, "cannot be narrowed 100 times"),
        ({"name": "X-VGG16-2", "narrow": 17}, "cannot be narrowed 17 times"),
        ({"graph_seed": -1}, "must be a whole number >= 0, not -1"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_said(arguments, words):
    with pytest.raises(XNetsError, match=re.escape(words)):
        build(**{"name": "X-MobileNet-0.5-4"} | arguments)


def test_a_spec_says_what_its_defaults_are():
    assert ModelSpec("X-MobileNet-0.5-4", rule="authors").graph == "random-by-input"
    assert ModelSpec("X-ResNet-2-50", rule="authors").graph == "random"
    assert ModelSpec("X-MobileNet-0.5-4", rule="authors", graph="random").graph == "random"
    assert ModelSpec("VGG16") == ModelSpec("VGG16", 10, "paper", "random", "sparse-aware", 1, 0)
    spec = ModelSpec("X-DenseNet-BC-2-40-24", num_classes=100, narrow=8)
    assert hashes(build_spec(spec, 3)) == hashes(build("X-DenseNet-BC-2-40-24", 100, graph_seed=3, narrow=8))


def test_names_are_read_without_torch():
    code = """if True:
        import sys
        import xnets, xnets.models, xnets.models.names
        spec = xnets.models.ModelSpec("X-ResNet-2-50")
        assert spec.parsed.dense_twin in xnets.models.PAPER_MODELS
        print(sorted({"torch", "numpy", "torchvision"} & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
