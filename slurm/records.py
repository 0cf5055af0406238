"""The record of what was submitted: store/slurm/<name>/submission.json says which job holds which runs.

A record is written before its jobs are, and jobs are found again by name: job numbers may come twice (a cluster that is
set up anew counts from 1), and a record may be interrupted before it learns them.
"""

import secrets
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from experiments.store import Store
from slurm.packs import Pack
from slurm.preset import Shape
from slurm.queue import PREFIX
from xnets.files import read_json, write_json, write_text


@dataclass(frozen=True)
class Array:
    """One array of jobs. packs: the fingerprints of each job's runs. number: SLURM's, None until it has answered."""

    name: str
    shape: Shape
    packs: tuple[tuple[str, ...], ...]
    number: str | None = None

    def job_id(self, index: int) -> str | None:
        """As scancel, sacct and the log files name the job at `index`."""
        if self.number is None:
            return None
        return f"{self.number}_{index}" if len(self.packs) > 1 else self.number


@dataclass(frozen=True)
class Submission:
    """One submission. about: the preset, the code's folder and its commit."""

    folder: Path
    task: str
    created: float  # seconds since 1970
    arrays: tuple[Array, ...]
    about: dict[str, Any]

    @property
    def jobs_folder(self) -> Path:
        """submitit's: logs and pickles."""
        return self.folder / "jobs"

    def write(self) -> None:
        """Atomically."""
        content = {"task": self.task, "created": self.created, "arrays": [asdict(a) for a in self.arrays]}
        write_json(self.folder / "submission.json", {**content, **self.about})


def new_submission(store: Store, task: str, packs: list[Pack], longest: int, about: dict[str, Any]) -> Submission:
    """The record of a submission that is about to be made, cut into arrays of at most `longest` jobs of one shape."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    arrays: list[Array] = []
    for shape in dict.fromkeys(pack.shape for pack in packs):
        ours = [tuple(run.fingerprint for run in pack.runs) for pack in packs if pack.shape == shape]
        for start in range(0, len(ours), longest):
            arrays.append(Array(f"{PREFIX}{name}-{len(arrays)}", shape, tuple(ours[start : start + longest])))
    record = Submission(records(store) / name, task, time.time(), tuple(arrays), about)
    record.write()
    packages = sorted(f"{d.metadata['Name']}=={d.version}" for d in distributions())
    write_text(record.folder / "environment.txt", "\n".join([*packages, ""]))
    return record


def numbered(record: Submission, name: str, number: str) -> Submission:
    """The same record, with an array's number known; written."""
    arrays = tuple(replace(a, number=number) if a.name == name else a for a in record.arrays)
    record = replace(record, arrays=arrays)
    record.write()
    return record


def only_numbered(record: Submission) -> None:
    """Write the record without the arrays that SLURM has not taken."""
    replace(record, arrays=tuple(array for array in record.arrays if array.number is not None)).write()


def read_submissions(store: Store) -> list[Submission]:
    """All that were ever submitted from this store, the latest first."""
    found = []
    for path in records(store).glob("*/submission.json"):
        said = read_json(path, "to forget this submission")
        arrays = tuple(
            Array(a["name"], Shape(**a["shape"]), tuple(map(tuple, a["packs"])), a["number"]) for a in said["arrays"]
        )
        about = {key: value for key, value in said.items() if key not in ("task", "created", "arrays")}
        found.append(Submission(path.parent, said["task"], said["created"], arrays, about))
    return sorted(found, key=lambda record: record.created, reverse=True)  # names are local time, which may go back


@dataclass(frozen=True)
class Placement:
    """Where a run was put last: a job of an array, which may hold other runs too."""

    record: Submission
    array: Array
    index: int

    @property
    def key(self) -> tuple[str, int]:
        """Of queue.live_jobs."""
        return self.array.name, self.index

    def logs(self) -> list[Path]:
        """Of the job, standard output and error of each of its processes."""
        id = self.array.job_id(self.index)
        return sorted(self.record.jobs_folder.glob(f"{id}_*_log.*")) if id else []


def last_placements(submissions: list[Submission]) -> dict[str, Placement]:
    """fingerprint -> where it was put last. submissions: the latest first."""
    placements: dict[str, Placement] = {}
    for record in submissions:
        for array in record.arrays:
            for index, pack in enumerate(array.packs):
                for fingerprint in pack:
                    placements.setdefault(fingerprint, Placement(record, array, index))
    return placements


def records(store: Store) -> Path:
    """Where the records of a store are."""
    return store.root / "slurm"
