"""Memory that kernels need while they run, and locks that forked children may use."""

import contextlib
import os
import threading
from collections.abc import Iterator

import torch
from torch import Tensor


class ForkedLock:
    """`now` is a lock that is free in a forked child, where the thread that held it is not."""

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self.now = threading.Lock()  # used as it is: a signal's handler may raise between any two lines of Python


_kept: list[Tensor] = []  # scratch that nobody uses now: fresh memory would cost a page fault for each 4 KiB
_lock = ForkedLock()
KEPT = 8  # pieces of it
LARGE = 8 * 1024 * 1024  # floats of a piece that is rather given back


@contextlib.contextmanager
def scratch(floats: int, pieces: int = 1) -> Iterator[list[int]]:
    """Addresses of as many pieces, each with room for at least so many floats and with anything in it."""
    taken = [_take(floats) for _ in range(pieces)]
    yield [room.data_ptr() for room in taken]
    with _lock.now:
        _kept.extend(room for room in taken if room.numel() <= LARGE)
        del _kept[:-KEPT]


def _take(floats: int) -> Tensor:
    with _lock.now:
        fitting = next((i for i, t in enumerate(_kept) if floats <= t.numel() <= 2 * floats + 2**16), None)
        room = None if fitting is None else _kept.pop(fitting)
    return torch.empty(floats, dtype=torch.float32, device="cpu") if room is None else room
