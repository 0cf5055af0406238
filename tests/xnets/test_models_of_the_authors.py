"""The authors' rule: the layers that their logs print."""

from collections import Counter

import pytest
from torch import nn

from tests.xnets.networks import dense_convs, expanders, full, weighted
from tests.xnets.paper import rows
from xnets.layers import ExpanderConv2d, ExpanderLinear
from xnets.models import PAPER_MODELS, build, parse_name


def logged_networks() -> list:
    logs = [log for log in rows("author_logs.csv") if log["n_Conv2d_printed"]]
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
