"""What is proved of the paper's random graphs (each output: D distinct inputs, uniformly), in numbers (section 5.4)."""

import numpy as np

from xnets.errors import XNetsError
from xnets.graphs.sampling import check_degree, check_sizes


def typical_ratio(n_in: int, n_out: int, degree: int) -> float:
    """The sigma2 / sigma1 that a random graph has in the limit of large sides and degrees.

    sigma2 is at the edge of the Marchenko-Pastur law, sqrt(n_in) + sqrt(n_out) times the root of D (n_in - D) / (n_in
    (n_in - 1)). sigma1 is above D sqrt(n_out / n_in), since some inputs have more outputs than others.
    """
    uneven = 1 + (n_in - degree) / (degree * n_out)  # the mean of the squared over the squared mean of the fan-outs
    return float((1 + np.sqrt(n_in / n_out)) * np.sqrt(_mean_square(n_in, n_out, degree) / uneven))


def chernoff_probability(n_in: int, n_out: int, degree: int, ratio: float) -> float:
    """No more than this share of random graphs have sigma2 / sigma1 >= `ratio`: the matrix Chernoff bound.

    An output's row of zeros and ones less D / n_in is orthogonal to the row of ones, has squared length R = D (1 - D /
    n_in), and its products average to (R / (n_in - 1)) times the identity of what is orthogonal to ones. The rows are
    independent, so (Tropp, User-friendly tail bounds, 2012, theorem 1.1) the sum of the products exceeds (1 + d) times
    its mean with probability at most (n_in - 1) (e^d / (1 + d)^(1 + d))^(n_out / (n_in - 1)). sigma2 is at most the
    root of that sum's norm, sigma1 at least D sqrt(n_out / n_in). Where n_out is about n_in the exponent is about 1,
    so the bound is not exponentially small in n.
    """
    check_sizes(n_in, n_out)
    check_degree(degree, n_in)
    if degree == n_in:
        return float(ratio <= 0)
    times = ratio**2 / _mean_square(n_in, n_out, degree)  # 1 + d
    if times <= 1:
        return 1.0
    log = np.log(n_in - 1) + n_out / (n_in - 1) * (times - 1 - times * np.log(times))
    return float(np.exp(min(log, 0.0)))


def chernoff_ratio(n_in: int, n_out: int, degree: int, probability: float) -> float:
    """The sigma2 / sigma1 that a random graph exceeds with no more than `probability` by that bound; may be above 1."""
    if not 0 < probability < 1:
        raise XNetsError(f"probability must lie between 0 and 1, not {probability}.")
    low, high = 0.0, 1.0
    while chernoff_probability(n_in, n_out, degree, high) > probability:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if chernoff_probability(n_in, n_out, degree, middle) > probability else (low, middle)
    return high


def vadhan_set_size(n_in: int, n_out: int, degree: int) -> float:
    """Up to sets of so many outputs does the theorem that the paper argues with promise |N(S)| >= (D - 2) |S|.

    Theorem 4.4 of Vadhan's survey (the paper's [9]): a random graph expands so, with probability at least 1/2, all sets
    of up to n / (e^3 D^4) vertices. Its proof bounds the probability for sets of size K by C(n_out, K) C(D K, 2 K)
    (D K / n_in)^(2 K) <= (e^3 D^4 K n_out / (4 n_in^2))^K, at most 4^-K up to n_in^2 / (n_out e^3 D^4). Below 1 the
    theorem says nothing: one output has D inputs anyway.
    """
    check_sizes(n_in, n_out)
    check_degree(degree, n_in)
    return float(n_in**2 / (n_out * np.e**3 * degree**4))


def dead_inputs_expected(n_in: int, n_out: int, degree: int) -> float:
    """How many inputs of a random graph feed nothing, on average: n_in (1 - D / n_in)^n_out, n_in e^-D if square."""
    check_sizes(n_in, n_out)
    check_degree(degree, n_in)
    return float(n_in * (1 - degree / n_in) ** n_out)


def lost_share(degree: float, n_in: int = 1, n_out: int = 1) -> float:
    """The share of inputs of a deep stack of random graphs that no output far above sees, in the limit of large n.

    An input feeds a Poisson number of outputs, D n_out / n_in on average, each of which does the same: the share is the
    probability that such a family dies out, the least q with q = exp(-mean (1 - q)).
    """
    mean, q = degree * n_out / n_in, 0.0
    for _ in range(10_000):
        q = float(np.exp(-mean * (1 - q)))
    return q


def _mean_square(n_in: int, n_out: int, degree: int) -> float:
    """The mean of (sigma / sigma1)^2 over the directions orthogonal to ones, as if sigma1 were its least."""
    return (n_in - degree) / (degree * (n_in - 1)) if n_in > 1 else 0.0
