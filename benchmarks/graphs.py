"""Gaps of every construction, and what the measures cost at scale: python -m benchmarks.graphs [gaps|times].

Writes benchmarks/graph_gaps.csv: sigma2 / sigma1 of square layers and of DenseNet's and VGG's shapes, over seeds, with
the layers until every output sees every input; and benchmarks/graph_times.csv: seconds of this thread's CPU time for
one graph of 10^5 x 10^5 with D = 16 (of sets and samples of the sizes named).
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from xnets.graphs import CONSTRUCTIONS, BipartiteGraph, sample_graph
from xnets.graphs.measures import (
    count_paths,
    discrepancy_bound,
    expansion_bound,
    layers_until_all,
    least_ratio,
    mixing_time,
    mixing_time_bound,
    path_lengths,
    ramanujan_ratio,
    sensitivity,
    sigma_ratio,
    vertex_expansion,
    worst_discrepancy,
)

SHAPES = ((512, 512), (256, 256), (600, 240), (240, 60), (256, 512))
COMPRESSIONS = (2, 4, 8, 16)
BLOCKS = (4, 8, 16, 64)  # outputs that share a random list of inputs: the same ratio as one of them alone
LARGE, DEGREE = 100_000, 16


def drawn(name: str, n_in: int, n_out: int, degree: int, seed: int) -> BipartiteGraph:
    """A construction, or random with a block of outputs that share their inputs."""
    kind, _, block = name.partition(" block ")
    return sample_graph(kind, n_in, n_out // int(block or 1), degree, seed)


def gap_rows(seeds: int) -> list[dict]:
    """One row for each shape, C and construction."""
    rows = []
    for n_in, n_out in SHAPES:
        for c in COMPRESSIONS:
            degree = n_in // c
            sizes = n_in, n_out, n_out * degree
            names = [name for name, made in CONSTRUCTIONS.items() if made.drawn_by == "output"]
            for name in [*names, *(f"random block {b}" for b in BLOCKS if n_out % b == 0)]:
                graphs = [drawn(name, n_in, n_out, degree, seed) for seed in range(seeds)]
                ratios = [sigma_ratio(graph) for graph in graphs]
                layers = None
                if n_in == n_out and " block " not in name:
                    layers = layers_until_all([drawn(name, n_in, n_out, degree, seed) for seed in range(8)])
                rows.append(
                    {
                        "construction": name,
                        "inputs": n_in,
                        "outputs": n_out,
                        "compression": c,
                        "degree": degree,
                        "seeds": seeds,
                        "sigma_ratio": round(statistics.mean(ratios), 4),
                        "sd": round(statistics.stdev(ratios), 4),
                        "normalised": round(statistics.mean(sigma_ratio(g, normalised=True) for g in graphs), 4),
                        "fan_out_least": min(int(g.out_degrees.min()) for g in graphs),
                        "fan_out_most": max(int(g.out_degrees.max()) for g in graphs),
                        "layers": "" if layers is None else layers,
                        "ramanujan_ratio": round(ramanujan_ratio(*sizes), 4),
                        "least_ratio": round(least_ratio(*sizes), 4),
                    }
                )
                print(n_in, n_out, f"C={c}", name, rows[-1]["sigma_ratio"], flush=True)
    return rows


def time_rows() -> list[dict]:
    """One row for each construction and each measure."""
    rows = []

    def timed(what: str, function: Callable) -> object:
        start = time.thread_time()
        value = function()
        rows.append({"what": what, "seconds": round(time.thread_time() - start, 2)})
        print(rows[-1], flush=True)
        return value

    for name, made in CONSTRUCTIONS.items():
        timed(f"draw {name}", lambda made=made: made.draw(LARGE, LARGE, DEGREE, 0))
    graph = sample_graph("matchings", LARGE, LARGE, DEGREE, 0)
    stack = [sample_graph("matchings", LARGE, LARGE, DEGREE, seed) for seed in range(6)]
    timed("sigma_ratio", lambda: sigma_ratio(graph))
    timed("sigma_ratio, normalised", lambda: sigma_ratio(graph, normalised=True))
    timed("vertex_expansion, 100 outputs, 20 tries and the bound", lambda: vertex_expansion(graph, 100))
    timed("expansion_bound, 100 outputs", lambda: expansion_bound(graph, 100))
    timed("worst_discrepancy, 1000 x 1000, 20 tries and the bound", lambda: worst_discrepancy(graph, 1000, 1000))
    timed("discrepancy_bound, 1000 x 1000", lambda: discrepancy_bound(graph, 1000, 1000))
    timed("sensitivity, 6 layers, 1024 inputs", lambda: sensitivity(stack, 1024))
    timed("path_lengths, 64 sources", lambda: path_lengths([graph], 64))
    timed("mixing_time, 8 starts", lambda: mixing_time(graph, sample=8))
    timed("mixing_time_bound", lambda: mixing_time_bound(graph))
    timed("count_paths, 6 layers, all to all", lambda: count_paths(stack))
    return rows


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="*", choices=["gaps", "times", []], help="both unless given")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    for what, rows in (("gaps", lambda: gap_rows(args.seeds)), ("times", time_rows)):
        if not args.what or what in args.what:
            found = rows()
            with open(Path(__file__).parent / f"graph_{what}.csv", "w", newline="") as file:
                writer = csv.DictWriter(file, found[0], lineterminator="\n")
                writer.writeheader()
                writer.writerows(found)


if __name__ == "__main__":
    main()
