"""The paper's numbers: experiments/paper/."""

import csv
from pathlib import Path

PAPER = Path(__file__).parents[2] / "experiments" / "paper"


def rows(name):
    with (PAPER / name).open(newline="") as file:
        return list(csv.DictReader(file))
