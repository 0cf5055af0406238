"""A copy of the repository whose three runs go to the test cluster, and what tests want to know of them."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.clone import Clone
from tests.slurm.conftest import Cluster
from tests.waiting import wait_for

# AlexNet's dropout makes a resumed run differ unless every generator goes on where it was.
SCALE = """
sweep:
  about: three networks on digits, for tests
  items: [table3]
  datasets: {imagenet: digits}
  networks: {alexnet: {narrow: 16, drop_strides: 2, init: sparse-aware}}
  protocols: {imagenet-alexnet: {epochs: 8, batch_size: 32, max_lr: 0.02, augmentation: crop-1}}
"""
PRESET = {
    "partition": "low", "gpus": 0, "cpus": 1, "memory_gb": 1.5, "time_minutes": 30, "signal_seconds": 20,
    "minutes_per_job": 0, "poll_seconds": 0.5,
}  # fmt: skip
PARAMS = {
    "scale": "sweep", "seeds": {"table3": 1}, "executor": "slurm", "slurm": {"cluster": "cluster.yaml"},
    "local": {"device": "cpu", "workers": 2, "checkpoint_minutes": 0},
}  # fmt: skip


def write_preset(folder: Path, **changes: object) -> Path:
    """A file cluster.yaml for the test cluster."""
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump({**PRESET, **changes}))
    return path


@dataclass
class ClusterClone:
    """A clone and the cluster it submits to."""

    clone: Clone
    cluster: Cluster

    @property
    def store(self) -> Path:
        return self.clone.folder / "store"

    def repro(self) -> subprocess.Popen:
        """`dvc repro`, as far as what the jobs do."""
        return self.clone.start("dvc", "repro", "evaluate")

    def train(self) -> subprocess.Popen:
        """The two stages without dvc, which is quicker."""
        return self.clone.start("sh", "-c", "python -m experiments train && python -m experiments evaluate")

    def xnets(self, *arguments: str, status: int = 0) -> str:
        return self.clone.run("xnets", "sweep", *arguments, status=status)

    def attempts(self) -> dict[str, list[dict]]:
        """fingerprint -> the notes of its attempts."""
        found = self.store.glob("*/attempts.jsonl")
        return {path.parent.name: [json.loads(line) for line in path.read_text().splitlines()] for path in found}

    def at_work(self) -> dict[str, dict]:
        """fingerprint -> the note with which its attempt began, of those that have done an epoch and go on."""
        return {
            fingerprint: notes[-1]
            for fingerprint, notes in self.attempts().items()
            if notes and "ended" not in notes[-1] and (self.store / fingerprint / "history.jsonl").exists()
        }

    def wait_for_work(self, process: subprocess.Popen) -> tuple[str, dict]:
        """A run that is being trained: its fingerprint, and the note of its attempt."""
        return next(iter(wait_for(self.at_work, 120, process).items()))

    def completions(self) -> list[int]:
        """How often each run was trained to its end."""
        return [sum(note.get("how") == "done" for note in notes) for notes in self.attempts().values()]

    def submissions(self) -> int:
        return len(list(self.store.glob("slurm/*/submission.json")))


def ended(process: subprocess.Popen, status: int = 0) -> str:
    """Its output, once it has ended with this status."""
    output = process.communicate(timeout=240)[0]
    assert process.returncode == status, output
    assert "Traceback" not in output, output
    return output
