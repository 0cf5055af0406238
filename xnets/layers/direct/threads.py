"""Threads for compiled functions, which release the GIL."""

import contextlib
import ctypes
import functools
import itertools
import os
from array import array
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import torch
from torch import Tensor

from xnets.layers.direct.ir import Function
from xnets.layers.direct.jit import compiled

CACHE = 128 * 1024  # floats that shall stay in a core's second-level cache: half of its 1 MiB
FOR_ONE_THREAD = 2_000_000  # multiply-adds that one thread has done before another would have woken up
TEAMS = ("libgomp", "libiomp5", "libomp")  # OpenMP's libraries
_pools: dict[int, ThreadPoolExecutor] = {}
_forked = False


def _forget() -> None:
    global _forked
    _pools.clear()  # a forked child has none of the parent's threads, and GNU's OpenMP would wait for them
    _forked = True


os.register_at_fork(after_in_child=_forget)


def threads_for(work: int) -> int:
    """How many threads `work` multiply-adds are worth."""
    return torch.get_num_threads() if work > FOR_ONE_THREAD else 1


def in_parallel(kernel: Callable[..., None], tasks: list[tuple[int, ...]]) -> None:
    """kernel(*task) for each task, the first of them in this thread; kernel is what `compiled` returns.

    The others are done by the OpenMP threads that torch's own operators use. These wait for work without sleeping for a
    while after each operator, so that threads of ours beside them would have to wait for a core. Compiled code hands
    out the tasks: whatever calls Python in another thread waits for its lock, which takes longer than many a layer.
    """
    if len(tasks) == 1:
        kernel(*tasks[0])
    elif tasks:
        team = None if _forked else _team()
        if team is None:
            _by_pool(kernel, tasks)
        else:
            _by_team(team, kernel, tasks)


def _by_team(team: ctypes.CDLL, kernel: Callable[..., None], tasks: list[tuple[int, ...]]) -> None:
    content = array("q", (address_of(kernel), len(tasks), *itertools.chain.from_iterable(tasks)))
    share = _address_of_share(len(tasks[0]))
    team.GOMP_parallel(share, content.buffer_info()[0], len(tasks), 0)  # begins, does its share, and ends


@functools.cache
def _address_of_share(numbers: int) -> int:
    team = _team()
    functions = (ctypes.cast(f, ctypes.c_void_p).value for f in (team.omp_get_thread_num, team.omp_get_num_threads))
    return address_of(compiled(_share, numbers, *functions))


def address_of(kernel: Callable[..., None]) -> int:
    """Of what `compiled` returns."""
    return kernel.address


def addresses(*tensors: Tensor) -> tuple[int, ...]:
    """Of their first numbers; whoever asks keeps the tensors until they were used."""
    return tuple([tensor.data_ptr() for tensor in tensors])


def _share(numbers: int, me: int, team: int) -> Function:
    """Of the tasks in `data`, each of so many numbers, those of this thread: OpenMP's functions at `me` and `team` tell
    which it is, and of how many. data: the kernel, how many tasks, their numbers, all 64-bit."""
    code = Function("share", ["data"], [], 4)
    code.lasts = False
    kernel = code.op("load ptr, ptr %data")
    mine, all_of = (
        code.op(f"sext i32 {code.op(f'call i32 inttoptr (i64 {address} to ptr)()')} to i64") for address in (me, team)
    )
    with code.loop(mine, code.load_int("%data", 1, "i64"), all_of) as i:
        task = code.at("%data", code.add(2, code.mul(i, numbers)), "i64")
        given = [f"i64 {code.load_int(task, n, 'i64')}" for n in range(numbers)]
        code.emit(f"call void {kernel}({', '.join(given)})")
    return code


def _by_pool(kernel: Callable[..., None], tasks: list[tuple[int, ...]]) -> None:
    if len(tasks) not in _pools:
        _pools[len(tasks)] = ThreadPoolExecutor(len(tasks) - 1, thread_name_prefix="xnets-direct")
    others = []
    try:
        for task in tasks[1:]:
            others.append(_pools[len(tasks)].submit(kernel, *task))
        kernel(*tasks[0])
    finally:
        _wait_for(others)
    for other in others:
        other.result()


def _wait_for(others: list[Future]) -> None:
    """Until all are done, whatever a signal's handler raises meanwhile: they write to what the caller holds."""
    raised = None
    while not all(other.done() for other in others):
        try:
            wait(others)
        except BaseException as error:
            raised = error
    if raised is not None:
        raise raised


@functools.cache
def _team() -> ctypes.CDLL | None:
    """torch's OpenMP as it is loaded in this process; None where it is not found (macOS, Windows).

    GNU's, or another that has GNU's entry point for compiled code, a parallel region.
    """
    folder = Path(torch.__file__).resolve().parent.parent  # as the kernel names it, whatever links lead there
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    for path in sorted({line.split(maxsplit=5)[-1] for line in lines if ".so" in line}):
        mine = Path(path).is_relative_to(folder) and Path(path).relative_to(folder).parts[0] in ("torch", "torch.libs")
        if mine and Path(path).name.startswith(TEAMS):
            with contextlib.suppress(OSError, AttributeError):
                team = ctypes.CDLL(path)
                team.GOMP_parallel.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint
                team.GOMP_parallel.restype = None
                if team.omp_get_num_threads() == 1:
                    return team
    return None


def parts(n: int, threads: int) -> list[tuple[int, int]]:
    """range(n) in at most `threads` ranges of about the same length."""
    threads = max(1, min(n, threads))
    return [(n * i // threads, n * (i + 1) // threads) for i in range(threads)]


def is_even(n: int, threads: int) -> bool:
    """Whether threads that each take a share of n have about as much to do."""
    return n % threads == 0 or n >= 4 * threads


def parts_of_tiles(tiles: int, blocks: int, threads: int) -> list[tuple[int, int, int, int]]:
    """Tiles and blocks of rows of a product, of which each thread has a share: of the tiles if there are enough for
    all, else of the blocks.

    A tile's inputs are packed anew by each thread that computes some of its rows.
    """
    if tiles >= threads:
        return [(*part, 0, blocks) for part in parts(tiles, threads)]
    return [(0, tiles, *part) for part in parts(blocks, threads)]


def parts_of_images(images: int, rows: int, threads: int) -> list[tuple[int, int, int, int]]:
    """Images and rows of a product, of which each thread has a share: of the images if that is even, else of the rows.

    The weights are read anew for each image.
    """
    if is_even(images, threads):
        return [(*part, 0, rows) for part in parts(images, threads)]
    return [(0, images, *part) for part in parts(rows, threads)]
