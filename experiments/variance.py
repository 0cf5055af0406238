"""Where the variance between runs is from: the graph's seed, the training's seed, or neither alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.statistics import CONFIDENCE
from xnets.errors import XNetsError
from xnets.seeds import uniform

DRAWS = 100_000  # of each chi-squared number, for the generalised intervals


@dataclass(frozen=True)
class Component:
    """One source of variance, in squared units of the numbers.

    df, mean_square: its line of the analysis of variance. variance: the unbiased estimate, which chance can make
    negative. low to high: the interval of the variance, cut at 0. share: of the sum of the three variances, with
    negative estimates taken as 0, and its interval; None if nothing varies at all. p: of the F test that the variance
    is 0, against the rest; None for the rest itself, and where nothing is left to test against.
    """

    name: str
    df: int
    mean_square: float
    variance: float
    low: float
    high: float
    share: float | None
    share_low: float | None
    share_high: float | None
    p: float | None


@dataclass(frozen=True)
class VarianceSplit:
    """A crossed table of graphs x trains numbers, one a cell, split by the two-way random-effects model."""

    graphs: int
    trains: int
    mean: float
    graph: Component
    train: Component
    rest: Component

    @property
    def components(self) -> tuple[Component, Component, Component]:
        """The three sources."""
        return self.graph, self.train, self.rest


def split_variance(table: Sequence[Sequence[float]], confidence: float = CONFIDENCE) -> VarianceSplit:
    """Split the variance of table[graph seed][train seed], with y = mean + graph + train + rest, all normal.

    With one run for each pair of seeds, the interaction of graph and training and what neither explains are one number,
    the rest; where a run is the same to the last bit when it is repeated, the rest is the interaction alone.

    The interval of the rest is exact (chi-squared). Those of the others and of the shares are generalised confidence
    intervals (Weerahandi, 1993): the distribution of (SS / U - SS_rest / U_rest) / runs of a level, U chi-squared, from
    100,000 draws of a fixed stream. They cover what they say or a little more, and are wide: 4 seeds are 3 degrees of
    freedom.

    Raises:
        XNetsError: fewer than two seeds on a side, rows of different lengths, a number that is not finite.
    """
    if len(table) < 2 or len({len(row) for row in table}) != 1 or len(table[0]) < 2:
        raise XNetsError("Variance is split over at least 2 graph seeds, each with the same 2 or more train seeds.")
    y = np.asarray(table, dtype=float)
    if not np.isfinite(y).all():
        raise XNetsError("Variance is split of finite numbers; one of these is not.")
    graphs, trains = y.shape
    mean, rows, columns = y.mean(), y.mean(axis=1), y.mean(axis=0)
    squares = np.array([
        trains * ((rows - mean) ** 2).sum(),
        graphs * ((columns - mean) ** 2).sum(),
        ((y - rows[:, None] - columns + mean) ** 2).sum(),
    ])  # fmt: skip
    squares[squares < 1e-20 * (1 + mean**2) * y.size] = 0.0  # what rounding leaves of equal numbers
    df = np.array([graphs - 1, trains - 1, (graphs - 1) * (trains - 1)])
    mean_squares = squares / df
    levels = np.array([trains, graphs])
    variances = np.append((mean_squares[:2] - mean_squares[2]) / levels, mean_squares[2])
    drawn = _pivots(squares, df, levels)
    ends = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=1)
    ends[:, 2] = _chi2_interval(squares[2], int(df[2]), confidence)
    positive, whole = variances.clip(0), drawn.sum(axis=0)
    shares = [None] * 3
    if positive.sum() > 0:
        inside = np.quantile(drawn / whole, [(1 - confidence) / 2, (1 + confidence) / 2], axis=1)
        shares = [(float(positive[i] / positive.sum()), *map(float, inside[:, i])) for i in range(3)]
    found = [
        Component(
            name, int(df[i]), float(mean_squares[i]), float(variances[i]), *map(float, ends[:, i]),
            *(shares[i] or (None, None, None)), _p_value(mean_squares, df, i),
        )
        for i, name in enumerate(("graph_seed", "train_seed", "rest"))
    ]  # fmt: skip
    return VarianceSplit(graphs, trains, float(mean), *found)


def _pivots(squares: np.ndarray, df: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """(3, DRAWS): what the three variances may be, given the sums of squares."""
    from scipy.special import chdtri

    chances = uniform(0, (3, DRAWS)).clip(1e-12, 1 - 1e-12)
    per_draw = np.stack([squares[i] / chdtri(df[i], chances[i]) for i in range(3)])
    return np.stack([*((per_draw[:2] - per_draw[2]) / levels[:, None]).clip(0), per_draw[2]])


def _chi2_interval(square: float, df: int, confidence: float) -> tuple[float, float]:
    from scipy.special import chdtri

    return square / chdtri(df, (1 - confidence) / 2), square / chdtri(df, (1 + confidence) / 2)


def _p_value(mean_squares: np.ndarray, df: np.ndarray, i: int) -> float | None:
    from scipy.special import fdtrc

    if i == 2 or mean_squares[2] == 0:
        return None
    return float(fdtrc(df[i], df[2], mean_squares[i] / mean_squares[2]))
