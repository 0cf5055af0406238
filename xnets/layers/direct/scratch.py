"""Memory that kernels need while they run."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from xnets.layers.direct.forked import ForkedLock

_kept: list[Tensor] = []  # scratch that nobody uses now: fresh memory would cost a page fault for each 4 KiB
_lock = ForkedLock()
_used, _most = 0, 0  # pieces in use now, and at most so far: more are not kept
LARGE = 8 * 1024 * 1024  # floats of a piece that is rather given back


@contextlib.contextmanager
def scratch(floats: int, pieces: int = 1) -> Iterator[list[int]]:
    """Addresses of as many pieces, each with room for at least so many floats and with anything in it."""
    taken = [_take(floats) for _ in range(pieces)]
    yield [room.data_ptr() for room in taken]
    _give_back(taken)  # not after an exception: a thread may be writing there still


@contextlib.contextmanager
def rooms_for(pieces: list[tuple], *floats: int) -> Iterator[list[tuple[tuple[int, ...], tuple]]]:
    """Each piece with scratch of its own: addresses of as many floats as are named."""
    with contextlib.ExitStack() as stack:
        rooms = [stack.enter_context(scratch(n, len(pieces))) for n in floats]
        yield list(zip(zip(*rooms, strict=True), pieces, strict=True))


def _take(floats: int) -> Tensor:
    global _used, _most
    with _lock.now:
        _used, _most = _used + 1, max(_most, _used + 1)
        fitting = [i for i, room in enumerate(_kept) if room.numel() >= floats]
        room = _kept.pop(fitting[0]) if fitting else None  # the smallest
    return torch.empty(floats, dtype=torch.float32, device="cpu") if room is None else room


def _give_back(taken: list[Tensor]) -> None:
    global _used
    with _lock.now:
        _used -= len(taken)
        _kept.extend(room for room in taken if room.numel() <= LARGE)
        _kept.sort(key=Tensor.numel)
        del _kept[: max(0, len(_kept) + _used - _most)]
