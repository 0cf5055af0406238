"""Threads for compiled functions, which release the GIL."""

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

SMALL = 2_000_000  # multiply-adds that are done before another thread would have woken up
TEAMS = ("libgomp", "libiomp5", "libomp")  # OpenMP's libraries
_pools: dict[int, ThreadPoolExecutor] = {}
_forked = False


class ForkedLock:
    """`now` is a lock that is free in a forked child, where the thread that held it is not."""

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self.now = threading.Lock()  # used as it is: a signal's handler may raise between any two lines of Python


def _forget() -> None:
    global _forked
    _pools.clear()  # a forked child has none of the parent's threads, and GNU's OpenMP would wait for them
    _forked = True


os.register_at_fork(after_in_child=_forget)


def threads_for(work: int) -> int:
    """How many threads `work` multiply-adds are worth."""
    return torch.get_num_threads() if work > SMALL else 1


def in_parallel(work: Callable[..., None], tasks: list[tuple]) -> None:
    """work(*task) for each task, the first of them in this thread; an error of any is raised.

    The others are done by the OpenMP threads that torch's own operators use. These wait for work without sleeping for a
    while after each operator, so that threads of ours beside them would have to wait for a core.
    """
    if len(tasks) == 1:
        work(*tasks[0])
    elif tasks:
        (_by_pool if _forked or _team() is None else _by_team)(work, tasks)


def _by_team(work: Callable[..., None], tasks: list[tuple]) -> None:
    team, errors = _team(), []

    def share(_: None) -> None:
        for i in range(team.omp_get_thread_num(), len(tasks), team.omp_get_num_threads()):
            try:
                work(*tasks[i])
            except BaseException as error:  # nothing may leave a callback
                errors.append(error)

    # This thread does its share outside of any callback: a signal's handler, which Python runs in the main thread, may
    # raise, and what is raised in a callback is lost. The call itself is all that stands before `finally` applies.
    callback, begin, end = (
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(share),
        team.GOMP_parallel_start,
        team.GOMP_parallel_end,
    )
    try:
        begin(callback, None, len(tasks))
        for i in range(0, len(tasks), team.omp_get_num_threads()):
            work(*tasks[i])
    finally:
        end()
    if errors:
        raise errors[0]


def _by_pool(work: Callable[..., None], tasks: list[tuple]) -> None:
    if len(tasks) not in _pools:
        _pools[len(tasks)] = ThreadPoolExecutor(len(tasks) - 1, thread_name_prefix="xnets-direct")
    others = [_pools[len(tasks)].submit(work, *task) for task in tasks[1:]]
    try:
        work(*tasks[0])
    finally:
        wait(others)  # they write to what the caller holds
    for other in others:
        other.result()


@functools.cache
def _team() -> ctypes.CDLL | None:
    """torch's OpenMP as it is loaded in this process; None where it is not found (macOS, Windows).

    GNU's, or another that has GNU's entry points for compiled code: a parallel region from begin to end.
    """
    folder = Path(torch.__file__).parent.parent
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    for path in sorted({line.split(maxsplit=5)[-1] for line in lines if ".so" in line}):
        if Path(path).name.startswith(TEAMS) and Path(path).is_relative_to(folder) and "torch" in path:
            with contextlib.suppress(OSError, AttributeError):
                team = ctypes.CDLL(path)
                team.GOMP_parallel_start.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint
                team.GOMP_parallel_start.restype = team.GOMP_parallel_end.restype = None
                if team.omp_get_num_threads() == 1:
                    return team
    return None


_kept: list[Tensor] = []  # scratch that nobody uses now: fresh memory would cost a page fault for each 4 KiB
_lock = ForkedLock()
KEPT = 4  # pieces of it
LARGE = 8 * 1024 * 1024  # floats of a piece that is rather given back


@contextmanager
def scratch(floats: int) -> Iterator[Tensor]:
    """Room for at least so many floats, with anything in it."""
    with _lock.now:
        fitting = next((i for i, t in enumerate(_kept) if floats <= t.numel() <= 2 * floats + 2**16), None)
        room = None if fitting is None else _kept.pop(fitting)
    room = torch.empty(floats, dtype=torch.float32, device="cpu") if room is None else room
    yield room
    if room.numel() <= LARGE:
        with _lock.now:
            _kept.append(room)
            del _kept[:-KEPT]


def parts(n: int, threads: int) -> list[tuple[int, int]]:
    """range(n) in at most `threads` ranges of about the same length."""
    threads = max(1, min(n, threads))
    return [(n * i // threads, n * (i + 1) // threads) for i in range(threads)]
