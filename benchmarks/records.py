"""The csv files of the benchmarks: where they were taken, and how they are written."""

import csv
import os
from collections.abc import Iterable
from pathlib import Path

from xnets.machine import cpu_name


def machine() -> str:
    """CPU and cores, as the first column of every file."""
    return f"{cpu_name()}, {os.cpu_count()} cores"


def write_rows(path: Path, columns: list[str], rows: Iterable[list]) -> None:
    """Each row as it comes: measuring takes long, and what is measured stays if it is broken off."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow([machine(), *row])
            file.flush()
