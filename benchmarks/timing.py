"""Times of things that take turns, so that what else the machine does falls on all of them alike."""

import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from tqdm import tqdm

from xnets.layers.timings import clock_of
from xnets.machine import MALLOC


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as a baseline: median and quartiles over the repeats, each against its own round."""

    median: float
    low: float
    high: float


def as_trained() -> None:
    """Begin the program anew, with memory handed out as to runs that are trained, to all methods alike."""
    if os.environ.get("GLIBC_TUNABLES") != MALLOC:
        os.environ["GLIBC_TUNABLES"] = MALLOC
        sys.stdout.flush()
        os.execv(sys.executable, sys.orig_argv)


def clock() -> float:
    """Seconds on the CPU; with one thread that thread's, which stops while others run on its core."""
    return clock_of(torch.device("cpu"))()


def interleaved(
    work: dict[Hashable, Callable[[], object]], repeats: int, what: str | None = None, seconds: float = float("inf"),
    clock: Callable[[], float] = clock,
) -> dict[Hashable, list[float]]:  # fmt: skip
    """Milliseconds of each piece of work in each of `repeats` rounds; one more goes first to compile and warm up.

    Each round has an order of its own, since what a piece leaves in the caches is the next one's luck.

    what: the title of a progress bar; None for none. seconds: no further round begins after them, but two are done.
    """
    times: dict[Hashable, list[float]] = {name: [] for name in work}
    begun = time.monotonic()
    for repeat in tqdm(range(repeats + 1), desc=what, leave=False, disable=what is None):
        if repeat > 2 and time.monotonic() - begun > seconds:
            break
        for name in random.Random(repeat).sample(list(work), len(work)):
            started = clock()
            work[name]()
            took = 1e3 * (clock() - started)
            if repeat:
                times[name].append(took)
    return times


def ratio(times: list[float], baselines: list[list[float]]) -> Ratio:
    """Against the fastest of the baselines by its median, round by round."""
    baseline = min(baselines, key=statistics.median)
    ratios = [b / t for b, t in zip(baseline, times, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else (ratios[0],) * 3
    return Ratio(statistics.median(ratios), low, high)
