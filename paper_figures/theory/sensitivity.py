"""Theorem 1: how many layers until every output sees every input, against n and D."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.theory.sensitivity import gap_layers
from paper_figures.drawing import COLOURS, DENSE, EXPANDER, GROUPED, INK, new_figure, styled
from paper_figures.theory.measured import read
from xnets.graphs.measures.tails import lost_share

D = 16  # of the panel that compares constructions
_LOOKS = {
    "grouped": ("grouped", GROUPED, "s"),
    "butterfly": ("butterfly", COLOURS["green"], "^"),
    "random": ("random (the paper's)", EXPANDER, "o"),
    "matchings": ("random, $D$-regular", COLOURS["sky"], "D"),
    "ramanujan": ("Ramanujan", COLOURS["pink"], "v"),
    "grouped-shuffled": ("grouped, shuffled", COLOURS["brown"], "P"),
}


@styled
def draw(folder: Path | None = None) -> tuple[Figure, pd.DataFrame]:
    """The figure, and the measured stacks: see experiments.theory.sensitivity for the columns."""
    data = read("sensitivity", folder)
    figure = new_figure(3.4)
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.15, 1, 0.8])
    _constructions(left, data[data["degree"] == D])
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, title="in (a):", loc="outside upper center", ncols=6, columnspacing=1.2)
    _degrees(middle, data)
    _lost(right, data[(data["construction"] == "random") & (data["n"] >= 256)])
    fewest, most = data["followed"][data["n"] == data["n"].max()].min(), data["n"][data["followed"] == data["n"]].max()
    figure.supxlabel(
        f"$n$ inputs, $n$ outputs in each layer; layers drawn anew. All inputs followed up to $n$ = {most:,}, "
        f"{fewest} random ones at $n$ = {data['n'].max():,} (then a lower bound).\n"
        "Points: the deepest of up to 3 stacks. No stack of any graphs can do with less than $\\log_D n$ layers.",
        fontsize=8,
    )
    return figure, data


def _constructions(axes: Axes, data: pd.DataFrame) -> None:
    sides = np.array(sorted(data["n"].unique()))
    smooth = np.geomspace(sides[0], sides[-1], 50)
    axes.plot(smooth, [gap_layers(n, D) for n in smooth], color=DENSE, lw=0.9, ls=":")
    axes.plot(smooth, np.log(smooth) / np.log(D), color=DENSE, lw=0.9, ls="--")
    known = data["layers"].max()
    top = max(gap_layers(sides[-1], D), known) * 1.12
    for i, (name, (label, colour, marker)) in enumerate(_LOOKS.items()):
        deepest = data[data["construction"] == name].groupby("n")["layers"].max()
        never = deepest.isna()
        axes.plot(deepest.index[~never], deepest[~never], color=colour, marker=marker, ms=4, label=label, zorder=3 + i)
        if never.any():
            axes.plot(
                deepest.index[never], [top] * never.sum(), color=colour, marker=marker, ms=4, lw=0.8, zorder=3 + i
            )
        if never.all():
            axes.text(sides[0], top * 1.03, "never", color=INK, fontsize=7.5, va="bottom")
    at = smooth[30]
    axes.text(
        at, gap_layers(at, D) * 1.02, "dotted: proved\nby the gap ", fontsize=7, color=DENSE, ha="right", va="bottom"
    )
    axes.text(
        sides[-1], 0.55 * np.log(sides[-1]) / np.log(D), "dashed: $\\log_D n$", fontsize=7, color=DENSE, ha="right"
    )
    axes.set(xscale="log", xlabel="$n$", ylabel="layers until every output sees every input", ylim=(0, top * 1.12))
    axes.set_title(f"(a) constructions, $D$ = {D}")


def _degrees(axes: Axes, data: pd.DataFrame) -> None:
    shades = [COLOURS[name] for name in ("red", "orange", "green", "sky", "blue")]
    for colour, degree in zip(shades, sorted(data["degree"].unique()), strict=False):
        some = data[data["degree"] == degree]
        regular = some[some["construction"] == "matchings"].groupby("n")["layers"].max()
        random = some[some["construction"] == "random"].groupby("n")["layers_of_rest"].max()
        axes.plot(regular.index, regular, color=colour, marker="D", ms=3.5, label=f"$D$ = {degree}, regular")
        axes.plot(random.index, random, color=colour, marker="o", ms=4, mfc="white", lw=0.7)
        n = np.array([regular.index.min(), regular.index.max()], dtype=float)
        axes.plot(n, np.log(n) / np.log(degree), color=colour, lw=0.8, ls="--")
    axes.plot([], [], color=INK, marker="o", ms=4, mfc="white", lw=0.7, label="paper's, of inputs\nnot lost for ever")
    axes.plot([], [], color=INK, lw=0.8, ls="--", label="$\\log_D n$")
    axes.set(xscale="log", xlabel="$n$", ylabel="layers")
    axes.set_title("(b) degrees")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.5)
    axes.legend(loc="upper left", ncols=2, handlelength=1.3, labelspacing=0.25, columnspacing=0.8)


def _lost(axes: Axes, data: pd.DataFrame) -> None:
    sums = data.groupby("degree")[["lost", "followed"]].sum()
    share = sums["lost"] / sums["followed"]
    degrees = np.linspace(sums.index.min(), sums.index.max(), 100)
    axes.plot(degrees, [100 * lost_share(d) for d in degrees], color=DENSE, lw=0.9, ls="--")
    found = share > 0
    axes.plot(share.index[found], 100 * share[found], color=EXPANDER, marker="o", mfc="white", lw=0)
    floor = 1e-7
    for degree in share.index[~found]:
        axes.annotate(
            f"0 of\n{int(sums['followed'][degree]):,}", (degree, floor), (degree, floor * 30), ha="center",
            fontsize=6.5, color=EXPANDER, arrowprops={"arrowstyle": "-|>", "color": EXPANDER, "lw": 0.6},
        )  # fmt: skip
    axes.set(yscale="log", xlabel="$D$", ylabel="inputs that no output ever sees, %", ylim=(floor, 100), xscale="log")
    ticks = [int(d) for d in sums.index]
    axes.set_xticks(ticks, ticks)
    axes.set_xticks([], minor=True)
    axes.set_title("(c) random: inputs lost")
    axes.text(
        0.96, 0.96, "dashed:\nabout $e^{-D}$", transform=axes.transAxes, fontsize=7, color=DENSE, ha="right", va="top"
    )
