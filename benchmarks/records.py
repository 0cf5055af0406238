"""The csv files of the benchmarks: where they were taken, and how they are written."""

import csv
import functools
import io
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from xnets.files import write_text
from xnets.layers.direct import VECTORS
from xnets.layers.direct.jit import vector_width
from xnets.machine import cpu_name


@functools.cache
def machine() -> str:
    """CPU, cores and vectors, as the first column of every file: virtual machines give different CPUs one name."""
    return f"{cpu_name()}, {os.cpu_count()} cores, {VECTORS.get(vector_width(), 'vectors of 128 bits')}"


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


def write_rows(path: Path, columns: list[str], part: list[str], rows: Iterable[list]) -> None:
    """Put rows into a file, each as it comes: measuring takes long, and what is measured stays if it is broken off.

    columns: the file's, the machine first; the commit comes after it. part: those that name what is measured together.
    What the file has of the same parts, of this machine, is replaced by them; what else it has stays.
    """
    known = list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []
    new: list[dict[str, str]] = []
    measured: set[tuple[str, ...]] = set()

    def key(row: dict[str, str]) -> tuple[str, ...]:
        return tuple(row[column] for column in ("machine", *part))

    for row in rows:
        new.append({"machine": machine(), "commit": commit(), **dict(zip(columns[1:], map(str, row), strict=True))})
        measured.add(key(new[-1]))
        text = io.StringIO()
        writer = csv.DictWriter(text, [columns[0], "commit", *columns[1:]], lineterminator="\n")
        writer.writeheader()
        writer.writerows([row for row in known if key(row) not in measured] + new)
        write_text(path, text.getvalue())
