"""The stability argument (paper, section 5.4) on trained runs: variance from the graph seed and the train seed."""

from dataclasses import asdict

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.studies import Study
from experiments.variance import VarianceSplit, split_variance
from paper_figures.drawing import COLOURS, EXPANDER, INK, NO_REPRODUCTION, new_figure, styled
from paper_figures.studies.frames import face
from xnets.errors import XNetsError

NAMES = {"graph_seed": "graph seed", "train_seed": "train seed", "rest": "rest"}
_COLOURS = {"graph_seed": EXPANDER, "train_seed": COLOURS["orange"], "rest": COLOURS["grey"]}


@styled
def draw(study: Study, frame: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """The figure, and its data: one line for each source of variance of each configuration, as
    experiments.variance.Component says, with sd, the root of its variance, and mean, over all runs."""
    tables = {
        label: runs.pivot(index="graph_seed", columns="train_seed", values="top1")
        for label, runs in frame[~frame["reference"]].groupby("label", sort=False)
        if runs["graph_seed"].nunique() > 1
    }
    if not tables:
        raise XNetsError(f"Study {study.name} has no graph that its seed changes: its variance cannot be split.")
    splits = {label: split_variance(table.to_numpy()) for label, table in tables.items()}
    about, stand_in = face(frame)
    figure = new_figure(0.9 + 2.4 * len(tables))
    grid = figure.subplots(len(tables), 2, squeeze=False, width_ratios=(1, 1.25))
    for (left, right), label in zip(grid, tables, strict=True):
        _runs_panel(left, label, tables[label], splits[label])
        _parts_panel(right, splits[label], stand_in)
    for right in grid[:, 1]:
        right.set_xlim(0, max(axes.get_xlim()[1] for axes in grid[:, 1]))
    figure.suptitle(f"{study.question}\n{about}", fontsize=8.5, x=0.01, ha="left", color=INK)
    lines = [
        {"study": study.name, "label": label, "graphs": split.graphs, "trains": split.trains, "mean": split.mean}
        | asdict(part) | {"sd": np.sqrt(max(part.variance, 0))}
        for label, split in splits.items()
        for part in split.components
    ]  # fmt: skip
    return figure, pd.DataFrame(lines)


def _runs_panel(axes: Axes, label: str, table: pd.DataFrame, split: VarianceSplit) -> None:
    """Every run in its place, with the means of rows and columns beside."""
    values = table.to_numpy()
    axes.imshow(values, cmap="Blues", vmin=values.min() - np.ptp(values) / 4, vmax=values.max() + np.ptp(values))
    for (g, t), value in np.ndenumerate(values):
        axes.text(t, g, f"{value:.1f}", ha="center", va="center", fontsize=7.5)
    for g, mean in enumerate(values.mean(axis=1)):
        axes.text(split.trains - 0.4, g, f"{mean:.1f}", va="center", fontsize=7.5, fontweight="bold", color=EXPANDER)
    for t, mean in enumerate(values.mean(axis=0)):
        axes.text(
            t, split.graphs - 0.4, f"{mean:.1f}", ha="center", va="top", fontsize=7.5, fontweight="bold",
            color=COLOURS["orange"],
        )  # fmt: skip
    axes.set_xticks(range(split.trains), table.columns)
    axes.set_yticks(range(split.graphs), table.index)
    axes.xaxis.tick_top()
    axes.set_title("train seed", loc="center")
    axes.set_ylabel("graph seed")
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.annotate(
        f"{label}: test accuracy, %; in bold the means", (0, 0), (0, -22), xycoords="axes fraction",
        textcoords="offset points", fontsize=7.5, color=INK,
    )  # fmt: skip


def _parts_panel(axes: Axes, split: VarianceSplit, stand_in: bool) -> None:
    """Standard deviations of the three sources with their intervals; what is said of each stands beside it."""
    for place, part in enumerate(split.components):
        sd, colour = np.sqrt(max(part.variance, 0)), _COLOURS[part.name]
        axes.plot(np.sqrt([part.low, part.high]), [place, place], "|-", color=colour, lw=1)
        axes.plot(sd, place, "o", color=colour, ms=6, clip_on=False, zorder=5)
        axes.text(sd, place - 0.17, _words(part), ha="left", va="bottom", fontsize=7.5, color=INK)
    axes.set_yticks(range(3), [NAMES[part.name] for part in split.components])
    axes.set_ylim(2.5, -0.6)
    axes.grid(axis="y", visible=False)
    if stand_in:
        axes.set_facecolor(NO_REPRODUCTION)
    axes.set_xlabel(
        "standard deviation between runs, points of accuracy\n"
        "bar: 95 % interval; estimates below 0 are drawn at 0\nrest: interaction of the two seeds, and all else"
    )


def _words(part: object) -> str:
    share = "nothing varies" if part.share is None else (
        f"{100 * part.share:.0f} % of the variance [{100 * part.share_low:.0f}, {100 * part.share_high:.0f}]"
    )  # fmt: skip
    return share + (f", F test p = {part.p:.2f}" if part.p is not None else "")
