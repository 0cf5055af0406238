"""Memory that kernels need while they run."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from xnets.layers.direct.forked import ForkedLock
from xnets.layers.direct.threads import in_parallel

_kept: list[Tensor] = []  # scratch that nobody uses now: fresh memory would cost a page fault for each 4 KiB
_lock = ForkedLock()
_used, _most = 0, 0  # pieces in use now, and at most so far: more are not kept
LARGE = 16 * 1024 * 1024  # floats for each thread, of a piece that is rather given back
LINE = 16  # floats of a line of the cache


class scratch:
    """`with scratch(floats) as address:` room for so many floats, with anything in it."""

    def __init__(self, floats: int) -> None:
        self._floats = floats

    def __enter__(self) -> int:
        self._room = _take(self._floats)
        return self._room.data_ptr()

    def __exit__(self, *_: Any) -> None:
        _give_back(self._room)  # after an exception too: threads that write there were waited for; see threads.py


class Rooms(NamedTuple):
    """How a piece of scratch is shared among the tasks of a kernel."""

    floats: int  # of all of it
    offsets: list[tuple[int, ...]]  # bytes to the rooms of each task

    def in_parallel(self, kernel: Callable[..., None], given: tuple[int, ...], shares: list[tuple[int, ...]]) -> None:
        """kernel(*given, addresses of a task's rooms, *share) for each share."""
        with scratch(self.floats) as first:
            tasks = zip(self.offsets, shares, strict=True)
            in_parallel(kernel, [(*given, *[first + offset for offset in mine], *share) for mine, share in tasks])


def rooms_for(tasks: int, *floats: int) -> Rooms:
    """Each task has as many rooms as sizes are named."""
    sizes = [-(-n // LINE) * LINE for n in floats]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    offsets = [tuple(4 * (task * sum(sizes) + start) for start in starts) for task in range(tasks)]
    return Rooms(tasks * sum(sizes), offsets)


def _take(floats: int) -> Tensor:
    global _used, _most
    with _lock.now:
        _used, _most = _used + 1, max(_most, _used + 1)
        for i, room in enumerate(_kept):  # the smallest first
            if room.numel() >= floats:
                return _kept.pop(i)
    return torch.empty(floats, dtype=torch.float32, device="cpu")


def _give_back(room: Tensor) -> None:
    global _used
    with _lock.now:
        _used -= 1
        if room.numel() <= LARGE * torch.get_num_threads():
            _kept.append(room)
            _kept.sort(key=Tensor.numel)
        del _kept[: max(0, len(_kept) + _used - _most)]
