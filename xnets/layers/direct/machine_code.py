"""Machine code kept on disk, so that a machine compiles a kernel once, and not once in each process.

One file for each kernel, named by all that its code depends on. A file that is damaged, or that somebody else could
have written, counts as none: its code would be run.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from xnets.cache import cache_folder

DIGEST = 32  # bytes of SHA-256, with which a file begins


def kept(key: str, make: Callable[[], bytes]) -> bytes:
    """The code of that key, a file's name. Made if there is none, and then kept where the disk lets us."""
    folder = cache_folder() / "kernels"
    code = _read(folder / key)
    if code is None:
        code = make()
        with contextlib.suppress(OSError):
            _write(folder / key, code)
    return code


def _read(path: Path) -> bytes | None:
    with contextlib.suppress(OSError):
        if _is_ours(path.parent) and _is_ours(path):
            content = path.read_bytes()
            digest, code = content[:DIGEST], content[DIGEST:]
            if hashlib.sha256(code).digest() == digest:
                return code
    return None


def _is_ours(path: Path) -> bool:
    """Whether nobody but this user (and root) can write there. Where users have no numbers (Windows): yes."""
    if not hasattr(os, "getuid"):
        return True
    found = path.lstat()
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _write(path: Path, code: bytes) -> None:
    """Whole or not at all; not flushed, since what a power cut leaves is found damaged."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_ours(path.parent):
        return
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(hashlib.sha256(code).digest() + code)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
