"""A bundle larger than a file may be is cut into volumes, runs-3.tar.0a1b2c3d.1of7 ...; joined they are it again.

The letters are the bundle's own (of its sha256), so that volumes of two bundles of one name are never taken for one.

A campaign packs again and again, each packing under the next number. Files of one that is being put in its place end in
.arriving until all of them are there; only then are older packings removed, of each bundle the first volume first. So
what a kill leaves is told from what was lost on the way.
"""

import contextlib
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from xnets.errors import CannotWrite, XNetsError
from xnets.files import write_atomically

VOLUME = re.compile(r"(?P<bundle>.+)\.(?P<own>[0-9a-f]{8})\.(?P<place>[0-9]+)of(?P<count>[0-9]+)")
PACKING = re.compile(r"campaign-(?P<number>[0-9]+)-")
ARRIVING = ".arriving"
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


@contextlib.contextmanager
def joined(paths: list[Path], room: Path) -> Iterator[list[Path]]:
    """The bundles that these files are, whole; volumes are joined in a folder in `room` that is gone afterwards.

    Left out is what a kill leaves of replacing one by another, and no more: a packing that was still arriving, the last
    volumes of one of which a newer packing has everything, and volumes of a bundle whose name another one has, all of
    it. Raises XNetsError for a volume that is not among them or cannot be read, and a full disk.
    """
    whole, cut_up = [], {}
    for path in _arrived(paths):
        found = VOLUME.fullmatch(path.name.removesuffix(ARRIVING))
        if found is None:
            whole.append(path)
        else:
            bundle = path.with_name(found["bundle"]), found["own"], int(found["count"])
            cut_up.setdefault(bundle, {})[int(found["place"])] = path
    complete = {bundle: volumes for bundle, volumes in cut_up.items() if len(volumes) == bundle[2]}
    lacking = {bundle[0] for bundle in cut_up.keys() - complete.keys()}
    there = [*whole, *(bundle[0] for bundle in complete)]
    for (path, own, count), volumes in cut_up.items():
        missing = [place for place in range(1, count + 1) if place not in volumes]
        names = ", ".join(f"{own}.{place}of{count}" for place in missing)
        if missing and not _is_left_over(path, missing, there, lacking):
            raise XNetsError(f"{path} is cut into {count} files: name {names} too, or none of them.")
        if missing:
            print(f"{path} lacks {names}: left out, since what took its place is there.", file=sys.stderr)
    with folder_in(room) if complete else contextlib.nullcontext() as folder:
        names = {}
        for number, ((bundle, _, _), volumes) in enumerate(complete.items()):
            together = Path(folder) / str(number) / bundle.name
            names[str(together)] = str(bundle)
            write_atomically(together, lambda file, volumes=volumes: _join(volumes, file))
            whole.append(together)
        try:
            yield whole
        except XNetsError as error:  # it speaks of a file that nobody has named
            said = str(error)
            for here, named in names.items():
                said = said.replace(here, named)
            error.args = (said, *error.args[1:])
            raise


def _arrived(paths: list[Path]) -> list[Path]:
    """Without packings of which not one file has its final name: that they were all there is not known."""
    arrived = {_packing(path) for path in paths if not path.name.endswith(ARRIVING)}
    kept = [path for path in paths if not path.name.endswith(ARRIVING) or _packing(path) in arrived]
    for path in sorted(set(paths) - set(kept)):
        print(f"{path} is of a packing that was broken off: left out.", file=sys.stderr)
    return kept


def _packing(path: Path) -> tuple[Path, int] | None:
    """The folder and the number of the packing that a file is of, if it is of a campaign."""
    found = PACKING.match(path.name)
    return (path.parent, int(found["number"])) if found else None


def _is_left_over(path: Path, missing: list[int], there: list[Path], lacking: set[Path]) -> bool:
    """Whether a kill can have left a bundle without these volumes; others are whole `there`, or lacking some too."""
    mine = _packing(path)
    if mine is None:
        return path in there
    whole = {_packing(other) for other in there} - {_packing(other) for other in lacking} - {None}
    newer = any(folder == mine[0] and number > mine[1] for folder, number in whole)
    return newer and missing == list(range(1, len(missing) + 1))


def place_of(path: Path) -> int:
    """A volume's place among those of its bundle; 0 for a whole one."""
    found = VOLUME.fullmatch(path.name.removesuffix(ARRIVING))
    return int(found["place"]) if found else 0


def folder_in(room: Path) -> tempfile.TemporaryDirectory:
    """A folder in `room`, which is made, for files on their way. Raises CannotWrite."""
    try:
        room.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".bundle-", dir=room)
    except OSError as error:
        raise CannotWrite(f"Cannot write to {room} ({error.strerror}): free space or make it writable.") from None


def _join(volumes: dict[int, Path], file: IO[bytes]) -> None:
    for place in sorted(volumes):
        try:
            source = open(volumes[place], "rb")  # noqa: SIM115 - closed below
        except OSError as error:
            raise XNetsError(f"{volumes[place]} cannot be read ({error.strerror}): name a file of a bundle.") from None
        with source:
            shutil.copyfileobj(source, file, CHUNK)


def _copy(source: IO[bytes], file: IO[bytes], most: int) -> None:
    left = most
    while left and (chunk := source.read(min(left, CHUNK))):
        file.write(chunk)
        left -= len(chunk)
