"""Gaps of many random graphs at once against one graph at a time, and what is proved of them against what they do."""

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xnets.errors import XNetsError
from xnets.graphs import BipartiteGraph, random_expander, sample_graph, sigma_ratio
from xnets.graphs.measures import ensemble, layers_until_all
from xnets.graphs.measures.ensemble import random_rows, sampled_gaps
from xnets.graphs.measures.tails import (
    chernoff_probability,
    chernoff_ratio,
    dead_inputs_expected,
    lost_share,
    typical_ratio,
    vadhan_set_size,
)
from xnets.seeds import derive_seed

SHAPES = [(12, 24, 6), (24, 12, 5), (64, 64, 4), (64, 64, 64), (90, 60, 11), (50, 120, 25), (600, 240, 300)]


@pytest.mark.parametrize("shape", SHAPES)
def test_each_ratio_is_that_of_its_graph(shape):
    n_in, n_out, degree = shape
    count = max(1, min(ensemble.AT_ONCE // (n_in * n_out), 20))
    sample = sampled_gaps(*shape, count)
    stream = np.random.PCG64(derive_seed(0, "graphs", *shape))
    masks = random_rows(stream, count * n_out, n_in, degree).reshape(count, n_out, n_in)
    assert (masks.sum(axis=2) == degree).all()
    graphs = [BipartiteGraph.from_mask(mask) for mask in masks]
    assert sample.ratios == pytest.approx([sigma_ratio(graph) for graph in graphs], rel=1e-3, abs=1e-3)
    assert sample.dead_inputs.tolist() == [int((graph.out_degrees == 0).sum()) for graph in graphs]


def test_large_shapes_go_one_by_one(monkeypatch):
    monkeypatch.setattr(ensemble, "SPARSE", 50)
    sample = sampled_gaps(80, 60, 7, 3, seed=5)
    graphs = [random_expander(80, 60, 7, derive_seed(5, "graph", i)) for i in range(3)]
    assert sample.ratios == pytest.approx([sigma_ratio(graph) for graph in graphs])


@pytest.mark.parametrize("shape", [(12, 24, 6), (40, 30, 4)])
def test_they_follow_the_law_of_random_expander(shape):
    sample = sampled_gaps(*shape, 2000)
    graphs = [random_expander(*shape, seed) for seed in range(2000)]
    for ours, theirs in (
        (sample.ratios, [sigma_ratio(graph) for graph in graphs]),
        (sample.dead_inputs, [(graph.out_degrees == 0).sum() for graph in graphs]),
    ):
        error = np.hypot(np.std(ours), np.std(theirs)) / np.sqrt(2000)
        assert abs(np.mean(ours) - np.mean(theirs)) < 4 * error + 1e-12
    error = sample.dead_inputs.std() / np.sqrt(2000)
    assert sample.dead_inputs.mean() == pytest.approx(dead_inputs_expected(*shape), abs=4 * error + 1e-3)


def test_a_row_with_a_tie_is_drawn_again():
    class Stream:
        calls = 0

        def random_raw(self, n):
            self.calls += 1
            return np.zeros(n, np.uint64) if self.calls == 1 else np.random.PCG64(self.calls).random_raw(n)

    stream = Stream()
    rows = random_rows(stream, 5, 8, 3)
    assert stream.calls == 2
    assert (rows.sum(axis=1) == 3).all()


def test_samples_are_the_same_every_time_and_follow_the_seed():
    first, again, other = (sampled_gaps(30, 40, 5, 50, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.ratios, again.ratios)
    assert not set(first.ratios) & set(other.ratios)
    assert sampled_gaps(5, 1, 2, 4).ratios.tolist() == [0, 0, 0, 0]
    for wrong in ((5, 5, 6, 1), (5, 0, 1, 1), (5, 5, 2, 0)):
        with pytest.raises(XNetsError):
            sampled_gaps(*wrong)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_chernoff_bound_holds_and_rests_on_what_it_says(shape):
    n_in, _, degree = shape
    if degree == n_in:
        assert chernoff_probability(*shape, 0.01) == 0
        return
    ratios = sampled_gaps(*shape, 200).ratios
    for ratio in np.quantile(ratios, [0, 0.5, 0.9, 1]):
        assert (ratios >= ratio).mean() <= chernoff_probability(*shape, float(ratio))
    for probability in (0.5, 1e-4, 1e-12):
        ratio = chernoff_ratio(*shape, probability)
        assert chernoff_probability(*shape, ratio) == pytest.approx(probability, rel=1e-6)
    centred = random_rows(np.random.PCG64(3), 3000, n_in, degree) - degree / n_in
    assert abs(centred.sum(axis=1)).max() < 1e-3
    length = degree * (1 - degree / n_in)
    assert (centred**2).sum(axis=1) == pytest.approx(length, rel=1e-4)
    products = centred.T @ centred / 3000
    expected = length / (n_in - 1) * (np.eye(n_in) - 1 / n_in)
    assert abs(products - expected).max() < 6 * 0.25 / np.sqrt(3000)


def test_the_typical_ratio_is_where_large_graphs_are():
    for shape in ((600, 240, 75), (240, 240, 120), (300, 600, 30)):
        assert sampled_gaps(*shape, 10).ratios.mean() == pytest.approx(typical_ratio(*shape), rel=0.03)


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 6), st.integers(10**5, 10**6), st.floats(0.5, 2))
def test_the_cited_theorem_by_its_own_union_bound(degree, n_in, shape):
    n_out = int(n_in * shape)
    largest = int(vadhan_set_size(n_in, n_out, degree))
    fails = sum(
        comb(n_out, k) * comb(degree * k, 2 * k) * degree**(2 * k) * k**(2 * k) / n_in**(2 * k)
        for k in range(1, min(largest, 60) + 1)
    )  # fmt: skip
    assert fails <= 0.5
    assert largest >= 1 or n_in**2 < n_out * np.e**3 * degree**4


def test_inputs_are_lost_as_a_family_dies_out():
    for degree in (1.5, 2, 4):
        q = lost_share(degree)
        assert 0 < q < 1
        assert q == pytest.approx(np.exp(-degree * (1 - q)))
    assert lost_share(0.5) == pytest.approx(1)
    assert lost_share(16) == pytest.approx(np.exp(-16), rel=1e-4)
    assert lost_share(2, 100, 200) == lost_share(4)
    n, stack = 2000, [sample_graph("random", 2000, 2000, 2, seed) for seed in range(25)]
    alive = np.ones(n, dtype=bool)  # by following outputs down
    for graph in reversed(stack):
        alive = np.isin(np.arange(n), graph.indices[alive[graph.outputs]])
    assert 1 - alive.mean() == pytest.approx(lost_share(2), abs=0.04)
    assert layers_until_all(stack, 200) is None
