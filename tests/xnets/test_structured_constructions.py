"""Draws from runs, groups, shuffled groups and butterflies, against the definitions they are named after."""

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.xnets.graph_cases import seeds, sizes
from xnets.graphs import grouped_graph, sample_graph
from xnets.graphs.measures import layers_until_all

# --- draws from runs ---


@given(sizes(most_in=40), seeds)
def test_stratified_outputs_have_one_input_of_each_run(size, seed):
    n_in, n_out, degree = size
    bounds = np.arange(degree + 1) * n_in // degree
    for name in ("stratified", "random-lift"):
        neighbours = sample_graph(name, n_in, n_out, degree, seed).neighbours
        assert (neighbours >= bounds[:-1]).all()
        assert (neighbours < bounds[1:]).all()


@given(st.integers(1, 12), st.integers(1, 20), st.integers(1, 4), seeds)
def test_two_of_four_and_two_of_2c(runs, n_out, c, seed):
    """At C = 2 NVIDIA's pattern: two of each four consecutive inputs."""
    graph = sample_graph("two-of-four", 2 * c * runs, n_out, 2 * runs, seed)
    counts = graph.to_mask().reshape(n_out, runs, 2 * c).sum(axis=2)
    assert (counts == 2).all()


def test_draws_from_runs_are_uniform():
    rows = 20_000
    one = sample_graph("stratified", 12, rows, 4, 0).to_mask().mean(axis=0)
    assert abs(one - 1 / 3).max() < 5 * np.sqrt(2 / 9 / rows)
    two = sample_graph("two-of-four", 4, rows, 2, 0).to_mask()
    pairs = (two.T.astype(float) @ two)[np.triu_indices(4, 1)] / rows
    assert abs(pairs - 1 / 6).max() < 5 * np.sqrt(5 / 36 / rows)
    odd = sample_graph("two-of-four", 10, rows, 5, 0).to_mask().mean(axis=0)  # 2 of 4, 2 of 4, 1 of 2
    assert abs(odd - 1 / 2).max() < 5 * np.sqrt(1 / 4 / rows)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 4), seeds)
def test_a_random_lift_is_one(degree, fibre, outputs, seed):
    """Projected on its runs it is the base, and between any two runs it is a matching."""
    graph = sample_graph("random-lift", degree * fibre, outputs * fibre, degree, seed)
    blocks = graph.to_mask().reshape(outputs, fibre, degree, fibre).transpose(0, 2, 1, 3)
    assert (blocks.sum(axis=2) == 1).all()
    assert (blocks.sum(axis=3) == 1).all()


# --- groups, shuffled groups, butterflies ---


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
def test_groups_that_divide_are_grouped_convolutions(groups, ins, outs):
    assert sample_graph("grouped", groups * ins, groups * outs, ins, 0) == grouped_graph(
        groups * ins, groups * outs, groups
    )


@given(sizes(most_in=40))
def test_groups_stay_apart_and_leave_nothing_out(size):
    n_in, n_out, degree = size
    groups = n_in // degree
    for name in ("grouped", "grouped-shuffled"):
        graph = sample_graph(name, n_in, n_out, degree, 0)
        parts = list(networkx.connected_components(networkx.Graph(graph.to_networkx())))
        fed = [part for part in parts if {side for side, _ in part} == {"in", "out"}]
        assert len(fed) == min(groups, n_out)
        if n_out >= n_in:  # each block has as many outputs as inputs, to take them in turn
            assert graph.out_degrees.min() > 0


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
def test_shuffled_groups_are_shufflenets_shuffle(groups, ins, outs):
    """Its reshape, transpose and flatten, on the rows of the grouped graph."""
    rows = torch.from_numpy(grouped_graph(groups * ins, groups * outs, groups).to_mask())
    shuffled = rows.reshape(groups, outs, groups * ins).transpose(0, 1).flatten(0, 1)
    graph = sample_graph("grouped-shuffled", groups * ins, groups * outs, ins, 0)
    assert (graph.to_mask() == shuffled.numpy()).all()


def test_two_shuffles_connect_what_groups_never_do():
    shuffled, plain = (sample_graph(name, 64, 64, 16, 0) for name in ("grouped-shuffled", "grouped"))
    assert layers_until_all([shuffled] * 5) == 2
    assert layers_until_all([plain] * 5) is None


@pytest.mark.parametrize(("digits", "log_block"), [(4, 0), (4, 1), (5, 2), (3, 3)])
def test_a_butterfly_is_the_sum_of_its_factors(digits, log_block):
    """Blocks that butterfly factors of every stride join, as a product of Kronecker powers."""
    n, block = 2**digits, 2**log_block
    blocks = digits - log_block
    eye, ones, swap = np.eye(2), np.ones((block, block)), np.ones((2, 2))
    expected = np.kron(np.eye(2**blocks), ones)
    for stride in range(blocks):
        factor = np.ones((1, 1))
        for k in range(blocks):
            factor = np.kron(factor, swap if k == stride else eye)
        expected = np.maximum(expected, np.kron(factor, ones))
    graph = sample_graph("butterfly", n, n, block * (1 + blocks), 0)
    assert (graph.to_mask() == (expected > 0)).all()
