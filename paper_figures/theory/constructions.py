"""The gap of every construction against the Ramanujan ratio, where Alon and Boppana's bound lies."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figures.drawing import COLOURS, DENSE, new_figure, styled
from paper_figures.theory.measured import CONSTRUCTIONS

SHAPES = ((512, 512, "a square layer"), (600, 240, "of DenseNet-BC's"))
_COLOURS = {2: COLOURS["blue"], 4: COLOURS["green"], 8: COLOURS["orange"], 16: COLOURS["red"]}


@styled
def draw(folder: Path | None = None) -> tuple[Figure, pd.DataFrame]:
    """The figure, and the rows of benchmarks/graph_gaps.csv that it shows. `folder` is there as for the others."""
    every = pd.read_csv(CONSTRUCTIONS)
    figure = new_figure(4.4)
    panels = figure.subplots(1, len(SHAPES), sharey=True)
    first = every[(every["inputs"] == SHAPES[0][0]) & (every["outputs"] == SHAPES[0][1])]
    order = first[first["compression"] == 8].sort_values("sigma_ratio", ascending=False)["construction"].tolist()
    shown = []
    for axes, (n_in, n_out, about) in zip(panels, SHAPES, strict=True):
        some = every[(every["inputs"] == n_in) & (every["outputs"] == n_out)]
        _panel(axes, some, order)
        axes.set_title(f"{n_in} inputs, {n_out} outputs: {about}")
        shown.append(some)
    panels[0].plot([], [], color=DENSE, lw=0.8, ls="--", label="Ramanujan graph")
    panels[0].plot([], [], color=DENSE, lw=0.8, ls=":", label="least there can be")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=6)
    figure.supxlabel(
        "Dashed, for each $C$: a Ramanujan graph's ratio; where $n \\gg D$ no regular graph is below (Alon–Boppana). "
        "Dotted: the least of any\nregular graph of this very size. Means over 5 seeds; sd at most "
        f'{pd.concat(shown)["sd"].max():.3f}. "random block $b$": random, $b$ outputs share their inputs.',
        fontsize=8,
    )
    return figure, pd.concat(shown)


def _panel(axes: Axes, data: pd.DataFrame, order: list[str]) -> None:
    for c, colour in _COLOURS.items():
        some = data[data["compression"] == c].set_index("construction")
        names = [name for name in order if name in some.index]
        axes.plot(
            some.loc[names, "sigma_ratio"], [order.index(name) for name in names], lw=0, marker="o", ms=4, mfc="white",
            color=colour, label=f"$C$ = {c}", zorder=3,
        )  # fmt: skip
        axes.axvline(some["ramanujan_ratio"].iloc[0], color=colour, lw=0.8, ls="--")
        axes.axvline(some["least_ratio"].iloc[0], color=colour, lw=0.8, ls=":")
    axes.set(xlabel="$\\sigma_2 / \\sigma_1$: 0 complete, 1 disconnected", xlim=(0, 1.04))
    axes.set_yticks(range(len(order)), order)
    axes.tick_params(axis="y", length=0)
