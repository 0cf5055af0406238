"""Write runs of a store to bundles."""

import contextlib
import gzip
import hashlib
import io
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from experiments.bundles.format import (
    DONE_FILES,
    MANIFEST,
    UNDER_WAY_FILES,
    Checked,
    Packed,
    done_files,
    is_bundle,
    manifest,
    seal,
)
from experiments.bundles.room import check_max_mib, cut, fitting
from experiments.bundles.volumes import write_volumes
from experiments.sound import sound_evaluation, sound_result
from experiments.store import Store
from xnets.errors import Stopped, XNetsError
from xnets.files import read_json, write_atomically
from xnets.training import Run

SUFFIXES = (".tar", ".tar.gz", ".tgz")


@dataclass
class Exported:
    """What an export wrote, and labels of what it left out, with the reason."""

    files: list[Path] = field(default_factory=list)
    finished: int = 0
    under_way: int = 0
    left_out: list[str] = field(default_factory=list)


class NothingToExport(XNetsError):
    """No run is finished, or none that fits. left_out: as of Exported."""

    def __init__(self, said: str, left_out: list[str]) -> None:
        super().__init__(said)
        self.left_out = left_out


def export_runs(
    store: Store, target: Path, planned: list[Run], *, everything: bool = False, models: bool = False,
    unfinished: bool = False, max_mib: float | None = None, max_files: int | None = None, live: bool = False,
) -> Exported:  # fmt: skip
    """Write finished runs of the store to a bundle.

    Args:
        store: where they are.
        target: the bundle, .tar, or .tar.gz or .tgz to have it compressed; an older bundle there is replaced.
        planned: the runs that are wanted; those among them that are not finished are passed over.
        everything: all finished runs of the store instead.
        models: the trained networks too; that of a run without an evaluation is always taken.
        unfinished: also the checkpoints of planned runs under way, but for those that a process is training.
        max_mib: cut it into target-1, target-2, ... of at most so many MiB, each a bundle of its own.
        max_files: no more of these; what does not fit is left out, the last of `planned` and checkpoints first. A run
            larger than max_mib is then in a bundle that is cut into volumes, which count as files.
        live: called while runs are trained into the store: of those under way the last checkpoint is taken.

    Raises:
        NothingToExport: see there.
        XNetsError: damage in the store, a name that is none of a bundle or is taken by another
            file, a run larger than max_mib (without max_files), a full disk.
    """
    suffix = next((s for s in reversed(SUFFIXES) if target.name.endswith(s) and target.name != s), None)
    if suffix is None:
        raise XNetsError(f"{target} is no name of a bundle: let it end in .tar, .tar.gz or .tgz.")
    if max_mib is not None:
        check_max_mib(max_mib)
    done = Exported()
    with store.lock() if unfinished and not live else contextlib.nullcontext():
        wanted = _finished_runs(store, done.left_out) if everything else planned
        bundle = [_packed(store, run, names) for run in wanted if (names := _names(store, run, models, done.left_out))]
        if unfinished:
            bundle += _under_way(store, planned, done.left_out, live)
        if max_mib is not None and max_files is not None:
            bundle, without_room = fitting(bundle, max_mib, max_files, suffix)
            done.left_out += without_room.values()
        done.finished = sum(packed.finished for packed in bundle)
        done.under_way = len(bundle) - done.finished
        if not bundle:
            more = "" if everything else " --all takes those of other plans too."
            more += "" if unfinished else " --unfinished takes checkpoints of the plan's runs under way."
            left_out = "".join(f"\n  left out: {reason}" for reason in done.left_out)
            said = f"Nothing to export: {store.root} has none of these runs finished.{more}{left_out}"
            raise NothingToExport(said, done.left_out)
        bundle.sort(key=lambda packed: packed.run.fingerprint)
        parts, paths = [(bundle, 1)], [target]
        if max_mib is not None:
            parts, stem = cut(bundle, max_mib, suffix, max_files is not None), target.name.removesuffix(suffix)
            paths = [target.with_name(f"{stem}-{i + 1}{suffix}") for i in range(len(parts))]
        for path in paths:
            if path.exists() and not is_bundle(path):
                raise XNetsError(f"{path} is there and is no bundle of this format: name another file.")
        for path, (part, files) in zip(paths, parts, strict=True):

            def write(file: IO[bytes], part: list[Packed] = part) -> None:
                _write(file, part, store, compressed=suffix != ".tar")

            if files == 1:
                write_atomically(path, write)
                done.files.append(path)
            else:
                done.files += write_volumes(path, write, int(max_mib * 2**20))
    return done


def _finished_runs(store: Store, left_out: list[str]) -> list[Run]:
    """Every finished run of the store, by what its result says of it; those of other engines are left out."""
    runs = []
    for path in sorted(store.root.glob("*/result.json")):
        if not re.fullmatch("[0-9a-f]{64}", path.parent.name):
            continue
        said = read_json(path, "to train this run again")
        try:
            runs.append(Run.from_dict(said["run"]))
        except XNetsError as error:
            left_out.append(f"{path.parent.name[:12]}: {error}")
            continue
        except (TypeError, KeyError, AttributeError, ValueError):  # JSON of another shape
            raise XNetsError(f"{path} is damaged: delete it to train this run again.") from None
        if runs[-1].fingerprint != path.parent.name:
            raise XNetsError(f"{path} belongs to another run ({runs[-1].fingerprint}): delete it.")
    return runs


def _names(store: Store, run: Run, models: bool, left_out: list[str]) -> list[str]:
    """The files of a run that go into a bundle: none if it is not finished, or of no use elsewhere."""
    if sound_result(store, run) is None:
        return []
    seen = sound_evaluation(store, run)
    there = [name for name in DONE_FILES if (store.folder(run) / name).exists()]
    if seen is None and "model.pt" not in there:
        left_out.append(f"{run.label}: it has neither an evaluation nor the model.pt to make one from.")
        return []
    return done_files(there, models)


def _under_way(store: Store, planned: list[Run], left_out: list[str], live: bool) -> list[Packed]:
    bundle = []
    for run in planned:
        folder = store.folder(run)
        if store.is_done(run) or not (folder / "checkpoint.pt").exists():
            continue
        try:
            # nobody is waited for; a checkpoint is always whole, whoever is at the run
            with contextlib.nullcontext() if live else store.working_on(run, stop=lambda: True):
                bundle.append(_packed(store, run, [name for name in UNDER_WAY_FILES if (folder / name).exists()]))
        except Stopped:
            left_out.append(f"{run.label}: a process is training it; stop that, or export again when it is done.")
    return bundle


def _packed(store: Store, run: Run, names: list[str]) -> Packed:
    files = {}
    for name in names:
        path = store.folder(run) / name
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256")
                files[name] = {"sha256": digest.hexdigest(), "size": file.tell()}
        except OSError as error:
            raise XNetsError(f"{path} cannot be read ({error.strerror}): mend that and export again.") from None
    return Packed(run, files)


class _Hashed:
    """Passes on what is written, and its sha256 is known."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _write(file: IO[bytes], bundle: list[Packed], store: Store, compressed: bool) -> None:
    if not compressed:
        _write_tar(file, bundle, store)
        return
    hashed = _Hashed(file)
    with gzip.GzipFile(filename="", fileobj=hashed, mode="wb", compresslevel=6, mtime=0) as squeezed:
        _write_tar(squeezed, bundle, store)  # tarfile's own gzip would note the time
    file.write(seal(hashed.sha256.digest()))


def _write_tar(file: IO[bytes], bundle: list[Packed], store: Store) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        content = manifest(bundle)
        tar.addfile(_member(MANIFEST, len(content)), io.BytesIO(content))
        for packed in bundle:
            for name, about in packed.files.items():
                path = store.folder(packed.run) / name
                try:
                    source = open(path, "rb")  # noqa: SIM115 - closed below
                except OSError as error:
                    raise XNetsError(f"{path} cannot be read ({error.strerror}): export again.") from None
                with source:
                    reader = Checked(source, path, **about, remedy="it changed meanwhile; export again")
                    tar.addfile(_member(packed.member(name), about["size"]), reader)


def _member(name: str, size: int) -> tarfile.TarInfo:
    """A member that tells nothing of when, where and by whom it was made."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member
