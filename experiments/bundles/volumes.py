"""A bundle larger than a file may be is cut into volumes, runs-3.tar.0a1b2c3d.1of7 ...; joined they are it again.

The letters are the bundle's own (of its sha256), so that volumes of two bundles of one name are never taken for one.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from xnets.errors import CannotWrite
from xnets.files import write_atomically

VOLUME = re.compile(r"(?P<bundle>.+)\.(?P<own>[0-9a-f]{8})\.(?P<place>[0-9]+)of(?P<count>[0-9]+)")
CHUNK = 2**20


def write_volumes(target: Path, write: Callable[[IO[bytes]], None], most: int) -> list[Path]:
    """Cut what `write` writes into volumes of at most `most` bytes beside `target`.

    Older ones go once all of the new ones are there.
    """
    with folder_in(target.parent) as folder:
        whole = Path(folder) / target.name
        write_atomically(whole, write)
        count = -(-whole.stat().st_size // most)
        with open(whole, "rb") as source:
            own = hashlib.file_digest(source, "sha256").hexdigest()[:8]
            volumes = [f"{target.name}.{own}.{place}of{count}" for place in range(1, count + 1)]
            source.seek(0)
            for name in volumes:
                write_atomically(whole.with_name(name), lambda file: _copy(source, file, most))
        for name in volumes:
            os.replace(whole.with_name(name), target.with_name(name))
    for path in target.parent.glob("*"):
        found = VOLUME.fullmatch(path.name)
        if found and found["bundle"] == target.name and path.name not in volumes:
            path.unlink()
    return [target.with_name(name) for name in volumes]


def folder_in(room: Path) -> tempfile.TemporaryDirectory:
    """A folder in `room`, which is made, for files on their way. Raises CannotWrite."""
    try:
        room.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".bundle-", dir=room)
    except OSError as error:
        raise CannotWrite(f"Cannot write to {room} ({error.strerror}): free space or make it writable.") from None


def clear_folders_in(room: Path) -> None:
    """Remove what `folder_in` made for processes that were killed."""
    for left in room.glob(".bundle-*"):
        shutil.rmtree(left, ignore_errors=True)


def _copy(source: IO[bytes], file: IO[bytes], most: int) -> None:
    left = most
    while left and (chunk := source.read(min(left, CHUNK))):
        file.write(chunk)
        left -= len(chunk)
