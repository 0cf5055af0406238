"""Figs. 1 and 2: the graphs they show are real, and what they say of them is true."""

import networkx
import numpy as np
import pytest
from scipy.signal import correlate2d

from paper_figures import figure1, figure2
from xnets.graphs import grouped_graph, random_expander


@pytest.fixture(scope="module")
def drawn1():
    return figure1.draw()


@pytest.fixture(scope="module")
def drawn2():
    return figure2.draw()


def paths_of(edges) -> networkx.DiGraph:
    """The network of the data as a directed graph of (row of channels, channel)."""
    graph = networkx.DiGraph()
    graph.add_nodes_from((level, channel) for level in range(figure1.LAYERS + 1) for channel in range(figure1.CHANNELS))
    graph.add_edges_from(((e.layer, e.input), (e.layer + 1, e.output)) for e in edges.itertuples())
    return graph


def test_reach_is_what_networkx_finds(drawn1):
    for name, edges in drawn1[1].groupby("network"):
        graph, top = paths_of(edges), figure1.LAYERS
        joined = [
            (o, i) for o in range(figure1.CHANNELS) for i in range(figure1.CHANNELS)
            if networkx.has_path(graph, (0, i), (top, o))
        ]  # fmt: skip
        found = figure1.reach(figure1.networks(figure1.SEED)[name])
        assert [tuple(pair) for pair in np.argwhere(found)] == joined
        assert set(edges["pairs_connected"]) == {100 * len(joined) / figure1.CHANNELS**2}
        seen = networkx.ancestors(graph, (top, figure1.MARKED)) | {(top, figure1.MARKED)}
        assert [(e.layer + 1, e.output) in seen for e in edges.itertuples()] == list(edges["seen"])


def test_all_three_networks_have_the_same_number_of_edges_in_each_layer(drawn1):
    sizes = drawn1[1].groupby(["network", "layer"]).size()
    assert set(sizes) == {figure1.CHANNELS * figure1.DEGREE}
    assert len(sizes) == 3 * figure1.LAYERS


def test_edges_are_those_of_the_graphs_named(drawn1):
    edges = drawn1[1].set_index("network")
    for layer in range(figure1.LAYERS):
        seed = 100 * figure1.SEED + layer
        expected = {
            "expander": random_expander(12, 12, 3, seed), "groups": grouped_graph(12, 12, 4),
        }  # fmt: skip
        for name, graph in expected.items():
            some = edges.loc[name]
            some = some[some["layer"] == layer]
            assert list(zip(some["output"], some["input"], strict=True)) == [
                tuple(e) for e in np.argwhere(graph.to_mask())
            ]
        weights = np.abs(np.random.default_rng(seed).standard_normal((12, 12)))
        largest = {tuple(np.unravel_index(at, weights.shape)) for at in np.argsort(weights, axis=None)[-36:]}
        some = edges.loc["pruned"]
        some = some[some["layer"] == layer]
        assert set(zip(some["output"], some["input"], strict=True)) == largest


def test_the_means_are_over_many_networks_and_the_drawn_ones_are_typical(drawn1):
    shares = {name: [] for name in ("groups", "pruned", "expander")}
    for seed in range(1, figure1.DRAWS + 1):
        for name, network in figure1.networks(seed).items():
            product = np.linalg.multi_dot([graph.to_mask().astype(float) for graph in reversed(network)])
            shares[name].append(100 * (product > 0).mean())
    for name, edges in drawn1[1].groupby("network"):
        assert list(edges["mean_pairs_connected"]) == pytest.approx([np.mean(shares[name])] * len(edges))
        assert edges["pairs_connected"].iloc[0] == pytest.approx(np.mean(shares[name]), abs=2)


def test_what_figure1_says_is_what_its_data_say(drawn1):
    figure, edges = drawn1
    for axes, name in zip(figure.axes, ("groups", "pruned", "expander"), strict=True):
        some = edges[edges["network"] == name]
        inputs = some[(some["layer"] == 0) & some["seen"]]["input"].nunique()
        degrees = some.groupby(["layer", "output"]).size().reindex(
            [(layer, o) for layer in range(3) for o in range(12)], fill_value=0
        )  # fmt: skip
        said = axes.get_xlabel()
        assert f"sees {inputs} of the network's 12 inputs" in said
        assert f"{some['pairs_connected'].iloc[0]:.0f}" in said
        assert f"(mean of 200 such networks: {some['mean_pairs_connected'].iloc[0]:.0f} %)" in said
        low, high = degrees.min(), degrees.max()
        assert said.startswith(f"{low} to {high} inputs" if high > low else f"{low} inputs")
    assert f"{100 * figure1.SEED} to {100 * figure1.SEED + 2}" in figure.get_supxlabel()


def test_figure2_shows_the_indices_of_its_graph(drawn2):
    figure, slices = drawn2
    graph = random_expander(figure2.CHANNELS, figure2.CHANNELS, figure2.DEGREE, figure2.SEED)
    written = [text.get_text() for text in figure.axes[0].texts]
    for v in figure2.SHOWN:
        some = slices[slices["output"] == v]
        assert list(some["input"]) == graph.neighbours[v].tolist()
        assert list(some["slot"]) == list(range(figure2.DEGREE))
        assert f"$v={v}$:\n$N(v)=\\{{{', '.join(map(str, graph.neighbours[v]))}\\}}$" in written
    boxes = [text for text in written if text.isdigit()]
    assert sorted(boxes) == sorted([*map(str, range(8)), *map(str, slices["input"])])
    assert any(f"seed={figure2.SEED}" in text for text in written)


def test_figure2_computes_the_layers_dense_convolution(drawn2):
    graph, images, kernels = figure2.layer()
    shown = [image.get_array() for image in drawn2[0].axes[0].images]
    for place, v in enumerate(figure2.SHOWN):
        dense = np.zeros((figure2.CHANNELS, figure2.TAPS, figure2.TAPS))
        dense[graph.neighbours[v]] = kernels[v]
        expected = sum(correlate2d(image, k, mode="same") for image, k in zip(images, dense, strict=True))
        assert figure2.convolve(images[graph.neighbours[v]], kernels[v]) == pytest.approx(expected)
        of_output = shown[figure2.CHANNELS + place * (2 * figure2.DEGREE + 1) :][: 2 * figure2.DEGREE + 1]
        assert np.asarray(of_output[-1]) == pytest.approx(expected)
        assert np.array_equal(of_output[0], images[graph.neighbours[v][0]])
        assert np.array_equal(of_output[1], kernels[v, 0])
    weights = drawn2[1].filter(regex=r"^k\d\d$").to_numpy().reshape(len(figure2.SHOWN), figure2.DEGREE, 3, 3)
    assert np.array_equal(weights, kernels[list(figure2.SHOWN)])
