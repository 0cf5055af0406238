"""The local executor: a bounded pool of worker processes on this machine, GPUs in turn.

A worker does one run after another. One that dies (out of memory, kill -9) takes only its run down; all of them end
with the process that started them, however that ends. SIGTERM and SIGUSR2 make a worker write its checkpoint first.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from experiments.executors import OnEvent
from experiments.processes import end_with_parent, how_it_ended, stop_on_signal, was_stopped
from experiments.settings import Settings
from experiments.store import Store
from xnets.errors import XNetsError
from xnets.machine import MALLOC
from xnets.training import Run

STOPPED = "it was stopped; it goes on from its checkpoint"


@dataclass
class Worker:
    """A worker process, this end of its pipe, and the run it is at."""

    process: multiprocessing.process.BaseProcess
    pipe: Connection
    run: Run | None = None


def run_locally(task: str, runs: list[Run], settings: Settings, on_event: OnEvent) -> dict[Run, str]:
    """The executor "local": one such pool for a store at a time."""
    with Store(settings.store).lock():
        for run in runs:
            Store(settings.store).forget_failure(run)
        return run_in_pool((task,), runs, settings, on_event)


def run_in_pool(
    tasks: tuple[str, ...], runs: list[Run], settings: Settings, on_event: OnEvent,
    stopping: Callable[[], bool] = lambda: False, devices: list[str] | None = None,
    choose: Callable[[list[Run], list[Run]], Run | None] = lambda waiting, under_way: waiting[0],
) -> dict[Run, str]:  # fmt: skip
    """Do `tasks`, one after the other, on each of `runs`, in their order; a worker for each of `devices`.

    stopping: once it says True, no further run is begun. choose: the next of those that wait, told which are under way;
    None to begin none before one of these ends.

    Returns the reasons of those that failed, and of those that were stopped on the way. A full disk ends it early.
    """
    waiting, failed = list(runs), {}
    if not runs:
        return failed
    store, devices = Store(settings.store), devices or devices_here(settings, len(runs))
    workers = [_start(settings, device) for device in devices]

    def give_runs() -> None:
        for i, worker in enumerate(workers):
            if worker.run is not None or not waiting or stopping():
                continue
            run = choose(waiting, [other.run for other in workers if other.run])
            if run is None:
                return
            waiting.remove(run)
            if not worker.process.is_alive():
                workers[i] = worker = _start(settings, devices[i])
            worker.run = run
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it is dead: reading from it will tell
                worker.pipe.send((tasks, run.to_dict()))
            on_event("start", run, None)

    def fail(run: Run, reason: str) -> None:
        failed[run] = reason
        if reason != STOPPED and store.failure(run) is None:  # of several processes, the first one knows best
            store.write_failure(run, reason)
        on_event("failed", run, reason)

    try:
        give_runs()
        while any(worker.run for worker in workers):
            ready = wait([worker.pipe for worker in workers if worker.run])
            for worker in workers:
                if worker.run is None or worker.pipe not in ready:
                    continue
                try:
                    kind, content = worker.pipe.recv()
                except (EOFError, ConnectionResetError):
                    worker.process.join()
                    code = worker.process.exitcode
                    kind, content = ("stopped", None) if was_stopped(code) else ("failed", how_it_ended(code))
                if kind == "epoch":
                    on_event("epoch", worker.run, content)
                    continue
                if kind == "done":
                    on_event("done", worker.run, None)
                else:
                    fail(worker.run, STOPPED if kind == "stopped" else content)
                if kind == "full":  # the others would fail as well
                    waiting.clear()
                worker.run = None
                if kind == "stopped":
                    worker.process.join()  # it has ended, or is about to
            give_runs()
    finally:
        for worker in workers:
            if worker.run is not None:
                worker.process.terminate()  # it writes its checkpoint
            else:
                worker.pipe.close()  # an idle one ends
        for worker in workers:
            worker.process.join()
    return failed


def stop_workers() -> None:
    """Have the workers of this process's pool write their checkpoints and end."""
    for worker in multiprocessing.active_children():
        worker.terminate()


def devices_here(settings: Settings, runs: int) -> list[str]:
    """The device of each worker."""
    local = settings.local
    gpus = _gpus() if local.device != "cpu" else 0
    if local.device == "cuda" and not gpus:
        raise XNetsError("params.yaml asks for local.device cuda, and torch finds no GPU: set it to auto or cpu.")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = local.workers or gpus or max(1, usable // local.threads)
    devices = [f"cuda:{i}" for i in range(gpus)] or ["cpu"]
    return [devices[i % len(devices)] for i in range(min(count, max(1, runs)))]


def _gpus() -> int:
    """How many GPUs there are, asked without loading torch where the driver is not even there."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return 0
    import torch

    return torch.cuda.device_count()


def _start(settings: Settings, device_name: str) -> Worker:
    os.environ.setdefault("GLIBC_TUNABLES", MALLOC)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, settings, device_name, os.getpid()), daemon=True)
    process.start()
    theirs.close()
    return Worker(process, ours)


def _work(pipe: Connection, settings: Settings, device_name: str, parent: int) -> None:
    """A worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    stop = stop_on_signal()
    end_with_parent(parent)
    from experiments.execute import attempt, prepare_torch
    from xnets.group import joined

    # alone, unless a job has prepared a group
    with joined(prepare_torch(settings.local, device_name)) as (group, device):
        while True:
            try:
                while not pipe.poll(0.25):
                    if stop():  # between two runs: a next one is answered with this
                        pipe.send(("stopped", None))
                        return
                tasks, said = pipe.recv()
            except EOFError:
                return
            for task in tasks:
                outcome = attempt(
                    task, Run.from_dict(said), settings, device, lambda record: pipe.send(("epoch", record)), stop,
                    group,
                )  # fmt: skip
                if outcome[0] != "done":
                    break
            pipe.send(outcome)
            if outcome[0] == "stopped":
                return
