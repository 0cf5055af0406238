"""The files that `python -m experiments.theory` and `python -m benchmarks.graphs` write."""

from pathlib import Path

import pandas as pd

from xnets.errors import XNetsError

REPOSITORY = Path(__file__).parents[2]
PUBLISHED = REPOSITORY / "docs" / "theory" / "measured"  # in full: make theory
CONSTRUCTIONS = REPOSITORY / "benchmarks" / "graph_gaps.csv"


def read(name: str, folder: Path | None = None) -> pd.DataFrame:
    """One of sensitivity, mixing and gaps from `folder`, or as published in docs/theory/measured."""
    path = (folder or PUBLISHED) / f"{name}.csv"
    try:
        return pd.read_csv(path)
    except FileNotFoundError:
        raise XNetsError(f"There is no {path}: python -m experiments.theory {name} --to {path.parent}") from None
