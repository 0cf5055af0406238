"""Files that are written whole or not at all. Needs no torch."""

import errno
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from xnets.errors import CannotWrite, XNetsError

# A disk that is full, read-only, forbidden or gone: what a user can mend.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


def write_atomically(path: Path, write: Callable[[IO[bytes]], None], mark: str = "") -> None:
    """Write to a file beside `path`, flush it to disk and rename it: readers see the old file or the new one.

    mark: in that file's name, .<name><mark>.<letters>, so that what a kill leaves can be told from others' files.
    Raises CannotWrite if the disk is full or read-only; the old file is then still there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{mark}.")
    except OSError as error:
        raise CannotWrite(_cannot_write(path, error)) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except (OSError, RuntimeError) as error:  # torch.save turns a full disk into a RuntimeError
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in ("write", "inline_container")):
            raise
        raise CannotWrite(_cannot_write(path, error)) from None
    finally:
        Path(name).unlink(missing_ok=True)


def read_json(path: Path, purpose: str) -> dict[str, Any]:
    """Read an object from a JSON file; XNetsError says to delete a damaged one `purpose`."""
    try:
        said = json.loads(path.read_text())
    except (ValueError, RecursionError):  # no JSON, no text, a number of 5000 digits; lists in lists in lists ...
        said = None
    except OSError as error:
        raise XNetsError(f"{path} cannot be read ({error.strerror}).") from None
    if not isinstance(said, dict):
        raise XNetsError(f"{path} is damaged: delete it {purpose}.")
    return said


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write it in UTF-8, whole or not at all."""
    write_atomically(path, lambda file: file.write(text.encode()))


def _cannot_write(path: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or "the disk may be full"
    return f"Cannot write {path} ({reason}): free space or make it writable and start again; older files are kept."


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
