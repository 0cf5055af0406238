"""Does connectivity predict accuracy? Accuracy of each graph against its gap, and against what its stack joins."""

from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from experiments.statistics import RankCorrelation, rank_correlation
from experiments.studies import Study
from paper_figures.drawing import COLOURS, INK, NO_REPRODUCTION, new_figure, styled
from paper_figures.labels import Label, place_labels
from paper_figures.studies.frames import face, summary_frame

CONNECTED = 1e-3  # gaps below this are of layers that fall apart
_COLOURS = ("blue", "orange", "green", "red", "brown", "grey")
_MARKERS = "osD^vP"


@dataclass(frozen=True)
class Axis:
    """A measure as an x axis: a column of the data times `factor`, and what it is."""

    column: str
    factor: float
    name: str


AXES = (
    Axis("gap", 1, "spectral gap $1-\\sigma_2/\\sigma_1$, mean of the expander layers\n0: each layer falls apart"),
    Axis(
        "reach", 100,
        "input–output pairs that a path joins, %\nmean over all parts of the stack, from any layer to any later one",
    ),
)  # fmt: skip


@styled
def draw(study: Study, frame: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """The figure, and its data: `summary_frame` of the runs with the rank correlations of each family.

    A family is what differs in the graph alone. rho_<measure>, with _n, _low and _high: Spearman's, over the means of
    the family's graphs. rho_<measure>_connected: of the graphs whose layers have a gap, so that what is disconnected
    cannot make the correlation alone.
    """
    frame = frame[~frame["reference"]]
    data = summary_frame(frame)
    others = ["network", *(factor for factor in study.factors if factor != "graph")]
    data["family"] = data[others].astype(str).agg(", ".join, axis=1)
    axes_shown = [axis for axis in AXES if data[axis.column].notna().all()]
    for axis in axes_shown:
        for _, members in data.groupby("family", sort=False):
            for name, some in ((axis.column, members), (f"{axis.column}_connected", members[_connected(members)])):
                data.loc[members.index, list(_columns(name))] = _correlation(axis.column, some)
    about, stand_in = face(frame)
    figure = new_figure(4.4)
    grid = figure.subplots(1, len(axes_shown), sharey=True, squeeze=False)[0]
    for axes, axis in zip(grid, axes_shown, strict=True):
        _panel(axes, axis, data, frame, stand_in)
    grid[0].set_ylabel(f"test accuracy on {frame['trained_on'].iloc[0]}, %")
    figure.suptitle(f"{study.question}  {data['network'].iloc[0]}\n{about}", fontsize=8.5, x=0.01, ha="left", color=INK)
    if data["family"].nunique() > 1:
        handles, names = grid[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, axis in zip(grid, axes_shown, strict=True):
        _write_labels(axes, axis, data)
    return figure, data


def _connected(data: pd.DataFrame) -> pd.Series:
    return data["gap"] > CONNECTED


def _columns(name: str) -> tuple[str, ...]:
    return tuple(f"rho_{name}{end}" for end in ("_n", "", "_low", "_high"))


def _correlation(column: str, some: pd.DataFrame) -> list[float]:
    if not len(some):
        return [0, np.nan, np.nan, np.nan]
    found: RankCorrelation = rank_correlation(list(some[column].round(9)), list(some["mean"]))
    return [np.nan if value is None else value for value in (found.n, found.rho, found.low, found.high)]


def _panel(axes: Axes, axis: Axis, data: pd.DataFrame, frame: pd.DataFrame, stand_in: bool) -> None:
    for i, (family, members) in enumerate(data.groupby("family", sort=False)):
        colour, marker = COLOURS[_COLOURS[i % len(_COLOURS)]], _MARKERS[i % len(_MARKERS)]
        for line in members.to_dict("records"):
            x, runs = line[axis.column] * axis.factor, frame.loc[frame["label"] == line["label"]]
            axes.plot(runs[axis.column] * axis.factor, runs["top1"], marker, color=colour, ms=2.5, alpha=0.4, mew=0)
            axes.plot([x, x], [line["low"], line["high"]], "_-", color=colour, lw=0.8, alpha=0.5, zorder=2)
        axes.plot(members[axis.column] * axis.factor, members["mean"], marker, color=colour, label=family, zorder=3)
    if stand_in:
        axes.set_facecolor(NO_REPRODUCTION)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0), min(high, 100))
    axes.margins(x=0.12)
    fewest, most = int(data["n"].min()), int(data["n"].max())
    runs = f"{fewest} runs" if fewest == most else f"{fewest} to {most} runs"
    axes.set_xlabel(f"{axis.name}\npoint: mean of {runs}; bar: 95 % t interval; dots: runs")
    axes.set_title("\n".join(_rho_lines(axis, data)))


def _rho_lines(axis: Axis, data: pd.DataFrame) -> list[str]:
    """Rank correlations for the head of a panel, a line a family; both of them where some graphs fall apart."""
    lines = []
    for family, members in data.groupby("family", sort=False):
        line, several = members.iloc[0], data["family"].nunique() > 1
        text = f"{family}: " * several + _rho(line, axis.column, "graphs")
        if not _connected(members).all():
            text += (
                "\n" * (not several) + ("; " if several else "") + _rho(line, f"{axis.column}_connected", "with a gap")
            )
        lines.append(text)
    return lines


def _rho(line: pd.Series, name: str, of: str) -> str:
    n, rho, low, high = (line[column] for column in _columns(name))
    if np.isnan(rho):
        return f"no rank correlation over {int(n)} {of}"
    interval = "" if np.isnan(low) else f" [{low:+.2f}, {high:+.2f}]"
    return f"Spearman's $\\rho$ = {rho:+.2f}{interval} over {int(n)} {of}".replace("-", "\u2212")


def _write_labels(axes: Axes, axis: Axis, data: pd.DataFrame) -> None:
    """The graphs' names; with several families, of the first one alone."""
    first = next(iter(groupby(data["family"])))[0]
    shown = data[data["family"] == first]
    labels = [
        Label(line[axis.column] * axis.factor, line["mean"], line["graph"], INK) for line in shown.to_dict("records")
    ]
    place_labels(axes, labels, [line.get_xydata() for line in axes.lines if line.get_linestyle() == "-"])
    for text in axes.texts:  # bars run behind them
        text.set_path_effects([withStroke(linewidth=2, foreground=axes.get_facecolor())])
