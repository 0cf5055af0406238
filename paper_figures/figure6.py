"""Fig. 6: wider and deeper X-DenseNet-BCs: accuracy on CIFAR-100 over parameters."""

import pandas as pd
from matplotlib.figure import Figure

from experiments.settings import Settings
from paper_figures.drawing import COLOURS
from paper_figures.points import Cost, Look
from paper_figures.tradeoff import TradeOff, draw_tradeoff
from xnets.models import parse_name

LOOKS = {
    "DenseNet-BC-40-60": Look("40-60", COLOURS["grey"], "D"),
    "DenseNet-BC-58-60": Look("58-60 (deeper)", COLOURS["orange"], "^", "--"),
    "DenseNet-BC-70-60": Look("70-60 (deeper)", COLOURS["red"], "v", "--"),
    "DenseNet-BC-40-100": Look("40-100 (wider)", COLOURS["sky"], "s"),
    "DenseNet-BC-40-200": Look("40-200 (wider)", COLOURS["blue"]),
}


def draw(settings: Settings) -> tuple[Figure, pd.DataFrame]:
    """The figure and its points."""
    params = Cost("params_M", "million parameters", (0.6, 1, 2, 5, 10, 20, 50))
    return draw_tradeoff(
        TradeOff("figure6", params, "top1", "best test epoch, n = 1", _look, _label, 3.8),
        settings,
    )


def _look(model: str) -> Look:
    return LOOKS[parse_name(model).dense_twin]


def _label(model: str) -> str:
    """X-C, or C = 1 for the dense networks."""
    name = parse_name(model)
    return f"X-{name.compression}" if name.kind else "dense"
