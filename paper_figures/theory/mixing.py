"""Theorem 2: edges between sets of inputs and outputs against D|S||T|/n, and the expander mixing lemma's bound."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from paper_figures.drawing import COLOURS, DENSE, EXPANDER, new_figure, styled
from paper_figures.theory.measured import read

SHOWN = {"random": "random (the paper's)", "ramanujan": "Ramanujan", "grouped": "grouped"}


@styled
def draw(folder: Path | None = None) -> tuple[Figure, pd.DataFrame]:
    """The figure, and the sets behind it: see experiments.theory.mixing for the columns."""
    data = read("mixing", folder)
    data["searched"] = data[["greedy", "spectral"]].max(axis=1)
    n, degree = int(data["n"].iloc[0]), int(data["degree"].iloc[0])
    figure = new_figure(2.9)
    panels = figure.subplots(1, len(SHOWN), sharex=True, sharey=True)
    span = np.array([data["expected"].min() / 1.5, data["expected"].max() * 1.5])
    for i, (axes, (name, title)) in enumerate(zip(panels, SHOWN.items(), strict=True)):
        some = data[data["graph"] == name].sort_values("expected")
        axes.plot(span, span, color=DENSE, lw=0.9, ls=":")
        lone = np.sqrt(span * n / degree) * some["sigma_ratio"].iloc[0] * degree
        axes.plot(span, lone, color=DENSE, lw=0.9, ls="--")
        looks = (
            ("bound", "the lemma's bound for these sizes", "_", DENSE, 6),
            ("searched", "the worst sets that a search found", "o", COLOURS["red"], 3.5),
            ("random", f"the worst of {int(some['tries'].iloc[0])} random sets", "o", EXPANDER, 3.5),
        )
        for column, label, marker, colour, size in looks:
            seen = some[some[column] > 0]
            axes.plot(
                seen["expected"], seen[column], color=colour, marker=marker, ms=size, lw=0, mew=0.9,
                mfc="white" if marker == "o" else colour, label=label,
            )  # fmt: skip
        axes.set(xscale="log", yscale="log", xlim=span, xlabel="expected: $D|S||T|/n$ edges")
        axes.set_title(f"{title}: $\\sigma_2/\\sigma_1$ = {some['sigma_ratio'].iloc[0]:.2f}")
        if not i:
            axes.set_ylabel("$|\\,$observed $-$ expected$\\,|$, edges")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    figure.supxlabel(
        f"One layer, $n$ = {n}, $D$ = {degree}. A point: sets $S$ of inputs and $T$ of outputs, one pair of sizes. "
        "Dashed: $\\sigma_2\\sqrt{|S||T|}$.\n"
        "Above the dotted line the difference is more than what is expected: nothing is promised for so small sets.",
        fontsize=8,
    )
    return figure, data
