"""Threads for compiled functions, which release the GIL."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

_pools: dict[int, ThreadPoolExecutor] = {}


def _forget() -> None:
    global _lock
    _pools.clear()  # a forked child has none of the parent's threads
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget)

SMALL = 2_000_000  # multiply-adds that are done before another thread would have woken up


def threads_for(work: int) -> int:
    """How many threads `work` multiply-adds are worth."""
    return torch.get_num_threads() if work > SMALL else 1


def in_parallel(work: Callable[..., None], tasks: list[tuple]) -> None:
    """work(*task) for each task, the first of them in this thread; an error of any is raised."""
    if len(tasks) > 1:
        if len(tasks) not in _pools:
            _pools[len(tasks)] = ThreadPoolExecutor(len(tasks) - 1, thread_name_prefix="xnets-direct")
        others = [_pools[len(tasks)].submit(work, *task) for task in tasks[1:]]
        work(*tasks[0])
        for other in others:
            other.result()
    elif tasks:
        work(*tasks[0])


_kept: list[Tensor] = []  # scratch that nobody uses now: fresh memory would cost a page fault for each 4 KiB
_lock = threading.Lock()
KEPT = 4  # pieces of it
LARGE = 8 * 1024 * 1024  # floats of a piece that is rather given back


@contextmanager
def scratch(floats: int) -> Iterator[Tensor]:
    """Room for at least so many floats, with anything in it."""
    with _lock:
        fitting = next((i for i, t in enumerate(_kept) if floats <= t.numel() <= 2 * floats + 2**16), None)
        room = None if fitting is None else _kept.pop(fitting)
    room = torch.empty(floats) if room is None else room
    yield room
    if room.numel() <= LARGE:
        with _lock:
            _kept.append(room)
            del _kept[:-KEPT]


def parts(n: int, threads: int) -> list[tuple[int, int]]:
    """range(n) in at most `threads` ranges of about the same length."""
    threads = max(1, min(n, threads))
    return [(n * i // threads, n * (i + 1) // threads) for i in range(threads)]
