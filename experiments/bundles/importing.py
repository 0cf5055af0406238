"""Add the runs of bundles to a store."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from experiments.bundles.format import Checked, bad, check_bundle, read_files
from experiments.bundles.joining import joined
from experiments.bundles.volumes import clear_folders_in
from experiments.sound import sound_result
from experiments.store import Store
from xnets.errors import Stopped, XNetsError
from xnets.files import write_atomically
from xnets.training import Run
from xnets.training.checkpoint import checkpoint_position
from xnets.training.loop import CHECKPOINT

NEW_CHECKPOINT = "checkpoint.arriving"  # in a run's folder, until it is known to be further
MARK = ".import"  # in the names of files that an import is writing; a job of a cluster may be writing others beside it
LASTING = {".lock", "attempts.jsonl"}  # in a run's folder, whatever becomes of an attempt
Files = Iterator[tuple[str, Checked]]


@dataclass
class Imported:
    """Labels of the runs that are new, were here, or now go on here; of the others also what became of them: the one
    here is kept, it conflicts, or a process is at it and nothing was taken in (held). runs: all of them."""

    new: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    under_way: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)


def import_bundles(store: Store, paths: list[Path]) -> Imported:
    """Add the runs of bundles to the store; what is here stays as it is.

    All bundles are checked before the first run is written. An import that was stopped at any moment and is started
    again ends as if it had not been. A finished run takes the place of an attempt (a checkpoint, a failure), unless a
    process is at it. One that is here with another result is a conflict: it is kept, and reported. An unfinished one is
    added where no result is, nor a checkpoint as far.

    Raises:
        XNetsError: a bundle or a result here is damaged, a volume of a bundle is missing, a run is another engine's, a
            process trains into the store, the disk is full.
    """
    with store.lock():  # first: what is found of other imports is then left over
        _clear_leftovers(store)
        with joined(paths, store.root) as whole:
            return _import_whole(store, whole)


def _import_whole(store: Store, paths: list[Path]) -> Imported:
    bundles = {path: check_bundle(path) for path in paths}
    done = Imported(runs=[packed.run for bundle in bundles.values() for packed in bundle])
    for bundle in bundles.values():
        for packed in bundle:
            sound_result(store, packed.run)  # damage here is told before anything is written
    for path, bundle in bundles.items():
        for packed, group in groupby(read_files(path), key=itemgetter(0)):
            if packed not in bundle:
                raise bad(path, "has changed since it was checked")
            add = _add_finished if packed.finished else _add_under_way
            try:
                with store.working_on(packed.run, stop=lambda: True):  # nobody is waited for
                    add(store, packed.run, ((name, reader) for _, name, reader in group), done)
            except Stopped:
                done.held.append(
                    f"{packed.run.label}: a process is training or evaluating it; import again when it is done."
                )
    return done


def _clear_leftovers(store: Store) -> None:
    """Remove what imports that were killed left of files on their way. None else is under way: the store is locked."""
    clear_folders_in(store.root)
    for left in [*store.root.glob(f"*/{NEW_CHECKPOINT}"), *store.root.glob(f"*/.*{MARK}.*")]:
        left.unlink(missing_ok=True)


def _add_finished(store: Store, run: Run, files: Files, done: Imported) -> None:
    folder, here = store.folder(run), sound_result(store, run)
    _, reader = next(files)  # result.json is the first
    content = reader.read()
    result = json.loads(content)
    if here is None:
        _replace_attempt(folder, files, content)
        done.new.append(run.label)
    elif {**here, "provenance": None} == {**result, "provenance": None}:
        for name, reader in files:
            if not (folder / name).exists():
                _copy(reader, folder / name)
        done.known.append(run.label)
    else:
        mine, theirs = (
            f"top-1 {said['epochs'][-1]['test_top1']:.2f} %, weights {said['weights_sha256'][:12]}"
            for said in (here, result)
        )
        done.conflicts.append(f"{run.label}: here {mine}; in the bundle {theirs}; the one here is kept.")


def _replace_attempt(folder: Path, files: Files, result: bytes) -> None:
    """Leave these files alone in the folder, result.json last.

    Until that is there the run is not done. If it never comes, what was copied is an attempt's remains: importing again
    writes all of it anew, and training removes the evaluation before it begins.
    """
    names = set(LASTING)
    for name, reader in files:
        _copy(reader, folder / name)
        names.add(name)
    try:
        for path in folder.iterdir():
            if path.name not in names:
                path.unlink()
    except OSError as error:
        raise XNetsError(f"Cannot clear {folder} ({error.strerror}): mend that and import again.") from None
    write_atomically(folder / "result.json", lambda file: file.write(result), MARK)


def _add_under_way(store: Store, run: Run, files: Files, done: Imported) -> None:
    folder = store.folder(run)
    if store.result(run) is not None:
        done.kept.append(f"{run.label}: it is finished here; the bundle's checkpoint is not needed.")
        return
    arriving, notes = folder / NEW_CHECKPOINT, {}
    try:
        for name, reader in files:  # the checkpoint comes last
            if name == CHECKPOINT:
                _copy(reader, arriving)
            else:
                notes[name] = reader.read()
        if checkpoint_position(arriving) <= checkpoint_position(folder / CHECKPOINT):
            done.kept.append(f"{run.label}: it is under way here too, and as far or further; that is kept.")
            return
        for name, content in notes.items():
            write_atomically(folder / name, lambda file, content=content: file.write(content), MARK)
        arriving.replace(folder / CHECKPOINT)
    finally:
        arriving.unlink(missing_ok=True)
    done.under_way.append(run.label)


def _copy(reader: Checked, path: Path) -> None:
    write_atomically(path, lambda file: shutil.copyfileobj(reader, file, 2**20), MARK)
