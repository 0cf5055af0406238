"""What all figures share: sizes, colours, and files that come out the same to the last byte every time."""

import io
from pathlib import Path

import matplotlib
import matplotlib.style
import pandas as pd
from matplotlib.figure import Figure

from paper_figures.csv_text import csv_text
from xnets.files import write_atomically, write_text

STYLE = Path(__file__).parent / "paper.mplstyle"
WIDTH = 7.0  # inches: the text of two columns, or two panels of 3.4
COLOURS = dict(zip(
    ("blue", "orange", "green", "red", "pink", "brown", "rose", "grey", "yellow", "sky"),
    matplotlib.rc_params_from_file(STYLE, use_default_template=False)["axes.prop_cycle"].by_key()["color"],
    strict=True,
))  # fmt: skip
EXPANDER, GROUPED, DENSE = COLOURS["blue"], COLOURS["orange"], "#444444"
INK, FAINT = "#333333", "#c9c9c9"
NO_REPRODUCTION = "#fff6e0"  # ground of panels whose numbers must not be read as the paper's

styled = matplotlib.style.context(STYLE)  # `@styled` above a function that draws


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure, in inches. Not one of pyplot's: nothing has to be closed and no window can open."""
    return Figure(figsize=(width, height))


@styled
def save(figure: Figure, data: pd.DataFrame, stem: Path) -> None:
    """Write `stem`.pdf, .png and .csv, without the time or anything else that changes from one drawing to the next."""
    for kind, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
        drawn = io.BytesIO()
        figure.savefig(drawn, format=kind, metadata=metadata)
        write_atomically(stem.with_suffix(f".{kind}"), lambda file, drawn=drawn: file.write(drawn.getvalue()))
    write_text(stem.with_suffix(".csv"), csv_text(data))
