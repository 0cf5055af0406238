"""Section 5.4: how the gap of randomly drawn graphs is distributed, for every layer shape of the paper."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.theory.shapes import Shape, paper_shapes
from xnets.graphs.measures import ramanujan_ratio
from xnets.graphs.measures.ensemble import sampled_gaps
from xnets.graphs.measures.tails import (
    chernoff_probability,
    chernoff_ratio,
    dead_inputs_expected,
    typical_ratio,
    vadhan_set_size,
)

ROUND = (10_000, 5_000, 2_000, 1_000, 500, 200, 100, 50, 20, 10)  # numbers of graphs that are drawn of a shape
QUANTILES = {"min": 0, "q0001": 1e-4, "q001": 1e-3, "q01": 0.01, "q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75,
             "q95": 0.95, "q99": 0.99, "max": 1}  # fmt: skip
BELOW = (0.9, 0.95, 0.99)  # shares of the median gap: a graph with less is called bad
RISK = 1e-4  # for which the bound is turned into a gap


def graphs_for(shape: Shape, most: int, seconds: float) -> int:
    """How many graphs of a shape to draw: at most `most`, and about `seconds` of one core; the same everywhere."""
    small, large = sorted((shape.n_in, shape.n_out))
    each = 6e-9 * small * large + 1.5e-11 * small**2 * large + 1.2e-8 * small**2 + 2e-5
    if small > 1200:
        each = 4.0  # one at a time, as sparse matrices
    return next((n for n in ROUND if n <= most and n * each <= seconds), min(ROUND[-1], most))


def gap_rows(most: int, seconds: float, every: int = 1) -> Iterator[dict[str, Any]]:
    """One row for each shape, or for each `every`-th of them; see graphs_for for the numbers of graphs.

    gap_*: quantiles of 1 - sigma2 / sigma1 over the graphs. below_*: the share of graphs whose gap is below that share
    of the median. bound_below_*: what the matrix Chernoff bound allows below such a share; bound_gap: the gap that it
    promises but for one graph in 10^4 (below 0 it promises nothing). vadhan_outputs: sets up to this size are covered
    by the theorem that the paper cites.
    """
    for shape in paper_shapes()[::every]:
        sizes = shape.n_in, shape.n_out, shape.degree
        graphs = graphs_for(shape, most, seconds)
        sample = sampled_gaps(*sizes, graphs)
        gaps = 1 - sample.ratios
        median = float(np.median(gaps))
        yield {
            "n_in": shape.n_in,
            "n_out": shape.n_out,
            "degree": shape.degree,
            "families": shape.families,
            "layers": shape.layers,
            "graphs": graphs,
            "mean": float(gaps.mean()),
            "sd": float(gaps.std(ddof=1)) if graphs > 1 else 0.0,
            **{f"gap_{name}": float(np.quantile(gaps, q)) for name, q in QUANTILES.items()},
            **{f"below_{round(100 * share)}": float((gaps < share * median).mean()) for share in BELOW},
            "typical_gap": 1 - typical_ratio(*sizes),
            "ramanujan_gap": 1 - ramanujan_ratio(shape.n_in, shape.n_out, shape.n_out * shape.degree),
            "bound_below_50": chernoff_probability(*sizes, 1 - median / 2),
            "bound_below_90": chernoff_probability(*sizes, 1 - 0.9 * median),
            "bound_gap": 1 - chernoff_ratio(*sizes, RISK),
            "vadhan_outputs": vadhan_set_size(*sizes),
            "dead_inputs": float(sample.dead_inputs.mean()),
            "graphs_with_dead_inputs": float((sample.dead_inputs > 0).mean()),
            "dead_inputs_expected": dead_inputs_expected(*sizes),
        }
