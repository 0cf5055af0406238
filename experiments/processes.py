"""How processes of ours end: with their parents, on request, and in words."""

import os
import signal
import threading
import time
from collections.abc import Callable

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)  # SIGUSR2 is what SLURM is asked to send ahead of time


def starter() -> int:
    """The process that started this one in its own process group, as `dvc` does; 0 if that has ended already.

    What has lost its parent gets another, an init or whoever else adopts. That one is told by its group, which is
    another but in some containers, whose first process starts `dvc` in its own group: there it is taken for `dvc`.
    """
    parent = os.getppid()
    try:
        return parent if os.getpgid(parent) == os.getpgrp() else 0
    except OSError:
        return 0


def end_with_parent(parent: int) -> None:
    """End this process as soon as `parent` has ended, even by kill -9, so that nothing goes on unseen."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.25)
        os._exit(1)  # and nothing before it: whoever read stdout and stderr may have ended as well

    threading.Thread(target=watch, daemon=True).start()


def stop_on_signal() -> Callable[[], bool]:
    """From now on SIGTERM and SIGUSR2 only note that this process is to stop; the function returned says whether."""
    asked = threading.Event()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: asked.set())
    return asked.is_set


def was_stopped(exitcode: int | None) -> bool:
    """Whether a process ended by a signal that asks to stop, before it could heed it."""
    return exitcode is not None and -exitcode in STOP_SIGNALS


def how_it_ended(exitcode: int | None) -> str:
    """An exit status of multiprocessing in words."""
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        memory = "; the machine may be out of memory: try fewer runs at a time" if name == "SIGKILL" else ""
        return f"its worker was killed ({name}){memory}"
    return f"its worker ended with exit status {exitcode}"
