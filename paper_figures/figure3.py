"""Fig. 3: MobileNet-0.5 with groups against expanders: error on ImageNet over multiply-adds."""

import pandas as pd
from matplotlib.figure import Figure

from experiments.settings import Settings
from paper_figures.drawing import DENSE, EXPANDER, GROUPED
from paper_figures.points import Cost, Look
from paper_figures.tradeoff import TradeOff, draw_tradeoff
from xnets.models import parse_name

LOOKS = {
    "X": Look("X-MobileNet-0.5 (expander)", EXPANDER),
    "G": Look("Group-MobileNet-0.5", GROUPED, "s", "--"),
    "": Look("MobileNet-0.5 (dense)", DENSE, "D"),
}


def draw(settings: Settings) -> tuple[Figure, pd.DataFrame]:
    """The figure and its points."""
    macs = Cost("macs_M", "million MACs", (30, 50, 70, 100, 150))
    return draw_tradeoff(
        TradeOff("figure3", macs, "error", "Table 5, n = 2", lambda name: LOOKS[parse_name(name).kind], _label),
        settings,
    )


def _label(model: str) -> str:
    name = parse_name(model)
    return f"{name.kind}-{name.compression}" if name.kind else "base"
