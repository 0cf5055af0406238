"""Packed data copied to a fast folder of the node before training; jobs that share the folder share the copy."""

import errno
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
    folder = Path(os.path.expanduser(os.path.expandvars(scratch))) / "xnets-data" / wanted.digest[:16]
    try:
        if not folder.is_absolute():
            raise OSError(errno.EINVAL, "it is no absolute folder on this node")
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_there(folder / name, wanted.digest):
                _copy(wanted.folder, folder / name)
    except OSError as error:
        print(f"{name} is read from {data_folder}: {folder} cannot take it ({_reason(error)}).", file=sys.stderr)
        return data_folder
    return folder


def _copy(source: Path, folder: Path) -> None:
    """Whole or not at all."""
    half = folder.with_name(f".{folder.name}.half")
    for old in (folder, half):
        shutil.rmtree(old, ignore_errors=True)
    try:
        shutil.copytree(source, half)
        os.rename(half, folder)
    except OSError:
        shutil.rmtree(half, ignore_errors=True)
        raise


def _is_there(folder: Path, digest: str) -> bool:
    """With all its files: what cleans a scratch takes old ones away one by one."""
    try:
        data = open_data(folder)
        data.check_files()
        return data.digest == digest
    except XNetsError:
        return False


def _reason(error: OSError) -> str:
    if isinstance(error, shutil.Error):  # (file, copy, reason) of each file that copytree could not copy
        return str(error.args[0][-1][-1])
    return error.strerror or str(error)
