"""The packings of a campaign, campaign-7-1.tar ...: everything there is, again and again under the next number.

Files of one that is being put in its place end in .arriving until all of them are there; only then are older packings
removed, of each bundle the first volume first. So what a kill leaves is told from what was lost on the way.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from experiments.bundles.volumes import VOLUME
from experiments.store import locked
from xnets.errors import XNetsError

STEM, SUFFIX = "campaign", ".tar"
PACKING = re.compile(rf"{STEM}-(?P<number>[0-9]+)-")
ARRIVING = ".arriving"


@contextlib.contextmanager
def held_alone(out: Path) -> Iterator[None]:
    """Hold a folder, without a file for it. Raises XNetsError if another process does: both would give one number."""
    descriptor = os.open(out, os.O_RDONLY)
    try:
        if not locked(descriptor):
            raise XNetsError(f"Another slice packs into {out}: name another folder, or wait until it has ended.")
        yield
    finally:
        os.close(descriptor)


def files_of_packings(out: Path) -> list[Path]:
    """All there are in a folder, whole packings or what a kill left of them."""
    return sorted(out.glob(f"{STEM}-*"))


def next_packing(out: Path) -> str:
    """The name of its bundle; an export to so many files adds -1, -2, ..."""
    numbers = [found[1] for path in files_of_packings(out) if (found := _packing(path))]
    return f"{STEM}-{1 + max(numbers, default=0)}{SUFFIX}"


def put_in_place(files: list[Path], out: Path, older: list[Path]) -> list[Path]:
    """Move the files of a new packing into `out`, then remove the `older` ones, of which it has everything.

    Whoever is killed in between has all of one of them, and `joining` can tell which.
    """
    arriving = [path.replace(out / f"{path.name}{ARRIVING}") for path in files]
    new = [path.replace(path.with_suffix("")) for path in arriving]
    for old in sorted(older, key=_place):
        old.unlink(missing_ok=True)
    return new


def arrived(paths: list[Path]) -> list[Path]:
    """Without packings of which not one file has its final name: that they were all there is not known."""
    begun = {_packing(path) for path in paths if not path.name.endswith(ARRIVING)}
    kept = [path for path in paths if not path.name.endswith(ARRIVING) or _packing(path) in begun]
    for path in sorted(set(paths) - set(kept)):
        print(f"{path} is of a packing that was broken off: left out.", file=sys.stderr)
    return kept


def is_left_over(path: Path, missing: list[int], there: list[Path], lacking: set[Path]) -> bool:
    """Whether a kill can have left a bundle without these volumes; others are whole `there`, or lacking some too."""
    mine = _packing(path)
    if mine is None:
        return path in there
    whole = {_packing(other) for other in there} - {_packing(other) for other in lacking} - {None}
    newer = any(folder == mine[0] and number > mine[1] for folder, number in whole)
    return newer and missing == list(range(1, len(missing) + 1))


def _packing(path: Path) -> tuple[Path, int] | None:
    """The folder and the number of the packing that a file is of, if it is of a campaign."""
    found = PACKING.match(path.name)
    return (path.parent, int(found["number"])) if found else None


def _place(path: Path) -> int:
    """A volume's place among those of its bundle; 0 for a whole one."""
    found = VOLUME.fullmatch(path.name.removesuffix(ARRIVING))
    return int(found["place"]) if found else 0
