"""Waiting for what other processes do."""

import subprocess
import time
from collections.abc import Callable


def wait_for(
    condition: Callable[[], object], seconds: float = 20.0, process: subprocess.Popen | None = None, every: float = 0.1
) -> object:
    """What `condition` gives, once that is true; an end of `process` before that is a failure, told with its output."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert process is None or process.poll() is None, process.stdout.read()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(every)
    return value
