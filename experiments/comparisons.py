"""Two handfuls of runs compared: is one better, are they as good as equal, do they scatter alike?"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.statistics import CONFIDENCE
from xnets.errors import XNetsError

POWER = 0.8


@dataclass(frozen=True)
class Difference:
    """mean(first) - mean(second), in points of accuracy; the variances may differ (Welch, 1947).

    se, df: its standard error and Welch-Satterthwaite's degrees of freedom. low to high: the 95 % interval. p: of no
    difference, two-sided. detectable: the least true difference that a comparison with this scatter and so many runs
    finds (an interval above 0) in 80 % of cases.
    """

    value: float
    se: float
    df: float
    low: float
    high: float
    p: float
    detectable: float


def welch(first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE) -> Difference:
    """Compare the means of two groups of at least 2 runs. Raises XNetsError for fewer and for numbers that are none."""
    _check(first, second)
    from scipy.special import nctdtrinc, stdtr, stdtrit

    value = statistics.fmean(first) - statistics.fmean(second)
    shares = [statistics.variance(side) / len(side) for side in (first, second)]
    se = math.sqrt(sum(shares))
    if se == 0:  # every run of a side is the same
        df = len(first) + len(second) - 2
        return Difference(value, 0.0, df, value, value, float(value == 0), 0.0)
    df = sum(shares) ** 2 / sum(v**2 / (len(side) - 1) for v, side in zip(shares, (first, second), strict=True))
    t = float(stdtrit(df, (1 + confidence) / 2))
    p = 2 * float(stdtr(df, -abs(value) / se))
    return Difference(value, se, df, value - t * se, value + t * se, p, float(nctdtrinc(df, 1 - POWER, t)) * se)


def equivalence(first: Sequence[float], second: Sequence[float], margin: float) -> tuple[float, float, float]:
    """Whether the means differ by less than `margin`, by two one-sided tests (TOST; Schuirmann, 1987).

    Returns p, the larger of the two tests', and the 90 % interval of the difference: it lies within the margin where
    p < 0.05. Raises XNetsError as `welch` does, and for a margin that is not positive.
    """
    if not margin > 0:
        raise XNetsError(f"A margin must be more than 0 points, not {margin}.")
    from scipy.special import stdtr

    found = welch(first, second, confidence=2 * CONFIDENCE - 1)
    if found.se == 0:
        return float(abs(found.value) >= margin), found.low, found.high
    p = max(float(stdtr(found.df, (sign * found.value - margin) / found.se)) for sign in (1, -1))
    return p, found.low, found.high


def spread_ratio(
    first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """sd(first) / sd(second) and its interval, by the F distribution, for normal numbers.

    Raises XNetsError as `welch` does, and where the runs of a side are all the same.
    """
    _check(first, second)
    from scipy.special import fdtri

    over, under = statistics.variance(first), statistics.variance(second)
    if not over or not under:
        raise XNetsError("The scatter of runs that are all the same cannot be compared.")
    df = len(first) - 1, len(second) - 1
    f = over / under
    low, high = (f / float(fdtri(*df, (1 + sign * confidence) / 2)) for sign in (1, -1))
    return math.sqrt(f), math.sqrt(low), math.sqrt(high)


def _check(first: Sequence[float], second: Sequence[float]) -> None:
    if min(len(first), len(second)) < 2:
        raise XNetsError(f"A comparison needs at least 2 runs a side, not {len(first)} and {len(second)}.")
    if not all(map(math.isfinite, (*first, *second))):
        raise XNetsError("A comparison is of finite numbers; one of these is not.")
