"""experiments.statistics against numpy and scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from experiments.statistics import binomial_se, summarise
from xnets.errors import XNetsError

ACCURACIES = st.lists(st.floats(0, 100), min_size=2, max_size=30)


@given(ACCURACIES)
def test_summary_is_that_of_numpy_and_scipy(values):
    found = summarise(values)
    assert found.n == len(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.sd == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    assert (found.min, found.max) == (min(values), max(values))
    if np.ptp(values) > 1e-6:
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


@given(st.floats(0, 100), st.integers(2, 20))
def test_equal_values_have_an_interval_without_width(value, n):
    found = summarise([value] * n)
    assert (found.sd, found.low, found.high) == (0, found.mean, found.mean)


@given(st.floats(0, 100))
def test_one_run_has_neither_deviation_nor_interval(value):
    found = summarise([value])
    assert (found.n, found.mean, found.sd, found.low, found.high) == (1, value, None, None, None)


@given(ACCURACIES, st.randoms())
def test_order_does_not_matter(values, random):
    mixed = values[:]
    random.shuffle(mixed)
    assert summarise(values) == summarise(mixed)


def test_another_confidence():
    low, high = stats.t.interval(0.9, 2, 2, stats.sem([1, 2, 3]))
    found = summarise([1, 2, 3], 0.9)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for n in (2, 5, 10):
        draws = [summarise(list(rng.normal(93, 0.2, n))) for _ in range(2000)]
        assert np.mean([draw.low <= 93 <= draw.high for draw in draws]) == pytest.approx(0.95, abs=0.015)


@given(st.floats(0, 1), st.integers(1, 50_000))
def test_binomial_error_is_that_of_scipy(share, n):
    assert binomial_se(100 * share, n) == pytest.approx(100 * stats.binom(n, share).std() / n, abs=1e-9)


def test_the_error_of_94_percent_on_cifar_is_a_quarter_point():
    assert binomial_se(94, 10_000) == pytest.approx(0.24, abs=0.005)


@pytest.mark.parametrize("call", [lambda: summarise([]), lambda: binomial_se(101, 10), lambda: binomial_se(50, 0)])
def test_what_cannot_be_summarised_is_refused(call):
    with pytest.raises(XNetsError):
        call()
