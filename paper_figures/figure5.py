"""Fig. 5: ResNet against X-ResNet: error on ImageNet over FLOPs."""

import pandas as pd
from matplotlib.figure import Figure

from experiments.settings import Settings
from paper_figures.drawing import DENSE, EXPANDER
from paper_figures.points import Cost, Look
from paper_figures.tradeoff import TradeOff, draw_tradeoff
from xnets.models import parse_name

LOOKS = {"": Look("ResNet", DENSE, "D"), "X": Look("X-ResNet", EXPANDER)}


def draw(settings: Settings) -> tuple[Figure, pd.DataFrame]:
    """The figure and its points."""
    flops = Cost("macs_M", "100M FLOPs (2 a MAC)", (40, 60, 80, 120, 160), 0.02)
    return draw_tradeoff(
        TradeOff(
            "figure5", flops, "error", "Table 1, best test epoch, n = 1", lambda name: LOOKS[parse_name(name).kind], str
        ),
        settings,
    )
