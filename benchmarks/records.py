"""The csv files of the benchmarks: where they were taken, and how they are written."""

import csv
import functools
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from xnets.machine import cpu_name


def machine() -> str:
    """CPU and cores, as the first column of every file."""
    return f"{cpu_name()}, {os.cpu_count()} cores"


@functools.cache
def commit() -> str:
    """The code's, with a + if files were changed since; "" where there is no git.

    Other files may change: the csv files do while they are measured, which provenance.commit would call dirty.
    """
    here, found = Path(__file__).parent, []
    for command in (["rev-parse", "--short=7", "HEAD"], ["status", "--porcelain", "--", "*.py"]):
        try:
            found.append(subprocess.run(["git", *command], cwd=here, capture_output=True, text=True, check=True).stdout)
        except (OSError, subprocess.CalledProcessError):
            return ""
    return found[0].strip() + ("+" if found[1] else "")


def write_rows(path: Path, columns: list[str], rows: Iterable[list]) -> None:
    """Each row as it comes: measuring takes long, and what is measured stays if it is broken off.

    `columns` begin with the machine; the commit comes after it.
    """
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([columns[0], "commit", *columns[1:]])
        for row in rows:
            writer.writerow([machine(), commit(), *row])
            file.flush()
