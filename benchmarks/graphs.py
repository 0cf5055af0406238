"""Gaps of every construction: python -m benchmarks.graphs.

Writes benchmarks/graph_gaps.csv: sigma2 / sigma1 of square layers and of DenseNet's and VGG's shapes, over seeds, with
the layers until every output sees every input.
"""

import argparse
import csv
import statistics
from pathlib import Path

from xnets.graphs import CONSTRUCTIONS, BipartiteGraph, sample_graph
from xnets.graphs.measures import layers_until_all, least_ratio, ramanujan_ratio, sigma_ratio

SHAPES = ((512, 512), (256, 256), (600, 240), (240, 60), (256, 512))
COMPRESSIONS = (2, 4, 8, 16)
BLOCKS = (4, 8, 16, 64)  # outputs that share a random list of inputs: the same ratio as one of them alone


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


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    found = gap_rows(parser.parse_args().seeds)
    with open(Path(__file__).with_name("graph_gaps.csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, found[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)


if __name__ == "__main__":
    main()
