"""The code of a job is frozen when it is submitted: later edits of the working tree change nothing that is queued."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from experiments.provenance import COMMIT_NOTE, PACKAGES, commit
from xnets.files import write_json

TOP = Path(__file__).parent.parent


def freeze_code(folder: Path) -> Path:
    """Copy the code that a job runs to `folder`/<its hash>, unless it is there, and return that."""
    files = sorted(
        path
        for package in PACKAGES
        for path in (TOP / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    note = commit()
    digest = hashlib.sha256(repr(note).encode())
    for path in files:
        digest.update(f"{path.relative_to(TOP)}\0".encode())
        digest.update(path.read_bytes())
    frozen = folder / digest.hexdigest()[:16]
    if not frozen.exists():
        folder.mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(dir=folder, prefix=".half."))
        for path in files:
            copy = half / path.relative_to(TOP)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
        write_json(half / COMMIT_NOTE.name, note)
        os.chmod(half, 0o755)
        os.rename(half, frozen)
    return frozen
