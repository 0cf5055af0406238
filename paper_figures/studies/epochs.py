"""Test accuracy of every configuration of a study, epoch by epoch, one panel for each network: from where on they can
be told apart."""

from dataclasses import asdict
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.cells import Cell
from experiments.plan import Plan
from experiments.published import Record
from experiments.statistics import summarise
from experiments.studies import Study
from paper_figures.drawing import COLOURS, DENSE, INK, new_figure, styled
from paper_figures.labels import Label
from paper_figures.studies.frames import are_crossed, configuration_label, headed

LINES = ("-", "--", ":", "-.")
LINE_HEIGHT = 0.055  # of a label, as a share of the axis


def epoch_frame(study: Study, plan: Plan, records: dict[Cell, list[Record]]) -> pd.DataFrame:
    """One line for each epoch of each configuration: label, network, level (of the last factor, which dashes show),
    epoch (from 1), and over its runs the test accuracy in %: n, mean, sd, low to high (95 % t interval), min, max.
    """
    lines = []
    factor = next((name for name in reversed(study.factors) if len(study.factors[name]) > 1), None)
    for cell, found in records.items():
        if cell.study != study.name or not found:
            continue
        reference = cell.model.name in study.references
        about = {
            "label": configuration_label(study, cell.model),
            "network": cell.model.name,
            "reference": reference,
            "level": None if reference or factor is None else getattr(cell.model, factor),
        }
        crossed = are_crossed((record.run.graph_seed, record.run.train_seed) for record in found)
        for epoch in range(cell.protocol.epochs):
            top1 = [record.said["epochs"][epoch]["test_top1"] for record in found]
            line = about | {"epoch": epoch + 1} | asdict(summarise(top1))
            lines.append(line | ({"low": None, "high": None} if crossed else {}))
    return pd.DataFrame(lines).astype(dict.fromkeys(("sd", "low", "high"), float))


@styled
def draw(study: Study, data: pd.DataFrame, about: str) -> Figure:
    """The figure of `epoch_frame`; about: what the runs are."""
    networks = list(dict.fromkeys(data.loc[~data["reference"], "network"])) or [None]
    figure = new_figure(0.6 + 3.0 * len(networks))
    grid = figure.subplots(len(networks), sharex=True, sharey=True, squeeze=False)[:, 0]
    levels = list(dict.fromkeys(data["level"].dropna()))
    ends = [
        _panel(axes, data[data["reference"] | (data["network"] == network)], levels)
        for axes, network in zip(grid, networks, strict=True)
    ]
    for axes, network, labels in zip(grid, networks, ends, strict=True):
        _write_beside(axes, labels)  # once all panels have settled their common limits
        axes.set_ylabel("test accuracy, %")
        axes.set_title(network or "", fontsize=8, loc="left")
    last = data["epoch"].max()
    grid[-1].set(xlabel="epoch", xlim=(0, last * 1.26))
    grid[-1].set_xticks([tick for tick in grid[-1].get_xticks() if tick <= last])
    figure.suptitle(
        headed(study, f"{about}. Means over runs (their number in brackets); at the end 95 % t intervals."),
        fontsize=8.5, x=0.01, ha="left", color=INK,
    )  # fmt: skip
    return figure


def _panel(axes: Axes, data: pd.DataFrame, levels: list[str]) -> list[Label]:
    """Draw the lines; the labels of their ends."""
    ends = []
    colours = cycle(COLOURS.values())
    by_name: dict[str, str] = {}
    for label, line in data.groupby("label", sort=False):
        reference, level, network = (line[column].iloc[0] for column in ("reference", "level", "network"))
        short = label if reference else label.removeprefix(f"{network}, ")
        name = short.removesuffix(f", {level}")  # lines of one name share a colour
        colour = DENSE if reference else by_name.setdefault(name, by_name.get(name) or next(colours))
        style = "-" if reference or pd.isna(level) else LINES[levels.index(level) % len(LINES)]
        axes.plot(line["epoch"], line["mean"], color=colour, ls=style, lw=1.1, label=short)
        last = line.iloc[-1]
        if last["n"] > 1:
            axes.plot([last["epoch"]] * 2, [last["low"], last["high"]], "_-", color=colour, lw=0.8)
        ends.append(Label(last["epoch"], last["mean"], f"{short} ({int(last['n'])})", colour))
    return ends


def _write_beside(axes: Axes, labels: list[Label]) -> None:
    """To the right of the lines, at the height where each ends or as near as the others let it."""
    low, high = axes.get_ylim()
    heights: list[float] = []
    for label in (labels := sorted(labels, key=lambda label: label.y)):
        heights.append(max(label.y, heights[-1] + LINE_HEIGHT * (high - low)) if heights else label.y)
    middle = np.mean([height - label.y for height, label in zip(heights, labels, strict=True)])
    for label, height in zip(labels, heights, strict=True):
        beside = 1.03 * label.x, height - middle
        axes.plot([1.005 * label.x, 0.995 * beside[0]], [label.y, beside[1]], color=label.colour, lw=0.4)
        axes.text(*beside, label.text, fontsize=6.5, color=label.colour, va="center")
