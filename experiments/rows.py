"""Every row of Tables 1-5 and every point of Figs. 3-6 as data, with the printed values and where they come from."""

import csv
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from xnets.errors import XNetsError

PAPER = Path(__file__).parent / "paper"


@dataclass(frozen=True)
class Row:
    """One row of a table or point of a figure; numbers that the paper does not print are None.

    top1 values are in %, params in millions, flops in millions of `flops_unit` ("MACs" or "2 MACs"). printed_source
    says where printed_top1 is from: the paper's figures have no readable values, so their points are the logs' best
    epochs. log, log_best, log_final: the authors' log of this network and its best and last test epoch. Rows that
    quote other people's methods have no model.
    """

    item: str
    row: str
    model: str
    dataset: str
    protocol: str
    printed_top1: float | None
    printed_sd: float | None
    printed_max: float | None
    printed_min: float | None
    printed_range: float | None
    printed_params_M: float | None
    printed_flops_M: float | None
    flops_unit: str
    printed_source: str
    log: str
    note: str
    log_best: float | None = None
    log_final: float | None = None


@cache
def read_rows() -> tuple[Row, ...]:
    """All rows, in the paper's order."""
    logs = {entry["log"]: entry for entry in read_csv("author_logs.csv")}
    rows = []
    for entry in read_csv("rows.csv"):
        said = {key: _number(value) if key in _NUMBERS else value for key, value in entry.items()}
        log = logs.get(entry["log"], {})
        best, final = _number(log.get("best_top1", "")), _number(log.get("final_top1", ""))
        rows.append(Row(**said, log_best=best, log_final=final))
    _check_complete(rows)
    return tuple(rows)


def _check_complete(rows: list[Row]) -> None:
    """Every printed row and every point of a figure must be there; more may be."""
    printed = Counter(
        f"figure{point['figure']}" for point in read_csv("figure_points.csv") if point["figure"].isdigit()
    )
    for number in range(1, 6):
        lines = read_csv(f"table{number}.csv")
        printed[f"table{number}"] = sum(line.get("Accuracy") != "" for line in lines)
    there = Counter(row.item for row in rows)
    for item, count in printed.items():
        if there[item] < count:
            raise XNetsError(
                f"{PAPER / 'rows.csv'} has {there[item]} of the {count} rows of {item}: take the file back from git."
            )


def read_csv(name: str) -> list[dict[str, str]]:
    """A file of experiments/paper/."""
    with open(PAPER / name, newline="") as file:
        return list(csv.DictReader(file))


_NUMBERS = {name for name, kind in Row.__annotations__.items() if kind == float | None}


def _number(text: str) -> float | None:
    return float(text) if text else None
