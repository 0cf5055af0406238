"""Fig. 1: what one output of a sparse network can see, with groups, after pruning, and with random expanders."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from experiments.settings import Settings
from paper_figures.drawing import COLOURS, EXPANDER, FAINT, GROUPED, INK, new_figure, styled
from xnets.graphs import BipartiteGraph, grouped_graph, random_expander

CHANNELS, DEGREE, LAYERS = 12, 3, 3
MARKED = 4  # the output whose inputs are shown
SEED = 55  # of the networks drawn, layer l from 100 * SEED + l: a typical draw, close to the means below
DRAWS = 200  # networks that the averages are over: seeds 1 to 200

CUT_OFF = COLOURS["red"]  # channels without an edge on one side

Network = list[BipartiteGraph]


@styled
def draw(settings: Settings | None = None) -> tuple[Figure, pd.DataFrame]:
    """The figure, and the edges it shows. It needs no results; `settings` is there to be called as the others are.

    Data, one line an edge: network, layer (0 is the lowest), input, output, seen (whether it is on a path to the marked
    output), pairs_connected (share of all pairs of a network input and a network output that a path joins, in %), and
    mean_pairs_connected over 200 networks.
    """
    drawn = networks(SEED)
    means = {name: float(np.mean([connected(networks(s)[name]) for s in range(1, DRAWS + 1)])) for name in drawn}
    figure = new_figure(3.1)
    lines = []
    for axes, (name, network) in zip(figure.subplots(1, 3), drawn.items(), strict=True):
        _panel(axes, name, network, means[name])
        rows = seen_channels(network, MARKED)
        for layer, graph in enumerate(network):
            for i, o in zip(graph.indices.tolist(), graph.outputs.tolist(), strict=True):
                lines.append((name, layer, i, o, bool(rows[layer + 1][o]), connected(network), means[name]))
    figure.supxlabel(
        f"Each layer: {CHANNELS} channels, {CHANNELS * DEGREE} edges.  Coloured: all that reaches the circled output.  "
        "$\\otimes$: a channel left without edges on one side.\n"
        "Pruned: of random normal weights, the largest are kept.  "
        f"Seeds of the layers: {100 * SEED} to {100 * SEED + LAYERS - 1}.",
        fontsize=8.5,
    )
    names = ["network", "layer", "input", "output", "seen", "pairs_connected", "mean_pairs_connected"]
    return figure, pd.DataFrame(lines, columns=names)


def networks(seed: int) -> dict[str, Network]:
    """Three networks with the same number of edges in each layer."""
    seeds = [100 * seed + layer for layer in range(LAYERS)]
    return {
        "groups": [grouped_graph(CHANNELS, CHANNELS, CHANNELS // DEGREE) for _ in seeds],
        "pruned": [pruned_graph(s) for s in seeds],
        "expander": [random_expander(CHANNELS, CHANNELS, DEGREE, s) for s in seeds],
    }


def pruned_graph(seed: int) -> BipartiteGraph:
    """The largest of a layer's random normal weights, as many as the expander has; degrees come as they come."""
    weights = np.abs(np.random.default_rng(seed).standard_normal((CHANNELS, CHANNELS)))
    return BipartiteGraph.from_mask(weights >= np.sort(weights, axis=None)[-CHANNELS * DEGREE])


def reach(network: Network) -> np.ndarray:
    """(outputs, inputs) bool: whether a path leads from an input of the first layer to an output of the last."""
    seen = np.eye(network[0].n_in, dtype=bool)
    for graph in network:
        seen = graph.to_mask().astype(int) @ seen > 0
    return seen


def seen_channels(network: Network, output: int) -> list[np.ndarray]:
    """For each row of channels, the lowest first: (channels,) bool, whether a path leads from there to `output`."""
    rows = [np.arange(network[-1].n_out) == output]
    for graph in reversed(network):
        rows.insert(0, rows[0] @ graph.to_mask())
    return rows


def connected(network: Network) -> float:
    """Share of the pairs of an input and an output that a path joins, in %."""
    return 100 * float(reach(network).mean())


_LOOKS = {
    "groups": ("Groups", GROUPED),
    "pruned": ("Pruned by magnitude", COLOURS["green"]),
    "expander": ("Random expander", EXPANDER),
}


def _panel(axes: Axes, name: str, network: Network, mean: float) -> None:
    title, colour = _LOOKS[name]
    rows = seen_channels(network, MARKED)
    for layer, graph in enumerate(network):
        ends = np.stack([graph.indices, graph.outputs], axis=1)
        on = rows[layer + 1][graph.outputs]
        for chosen, ink, width, above in ((~on, FAINT, 0.6, 1), (on, colour, 1.2, 2)):
            segments = [((i, layer + 0.06), (o, layer + 0.94)) for i, o in ends[chosen]]
            axes.add_collection(LineCollection(segments, colors=ink, lw=width, capstyle="round", zorder=above))
    for level, on in enumerate(rows):
        lonely = _lonely(network, level)
        kinds = ((~on & ~lonely, "white", "#999999"), (on, colour, colour), (lonely, "white", CUT_OFF))
        for chosen, face, edge in kinds:
            axes.scatter(np.flatnonzero(chosen), np.full(chosen.sum(), level), s=22, c=face, ec=edge, lw=0.8, zorder=4)
        crosses = np.flatnonzero(lonely)
        axes.scatter(crosses, np.full(len(crosses), level), s=9, c=CUT_OFF, marker="x", lw=0.8, zorder=5)
    axes.scatter([MARKED], [LAYERS], s=60, fc="none", ec=INK, lw=0.9, zorder=5)
    axes.set(xlim=(-0.7, CHANNELS - 0.3), ylim=(-0.35, LAYERS + 0.35), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.grid(False)
    axes.set_title(title, color=colour, fontweight="bold", loc="center", fontsize=10)
    degrees = np.concatenate([graph.in_degrees for graph in network])
    fan_in = f"{degrees.min()} to {degrees.max()}" if np.ptp(degrees) else f"{degrees[0]}"
    axes.set_xlabel(
        f"{fan_in} inputs to a channel; the circled output\n"
        f"sees {int(rows[0].sum())} of the network's {CHANNELS} inputs\n"
        f"$\\bf{{{connected(network):.0f}\\,\\%}}$ of input–output pairs joined\n"
        f"(mean of {DRAWS} such networks: {mean:.0f} %)"
    )
    if name == "groups":
        axes.set_yticks(range(LAYERS + 1), ["inputs", "layer 1", "layer 2", "outputs"])
        axes.tick_params(length=0)


def _lonely(network: Network, level: int) -> np.ndarray:
    """(channels,) bool: no edge comes in from below, or none goes out."""
    without_input = network[level - 1].in_degrees == 0 if level else np.zeros(CHANNELS, dtype=bool)
    without_output = network[level].out_degrees == 0 if level < LAYERS else np.zeros(CHANNELS, dtype=bool)
    return without_input | without_output
