"""Send runs to the cluster: what nobody has in hand yet, in arrays, with the code as it is now."""

import contextlib
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import submitit

from experiments.provenance import commit
from experiments.settings import Settings
from experiments.store import Store
from slurm.job import PackJob
from slurm.packs import make_packs
from slurm.preset import Preset, Shape
from slurm.queue import Job, NoAnswer, cancel, live_jobs, max_array_size
from slurm.records import (
    Array,
    Submission,
    last_placements,
    new_submission,
    numbered,
    only_numbered,
    read_submissions,
    records,
)
from slurm.snapshot import freeze_code
from xnets.errors import XNetsError
from xnets.training import Run

TIMEOUTS = 10**6  # how often submitit may requeue a job: as often as it takes, PackJob says when it is in vain


@dataclass(frozen=True)
class Submitted:
    """What came of a submission. attached: runs that a job has in hand already; record: None if nothing was sent."""

    attached: list[Run]
    sent: list[Run]
    jobs: int
    record: Submission | None


def submit(
    task: str, runs: list[Run], settings: Settings, preset: Preset, seconds: Callable[[Run], float]
) -> Submitted:
    """Submit those of `runs` that no live job holds. seconds: expected of a run, to fill jobs.

    Raises XNetsError if SLURM does not answer, or refuses a job (what it took before that is kept and found again).
    """
    store = Store(settings.store)
    with store.lock():
        longest = max_array_size()
        jobs, submissions = live_jobs(), read_submissions(store)
        _end_half_submitted(submissions, jobs)
        placements = last_placements(submissions)
        held = {f for f, placed in placements.items() if placed.array.number and placed.key in jobs}
        lacking = [run for run in runs if not store.has(task, run)]  # asked after the queue: a job may just have ended
        attached = [run for run in lacking if run.fingerprint in held and not store.failure(run)]
        under_way = set(attached)
        sent = [run for run in lacking if run not in under_way]
        if not sent:
            return Submitted(attached, sent, 0, None)
        reasons = {run: reason for run in sent if (reason := store.failure(run))}
        for run in reasons:
            store.forget_failure(run)
        packs = make_packs(sent, preset, seconds)
        code = freeze_code((records(store) / "code").resolve())
        about = {"preset": preset.to_dict(), "code": str(code), **commit()}
        record = new_submission(store, task, packs, longest, about)
        by_fingerprint = {run.fingerprint: run for run in sent}
        for array in record.arrays:
            pack_jobs = [
                PackJob(task, tuple(by_fingerprint[f] for f in pack), _elsewhere(settings), preset, array.shape)
                for pack in array.packs
            ]
            share = max(1, preset.at_most * len(array.packs) // len(packs))
            try:
                number = _sbatch(_executor(record, array, preset, code, share), pack_jobs)
            except XNetsError:
                with contextlib.suppress(NoAnswer):  # unless SLURM says what it has, the next submission has to look
                    _end_half_submitted([record], live_jobs())  # taken all the same, only the answer was lost
                    only_numbered(record)  # the rest is in nobody's hands
                for run, reason in reasons.items():
                    store.write_failure(run, reason)
                raise
            record = numbered(record, array.name, number)
    return Submitted(attached, sent, len(packs), record)


def _end_half_submitted(submissions: list[Submission], jobs: dict[tuple[str, int], Job]) -> None:
    """Cancel jobs whose submission broke off before submitit had laid out what they are to do: they would fail."""
    unfinished = {array.name for record in submissions for array in record.arrays if array.number is None}
    half = [job.id for (name, _), job in jobs.items() if name in unfinished]
    if half:
        cancel(half)


def _elsewhere(settings: Settings) -> Settings:
    """The settings with absolute folders: a job starts in another one."""
    return replace(settings, store=settings.store.resolve(), data_folder=settings.data_folder.resolve())


def _executor(record: Submission, array: Array, preset: Preset, code: Path, at_a_time: int) -> submitit.SlurmExecutor:
    if not shutil.which("srun"):
        raise NoAnswer("SLURM's srun is not on this machine: log in to where your cluster takes jobs.")
    executor = submitit.SlurmExecutor(record.jobs_folder.resolve(), max_num_timeout=TIMEOUTS, python=preset.python)
    executor.update_parameters(**parameters(array.name, array.shape, preset, code, at_a_time))
    return executor


def parameters(name: str, shape: Shape, preset: Preset, code: Path, at_a_time: int) -> dict:
    """What sbatch is asked for, as submitit names it."""
    asked = {
        "job_name": name, "partition": preset.partition, "account": preset.account, "qos": preset.qos,
        "constraint": preset.constraint, "gres": preset.gres, "time": preset.time_minutes,
        "nodes": shape.nodes, "ntasks_per_node": shape.tasks, "cpus_per_task": preset.cpus,
        "mem": f"{round(1024 * preset.memory_gb)}MB" if preset.memory_gb else None,
        "gpus_per_node": preset.gpus * shape.tasks if preset.gpus and not preset.gres else None,
        "signal_delay_s": preset.signal_seconds, "array_parallelism": at_a_time,
        # the frozen code comes before whatever is installed, and no folder of the user's comes before it
        "setup": [f"export PYTHONPATH={shlex.quote(str(code))}", "export PYTHONSAFEPATH=1", *preset.setup],
        "srun_args": ["--kill-on-bad-exit=1"] if shape.processes > 1 else None,
        "additional_parameters": {"chdir": str(code), "requeue": True, **preset.sbatch},
    }  # fmt: skip
    return {key: value for key, value in asked.items() if value is not None}


def _sbatch(executor: submitit.SlurmExecutor, jobs: list[PackJob]) -> str:
    """Submit an array, or a plain job if it is only one; its number."""
    try:
        with executor.batch():
            submitted = [executor.submit(job) for job in jobs]
        return submitted[0].job_id.split("_")[0]
    except submitit.core.utils.FailedJobError as error:
        said = [line.strip() for line in str(error).splitlines() if line.strip().startswith("sbatch:")]
        why = "; ".join(said) or str(error).strip().splitlines()[-1]
        raise XNetsError(f"SLURM did not take the jobs ({why[:300]}): mend the cluster's file, or try again.") from None
    except subprocess.CalledProcessError as error:
        raise XNetsError(f"SLURM did not take the jobs ({error}): mend the cluster's file, or try again.") from None
