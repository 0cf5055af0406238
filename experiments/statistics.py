"""Figures of a handful of runs: mean, standard deviation, Student-t interval; and what the test set's size allows."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from xnets.errors import XNetsError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """n numbers in their own unit. sd has n - 1 in its denominator; low to high is the Student-t interval of the mean.

    sd, low and high are None for a single number. The t interval keeps its promised coverage at small n, where a
    bootstrap does not (n = 5: 95 % against 84 %).
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    min: float
    max: float


def summarise(values: Sequence[float], confidence: float = CONFIDENCE) -> Summary:
    """Summarise one or more numbers. Raises XNetsError if there is none."""
    n = len(values)
    if not n:
        raise XNetsError("There is no run to summarise.")
    mean, sd, low, high = statistics.fmean(values), None, None, None
    if n > 1:
        from scipy.special import stdtrit

        sd = statistics.stdev(values)
        half = float(stdtrit(n - 1, (1 + confidence) / 2)) * sd / math.sqrt(n)
        low, high = mean - half, mean + half
    return Summary(n, mean, sd, low, high, min(values), max(values))


def binomial_se(top1: float, n_test: int) -> float:
    """Standard error, in points, of an accuracy of top1 % seen on n_test images: the test set's share of the noise."""
    if n_test < 1 or not 0 <= top1 <= 100:
        raise XNetsError(f"An accuracy is 0 to 100 % of at least one image, not {top1} % of {n_test}.")
    return math.sqrt(top1 * (100 - top1) / n_test)
