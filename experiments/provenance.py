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
PACKAGES = ("xnets", "experiments", "slurm")  # what a run imports
# They say which runs are wanted, from which images and where; what that changes of a run is in its fingerprint or noted
# beside it, and `dvc repro` itself writes dvc.lock before it trains.
NO_CODE = ("params.yaml", "dvc.lock", "experiments/campaign.yaml")


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
    """The git commit of the code, and whether files differ from it; a frozen copy of the code brings a note of it.

    NO_CODE may differ. dirty is None where git cannot say. A new module counts as a difference, as an import may have
    found it.
    """
    if COMMIT_NOTE.exists():
        return json.loads(COMMIT_NOTE.read_text())

    def git(*args: str) -> str | None:
        done = subprocess.run(["git", *args], capture_output=True, text=True, cwd=COMMIT_NOTE.parent, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        but = [f":(exclude){name}" for name in NO_CODE]
        head, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no", "--", ".", *but)
        new = git("ls-files", "--others", "--exclude-standard", "--", *(f"{package}/*.py" for package in PACKAGES))
    except FileNotFoundError:  # there is no git
        return {"commit": None, "dirty": None}
    return {"commit": head, "dirty": None if None in (head, changed, new) else bool(changed or new)}
