"""Comparisons of two handfuls of runs: against scipy, against simulation, and what cannot be compared."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from experiments.comparisons import equivalence, spread_ratio, welch
from xnets.errors import XNetsError

RUNS = st.lists(st.integers(0, 1000).map(lambda n: n / 10), min_size=2, max_size=8).filter(lambda x: len(set(x)) > 1)


@given(RUNS, RUNS)
def test_welch_is_scipys(a, b):
    found, theirs = welch(a, b), stats.ttest_ind(a, b, equal_var=False)
    assert found.p == pytest.approx(theirs.pvalue, abs=1e-12)
    assert found.df == pytest.approx(theirs.df)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))


@given(RUNS, RUNS, st.floats(0.1, 50))
def test_equivalence_is_two_one_sided_tests(a, b, margin):
    p, low, high = equivalence(a, b, margin)
    above = stats.ttest_ind(np.array(a) + margin, b, equal_var=False, alternative="greater").pvalue
    below = stats.ttest_ind(np.array(a) - margin, b, equal_var=False, alternative="less").pvalue
    assert p == pytest.approx(max(above, below), abs=1e-9)
    if abs(p - 0.05) > 1e-6:
        assert (p < 0.05) == (-margin < low and high < margin)


@given(RUNS, RUNS)
def test_spread_is_scipys_f(a, b):
    value, low, high = spread_ratio(a, b)
    f, df = np.var(a, ddof=1) / np.var(b, ddof=1), (len(a) - 1, len(b) - 1)
    assert value == pytest.approx(math.sqrt(f))
    assert low == pytest.approx(math.sqrt(f / stats.f.ppf(0.975, *df)), rel=1e-6)
    assert high == pytest.approx(math.sqrt(f / stats.f.ppf(0.025, *df)), rel=1e-6)


@pytest.mark.parametrize(("n", "exact"), [(3, 0.12), (10, 0.03)])  # Welch's test is cautious where runs are few
def test_the_detectable_difference_is_found_in_four_of_five_cases(n, exact):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(4000, 2, n))
    t = stats.t.ppf(0.975, 2 * n - 2)
    nc = next(nc for nc in np.arange(0, 10, 0.001) if stats.nct.sf(t, 2 * n - 2, nc) >= 0.8)
    true = nc * math.sqrt(2 / n)
    found = [welch(first + true, second) for first, second in noise]
    assert np.mean([each.low > 0 for each in found]) == pytest.approx(0.8, abs=exact)
    same = welch([0, 1, 2] * (n // 3) + [1] * (n % 3), [0, 1, 2] * (n // 3) + [1] * (n % 3))
    assert same.detectable == pytest.approx(nc * same.se, rel=0.01)


@given(st.integers(2, 5), st.integers(2, 5), st.floats(-5, 5))
@settings(max_examples=20)
def test_runs_that_are_all_the_same(n, m, apart):
    found = welch([50 + apart] * n, [50.0] * m)
    assert (found.low, found.high) == (found.value, found.value)
    assert found.p == float(found.value == 0)
    assert equivalence([50 + apart] * n, [50.0] * m, 1.0)[0] == float(abs(found.value) >= 1)
    with pytest.raises(XNetsError, match="all the same"):
        spread_ratio([1.0] * n, [1.0, 2.0])


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: welch([1], [1, 2]), "at least 2 runs a side, not 1 and 2"),
        (lambda: welch([1, math.nan], [1, 2]), "of finite numbers"),
        (lambda: spread_ratio([1, 2], []), "at least 2 runs a side, not 2 and 0"),
        (lambda: equivalence([1, 2], [1, 2], 0), "more than 0 points, not 0"),
    ],
)
def test_what_cannot_be_compared(ask, says):
    with pytest.raises(XNetsError, match=says):
        ask()
