"""The run store: store/<fingerprint>/ holds one run's checkpoint, history and result.

checkpoint.pt    while it is under way
history.jsonl    one line an epoch, for whoever watches
model.pt         the trained network
result.json      what it computed, and its provenance; written last: a run is done when this is there and valid
evaluation.json  the test set seen by the trained network
failure.json     why the last attempt ended without a result
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xnets.errors import XNetsError
from xnets.files import read_json, write_json
from xnets.training import Run


class Store:
    """A folder of runs."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, run: Run) -> Path:
        """Where the run lives, whether it exists yet or not."""
        return self.root / run.fingerprint

    def result(self, run: Run) -> dict[str, Any] | None:
        """The run's result, or None if it is not done. Raises XNetsError if it is damaged or another run's."""
        return self._read(run, "result.json", "to train this run again")

    def evaluation(self, run: Run) -> dict[str, Any] | None:
        """The run's evaluation, or None."""
        return self._read(run, "evaluation.json", "to evaluate this run again")

    def failure(self, run: Run) -> str | None:
        """Why the last attempt failed, or None."""
        path = self.folder(run) / "failure.json"
        return read_json(path, "to forget this failure")["reason"] if path.exists() else None

    def write_result(self, run: Run, result: dict[str, Any]) -> None:
        """Make the run done."""
        write_json(self.folder(run) / "result.json", {"fingerprint": run.fingerprint, **result})
        (self.folder(run) / "failure.json").unlink(missing_ok=True)

    def write_evaluation(self, run: Run, evaluation: dict[str, Any]) -> None:
        """Keep the run's evaluation."""
        write_json(self.folder(run) / "evaluation.json", {"fingerprint": run.fingerprint, **evaluation})

    def write_failure(self, run: Run, reason: str) -> None:
        """Keep why an attempt failed; if even that cannot be written, the caller's report has it."""
        with contextlib.suppress(XNetsError):
            write_json(self.folder(run) / "failure.json", {"label": run.label, "reason": reason})

    def _read(self, run: Run, name: str, purpose: str) -> dict[str, Any] | None:
        path = self.folder(run) / name
        if not path.exists():
            return None
        said = read_json(path, purpose)
        if said.get("fingerprint") != run.fingerprint:
            raise XNetsError(f"{path} belongs to another run ({said.get('fingerprint')}): delete it {purpose}.")
        return said

    @contextlib.contextmanager
    def lock(self, patience: float = 5.0) -> Iterator[None]:
        """Hold the store for one process that trains; a lock of a killed process is gone with it.

        Raises XNetsError if another process holds it for longer than `patience` seconds, or if it cannot be written.
        """
        path = self.root / ".lock"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            file = open(path, "a+")  # noqa: SIM115 - closed below
        except OSError as error:
            raise XNetsError(f"Cannot write {path} ({error.strerror}): choose another store in params.yaml.") from None
        with file:
            deadline = time.monotonic() + patience
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        file.seek(0)
                        raise XNetsError(
                            f"Process {file.read().strip() or 'of another machine'} is already training into "
                            f"{self.root}: wait for it or stop it, then start again."
                        ) from None
                    time.sleep(0.2)
            self._check_space()
            os.ftruncate(file.fileno(), 0)
            os.pwrite(file.fileno(), str(os.getpid()).encode(), 0)
            yield

    def _check_space(self) -> None:
        """Say that the disk is full before anything is trained for it."""
        probe = self.root / ".probe"
        try:
            with open(probe, "wb") as file:
                file.write(bytes(2**20))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise XNetsError(
                f"Cannot write {self.root} ({error.strerror}): free space or choose another store in params.yaml."
            ) from None
        finally:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)
