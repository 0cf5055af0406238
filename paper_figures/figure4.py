"""Fig. 4: DenseNet-BC against X-DenseNet-BC: error on CIFAR-10 and CIFAR-100 over multiply-adds."""

import pandas as pd
from matplotlib.figure import Figure

from experiments.settings import Settings
from paper_figures.drawing import DENSE, EXPANDER
from paper_figures.points import Cost, Look
from paper_figures.tradeoff import TradeOff, draw_tradeoff
from xnets.models import parse_name

LOOKS = {
    ("", 40): Look("DenseNet-BC-40-G", DENSE, "D"),
    ("", 100): Look("DenseNet-BC-100-G", DENSE, "d", ":"),
    ("X", 40): Look("X-DenseNet-BC-2-40-G", EXPANDER),
    ("X", 100): Look("X-DenseNet-BC-2-100-G", EXPANDER, "v", ":"),
}


def draw(settings: Settings) -> tuple[Figure, pd.DataFrame]:
    """The figure and its points."""
    macs = Cost("macs_M", "million MACs", (150, 300, 600, 1200, 1800))
    return draw_tradeoff(
        TradeOff("figure4", macs, "error", "best test epoch, n = 1", _look, _label),
        settings,
    )


def _look(model: str) -> Look:
    name = parse_name(model)
    return LOOKS[name.kind, name.depth]


def _label(model: str) -> str:
    """X-C-D-G or D-G, as the paper writes it."""
    return model.replace("DenseNet-BC-", "")
