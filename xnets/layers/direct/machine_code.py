"""Machine code kept on disk, so that a machine compiles a kernel once, and not once in each process.

One file for each kernel, named by all that its code depends on. Code is run, so a file that is damaged or another
kernel's, or that another user could have written, counts as none.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from xnets.cache import cache_folder

# no links, no waiting for what is no file; Windows has neither, and would change ends of lines
READ = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
DIGEST = 32  # bytes of SHA-256 of key and code, with which a file begins


def kept(key: str, make: Callable[[], bytes]) -> bytes:
    """The code of that key, a file's name. Made if there is none, and then kept where the disk lets us."""
    folder = cache_folder() / "kernels"
    code = None
    with contextlib.suppress(OSError):
        code = _read(folder, key)
    if code is None:
        code = make()
        with contextlib.suppress(OSError):
            _write(folder, key, code)
    return code


def _read(folder: Path, key: str) -> bytes | None:
    with contextlib.ExitStack() as stack:
        # by descriptors: what a path names, others may change between two looks if a folder above is theirs
        inside = None
        if os.open in os.supports_dir_fd:
            inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            stack.callback(os.close, inside)
        file = os.open(key if inside is not None else folder / key, READ, dir_fd=inside)
        stack.callback(os.close, file)
        found = os.fstat(file)
        if (inside is None or _is_ours(os.fstat(inside))) and _is_ours(found) and stat.S_ISREG(found.st_mode):
            with open(file, "rb", closefd=False) as opened:
                content = opened.read()
            if content[:DIGEST] == _digest(key, content[DIGEST:]):
                return content[DIGEST:]
    return None


def _is_ours(found: os.stat_result) -> bool:
    """Whether nobody but this user (and root) can write there. Where users have no numbers (Windows): yes."""
    if not hasattr(os, "geteuid"):
        return True
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _write(folder: Path, key: str, code: bytes) -> None:
    """Whole or not at all; not flushed, since what a power cut leaves is found damaged."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_digest(key, code) + code)
        os.replace(name, folder / key)
    finally:
        Path(name).unlink(missing_ok=True)


def _digest(key: str, code: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\n" + code).digest()
