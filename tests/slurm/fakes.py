"""A sweep without SLURM: its commands as scripts on PATH, and records of submissions that nobody made."""

import os
import stat
from dataclasses import replace

import pytest

from slurm.preset import Preset, Shape
from slurm.queue import Job
from slurm.records import Array, Submission, records

NAME = "xnets-20260101-000000-abcd-0"
QUEUE = f"7|0|{NAME}|RUNNING|None|n1\n7|1|{NAME}|PENDING|Resources|\n9|N/A|xnets-of-another-store-0|RUNNING|None|n1\n"
PRESET = Preset("made-up", gpus=0, cpus=1, memory_gb=1.5, time_minutes=30, signal_seconds=20, poll_seconds=0.1)


class Commands:
    """A folder of fake commands, the only ones on PATH beside the shell's own."""

    def __init__(self, folder, patch: pytest.MonkeyPatch):
        self.folder = folder
        folder.mkdir()
        patch.setenv("PATH", f"{folder}{os.pathsep}/nonexistent")

    def add(self, name: str, prints: str = "", complains: str = "", status: int = 0, body: str = ""):
        """A command that prints, complains and exits like this, and notes how it was called."""
        path = self.folder / name
        path.write_text(
            f'#!/bin/sh\necho "$*" >> {self.folder}/{name}.calls\n{body}\n'
            f"/bin/cat <<'END'\n{prints.rstrip(chr(10))}\nEND\n/bin/cat >&2 <<'END'\n{complains}\nEND\nexit {status}\n"
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def calls(self, name: str) -> list[str]:
        path = self.folder / f"{name}.calls"
        return path.read_text().splitlines() if path.exists() else []


def job(number="7", index=0, state="RUNNING", why="None", nodes="n1"):
    return Job(f"{number}_{index}", state, why, nodes)


def record(store, packs, number="7", created=1.0, name=NAME):
    """The written record of a submission; packs: the runs of each job."""
    arrays = (Array(name, Shape(), tuple(tuple(run.fingerprint for run in pack) for pack in packs), number),)
    sweep = Submission(
        records(store) / f"{name}-{created}", "train", created, arrays, {"preset": {}, "code": "", "x": 1}
    )
    sweep.write()
    return sweep


def preset(**changes) -> Preset:
    return replace(PRESET, **changes)
