"""Whole bundles out of files that were gathered: volumes are joined, what a kill left is passed over."""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from experiments.bundles.packings import ARRIVING, arrived, is_left_over
from experiments.bundles.volumes import CHUNK, VOLUME, folder_in
from xnets.errors import XNetsError
from xnets.files import write_atomically


@contextlib.contextmanager
def joined(paths: list[Path], room: Path) -> Iterator[list[Path]]:
    """The bundles that these files are, whole; volumes are joined in a folder in `room` that is gone afterwards.

    Left out is what a kill leaves of replacing one by another, and no more: a packing that was still arriving, the last
    volumes of one of which a newer packing has everything, and volumes of a bundle whose name another one has, all of
    it. Raises XNetsError for a volume that is not among them or cannot be read, and a full disk.
    """
    whole, cut_up = [], {}
    for path in arrived(paths):
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
        if missing and not is_left_over(path, missing, there, lacking):
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


def _join(volumes: dict[int, Path], file: IO[bytes]) -> None:
    for place in sorted(volumes):
        try:
            source = open(volumes[place], "rb")  # noqa: SIM115 - closed below
        except OSError as error:
            raise XNetsError(f"{volumes[place]} cannot be read ({error.strerror}): name a file of a bundle.") from None
        with source:
            shutil.copyfileobj(source, file, CHUNK)
