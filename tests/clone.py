"""A copy of the repository in a folder of its own, with commands to run in it."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml


class Clone:
    """A copy of the repository, with commands to run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "CI": "true"}
        self.environment["PYTHONPATH"] = str(folder)  # before the repository that is installed
        self.environment.pop("MLFLOW_TRACKING_URI", None)

    def start(self, *command: str) -> subprocess.Popen:
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def run(self, *command: str, status: int = 0) -> str:
        process = self.start(*command)
        output = process.communicate(timeout=600)[0]
        assert process.returncode == status, output
        return output

    def repro(self, *arguments: str, status: int = 0) -> str:
        return self.run("dvc", "repro", *arguments, status=status)

    def params(self, **changes: object) -> None:
        path = self.folder / "params.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}, sort_keys=False))

    def results(self) -> dict[str, str]:
        """sha256 of every result file. The tracking note lists fingerprints, so it is one of them."""
        files = sorted(p for p in (self.folder / "results").rglob("*") if p.is_file())
        return {str(p.relative_to(self.folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def copy_of_repository(repository: Path, folder: Path, scales: str, **params: object) -> Path:
    """The repository as it is now, uncommitted changes too, with more scales and other params."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (repository / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, folder / name)
    with open(folder / "experiments" / "scales.yaml", "a") as file:
        file.write(scales)
    Clone(folder).params(**params)
    (folder / "dvc.lock").unlink(missing_ok=True)
    return folder


def clone_of(copied: Path, folder: Path) -> Clone:
    """A copy of such a copy, in which dvc works."""
    shutil.copytree(copied, folder)
    clone = Clone(folder)
    if not (folder / ".git").exists():
        clone.run("git", "init", "--quiet")
    return clone
