"""Accuracy against cost, the authors' panel beside ours: what Figs. 3-6 have in common."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullFormatter

from experiments.scales import read_scales
from experiments.settings import Settings
from paper_figures.drawing import INK, NO_REPRODUCTION, new_figure, styled
from paper_figures.frames import item_frame
from paper_figures.labels import Label, place_labels
from paper_figures.points import Cost, Look, points

NAMES = {"imagenet": "ImageNet", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}  # others go by their own
NOT_A_REPRODUCTION = "not a reproduction"
PRINTED_APART = 0.02  # a printed cost farther than this from ours, relative to it, is drawn beside it


@dataclass(frozen=True)
class TradeOff:
    """One of Figs. 3-6.

    shown: "error" or "top1", the y axis. authors: where the authors' accuracies are from. look and label: of a network.
    height: of a row of panels, in inches; there is one row for each data set of the paper's.
    """

    item: str
    cost: Cost
    shown: str
    authors: str
    look: Callable[[str], Look]
    label: Callable[[str], str]
    height: float = 3.3


@styled
def draw_tradeoff(kind: TradeOff, settings: Settings) -> tuple[Figure, pd.DataFrame]:
    """The figure, and its points (see paper_figures.points). Raises XNetsError if results are missing."""
    frame = item_frame(kind.item, settings)
    found = points(frame, kind.cost, kind.look, kind.label)
    datasets = list(dict.fromkeys(frame["dataset"]))
    figure = new_figure(kind.height * len(datasets))
    grid = figure.subplots(len(datasets), 2, squeeze=False, sharex="all")
    panels: list[tuple[Axes, pd.DataFrame]] = []
    for dataset, (left, right) in zip(datasets, grid, strict=True):
        some = found[found["dataset"] == dataset]
        theirs, ours = some[some["panel"] == "authors"], some[some["panel"] == "ours"]
        _authors_panel(left, theirs, kind, dataset)
        _draw_published(left, some, kind)
        _set_axes(left, kind, f"{kind.cost.unit} of the network they trained", f"{_Y[kind.shown]}, %")
        _our_panel(right, ours, kind, frame[frame["dataset"] == dataset], again=dataset != datasets[0])
        panels += [(left, theirs), (right, ours)]
    _legend(figure, kind, found)
    figure.draw_without_rendering()  # settles the layout
    figure.set_layout_engine("none")
    for axes, some in panels:
        axes.yaxis.set_major_locator(FixedLocator(axes.get_yticks()))  # a notebook's own style would choose others
        _write_labels(axes, some, kind)
    return figure, found


def _authors_panel(axes: Axes, some: pd.DataFrame, kind: TradeOff, dataset: str) -> None:
    axes.set_title(f"Authors, {NAMES[dataset]}: {kind.authors}")
    _draw_lines(axes, some, kind)
    for row in some.to_dict("records"):
        if abs(row["x_printed"] / row["x"] - 1) > PRINTED_APART:  # False where nothing is printed
            y, colour = row[kind.shown], kind.look(row["model"]).colour
            axes.plot([row["x_printed"], row["x"]], [y, y], color=colour, lw=0.7, ls=":", zorder=2)
            axes.plot(row["x_printed"], y, "|", color=colour, ms=6, zorder=2)


def _draw_published(axes: Axes, some: pd.DataFrame, kind: TradeOff) -> None:
    """Hollow points beside the authors': the same networks on the paper's own data, trained here; smaller ones for each
    further scale."""
    found = some[some["panel"].str.startswith("published")]
    sizes = {name: 6 - 1.8 * place for place, name in enumerate(dict.fromkeys(found["panel"]))}
    for row in found.to_dict("records"):
        look = kind.look(row["model"])
        style = {"color": look.colour, "marker": look.marker, "ms": sizes[row["panel"]], "mfc": "white"}
        axes.plot(row["x"], row[kind.shown], **style, lw=0, zorder=4)
        for x, ends in _bars(pd.DataFrame([row]), kind, ("low", "high")):
            axes.plot([x, x], ends, "_-", color=look.colour, lw=0.8, zorder=2)
    if len(found):
        scales = ", smaller: ".join(name.removeprefix("published ") for name in sizes)
        fewest, most = int(found["n"].min()), int(found["n"].max())
        runs = f"n = {fewest}" if fewest == most else f"n = {fewest} to {most}"
        axes.set_title(f"{axes.get_title(loc='left')}\nHollow: trained here, scale {scales}, last epoch, {runs}")


def _our_panel(axes: Axes, some: pd.DataFrame, kind: TradeOff, frame: pd.DataFrame, again: bool) -> None:
    dataset, scale = frame["dataset"].iloc[0], frame["scale"].iloc[0]
    title = f"Ours, scale {scale}: {read_scales()[scale]['about'].split(';')[0]}"
    if not len(some):
        axes.set_title(f"Ours, scale {scale}")
        axes.text(
            0.5, 0.5, f"scale {scale} does not\ntrain these networks", transform=axes.transAxes, ha="center", color=INK
        )
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(bottom=False, labelbottom=False, left=False, labelleft=False)
        return
    used = some["trained_on"].iloc[0]
    if used != dataset:
        title += f" – {NOT_A_REPRODUCTION}"
        axes.set_facecolor(NO_REPRODUCTION)
        if again:
            title += f". {used.capitalize()} stand for {NAMES[dataset]} too: the same runs as above"
    axes.set_title("\n".join(textwrap.wrap(title, 58)))
    _draw_lines(axes, some, kind)
    fewest, most = int(some["n"].min()), int(some["n"].max())
    runs = f"n = {fewest} run{'s' * (fewest > 1)}" if fewest == most else f"n = {fewest} to {most} runs"
    bars = "no interval" if most == 1 else "bars: 95 % t interval" + " where n > 1" * (fewest == 1)
    if _too_wide(some):
        widest = (some["high"] - some["low"]).max()
        bars = f"bars: lowest to highest run,\nas the 95 % t intervals are up to {widest:.0f} points wide"
    noise = (
        f"standard error of {frame['ours_n_test'].max()} test images: up to {frame['ours_test_se'].max():.1f} points"
    )
    x_name = f"{kind.cost.unit} of the full-size network\n{runs} a point; {bars}\n{noise}"
    _set_axes(axes, kind, x_name, f"{_Y[kind.shown]} on {NAMES.get(used, used)}, %")


_Y = {"error": "test error", "top1": "test accuracy"}


def _draw_lines(axes: Axes, some: pd.DataFrame, kind: TradeOff) -> None:
    for _, members in some.groupby("series", sort=False):
        line, look = members.sort_values("x"), kind.look(members["model"].iloc[0])
        axes.plot(line["x"], line[kind.shown], color=look.colour, marker=look.marker, ls=look.line, zorder=3)
        for x, ends in _bars(line, kind, ("min", "max") if _too_wide(some) else ("low", "high")):
            axes.plot([x, x], ends, "_-", color=look.colour, lw=0.8, zorder=2)


def _too_wide(some: pd.DataFrame) -> bool:
    """Whether drawing the intervals would flatten everything else, as with two runs that differ much."""
    return bool((some["high"] - some["low"]).max() > 2 * np.ptp(some["top1"]))


def _bars(some: pd.DataFrame, kind: TradeOff, ends: tuple[str, str]) -> list[tuple[float, tuple[float, float]]]:
    """x and the two ends, as they are drawn, of each point of several runs; ends: their columns."""
    several = some[some["n"] > 1]
    found = zip(several["x"], several[ends[0]], several[ends[1]], strict=True)
    return [(x, (100 - high, 100 - low) if kind.shown == "error" else (low, high)) for x, low, high in found]


def _set_axes(axes: Axes, kind: TradeOff, x_name: str, y_name: str) -> None:
    axes.set_xscale("log")
    axes.set_xticks(kind.cost.ticks, [f"{tick:g}" for tick in kind.cost.ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel=x_name, ylabel=y_name)
    axes.tick_params(labelbottom=True)
    axes.margins(0.1, 0.12)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -2), min(high, 102))


def _legend(figure: Figure, kind: TradeOff, found: pd.DataFrame) -> None:
    """Below all panels, where no data can be in its way."""
    looks = dict.fromkeys(map(kind.look, found["model"]))
    handles = [Line2D([], [], color=look.colour, marker=look.marker, ls=look.line, label=look.name) for look in looks]
    if any(line.get_marker() == "|" for axes in figure.axes for line in axes.lines):
        handles.append(Line2D([], [], color=INK, marker="|", ls=":", lw=0.7, label="cost as printed"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), columnspacing=1.5)


def _write_labels(axes: Axes, some: pd.DataFrame, kind: TradeOff) -> None:
    labels = [
        Label(row["x"], row[kind.shown], row["label"], kind.look(row["model"]).colour)
        for row in some.to_dict("records")
    ]
    place_labels(axes, labels, [line.get_xydata() for line in axes.lines if len(line.get_xydata()) > 1])
