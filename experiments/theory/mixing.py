"""Theorem 2: edges between sets of inputs and outputs against D |S||T| / n, for random and for adversarial sets."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from xnets.graphs import sample_graph
from xnets.graphs.measures import sigma_ratio, worst_discrepancy

GRAPHS = ("random", "matchings", "ramanujan", "grouped-shuffled", "grouped")


def mixing_rows(n: int, degree: int, shares: tuple[int, ...], tries: int, all_pairs: bool) -> Iterator[dict[str, Any]]:
    """One row for each graph n -> n and each pair of set sizes n / share; only equal sizes unless all_pairs.

    expected is D |S||T| / n; random, greedy and spectral are the largest |e(S, T) - expected| found with such sets, in
    edges, and bound is the lemma's.
    """
    sizes = [n // share for share in shares]
    for name in GRAPHS:
        graph = sample_graph(name, n, n, degree, 0)
        ratio = sigma_ratio(graph)
        for inputs in sizes:
            for outputs in sizes if all_pairs else [inputs]:
                worst = worst_discrepancy(graph, inputs, outputs, tries)
                yield {"graph": name, "n": n, "degree": degree, "sigma_ratio": ratio, "tries": tries} | asdict(worst)
