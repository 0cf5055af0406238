"""Packed data copied to a fast folder of the node before training, once for all jobs there."""

import fcntl
import os
import shutil
import sys
from pathlib import Path

from xnets.data import open_data
from xnets.errors import XNetsError


def stage(data_folder: Path, name: str, scratch: str) -> Path:
    """The folder that holds data set `name` for this job: in `scratch`, or `data_folder` if that cannot take it."""
    wanted = open_data(data_folder / name)
    folder = Path(os.path.expandvars(scratch)).expanduser() / "xnets-data" / wanted.digest[:16]
    half = folder / f".{name}.half"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_there(folder / name, wanted.digest):
                for old in (folder / name, half):
                    shutil.rmtree(old, ignore_errors=True)
                shutil.copytree(wanted.folder, half)
                os.rename(half, folder / name)
    except OSError as error:
        print(f"{name} is read from {data_folder}: {folder} cannot take it ({error.strerror}).", file=sys.stderr)
        shutil.rmtree(half, ignore_errors=True)
        return data_folder
    return folder


def _is_there(folder: Path, digest: str) -> bool:
    try:
        return open_data(folder).digest == digest
    except XNetsError:
        return False
