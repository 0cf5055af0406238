"""Accuracy of every configuration of a study, beside its references."""

import pandas as pd
from matplotlib.figure import Figure

from experiments.studies import Study
from paper_figures.drawing import DENSE, EXPANDER, INK, NO_REPRODUCTION, new_figure, styled
from paper_figures.studies.frames import face, summary_frame


@styled
def draw(study: Study, frame: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """The figure, and its data: `summary_frame` of the runs."""
    data = summary_frame(frame)
    about, stand_in = face(frame)
    figure = new_figure(1.2 + 0.24 * len(data), 6.0)
    axes = figure.subplots()
    for place, line in enumerate(data.to_dict("records")):
        colour = DENSE if line["reference"] else EXPANDER
        if line["reference"]:
            axes.axvline(line["mean"], color=DENSE, lw=0.7, ls=":", zorder=1)
        runs = frame.loc[frame["label"] == line["label"], "top1"]
        axes.plot(runs, [place] * len(runs), "o", color=colour, ms=3, alpha=0.35, mew=0, zorder=2)
        axes.plot([line["low"], line["high"]], [place, place], "|-", color=colour, lw=0.9, zorder=2)
        axes.plot(line["mean"], place, "D" if line["reference"] else "o", color=colour, ms=5, zorder=3)
    axes.set_yticks(range(len(data)), data["label"])
    axes.set_ylim(len(data) - 0.5, -0.5)
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, 0), min(high, 100))
    if stand_in:
        axes.set_facecolor(NO_REPRODUCTION)
    axes.set_xlabel(f"test accuracy on {frame['trained_on'].iloc[0]} after the last epoch, %\n{_key(data)}")
    networks = ", ".join(study.networks)
    figure.suptitle(f"{study.question}  {networks}\n{about}", fontsize=8.5, x=0.01, ha="left", color=INK)
    return figure, data


def _key(data: pd.DataFrame) -> str:
    fewest, most = int(data["n"].min()), int(data["n"].max())
    runs = f"{fewest} runs" if fewest == most else f"{fewest} to {most} runs"
    diamond = "; diamond, dotted: reference" if data["reference"].any() else ""
    return f"mean of {runs}, bar: 95 % t interval, pale: single runs{diamond}"
