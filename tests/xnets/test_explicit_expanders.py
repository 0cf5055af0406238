"""Explicit expanders: the numbers and permutations they are made of, their known spectra, and how they are fitted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.xnets.graph_cases import seeds
from xnets import XNetsError
from xnets.graphs import lps_graph, sample_graph, sigma_ratio
from xnets.graphs.explicit import _apart, _margulis_moves, first_return
from xnets.graphs.numbers import inverses, is_prime, powers, primitive_root
from xnets.graphs.ramanujan import _line_moves, quaternions
from xnets.seeds import derive_seed

EXPLICIT = ("ramanujan", "margulis", "cayley", "paley", "zig-zag")


def adjacency(moves, n):
    """(n, n) how many of these permutations take each point to each other."""
    matrix = np.zeros((n, n))
    for move in moves:
        matrix[np.arange(n), move] += 1
    return matrix


def singular(matrix):
    """Its singular values, falling."""
    return np.linalg.svd(matrix, compute_uv=False)


@given(st.integers(2, 300))
def test_numbers(n):
    assert is_prime(n) == all(n % d for d in range(2, n))
    if is_prime(n):
        g = primitive_root(n)
        order = [pow(g, k, n) for k in range(n - 1)]
        assert sorted(order) == list(range(1, n))
        assert powers(g, n).tolist() == order
        assert (inverses(n)[1:] * np.arange(1, n) % n == 1 % n).all()
        assert inverses(n)[0] == 0
    assert not is_prime(1)


@given(st.permutations(range(12)), st.integers(1, 12))
def test_first_return_follows_the_permutation(move, n):
    expected = []
    for x in range(n):
        x = move[x]
        while x >= n:
            x = move[x]
        expected.append(x)
    assert first_return(np.array(move), n).tolist() == expected
    assert sorted(expected) == list(range(n))


@pytest.mark.parametrize("p", [5, 13, 17, 29, 37, 101])
def test_there_are_p_plus_1_quaternions_with_their_conjugates(p):
    found = quaternions(p)
    assert len(set(found)) == len(found) == p + 1  # Jacobi
    for (a, b, c, d), conjugate in zip(found[::2], found[1::2], strict=True):
        assert (a * a + b * b + c * c + d * d, a % 2, a > 0) == (p, 1, True)
        assert conjugate == (a, -b, -c, -d)


@pytest.mark.parametrize(("p", "q", "bipartite"), [(5, 13, True), (17, 13, False)])
def test_lps_graphs_are_ramanujan(p, q, bipartite):
    """Both cases: p a square modulo q and not. One trivial singular value, the others at most 2 sqrt(p)."""
    graph = lps_graph(p, q)
    assert graph.n_in == graph.n_out == q * (q * q - 1) // 2
    assert graph.degree == p + 1
    assert not graph.has_double_edges
    assert (graph.out_degrees == p + 1).all()
    values = singular(graph.to_mask().astype(float))
    assert values[0] == pytest.approx(p + 1)
    assert values[1] <= 2 * np.sqrt(p)
    assert (pow(p, (q - 1) // 2, q) == q - 1) == bipartite
    mask = graph.to_mask()
    assert (mask == mask.T).all() != bipartite  # a double cover's edges are those of one graph, both ways


@pytest.mark.parametrize(("p", "q"), [(5, 5), (13, 5), (7, 13), (5, 11), (5, 21), (9, 13)])
def test_primes_that_make_no_lps_graph_are_refused(p, q):
    with pytest.raises(XNetsError, match=rf"two primes that are 1 modulo 4 with q > 2 sqrt\(p\), not {p} and {q}"):
        lps_graph(p, q)


@pytest.mark.parametrize(("q", "degree"), [(13, 6), (101, 14), (101, 18), (197, 30), (509, 6)])
def test_lps_quotients_on_the_line_are_ramanujan(q, degree):
    moves = [move for move, _ in zip(_line_moves(q + 1, degree, 0), range(degree), strict=False)]
    matrix = adjacency(moves, q + 1)
    assert (matrix == matrix.T).all()
    values = np.sort(abs(np.linalg.eigvalsh(matrix)))[::-1]
    assert values[0] == pytest.approx(degree)
    assert values[1] <= 2 * np.sqrt(degree - 1)


@pytest.mark.parametrize("m", [2, 5, 12, 20])
def test_gabber_and_galils_bound_holds(m):
    moves = _margulis_moves(m * m, 8, 0)
    matrix = adjacency([next(moves) for _ in range(8)], m * m)
    assert (matrix == matrix.T).all()
    assert singular(matrix)[1] <= 5 * np.sqrt(2)
    x, y = 1, m - 1  # by the definition
    for u, v in ((x + 2 * y, y), (x + 2 * y + 1, y), (x, y + 2 * x), (x, y + 2 * x + 1)):
        assert matrix[x * m + y, u % m * m + v % m] >= 1
    moves = _margulis_moves(m * m, 64, 0)
    squared = adjacency([next(moves) for _ in range(64)], m * m)
    assert (squared == matrix @ matrix).all()


@given(st.integers(2, 60), st.data(), seeds)
def test_cayley_graphs_are_circulants_with_their_fourier_spectrum(n, data, seed):
    degree = data.draw(st.integers(1, n // 2))
    graph = sample_graph("cayley", n, n, degree, seed)
    assert (graph.out_degrees == degree).all()
    stream = np.random.PCG64(derive_seed(seed, "generators"))
    generators = np.argsort(stream.random_raw(n), kind="stable")[:degree]
    fourier = np.sort(abs(np.fft.fft(np.isin(np.arange(n), generators))))[::-1]
    assert sigma_ratio(graph) == pytest.approx(fourier[1] / degree, abs=1e-6)


@pytest.mark.parametrize("q", [13, 29, 61, 101, 509])
def test_paley_graphs_have_the_spectrum_of_paley(q):
    """Gauss: (sqrt(q) + 1) / 2, and for fourth powers at most (3 sqrt(q) + 1) / 4."""
    graph = sample_graph("paley", q, q, (q - 1) // 2, 0)
    assert sigma_ratio(graph) == pytest.approx((np.sqrt(q) + 1) / 2 / graph.degree)
    quarter = sample_graph("paley", q, q, (q - 1) // 4, 0)
    assert sigma_ratio(quarter) <= (3 * np.sqrt(q) + 1) / 4 / quarter.degree


@pytest.mark.parametrize(("r", "d"), [(7, 2), (10, 3), (16, 4)])
def test_a_zig_zag_product_has_the_sigma_of_its_small_graph(r, d):
    """lambda(G z H) <= lambda(G) + lambda(H) + lambda(H)^2, and with G complete it is lambda(H)."""
    small = _apart(r, derive_seed(9, "H"))
    h = adjacency([next(small) for _ in range(d)], r)
    assert h.max() == 1
    graph = sample_graph("zig-zag", r * r, r * r, d * d, 9)
    assert (graph.out_degrees == d * d).all()
    assert sigma_ratio(graph) == pytest.approx(singular(h)[1] / d, abs=1e-6)


@pytest.mark.parametrize("name", EXPLICIT)
@pytest.mark.parametrize("size", [(96, 96, 12), (96, 40, 12), (40, 96, 12), (97, 97, 70), (100, 50, 49)])
def test_fitted_expanders_expand(name, size):
    """Whatever was fitted: far from disconnected, and no input has far from its share of edges."""
    n_in, n_out, degree = size
    graph = sample_graph(name, n_in, n_out, degree, 1)
    assert sigma_ratio(graph) < (0.9 if name in ("margulis", "zig-zag") else 0.75)
    share = n_out * degree / n_in
    assert share / 3 < graph.out_degrees.min()
    assert graph.out_degrees.max() < 2 * share


@pytest.mark.parametrize("name", EXPLICIT)
def test_few_outputs_leave_no_input_out(name):
    """Where random graphs, of the same edges, leave some hundred without an output."""
    graph, random = (sample_graph(kind, 2000, 500, 10, 0) for kind in (name, "random"))
    assert graph.out_degrees.min() > 0
    assert (random.out_degrees == 0).sum() > 100
    assert sigma_ratio(graph, normalised=True) < sigma_ratio(random, normalised=True) + 0.03


@pytest.mark.parametrize("name", EXPLICIT)
def test_above_half_of_the_inputs_a_graph_is_the_complement_of_one_below(name):
    many, few = (sample_graph(name, 30, 24, degree, 2).to_mask() for degree in (21, 9))
    assert (many == ~few).all()


@pytest.mark.parametrize("name", EXPLICIT)
def test_the_seed_renames_channels_and_keeps_the_spectrum(name):
    if name in ("cayley", "zig-zag"):  # their generators, their small graph are the seed's too
        assert len({sample_graph(name, 50, 50, 6, seed).hash for seed in range(10)}) == 10
        return
    graphs = [sample_graph(name, 50, 50, 6, seed) for seed in range(5)]
    assert len(set(graphs)) == 5
    values = [singular(graph.to_mask().astype(float)) for graph in graphs]
    for other in values[1:]:
        assert other == pytest.approx(values[0], abs=1e-6)
