"""What SLURM says: the jobs of ours it holds, its limits, and why a job ended. Works with and without accounting."""

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
    """A job that is queued or running, one task of an array. id: as scancel takes it; place: its nodes."""

    id: str
    state: str
    why: str
    place: str

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
    """Every job of ours that SLURM still holds, by its name and its place in its array."""
    lines = ask("squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%F|%K|%j|%T|%r|%N")
    jobs = {}
    for line in lines.splitlines():
        fields = line.split("|", 5)
        if len(fields) == 6 and fields[2].startswith(PREFIX):  # others' names may hold anything
            number, index, name, state, why, place = fields
            single = not index.isdigit()
            jobs[name, 0 if single else int(index)] = Job(number if single else f"{number}_{index}", state, why, place)
    return jobs


def max_array_size() -> int:
    """How many tasks an array may have on this cluster."""
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


def why_ended(id: str, name: str) -> str:
    """In words, why a job that is gone has left no result; from accounting, else from what the controller remembers.

    name: the job's. What they say of another job with that number is not taken.
    """
    state, code = _from_accounting(id, name) or _from_controller(id, name) or ("", "")
    if state.startswith("CANCELLED"):
        return f"its job {id} was cancelled"
    if state.startswith("OUT_OF_ME"):
        return f"its job {id} ran out of memory: raise memory_gb in the cluster's file, or lower runs_at_once"
    if state == "TIMEOUT":
        return f"its job {id} ran out of time before its checkpoint was written: raise signal_seconds"
    if state == "NODE_FAIL":
        return f"the node of its job {id} failed"
    if state == "FAILED" and (code.endswith(":9") or code.startswith("137:")):  # SIGKILL, as such or through srun
        return f"its job {id} was killed (SIGKILL), most likely out of memory: raise memory_gb in the cluster's file"
    if state:
        return f"its job {id} ended as {state.lower()}{f' with exit status {code}' if code not in ('', '0:0') else ''}"
    return f"its job {id} is gone and SLURM no longer knows why"


def _from_accounting(id: str, name: str) -> tuple[str, str] | None:
    try:
        lines = ask("sacct", "-X", "-n", "-P", "-o", "State,ExitCode,JobName", "-j", id).splitlines()
    except NoAnswer:
        return None
    state, code, said = lines[-1].split("|", 2) if lines and lines[-1].count("|") >= 2 else ("", "", "")
    return (state, code) if _has_ended(state) and said == name else None


def _from_controller(id: str, name: str) -> tuple[str, str] | None:
    try:
        text = ask("scontrol", "show", "job", id)
    except NoAnswer:
        return None
    state, code, said = (re.search(rf"\b{key}=(\S+)", text) for key in ("JobState", "ExitCode", "JobName"))
    if not state or not said or said.group(1) != name or not _has_ended(state.group(1)):
        return None
    return state.group(1), code.group(1) if code else ""


def _has_ended(state: str) -> bool:
    """Accounting may lag behind."""
    return bool(state) and state not in ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED")
