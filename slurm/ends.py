"""Why a job that is gone has left no result: from accounting, and from what the controller still remembers."""

import re

from slurm.queue import NoAnswer, ask

THE_REST = -1  # in place of an index: all jobs of an array that were never begun
_NOT_AN_END = ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED")  # accounting lags behind

# (array or job number, index in the array) -> state and exit status, both as SLURM writes them
Ends = dict[tuple[str, int], tuple[str, str]]


class Inquiry:
    """Asks SLURM about each array once, however many of its jobs are asked for."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], Ends] = {}

    def why_ended(self, id: str, name: str) -> str | None:
        """In words, or None if SLURM does not know.

        id: as in queue.Job. name: the job's; what is said of another one of that number is not taken.
        """
        number, _, index = id.partition("_")
        if (number, name) not in self.known:
            self.known[number, name] = {**_from_controller(number, name), **_from_accounting(number, name)}
        ends = self.known[number, name]
        end = ends.get((number, int(index or 0)), ends.get((number, THE_REST)))
        return _in_words(id, *end) if end else None


def _in_words(id: str, state: str, code: str) -> str:
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
    return f"its job {id} ended as {state.lower()}{f' with exit status {code}' if code not in ('', '0:0') else ''}"


def _from_accounting(number: str, name: str) -> Ends:
    try:
        lines = ask("sacct", "-X", "-n", "-P", "-o", "JobID,State,ExitCode,JobName", "-j", number).splitlines()
    except NoAnswer:
        return {}
    ends: Ends = {}
    for id, state, code, said in (line.split("|", 3) for line in lines if line.count("|") >= 3):
        if said == name and _is_end(state):
            ends |= dict.fromkeys(((number, index) for index in _indices(id.partition("_")[2])), (state, code))
    return ends


def _from_controller(number: str, name: str) -> Ends:
    try:
        lines = ask("scontrol", "--oneliner", "show", "job", number).splitlines()
    except NoAnswer:
        return {}
    ends: Ends = {}
    for line in lines:
        said = dict(re.findall(r"(\w+)=(\S+)", line))
        state = said.get("JobState", "")
        if said.get("JobName") == name and _is_end(state):
            indices = _indices(said.get("ArrayTaskId", ""))
            ends |= dict.fromkeys(((number, index) for index in indices), (state, said.get("ExitCode", "")))
    return ends


def _indices(text: str) -> list[int]:
    """The indices in an array that SLURM writes as 7, 0-3,9%2 or [4-5]; a plain job has index 0."""
    indices: list[int] = []
    for piece in re.findall(r"\d+(?:-\d+)?", text.split("%")[0]):
        first, _, last = piece.partition("-")
        indices += range(int(first), int(last or first) + 1)
    if indices == [2**32 - 2]:  # the controller's way to write that no job is left of those that never began
        return [THE_REST]
    return indices or [0]


def _is_end(state: str) -> bool:
    return bool(state) and state.split()[0] not in _NOT_AN_END
