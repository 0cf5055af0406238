"""A real SLURM on this machine, brought up once for all tests that want it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from experiments import plan as plan_module
from experiments import settings as settings_module
from experiments.store import Store
from slurm import commands as actions
from tests.experiments.conftest import TINY, tiny, tiny_plan  # noqa: F401
from tests.slurm.fakes import Commands
from xnets.cli import main

SCRIPT = Path(__file__).parents[2] / "slurm" / "local_cluster.sh"
INHERITED = ("SLURM", "SBATCH_", "SRUN_", "SQUEUE_", "SINFO_", "SACCT_")
CLUSTER = {"gpus": 0, "cpus": 1, "memory_gb": 1.5, "time_minutes": 30, "signal_seconds": 20, "minutes_per_job": 0}


@dataclass
class Cluster:
    """A cluster in a folder of its own; its script is slurm/local_cluster.sh."""

    folder: Path

    def script(self, *arguments: object, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run local_cluster.sh with these arguments on this cluster's folder."""
        command = ["bash", str(SCRIPT), *map(str, arguments), "--folder", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done

    def run(self, *command: object, timeout: float = 60) -> str:
        """What a command of SLURM's prints on this cluster."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(INHERITED)}
        environment["SLURM_CONF"] = str(self.folder / "slurm.conf")
        words = list(map(str, command))
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, env=environment)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def squeue(self) -> dict[str, str]:
        """Each job that waits or runs (3, or 4_0 for a task of an array) and its state."""
        return dict(line.split() for line in self.run("squeue", "-h", "-r", "-o", "%i %T").splitlines())


def temporary_cluster() -> Cluster:
    """A cluster that is not up yet, in a folder whose name is short enough for sockets."""
    missing = [tool for tool in ("sbatch", "slurmctld", "slurmd", "munged") if not which(tool)]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here: apt-get install slurm-wlm munge")
    return Cluster(Path(tempfile.mkdtemp(prefix="xs", dir="/tmp")))


def which(tool: str) -> str | None:
    """Where a program is; daemons lie in sbin, which an ordinary user's PATH may lack."""
    return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster of this test session, without accounting, up; SLURM_CONF points to it."""
    found = temporary_cluster()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(INHERITED)]:
            patch.delenv(name)
        try:
            found.script("up")
            patch.setenv("SLURM_CONF", str(found.folder / "slurm.conf"))
            yield found
        finally:
            found.script("down")


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """No SLURM at all; tests add what they want of it."""
    return Commands(tmp_path / "bin", monkeypatch)


@pytest.fixture
def runs(tiny_plan):  # noqa: F811
    """The runs of the small world."""
    return tiny_plan.runs()


@pytest.fixture
def store(tiny, commands):  # noqa: F811
    """Its store; no SLURM unless the test adds some."""
    return Store(tiny.store)


@pytest.fixture
def xnets_sweep(tiny, monkeypatch, capsys):  # noqa: F811
    """Calls `xnets sweep` in the folder of the small world; its exit status and what it printed."""
    params = {"scale": "tiny", "seeds": {"table5": 1}, "executor": "slurm", "slurm": {"cluster": "mine.yaml"}}
    tiny.store.with_name("params.yaml").write_text(yaml.safe_dump({**params, "local": {"device": "cpu", "workers": 2}}))
    tiny.store.with_name("mine.yaml").write_text(yaml.safe_dump(CLUSTER))
    for module in (settings_module, actions, plan_module):
        monkeypatch.setattr(module, "read_scales", lambda: {"tiny": TINY, "twin": {**TINY, "about": "another scale"}})

    def call(*arguments, status=0):
        code = main(["sweep", *arguments])
        said = capsys.readouterr()
        assert code == status, said
        assert "Traceback" not in said.out + said.err
        assert status != 2 or "xnets: " in said.err
        return said.out + said.err

    return call
