"""Section 5.4: how the gap of randomly drawn graphs is distributed for the paper's layer shapes, and what is proved."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.theory.gaps import QUANTILES
from paper_figures.drawing import COLOURS, DENSE, new_figure, styled
from paper_figures.theory.measured import read
from xnets.graphs.measures.tails import chernoff_probability

ON_WHITE = {"frameon": True, "facecolor": "white", "edgecolor": "none", "framealpha": 0.9}
FAMILIES = {
    "densenet": ("DenseNet-BC", COLOURS["blue"]), "resnet": ("ResNet", COLOURS["orange"]),
    "mobilenet": ("MobileNet-0.5", COLOURS["green"]), "vgg": ("VGG16", COLOURS["red"]),
    "alexnet": ("AlexNet", COLOURS["pink"]),
}  # fmt: skip


@styled
def draw(folder: Path | None = None) -> tuple[Figure, pd.DataFrame]:
    """The figure, and a line for each shape: see experiments.theory.gaps for the columns."""
    data = read("gaps", folder)
    figure = new_figure(3.5)
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.1, 1, 0.8])
    _all_shapes(left, data)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=6, handlelength=0.8)
    _tails(middle, data)
    _dead(right, data)
    counts = data["graphs"].value_counts().sort_index(ascending=False)
    drawn = ", ".join(f"{n:,} ({shapes})" for n, shapes in counts.items())
    figure.supxlabel(f"Graphs drawn of a shape (shapes): {drawn}.", fontsize=7.5)
    return figure, data


def family(row: pd.Series) -> str:
    """The first family that uses a shape."""
    return row["families"].split()[0]


def _all_shapes(axes: Axes, data: pd.DataFrame) -> None:
    share = data["n_in"] / data["degree"]
    families = data.apply(family, axis=1)
    axes.plot(
        share, data["bound_gap"], color=DENSE, marker="_", ms=4, lw=0, mew=0.6, label="proved: all but 1 of 10 000"
    )
    for name, (label, colour) in FAMILIES.items():
        some = data[families == name]
        if len(some):
            axes.vlines(share[some.index], some["gap_min"], some["gap_max"], color=colour, lw=0.8, zorder=3)
            axes.plot(
                share[some.index], some["gap_median"], color=colour, marker="o", ms=2.4, lw=0, label=label, zorder=4
            )
    axes.set(xscale="log", xlabel="compression $n_{in} / D$", ylabel="gap $1 - \\sigma_2/\\sigma_1$", ylim=(-0.75, 1))
    axes.set_title(f"(a) {len(data)} layer shapes: median, all drawn")
    axes.set_xticks([2, 4, 8, 16, 32, 80], [2, 4, 8, 16, 32, 80])
    axes.set_xticks([], minor=True)
    axes.axhline(0, color=DENSE, lw=0.6)


def chosen_shapes(data: pd.DataFrame) -> pd.DataFrame:
    """Of each family, the shape with the smallest median gap of those with enough graphs to have a tail."""
    some = data[data["graphs"] >= min(1000, data["graphs"].max())]
    order = some.assign(family=some.apply(family, axis=1)).sort_values(["gap_median", "n_in"])
    return order.groupby("family", sort=False).head(1).set_index("family").reindex([f for f in FAMILIES]).dropna()


def _tails(axes: Axes, data: pd.DataFrame) -> None:
    names = [name for name in QUANTILES if name not in ("min", "max")]
    for name, row in chosen_shapes(data).iterrows():
        _, colour = FAMILIES[name]
        levels = np.array([QUANTILES[q] for q in names])
        usable = levels * row["graphs"] >= 1
        gaps = row[[f"gap_{q}" for q in names]].to_numpy(float)
        sizes = int(row["n_in"]), int(row["n_out"]), int(row["degree"])
        shape = f"{sizes[0]} → {sizes[1]}, $D$ = {sizes[2]}"
        axes.plot(gaps[usable] / row["gap_median"], levels[usable], color=colour, marker="o", ms=2.5, label=shape)
        shares = np.linspace(0.0, 1, 200)
        bound = [chernoff_probability(*sizes, 1 - share * row["gap_median"]) for share in shares]
        axes.plot(shares, bound, color=colour, lw=0.9, ls="--")
    axes.set(yscale="log", ylim=(5e-5, 1.5), xlim=(0, 1.15), xlabel="gap / median gap", ylabel="share of graphs below")
    axes.set_title("(b) smallest gaps: drawn, proved (dashed)")
    axes.legend(loc="upper left", bbox_to_anchor=(0, 0.95), fontsize=6.5, handlelength=1, labelspacing=0.25, **ON_WHITE)


def _dead(axes: Axes, data: pd.DataFrame) -> None:
    fan_out = data["degree"] * data["n_out"] / data["n_in"]
    families = data.apply(family, axis=1)
    for name, (_, colour) in FAMILIES.items():
        some = data[(families == name) & (data["dead_inputs"] * data["graphs"] >= 10)]  # else chance
        axes.plot(fan_out[some.index], 100 * some["dead_inputs"] / some["n_in"], color=colour, marker="o", ms=2.4, lw=0)
    x = np.linspace(0.3, 16, 100)
    axes.plot(x, 100 * np.exp(-x), color=DENSE, lw=0.9, ls="--")
    with_dead = (data["graphs_with_dead_inputs"] > 0.5).sum()
    axes.set(yscale="log", xlim=(0, 16), ylim=(1e-5, 100), xlabel="mean outputs of an input", ylabel="dead inputs, %")
    axes.set_title("(c) inputs that feed nothing")
    axes.text(0.96, 0.96, f"more often than not\nthere is one in {with_dead}\nof {len(data)} shapes", fontsize=7,
              transform=axes.transAxes, ha="right", va="top")  # fmt: skip
    axes.text(0.3, 2e-5, "dashed: $e^{-x}$", fontsize=7, color=DENSE)
