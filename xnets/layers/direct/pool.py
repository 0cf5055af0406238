"""Threads for compiled functions, which release the GIL."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

_pools: dict[int, ThreadPoolExecutor] = {}
os.register_at_fork(after_in_child=_pools.clear)  # a forked child has none of the parent's threads

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


def parts(n: int, threads: int) -> list[tuple[int, int]]:
    """range(n) in at most `threads` ranges of about the same length."""
    threads = max(1, min(n, threads))
    return [(n * i // threads, n * (i + 1) // threads) for i in range(threads)]
