"""Where and with what a run was computed: recorded beside its result, never part of its fingerprint."""

import json
import os
import platform
import socket
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from xnets.machine import cpu_name

COMMIT_NOTE = Path(__file__).parent.parent / ".commit.json"  # in a copy that slurm.snapshot has made


def provenance(device: Any) -> dict[str, Any]:
    """Versions, machine and commit, as JSON types."""
    import numpy
    import torch

    from xnets.layers.choice import kernel_in_force

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "kernel": kernel_in_force(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "slurm_job": slurm_job(),
        **commit(),
    }


def slurm_job() -> str | None:
    """The job this process belongs to, one of an array as ARRAY_INDEX; None outside of SLURM."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID")


@cache
def commit() -> dict[str, Any]:
    """The git commit of the code, and whether files differ from it; a frozen copy of the code brings a note of it."""
    if COMMIT_NOTE.exists():
        return json.loads(COMMIT_NOTE.read_text())

    def git(*args: str) -> str | None:
        done = subprocess.run(["git", *args], capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "dirty": git("status", "--porcelain", "--untracked-files=no") not in ("", None),
        }
    except FileNotFoundError:
        return {"commit": None, "dirty": None}
