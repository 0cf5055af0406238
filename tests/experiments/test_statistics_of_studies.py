"""Variance components and rank correlations against answers that are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from experiments.statistics import rank_correlation
from experiments.variance import split_variance
from xnets.errors import XNetsError


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch):
    """Hundreds of tables are split here: 2,000 draws for each are enough to count how often intervals cover."""
    monkeypatch.setattr("experiments.variance.DRAWS", 2000)


def simulated(rng, graphs, trains, graph_sd, train_sd, rest_sd):
    return (
        90 + graph_sd * rng.normal(size=(graphs, 1)) + train_sd * rng.normal(size=(1, trains))
        + rest_sd * rng.normal(size=(graphs, trains))
    )  # fmt: skip


def test_a_table_split_by_hand():
    found = split_variance([[1, 2, 6], [3, 8, 10]])
    # means 5; rows 3, 7; columns 2, 5, 8; residuals +-1, -+1, 0
    assert [c.df for c in found.components] == [1, 2, 2]
    assert [c.mean_square for c in found.components] == pytest.approx([24, 18, 2])
    assert [c.variance for c in found.components] == pytest.approx([22 / 3, 8, 2])
    assert found.graph.share == pytest.approx((22 / 3) / (22 / 3 + 10))
    assert found.graph.p == pytest.approx(stats.f.sf(12, 1, 2))
    assert found.rest.p is None
    low, high = 4 / stats.chi2.ppf([0.975, 0.025], 2)
    assert (found.rest.low, found.rest.high) == (pytest.approx(low), pytest.approx(high))


def test_the_estimates_are_unbiased():
    rng = np.random.default_rng(1)
    tables = [simulated(rng, 4, 5, 2.0, 1.0, 0.5) for _ in range(600)]
    y = np.mean([_variances(table) for table in tables], axis=0)
    assert y == pytest.approx([4.0, 1.0, 0.25], rel=0.15)


def _variances(table):
    """The estimates alone, by another way: from covariances of rows and of columns."""
    found = split_variance(table)
    covered = np.cov(table)  # of rows over train seeds: off the diagonal only the trains' variance is shared
    assert found.train.variance == pytest.approx(covered[np.triu_indices(len(covered), 1)].mean())
    assert found.graph.variance == pytest.approx(np.cov(table.T)[np.triu_indices(table.shape[1], 1)].mean())
    return [c.variance for c in found.components]


@pytest.mark.parametrize("sds", [(2.0, 1.0, 0.5), (0.0, 1.0, 1.0), (0.5, 0.5, 2.0)])
def test_the_intervals_cover_at_least_as_often_as_they_say(sds):
    rng, total = np.random.default_rng(2), sum(sd**2 for sd in sds)
    found = [split_variance(simulated(rng, 4, 4, *sds)) for _ in range(400)]
    for i, sd in enumerate(sds):
        parts = [split.components[i] for split in found]
        assert np.mean([part.low <= sd**2 <= part.high for part in parts]) >= 0.92
        assert np.mean([part.share_low <= sd**2 / total <= part.share_high for part in parts]) >= 0.92


def test_a_source_that_is_not_there_is_rarely_found():
    rng = np.random.default_rng(3)
    chances = [split_variance(simulated(rng, 4, 4, 0, 1, 1)).graph.p for _ in range(300)]
    assert np.mean(np.array(chances) < 0.05) == pytest.approx(0.05, abs=0.03)


def test_equal_numbers_and_pure_effects():
    same = split_variance([[50.1] * 3] * 4)
    assert [(c.variance, c.low, c.high, c.share) for c in same.components] == [(0, 0, 0, None)] * 3
    graph_alone = split_variance([[50.1] * 3, [51.7] * 3])
    assert graph_alone.graph.share == 1
    assert graph_alone.train.variance == graph_alone.rest.variance == 0
    assert graph_alone.graph.p is None


@pytest.mark.parametrize("table", [[], [[1, 2]], [[1], [2]], [[1, 2], [1, 2, 3]]])
def test_what_is_not_crossed_is_refused(table):
    with pytest.raises(XNetsError, match="at least 2 graph seeds"):
        split_variance(table)


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=4, max_size=20))
def test_rho_is_that_of_scipy(pairs):
    x, y = zip(*pairs, strict=True)
    found = rank_correlation(x, y)
    if min(len(set(x)), len(set(y))) == 1:
        assert found.rho is None
        return
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert -1 - 1e-12 <= found.low <= found.rho <= found.high <= 1 + 1e-12


def test_the_interval_of_rho_by_hand():
    x, y = range(8), [1, 0, 3, 2, 4, 6, 5, 7]
    found = rank_correlation(x, y)
    assert found.rho == pytest.approx(1 - 6 * 6 / (8 * 63))
    half = 1.959964 * np.sqrt((1 + found.rho**2 / 2) / 5)
    assert (found.low, found.high) == (
        pytest.approx(np.tanh(np.arctanh(found.rho) - half), abs=1e-6),
        pytest.approx(np.tanh(np.arctanh(found.rho) + half), abs=1e-6),
    )


def test_perfect_order_is_not_certain():
    found = rank_correlation(range(8), range(8))
    assert found.rho == pytest.approx(1)
    assert 0.8 < found.low < 0.97
    assert found.high == pytest.approx(1, abs=0.01)
    mirrored = rank_correlation(range(8), range(8)[::-1])
    assert (mirrored.low, mirrored.high) == (pytest.approx(-found.high), pytest.approx(-found.low))


@pytest.mark.parametrize("r", [0.0, 0.6])
def test_the_interval_of_rho_covers(r):
    rng = np.random.default_rng(4)
    true = 6 / np.pi * np.arcsin(r / 2)
    draws = [rank_correlation(*rng.multivariate_normal([0, 0], [[1, r], [r, 1]], 8).T) for _ in range(2000)]
    assert 0.92 <= np.mean([draw.low <= true <= draw.high for draw in draws]) <= 0.99


def test_too_few_pairs():
    assert rank_correlation([1, 2, 3], [1, 3, 2]).low is None
    with pytest.raises(XNetsError, match="pairs"):
        rank_correlation([1], [])


def test_numbers_that_are_none_are_refused():
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(XNetsError, match="of finite numbers"):
            rank_correlation([1, 2, wrong], [1, 2, 3])
        with pytest.raises(XNetsError, match="of finite numbers"):
            split_variance([[1, 2], [3, wrong]])
