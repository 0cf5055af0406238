"""The run store: store/<fingerprint>/ holds one run's checkpoint, history and result.

checkpoint.pt    while it is under way
history.jsonl    one line an epoch, for whoever watches
model.pt         the trained network
result.json      what it computed, and its provenance; written last: a run is done when this is there and valid
evaluation.json  the test set seen by the trained network
failure.json     why the last attempt ended without a result
attempts.jsonl   a line when an attempt at training starts, and one when it ends: where, when, how
.lock            held by whoever is at the run
"""

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from xnets.errors import Stopped, XNetsError
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
        return read_json(path, "to forget this failure").get("reason", "unknown") if path.exists() else None

    def write_result(self, run: Run, result: dict[str, Any]) -> None:
        """Make the run done."""
        write_json(self.folder(run) / "result.json", {"fingerprint": run.fingerprint, **result})
        self.forget_failure(run)

    def write_evaluation(self, run: Run, evaluation: dict[str, Any]) -> None:
        """Keep the run's evaluation."""
        write_json(self.folder(run) / "evaluation.json", {"fingerprint": run.fingerprint, **evaluation})

    def write_failure(self, run: Run, reason: str) -> None:
        """Keep why an attempt failed; if even that cannot be written, the caller's report has it."""
        with contextlib.suppress(XNetsError):
            write_json(self.folder(run) / "failure.json", {"label": run.label, "reason": reason})

    def forget_failure(self, run: Run) -> None:
        """For another attempt."""
        (self.folder(run) / "failure.json").unlink(missing_ok=True)

    def is_done(self, run: Run) -> bool:
        """Whether there is a result, without reading it."""
        return self.has("train", run)

    def has(self, task: str, run: Run) -> bool:
        """Whether what `task` ("train" or "evaluate") leaves is there, without reading it."""
        return (self.folder(run) / {"train": "result.json", "evaluate": "evaluation.json"}[task]).exists()

    def history(self, run: Run) -> list[dict[str, Any]]:
        """The epochs of the attempt that is under way, or of the last one; a line that is being written is left out."""
        return _read_lines(self.folder(run) / "history.jsonl")

    def attempts(self, run: Run) -> list[dict[str, Any]]:
        """attempts.jsonl: {"began", "host", ...} and {"ended", "how"} in turn; one that was killed has no end."""
        return _read_lines(self.folder(run) / "attempts.jsonl")

    @contextlib.contextmanager
    def noted_attempt(self, run: Run, where: dict[str, Any]) -> Iterator[None]:
        """Note in attempts.jsonl that an attempt begins, and how it ends."""

        def note(line: dict[str, Any]) -> None:
            with open(self.folder(run) / "attempts.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")

        note({"began": _now(), "pid": os.getpid(), **where})
        how, started = "done", time.monotonic()
        try:
            yield
        except BaseException as error:
            how = type(error).__name__.lower()
            raise
        finally:
            note({"ended": _now(), "how": how, "seconds": round(time.monotonic() - started, 2)})

    def seconds_before(self, run: Run) -> float:
        """Of the attempts that led to the present checkpoint; of one that was killed nothing is known."""
        total = 0.0
        for note in self.attempts(run):
            total = 0.0 if note.get("how") == "done" else total + note.get("seconds", 0.0)
        return total

    @contextlib.contextmanager
    def working_on(
        self, run: Run, stop: Callable[[], bool] = lambda: False,
        agree: Callable[..., list[bool]] = lambda *flags: list(flags), mine: bool = True,
    ) -> Iterator[None]:  # fmt: skip
        """Hold `run`: nobody else trains it meanwhile, on any machine that shares this disk and its locks.

        Whoever holds it now is waited for; the lock of a killed process is gone with it. Of several processes that
        train it together (agree: Group.any) one takes the lock, mine, and all wait. Raises Stopped if `stop` says True
        before, XNetsError if the store cannot be written.
        """
        with _open_lock(self.folder(run)) as file:
            while True:
                held, stopping = agree(mine and locked(file.fileno()), stop())
                if held:
                    break
                if stopping:
                    raise Stopped(f"{run.label} was not begun: another process is at it.")
                time.sleep(0.5)
            yield

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
        with _open_lock(self.root) as file:
            deadline = time.monotonic() + patience
            while not locked(file.fileno()):
                if time.monotonic() > deadline:
                    file.seek(0)
                    raise XNetsError(
                        f"Process {file.read().strip() or 'of another machine'} is already training into "
                        f"{self.root}: wait for it or stop it, then start again."
                    )
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


def _open_lock(folder: Path) -> IO[str]:
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open(path, "a+")
    except OSError as error:
        raise XNetsError(f"Cannot write {path} ({error.strerror}): choose another store in params.yaml.") from None


def locked(descriptor: int) -> bool:
    """Whether the file could be locked; True as well where the disk knows no locks (some Lustre), at one's own risk."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
    return True


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The notes of a file that somebody may be writing, or was writing when the machine went down."""
    try:
        lines = path.read_text(errors="replace").split("\n")
    except FileNotFoundError:
        return []
    found = []
    for line in lines[:-1]:  # the last piece is empty, or still being written
        with contextlib.suppress(ValueError, RecursionError):  # as in read_json
            found.append(json.loads(line))
    return [note for note in found if isinstance(note, dict)]


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
