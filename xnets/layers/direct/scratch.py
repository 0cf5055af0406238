"""Memory that kernels need while they run."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from xnets.layers.direct.forked import ForkedLock

_kept: list[Tensor] = []  # scratch that nobody uses now: fresh memory would cost a page fault for each 4 KiB
_lock = ForkedLock()
KEPT = 16 * 1024 * 1024  # floats of it
LARGE = 8 * 1024 * 1024  # floats of a piece that is rather given back


@contextlib.contextmanager
def scratch(floats: int, pieces: int = 1) -> Iterator[list[int]]:
    """Addresses of as many pieces, each with room for at least so many floats and with anything in it."""
    taken = [_take(floats) for _ in range(pieces)]
    yield [room.data_ptr() for room in taken]
    with _lock.now:  # not after an exception: a thread may be writing there still
        _kept.extend(room for room in taken if room.numel() <= LARGE)
        while sum(room.numel() for room in _kept) > KEPT:
            del _kept[0]


def _take(floats: int) -> Tensor:
    with _lock.now:
        fitting = next((i for i, t in enumerate(_kept) if floats <= t.numel() <= 2 * floats + 2**16), None)
        room = None if fitting is None else _kept.pop(fitting)
    return torch.empty(floats, dtype=torch.float32, device="cpu") if room is None else room
