"""What SLURM says of the present: the jobs of ours it holds, and its limits."""

import os
import re
import socket
import subprocess
from dataclasses import dataclass

from xnets.errors import XNetsError

PREFIX = "xnets-"  # of all our jobs' names
TIMEOUT = 60


class NoAnswer(XNetsError):
    """SLURM is not there, or does not answer now."""


@dataclass(frozen=True)
class Job:
    """A job that is queued or running, alone or in an array. id: as scancel takes it; nodes: where it runs."""

    id: str
    state: str
    why: str
    nodes: str

    @property
    def running(self) -> bool:
        """Rather than waiting for its turn, or for its next one after a requeue."""
        return self.state in ("RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SUSPENDED")


def ask(*command: str) -> str:
    """A SLURM command's output. Raises NoAnswer if it is not installed or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except FileNotFoundError:
        raise NoAnswer(
            f"SLURM's {command[0]} is not on this machine: log in to your cluster, or try one on this machine with "
            "slurm/local_cluster.sh up."
        ) from None
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"SLURM's {command[0]} did not answer within {TIMEOUT} seconds.") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NoAnswer(f"SLURM's {command[0]} failed: {said[-1] if said else f'exit status {done.returncode}'}.")
    return done.stdout


def live_jobs() -> dict[tuple[str, int], Job]:
    """Every job of ours that SLURM still holds, by its name and its index in its array."""
    lines = ask("squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%F|%K|%j|%T|%r|%N")
    jobs = {}
    for line in lines.splitlines():
        fields = line.split("|", 5)
        if len(fields) == 6 and fields[2].startswith(PREFIX):  # others' names may hold anything
            number, index, name, state, why, nodes = fields
            single = not index.isdigit()
            jobs[name, 0 if single else int(index)] = Job(number if single else f"{number}_{index}", state, why, nodes)
    return jobs


def max_array_size() -> int:
    """How many jobs an array may have on this cluster."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"))
    return max(1, int(found.group(1))) if found else 1000


def address_of(node: str) -> str:
    """Where a node can be reached: its name, unless that is SLURM's alone (as on slurm/local_cluster.sh)."""
    try:
        socket.gethostbyname(node)
        return node
    except OSError:
        found = re.search(r"NodeAddr=(\S+)", ask("scontrol", "show", "node", node))
        return found.group(1) if found else node


def cancel(ids: list[str]) -> None:
    """scancel them; one that ended meanwhile is no mistake."""
    for start in range(0, len(ids), 500):
        ask("scancel", *ids[start : start + 500])
