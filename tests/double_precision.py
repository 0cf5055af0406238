"""Training in double precision, for tests that compare what different numbers of processes compute.

Training amplifies rounding: in single precision the batch norms of constant channels turn the last bit into 0.1 %
within an epoch, and one process that only reverses each batch ends percents elsewhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from xnets.data.batches import Batches
from xnets.training import loop


def train_in_double() -> None:
    """Put this process's training into double precision, for good."""
    build, normalised = loop.build_run, Batches._normalised
    loop.build_run = lambda run, device: build(run, device).double()
    Batches._normalised = lambda self, x: normalised(self, x).double()


@contextmanager
def double_precision() -> Iterator[None]:
    """Training in double precision until the end of the block."""
    build, normalised = loop.build_run, Batches._normalised
    train_in_double()
    try:
        yield
    finally:
        loop.build_run, Batches._normalised = build, normalised
