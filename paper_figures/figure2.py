"""Fig. 2: the fast algorithm of an X-Conv layer (Algorithm 1), carried out on a small graph and small images."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.settings import Settings
from paper_figures.drawing import COLOURS, EXPANDER, FAINT, GROUPED, INK, new_figure, styled
from xnets.graphs import BipartiteGraph, random_expander

CHANNELS, DEGREE, TAPS, SIDE = 8, 3, 3, 16  # N inputs and as many outputs, D, c, and pixels
SEED = 2  # of the graph, the images and the weights
SHOWN = (0, 1, 2)  # outputs
_COLOURS = (EXPANDER, GROUPED, COLOURS["green"])


@styled
def draw(settings: Settings | None = None) -> tuple[Figure, pd.DataFrame]:
    """The figure, and the layer it shows. It needs no results; `settings` is there to be called as the others are.

    Data, one line for each slice of a compressed kernel that is drawn: output v, slot i, input N(v, i), and the slice's
    weights k00 .. k22. Channels and slots count from 0.
    """
    graph, images, kernels = layer()
    figure = new_figure(3.9)
    axes = figure.subplots()
    axes.set(xlim=(-0.9, 20.6), ylim=(12.6, -1.9), aspect="equal")
    axes.axis("off")
    high = 1.28  # from one input to the next
    for channel, image in enumerate(images):
        _map(axes, image, 0, channel * high, 0.95, f"{channel}", edge=FAINT)
    lines = []
    for colour, v in zip(_COLOURS, SHOWN, strict=True):
        top = SHOWN.index(v) * 3.65
        for slot, channel in enumerate(graph.neighbours[v].tolist()):
            at = top + slot * 1.05
            axes.plot([1.0, 5.45], [channel * high + 0.475, at + 0.425], color=colour, lw=1.1, zorder=1)
            _map(axes, images[channel], 5.5, at, 0.85, f"{channel}", colour, inside=True)
            axes.text(7.25, at + 0.43, r"$\ast$", ha="center", va="center")
            _map(axes, kernels[v, slot], 8.15, at, 0.85, "", colour, cmap="PuOr", limit=2.5)
            axes.plot([9.1, 11.25], [at + 0.43, top + 1.47], color=colour, lw=0.9)
            weights = {f"k{i}{j}": float(kernels[v, slot, i, j]) for i in range(TAPS) for j in range(TAPS)}
            lines.append({"output": v, "slot": slot, "input": channel, **weights})
        axes.text(11.6, top + 1.47, r"$\sum$", ha="center", va="center", fontsize=11, color=colour)
        axes.annotate(
            "", (13.3, top + 1.47), (11.95, top + 1.47), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 0.9}
        )
        _map(axes, convolve(images[graph.neighbours[v]], kernels[v]), 13.4, top + 0.65, 1.65, "", colour, limit=None)
        listed = ", ".join(map(str, graph.neighbours[v].tolist()))
        axes.text(15.4, top + 1.47, f"$v={v}$:\n$N(v)=\\{{{listed}\\}}$", va="center", color=colour, fontsize=8.5)
    heads = {
        0.475: f"input $I$\n{CHANNELS} channels",
        5.925: f"select\n$D={DEGREE}$ channels",
        8.575: f"kernel $K_v$\n${TAPS}\\times{TAPS}\\times D$",
        14.225: "output $O_v$\none channel",
    }
    for x, text in heads.items():
        axes.text(x, -0.35, text, ha="center", va="bottom", fontsize=9, color=INK)
    stored, dense = graph.n_edges, CHANNELS * CHANNELS
    axes.text(
        9.8, 11.75, "$O_v = K_v * \\mathrm{Mask}_{N(v,1),\\ldots,N(v,D)}(I)$ for every output $v$; "
        f"outputs {SHOWN[-1] + 1} to {CHANNELS - 1} likewise.  "
        f"Stored and computed: {CHANNELS} × {DEGREE} = {stored} of {dense} slices.\n"
        f"The graph is random_expander({CHANNELS}, {CHANNELS}, {DEGREE}, seed={SEED}), without replacement; "
        "channels count from 0.",
        ha="center", va="center", fontsize=8.5,
    )  # fmt: skip
    return figure, pd.DataFrame(lines)


def layer() -> tuple[BipartiteGraph, np.ndarray, np.ndarray]:
    """The graph, images (inputs, SIDE, SIDE) and compressed kernels (outputs, D, c, c) that are drawn."""
    graph = random_expander(CHANNELS, CHANNELS, DEGREE, SEED)
    rng = np.random.default_rng(SEED)
    return graph, _images(rng), rng.standard_normal((CHANNELS, DEGREE, TAPS, TAPS))


def convolve(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """One output channel: images (D, SIDE, SIDE) with kernel (D, c, c), zeros around, as convolution layers do it."""
    edge = TAPS // 2
    padded = np.pad(images, ((0, 0), (edge, edge), (edge, edge)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (TAPS, TAPS), axis=(1, 2))
    return np.einsum("dxyij,dij->xy", windows, kernel)


def _images(rng: np.random.Generator) -> np.ndarray:
    """Smooth random patterns, each with a direction and a frequency of its own."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    angles = np.pi * np.arange(CHANNELS) / CHANNELS
    waves = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(6, 16, (CHANNELS, 1))
    phases = rng.uniform(0, 2 * np.pi, CHANNELS)
    return np.stack([np.sin(a * x + b * y + phase) for (a, b), phase in zip(waves, phases, strict=True)])


def _map(
    axes: Axes, values: np.ndarray, x: float, y: float, size: float, label: str, edge: str, cmap: str = "Greys",
    limit: float | None = 1.0, inside: bool = False,
) -> None:  # fmt: skip
    """A small image whose upper left corner is at (x, y), framed; `label` stands left of it, or in its corner."""
    limit = limit or float(np.abs(values).max())
    axes.imshow(values, cmap=cmap, vmin=-limit, vmax=limit, extent=(x, x + size, y + size, y), zorder=2)
    axes.plot([x, x + size, x + size, x, x], [y, y, y + size, y + size, y], color=edge, lw=1.2, zorder=3)
    if label and inside:
        box = {"boxstyle": "square,pad=0.12", "fc": "white", "ec": "none"}
        axes.text(x + 0.1, y + 0.14, label, ha="left", va="top", fontsize=6.5, zorder=4, color=edge, bbox=box)
    elif label:
        axes.text(x - 0.15, y + size / 2, label, ha="right", va="center", fontsize=8)
