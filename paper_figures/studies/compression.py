"""Accuracy of a study's networks against their compression C, one line for each combination of its factors."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.studies import Study
from paper_figures.drawing import COLOURS, DENSE, INK, NO_REPRODUCTION, new_figure, styled
from paper_figures.studies.frames import face, headed, summary_frame
from xnets.models import parse_name

LOOKS = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))  # dash and mark of the levels of the last factor
APART = 0.06  # of a doubling of C: between the points of two lines at one C


@styled
def draw(study: Study, frame: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """The figure, and its data: `summary_frame` of the runs, with line (the levels of the factors, of a reference its
    name) and compression (of a reference none)."""
    data = summary_frame(frame)
    names = zip(data["label"], data["network"], strict=True)
    data.insert(1, "line", [label.removeprefix(f"{network}, ") for label, network in names])
    data.insert(2, "compression", [parse_name(network).compression for network in data["network"]])
    about, stand_in = face(frame)
    figure = new_figure(3.6)
    axes = figure.subplots()
    sparse = data[~data["reference"]]
    lines = list(sparse.groupby("line", sort=False))
    for place, (_, points) in enumerate(lines):
        shift = 2 ** (APART * (place - (len(lines) - 1) / 2))
        _draw_line(axes, points, frame, shift, *_look(study, points.iloc[0]))
    for reference in data[data["reference"]].to_dict("records"):
        axes.axhspan(reference["low"], reference["high"], color=DENSE, alpha=0.1, lw=0, zorder=0)
        label = f"{reference['label']} ({_runs(reference['n'], reference['n'])})"
        axes.axhline(reference["mean"], color=DENSE, lw=0.8, ls=":", zorder=1, label=label)
    planned = sorted({parse_name(network).compression for network in study.networks})
    trained = set(sparse["compression"])
    axes.set_xscale("log", base=2)
    axes.set_xticks(planned, [f"{c}" if c in trained else f"{c}\n(no run yet)" for c in planned], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlim(planned[0] / 1.4, planned[-1] * 1.4)
    axes.set(xlabel="compression C", ylabel=f"test accuracy on {frame['trained_on'].iloc[0]}, %")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    if stand_in:
        axes.set_facecolor(NO_REPRODUCTION)
    figure.suptitle(
        headed(study, f"{about}. Means after the last epoch; bars, band: 95 % t intervals; pale: single runs."),
        fontsize=8.5, x=0.01, ha="left", color=INK,
    )  # fmt: skip
    return figure, data


def _look(study: Study, point: pd.Series) -> tuple[str, str, str]:
    """Colour by the level of the first factor that varies; dash and mark by that of the last, if it is another."""
    varied = [factor for factor, levels in study.factors.items() if len(levels) > 1]
    first, last = (study.factors[f].index(point[f]) for f in (varied[0], varied[-1])) if varied else (0, 0)
    return list(COLOURS.values())[first % len(COLOURS)], *LOOKS[last % len(LOOKS) if len(varied) > 1 else 0]


def _draw_line(
    axes: Axes, points: pd.DataFrame, frame: pd.DataFrame, shift: float, colour: str, dash: str, mark: str
) -> None:
    points = points.sort_values("compression")
    at = points["compression"].astype(float) * shift
    label = f"{points['line'].iloc[0]} ({_runs(points['n'].min(), points['n'].max())})"
    axes.plot(at, points["mean"], mark, ls=dash, color=colour, ms=4, lw=1, zorder=3, label=label)
    for x, point in zip(at, points.to_dict("records"), strict=True):
        axes.plot([x, x], [point["low"], point["high"]], "_-", color=colour, lw=0.8, zorder=2)
        single = frame.loc[frame["label"] == point["label"], "top1"]
        axes.plot([x] * len(single), single, "o", color=colour, ms=2.5, alpha=0.35, mew=0, zorder=2)


def _runs(fewest: int, most: int) -> str:
    if fewest == most:
        return f"{most} run" if most == 1 else f"{most} runs"
    return f"{fewest} to {most} runs"
