"""The points of Figs. 3-6 as data: accuracy and cost, the authors' and ours."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from paper_figures.frames import published_in

COLUMNS = [
    "panel", "dataset", "trained_on", "row", "model", "series", "label", "x", "x_unit", "x_counting", "x_printed",
    "top1", "error", "low", "high", "min", "max", "n", "source", "note",
]  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """An x axis: a count of an item's frame, in millions, times `factor` to be in `unit`; ticks are in that unit."""

    count: str  # "macs_M" or "params_M"
    unit: str
    ticks: tuple[float, ...]
    factor: float = 1.0


@dataclass(frozen=True)
class Look:
    """A line of points: its name, in the data and in the legend, and how it is drawn."""

    name: str
    colour: str
    marker: str = "o"
    line: str = "-"


def points(frame: pd.DataFrame, cost: Cost, look: Callable[[str], Look], label: Callable[[str], str]) -> pd.DataFrame:
    """One line for each point of a figure, from its frame; a row has two, one or none, and one for each scale of which
    runs of it are published.

    panel: "authors", "ours" or "published <scale>". dataset: the paper's; trained_on: the one really used. x: our
    count, in x_unit, of the network that the authors trained (x_counting "authors"), or of the full-size network by the
    paper's rule ("paper"), also where a smaller one was trained. x_printed: the cost that the paper prints. top1,
    error: in %; ours are means over n runs, of which min and max are the lowest and the highest top1; low to high is
    its 95 % Student-t interval.
    """
    lines: list[dict[str, Any]] = []
    for row in frame.to_dict("records"):
        about = {name: row[name] for name in ("dataset", "row", "model", "note")}
        about |= {"series": look(row["model"]).name, "label": label(row["model"]), "x_unit": cost.unit}
        about["x_printed"] = _printed(row, cost)
        if not pd.isna(row["printed_top1"]):
            lines.append(about | {
                "panel": "authors", "trained_on": row["dataset"], "x_counting": "authors",
                "x": row[f"{cost.count}_authors"] * cost.factor, "top1": row["printed_top1"],
                "source": f"log best: {row['log']}" if row["printed_source"] == "log best" else row["printed_source"],
            })  # fmt: skip
        if row["trained_on"]:
            lines.append(about | {
                "panel": "ours", "trained_on": row["trained_on"], "x_counting": "paper",
                "x": row[cost.count] * cost.factor, "top1": row["ours_mean"], "low": row["ours_low"],
                "high": row["ours_high"], "min": row["ours_min"], "max": row["ours_max"], "n": row["ours_n"],
                "source": f"results/{row['scale']}/evaluations",
            })  # fmt: skip
        for scale in published_in(frame):
            if not pd.isna(row[f"published_{scale}_n"]):
                of = {name: row[f"published_{scale}_{name}"] for name in ("mean", "low", "high", "min", "max", "n")}
                lines.append(about | {
                    "panel": f"published {scale}", "trained_on": row["dataset"], "x_counting": "paper",
                    "x": row[cost.count] * cost.factor, "top1": of.pop("mean"), "source": f"published/{scale}", **of,
                })  # fmt: skip
    found = pd.DataFrame(lines, columns=COLUMNS)
    found["error"] = 100 - found["top1"]
    return found.astype({"n": "Int64"})


def _printed(row: dict[str, Any], cost: Cost) -> float:
    """The printed cost in the axis's unit; printed FLOPs may be MACs or half of one each."""
    if cost.count == "params_M":
        return row["printed_params_M"] * cost.factor
    return row["printed_flops_M"] * cost.factor / (2 if row["flops_unit"] == "2 MACs" else 1)
