"""By which clock kernels are measured, and what they took, one line of JSON for each case, kept between processes.

The file is a cache: it may be deleted at any time, and a line that cannot be read counts as never written.
"""

import contextlib
import functools
import hashlib
import json
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from xnets.cache import cache_folder
from xnets.machine import cpu_description

KERNELS_VERSION = 13  # raise it when a kernel's speed changes: measured anew then

UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


class Timings:
    """The file of one machine and one set of versions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: dict[str, dict[str, float]] | None = None

    @classmethod
    @functools.cache
    def of_this_machine(cls) -> "Timings":
        """In $XNETS_CACHE, or xnets/ in $XDG_CACHE_HOME or ~/.cache."""
        return cls(cache_folder() / f"kernels-{hashlib.sha256(machine().encode()).hexdigest()[:12]}.jsonl")

    def read(self, case: str) -> dict[str, float]:
        """Milliseconds of each kernel in that case; empty if it was never measured."""
        if self._read is None:
            self._read = {}
            with contextlib.suppress(OSError):
                for line in self.path.read_text(errors="replace").splitlines():
                    with contextlib.suppress(*UNREADABLE):
                        said = json.loads(line)
                        milliseconds = {name: float(ms) for name, ms in said["milliseconds"].items()}
                        if all(0 < ms < float("inf") for ms in milliseconds.values()):
                            self._read[said["case"]] = milliseconds
        return self._read.get(case, {})

    def add(self, case: str, milliseconds: dict[str, float]) -> None:
        """Keep it; where the disk does not let us, for this process alone."""
        self.read(case)
        self._read[case] = milliseconds
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = not self.path.exists()
            rounded = {name: round(ms, 5) for name, ms in milliseconds.items()}
            torn = not new and not self.path.read_bytes().endswith(b"\n")
            lines = [json.dumps({"machine": machine()})] if new else [""] if torn else []
            lines.append(json.dumps({"case": case, "milliseconds": rounded}))
            with open(self.path, "a") as file:
                file.write("".join(f"{line}\n" for line in lines))


def clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds of work on that device; of this thread alone where it does all of it, so that other work stays out."""
    if device.type == "cpu":
        return time.thread_time if torch.get_num_threads() == 1 else time.perf_counter

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


@functools.cache
def machine() -> str:
    """What all timings depend on beside the case: the CPU and the versions."""
    return f"{cpu_description()}; " + ", ".join(
        [f"{p} {_version(p)}" for p in ("torch", "llvmlite", "triton")] + [f"kernels {KERNELS_VERSION}"]
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
