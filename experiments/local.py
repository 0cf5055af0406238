"""The local executor: a bounded pool of worker processes on this machine, GPUs in turn.

A worker does one task after another. One that dies (out of memory, kill -9) takes only its task down; all of them end
with the process that started them, however that ends.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from experiments.settings import Settings
from experiments.store import Store
from xnets.errors import XNetsError
from xnets.training import Run

OnEvent = Callable[[str, Run, Any], None]  # ("start" | "epoch" | "done" | "failed", run, record or reason)


@dataclass
class Worker:
    """A worker process, this end of its pipe, and the run it is at."""

    process: multiprocessing.process.BaseProcess
    pipe: Connection
    run: Run | None = None


def run_locally(task: str, runs: list[Run], settings: Settings, on_event: OnEvent) -> dict[Run, str]:
    """Do `task` ("train" or "evaluate") on each of `runs`, in their order; return the reasons of those that failed."""
    waiting, failed = list(reversed(runs)), {}
    devices = places(settings, len(runs))
    workers = [_start(settings, device) for device in devices]

    def give(worker: Worker) -> None:
        worker.run = waiting.pop() if waiting else None
        worker.pipe.send((task, worker.run.to_dict()) if worker.run else None)
        if worker.run:
            on_event("start", worker.run, None)

    def fail(run: Run, reason: str) -> None:
        failed[run] = reason
        Store(settings.store).write_failure(run, reason)
        on_event("failed", run, reason)

    try:
        for worker in workers:
            give(worker)
        while any(worker.run for worker in workers):
            ready = wait([worker.pipe for worker in workers if worker.run])
            for i, worker in enumerate(workers):
                if worker.run is None or worker.pipe not in ready:
                    continue
                try:
                    kind, content = worker.pipe.recv()
                except (EOFError, ConnectionResetError):
                    worker.process.join()
                    fail(worker.run, _how_it_ended(worker.process.exitcode))
                    workers[i] = worker = _start(settings, devices[i])
                    give(worker)
                    continue
                if kind == "epoch":
                    on_event("epoch", worker.run, content)
                    continue
                if kind == "failed":
                    fail(worker.run, content)
                else:
                    on_event("done", worker.run, None)
                give(worker)
    finally:
        for worker in workers:
            if worker.run is not None:
                worker.process.terminate()
            worker.process.join()
    return failed


def places(settings: Settings, tasks: int) -> list[str]:
    """The device of each worker."""
    local = settings.local
    gpus = _gpus() if local.device != "cpu" else 0
    if local.device == "cuda" and not gpus:
        raise XNetsError("params.yaml asks for local.device cuda, and torch finds no GPU: set it to auto or cpu.")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = local.workers or gpus or max(1, usable // local.threads)
    devices = [f"cuda:{i}" for i in range(gpus)] or ["cpu"]
    return [devices[i % len(devices)] for i in range(min(count, max(1, tasks)))]


def _gpus() -> int:
    """How many GPUs there are, asked without loading torch where the driver is not even there."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return 0
    import torch

    return torch.cuda.device_count()


def _start(settings: Settings, place: str) -> Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, settings, place, os.getpid()), daemon=True)
    process.start()
    theirs.close()
    return Worker(process, ours)


def _how_it_ended(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        memory = "; the machine may be out of memory: try fewer local.workers" if name == "SIGKILL" else ""
        return f"its worker was killed ({name}){memory}"
    return f"its worker ended with exit status {exitcode}"


def _work(pipe: Connection, settings: Settings, place: str, parent: int) -> None:
    """A worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    end_with_parent(parent)
    import torch

    from experiments.execute import execute

    torch.set_num_threads(settings.local.threads)
    torch.use_deterministic_algorithms(settings.local.deterministic)
    if settings.local.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device, store = torch.device(place), Store(settings.store)
    while True:
        try:
            given = pipe.recv()
        except EOFError:
            return
        if given is None:
            return
        task, said = given
        try:
            execute(
                task, Run.from_dict(said), store, settings.data_folder, device,
                60 * settings.local.checkpoint_minutes, lambda record: pipe.send(("epoch", record)),
            )  # fmt: skip
            pipe.send(("done", None))
        except XNetsError as error:
            pipe.send(("failed", str(error)))
        except OSError as error:  # a disk that is full or went away
            pipe.send(("failed", f"{error.filename or settings.store}: {error.strerror}: free space, then start again"))
        except Exception as error:
            pipe.send(("failed", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"))


def end_with_parent(parent: int) -> None:
    """End this process as soon as `parent` has ended, even by kill -9, so that nothing goes on unseen."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.25)
        sys.stderr.flush()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
