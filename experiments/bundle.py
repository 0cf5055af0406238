"""Runs as one file, to bring them from the store of one machine into that of another.

A bundle is a tar. Its first member, manifest.json, holds each run's description and the sha256 and size of each of its
files; the files follow as <fingerprint>/<name>, in order. The same runs always make the same bytes.

A bundle is believed only whole: import writes nothing until every file of it has been checked. That guards against
damage and mix-ups, not against forgery: what a run computed is not part of its fingerprint, so an accuracy that was
edited along with its sha256 in the manifest is believed where the run is not here yet, and a conflict where it is.
"""

import contextlib
import gzip
import hashlib
import io
import json
import lzma
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from experiments.store import Store
from xnets.errors import XNetsError
from xnets.files import read_json, write_atomically
from xnets.training import Run

FORMAT = 1
MANIFEST = "manifest.json"
SUFFIXES = (".tar", ".tar.gz", ".tgz")
# In this order in a bundle: import needs the result first, and writes a checkpoint last.
DONE_FILES = ("result.json", "evaluation.json", "history.jsonl", "model.pt")
UNDER_WAY_FILES = ("history.jsonl", "checkpoint.pt")
STAGING = ".import."  # begins the name of a folder that is being imported
RESULT_KEYS = {"epochs", "fingerprint", "graphs_sha256", "provenance", "run", "weights_sha256"}
UNREADABLE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError, OverflowError, KeyError)


@dataclass(frozen=True)
class Packed:
    """A run of a bundle: the names of its files, in their order, each with sha256 and size."""

    run: Run
    files: dict[str, dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """As the manifest has it."""
        return {"run": self.run.to_dict(), "label": self.run.label, "files": self.files}


@dataclass
class Exported:
    """What an export wrote, and labels of what it left out, with the reason."""

    files: list[Path] = field(default_factory=list)
    finished: int = 0
    under_way: int = 0
    left_out: list[str] = field(default_factory=list)


@dataclass
class Imported:
    """Labels of the runs that are new, were here, or now go on here; of the others also what became of them."""

    new: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    under_way: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)


def export_runs(
    store: Store, target: Path, planned: list[Run], everything: bool = False, models: bool = False,
    unfinished: bool = False, max_mib: float | None = None,
) -> Exported:  # fmt: skip
    """Write finished runs of the store to a bundle.

    Args:
        store: where they are.
        target: the bundle, .tar, or .tar.gz or .tgz to have it compressed; an older bundle there is replaced.
        planned: the runs that are wanted; those among them that are not finished are passed over.
        everything: all finished runs of the store instead.
        models: the trained networks too; that of a run without an evaluation is always taken.
        unfinished: also the checkpoints of planned runs under way. Nothing may train into the store meanwhile.
        max_mib: cut it into target-1, target-2, ... of at most so many MiB, each a bundle of its own.

    Raises:
        XNetsError: nothing to export, damage in the store, a name that is none of a bundle or is taken by another
            file, a run larger than max_mib, a full disk.
    """
    suffix = next((s for s in reversed(SUFFIXES) if target.name.endswith(s) and target.name != s), None)
    if suffix is None:
        raise XNetsError(
            f"{target} is no name of a bundle: let it end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}."
        )
    if max_mib is not None and not max_mib > 0:
        raise XNetsError(f"A bundle cannot be cut to {max_mib} MiB: --max-mib must be more than 0.")
    done = Exported()
    with store.lock() if unfinished else contextlib.nullcontext():
        packed = []
        for run in _finished_runs(store, done) if everything else planned:
            if names := _names_to_take(store, run, models, done):
                packed.append(_packed(store, run, names))
        done.finished = len(packed)
        for run in planned if unfinished else []:
            folder = store.folder(run)
            if store.result(run) is None and (folder / "checkpoint.pt").exists():
                packed.append(_packed(store, run, [name for name in UNDER_WAY_FILES if (folder / name).exists()]))
        done.under_way = len(packed) - done.finished
        if not packed:
            more = "" if everything else " --all takes those of other plans too."
            more += "" if unfinished else " --unfinished takes checkpoints of the plan's runs under way."
            left_out = "".join(f"\n  left out: {reason}" for reason in done.left_out)
            raise XNetsError(f"Nothing to export: {store.root} has none of these runs finished.{more}{left_out}")
        packed.sort(key=lambda p: p.run.fingerprint)
        parts = _cut(packed, max_mib, suffix) if max_mib is not None else [packed]
        stem = target.name.removesuffix(suffix)
        for i in range(1, len(parts) + 1):
            path = target.with_name(f"{stem}-{i}{suffix}") if max_mib is not None else target
            _refuse_other_file(path)
            done.files.append(path)
        for path, part in zip(done.files, parts, strict=True):
            write_atomically(path, lambda file, part=part: _write(file, part, store, compressed=suffix != ".tar"))
    return done


def import_bundles(store: Store, paths: list[Path]) -> Imported:
    """Add the runs of bundles to the store; what is here stays as it is.

    All bundles are checked before the first run is written. A run appears whole or not at all, so an import that was
    stopped at any moment and is started again ends as if it had not been. A finished run takes the place of an attempt
    (a checkpoint, a failure). One that is here with another result is a conflict: it is kept, and reported. An
    unfinished one is added only where neither a result nor a checkpoint is.

    Raises:
        XNetsError: a bundle or a result here is damaged, a run is another engine's, a process trains into the store,
            the disk is full.
    """
    bundles = {path: check_bundle(path) for path in paths}
    done = Imported()
    with store.lock():
        for packed in (packed for bundle in bundles.values() for packed in bundle):
            store.result(packed.run)  # damage here is told before anything is written
        for remains in store.root.glob(f"{STAGING}*"):  # of an import that was killed
            shutil.rmtree(remains, ignore_errors=True)
        for path, bundle in bundles.items():
            with _open(path) as tar:
                with _told_as_damage(path):
                    members = {member.name: member for member in tar.getmembers()}
                for packed in bundle:
                    with _told_as_damage(path):  # it may have been replaced since it was checked
                        readers = {
                            name: _Checked(tar.extractfile(members[_member_name(packed.run, name)]), path, **about)
                            for name, about in packed.files.items()
                        }
                    add = _import_finished if "result.json" in packed.files else _import_under_way
                    add(store, packed.run, readers, done)
    return done


def check_bundle(path: Path) -> list[Packed]:
    """The runs of a bundle, once every byte of them is found to be what the manifest says, and no file is beside them.

    Raises XNetsError if the bundle is damaged, incomplete, none of ours, of a newer format or of another engine.
    """
    with _open(path) as tar, _told_as_damage(path):
        bundle = _read_manifest(path, tar)
        for packed in bundle:
            for name, about in packed.files.items():
                wanted, member = _member_name(packed.run, name), tar.next()
                if member is None:
                    raise _bad(path, f"lacks {wanted}")
                if member.name != wanted or not member.isreg() or member.issparse():
                    raise _bad(path, f"holds {member.name!r} where {wanted} should be")
                if member.size != about["size"]:
                    raise _bad(path, f"holds {wanted} in another size than its manifest says")
                reader = _Checked(tar.extractfile(member), path, **about)
                check = {"result.json": result_fault, "evaluation.json": evaluation_fault}.get(name)
                if check is None:
                    while reader.read(2**20):
                        pass
                elif fault := check(_parsed(reader.read()), packed.run):
                    raise _bad(path, f"holds a {wanted} that {fault}")
        surplus = tar.next()
        if surplus is not None:
            raise _bad(path, f"holds {surplus.name!r}, which its manifest does not list")
    return bundle


def result_fault(result: Any, run: Run) -> str | None:
    """Why this cannot be the content of the run's result.json, or None."""
    if not isinstance(result, dict) or not result.keys() >= RESULT_KEYS or not isinstance(result["provenance"], dict):
        return "is not a result"
    if not isinstance(result["weights_sha256"], str):
        return "is not a result"
    if result["fingerprint"] != run.fingerprint or result["run"] != run.to_dict():
        return "is of another run"
    epochs = result["epochs"]
    if not isinstance(epochs, list) or not all(isinstance(record, dict) for record in epochs):
        return "is not a result"
    if [record.get("epoch") for record in epochs] != list(range(run.protocol.epochs)):
        return f"does not have the run's {run.protocol.epochs} epochs"
    if not all(type(record.get("test_top1")) in (int, float) for record in epochs):
        return "has an epoch without an accuracy"
    return None


def evaluation_fault(evaluation: Any, run: Run) -> str | None:
    """Why this cannot be the content of the run's evaluation.json, or None."""
    if not isinstance(evaluation, dict) or type(evaluation.get("top1")) not in (int, float):
        return "is not an evaluation"
    return "is of another run" if evaluation.get("fingerprint") != run.fingerprint else None


# --- export ---


def _finished_runs(store: Store, done: Exported) -> list[Run]:
    """Every finished run of the store, by what its result says of it; those of other engines are left out."""
    runs = []
    for path in sorted(store.root.glob("*/result.json")):
        if not re.fullmatch("[0-9a-f]{64}", path.parent.name):
            continue
        said = read_json(path, "to train this run again")
        try:
            runs.append(Run.from_dict(said["run"]))
        except XNetsError as error:
            done.left_out.append(f"{path.parent.name[:12]}: {error}")
            continue
        except (TypeError, KeyError, AttributeError, ValueError):
            raise XNetsError(f"{path} is damaged: delete it to train this run again.") from None
        if runs[-1].fingerprint != path.parent.name:
            raise XNetsError(f"{path} belongs to another run ({runs[-1].fingerprint}): delete it.")
    return runs


def _names_to_take(store: Store, run: Run, models: bool, done: Exported) -> list[str]:
    """The files of a run that go into a bundle: none if it is not finished, or of no use elsewhere."""
    result, seen, folder = store.result(run), store.evaluation(run), store.folder(run)
    if result is None:
        return []
    for name, fault in (
        ("result.json", result_fault(result, run)),
        ("evaluation.json", evaluation_fault(seen, run) if seen is not None else None),
    ):
        if fault:
            raise XNetsError(f"{folder / name} {fault}: delete it to do this run again.")
    there = [name for name in DONE_FILES if (folder / name).exists()]
    if seen is None and "model.pt" not in there:
        done.left_out.append(f"{run.label}: it has neither an evaluation nor the model.pt to make one from.")
        return []
    return [name for name in there if name != "model.pt" or models or seen is None]


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


def _cut(packed: list[Packed], max_mib: float, suffix: str) -> list[list[Packed]]:
    """In their order, as many runs into a part as are sure to fit."""
    limit = max_mib * 2**20
    if suffix != ".tar":
        limit = limit / 1.001 - 100  # what gzip adds at most, to what it cannot compress
    limit -= 4 * 512 + tarfile.RECORDSIZE + len(_manifest([]))  # headers and the padding at the end
    parts: list[list[Packed]] = [[]]
    room = limit
    for p in packed:
        takes = len(_manifest([p])) + sum(512 + -(-about["size"] // 512) * 512 for about in p.files.values())
        if takes > limit:
            needed = max_mib + (takes - limit) * 1.001 / 2**20
            raise XNetsError(
                f"{p.run.label} alone does not fit into {max_mib:g} MiB: say --max-mib {needed + 0.05:.1f} or more."
            )
        if takes > room:
            parts.append([])
            room = limit
        parts[-1].append(p)
        room -= takes
    return parts


def _refuse_other_file(path: Path) -> None:
    """Only an older bundle may be replaced."""
    if not path.exists():
        return
    try:
        with _open(path) as tar, _told_as_damage(path):
            _read_manifest(path, tar, runs=False)
    except XNetsError:
        raise XNetsError(f"{path} is there and is no bundle of this format: name another file.") from None


def _write(file: IO[bytes], packed: list[Packed], store: Store, compressed: bool) -> None:
    with contextlib.ExitStack() as stack:
        if compressed:  # tarfile's own gzip would note the time
            file = stack.enter_context(gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=6, mtime=0))
        tar = stack.enter_context(tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT))
        manifest = _manifest(packed)
        tar.addfile(_member(MANIFEST, len(manifest)), io.BytesIO(manifest))
        for p in packed:
            for name, about in p.files.items():
                path = store.folder(p.run) / name
                try:
                    source = open(path, "rb")  # noqa: SIM115 - closed below
                except OSError as error:
                    raise XNetsError(f"{path} cannot be read ({error.strerror}): export again.") from None
                with source:
                    reader = _Checked(source, path, **about, remedy="it changed meanwhile; export again")
                    tar.addfile(_member(_member_name(p.run, name), about["size"]), reader)


def _manifest(packed: list[Packed]) -> bytes:
    runs = {p.run.fingerprint: p.to_dict() for p in packed}
    return (json.dumps({"format": FORMAT, "runs": runs}, indent=1, sort_keys=True) + "\n").encode()


def _member(name: str, size: int) -> tarfile.TarInfo:
    """A member that tells nothing of when, where and by whom it was made."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def _member_name(run: Run, name: str) -> str:
    return f"{run.fingerprint}/{name}"


# --- import ---


class _Checked:
    """A file that is known already: reading its last byte, or an end too early, finds what differs."""

    def __init__(
        self, source: IO[bytes] | None, where: Path, sha256: str, size: int,
        remedy: str = "copy it here again, or export it anew",
    ) -> None:  # fmt: skip
        self._source, self._where, self._sha256, self._left, self._remedy = source, where, sha256, size, remedy
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, or all. Raises XNetsError at the end if they were not the ones that are known."""
        wanted = self._left if size < 0 else min(size, self._left)
        try:
            chunk = self._source.read(wanted)
        except UNREADABLE:
            chunk = b""
        self._digest.update(chunk)
        self._left -= len(chunk)
        if len(chunk) < wanted or (not self._left and self._digest.hexdigest() != self._sha256):
            raise XNetsError(f"{self._where} is damaged: {self._remedy}.")
        return chunk


def _open(path: Path) -> tarfile.TarFile:
    with _told_as_damage(path):
        try:
            return tarfile.open(path, "r:*")
        except OSError as error:
            if error.strerror is None:  # gzip's own
                raise
            raise XNetsError(f"{path} cannot be read ({error.strerror}): name a bundle of runs.") from None


@contextlib.contextmanager
def _told_as_damage(path: Path) -> Iterator[None]:
    """What tarfile and the decompressors say of damage, depending on where it is, in one sentence."""
    try:
        yield
    except XNetsError:
        raise
    except UNREADABLE:
        raise _bad(path, "is damaged or no bundle of runs") from None


def _bad(path: Path, what: str) -> XNetsError:
    return XNetsError(f"{path} {what}: copy it here again, or export it anew.")


def _parsed(content: bytes) -> Any:
    """JSON without NaN, or None."""
    try:
        return json.loads(content, parse_constant=lambda name: int(name))  # int("NaN") is the ValueError
    except (ValueError, RecursionError):
        return None


def _read_manifest(path: Path, tar: tarfile.TarFile, runs: bool = True) -> list[Packed]:
    """The first member, checked. Without `runs`, only whether this is a bundle."""
    member = tar.next()
    if member is None or member.name != MANIFEST or not member.isreg() or member.issparse():
        raise _bad(path, "is no bundle of runs")
    said = _parsed(tar.extractfile(member).read())
    if not isinstance(said, dict) or type(said.get("format")) is not int:
        raise _bad(path, "is no bundle of runs, or its manifest is damaged")
    if said["format"] != FORMAT:
        raise XNetsError(
            f"{path} has format {said['format']}, and this is format {FORMAT}: "
            "use the same version of the repository on both machines."
        )
    if said.keys() != {"format", "runs"} or not isinstance(said["runs"], dict):
        raise _bad(path, "has a damaged manifest")
    return [_read_packed(path, name, entry) for name, entry in sorted(said["runs"].items())] if runs else []


def _read_packed(path: Path, fingerprint: str, said: Any) -> Packed:
    try:
        run = Run.from_dict(said["run"])
        found, files = run.fingerprint, said["files"]
        sound = said.keys() == {"run", "label", "files"} and said["label"] == run.label
        for about in files.values():
            sound &= about.keys() == {"sha256", "size"} and type(about["sha256"]) is str
            sound &= type(about["size"]) is int and about["size"] >= 0
    except XNetsError as error:
        raise XNetsError(
            f"{path}: {error} Use the same version of the repository here and there, or copy it here again."
        ) from None
    except (TypeError, KeyError, AttributeError, ValueError):
        raise _bad(path, f"has a damaged manifest (at {fingerprint[:12]})") from None
    if found != fingerprint:
        raise _bad(path, f"describes run {found[:12]} under the fingerprint {fingerprint[:12]}")
    names = set(files)
    is_done = "result.json" in names and names <= set(DONE_FILES) and names & {"evaluation.json", "model.pt"}
    is_under_way = "checkpoint.pt" in names and names <= set(UNDER_WAY_FILES)
    if not sound or not (is_done or is_under_way):
        raise _bad(path, f"has a damaged manifest (at {fingerprint[:12]})")
    return Packed(run, {name: files[name] for name in (DONE_FILES if is_done else UNDER_WAY_FILES) if name in files})


def _import_finished(store: Store, run: Run, readers: dict[str, _Checked], done: Imported) -> None:
    folder, here = store.folder(run), store.result(run)
    content = readers.pop("result.json").read()
    result = json.loads(content)
    if here is None:
        _write_new(store, run, readers, content)
        done.new.append(run.label)
    elif {**here, "provenance": None} == {**result, "provenance": None}:
        for name, reader in readers.items():
            if not (folder / name).exists():
                _copy(reader, folder / name)
        done.known.append(run.label)
    else:
        mine, theirs = (
            f"top-1 {said['epochs'][-1]['test_top1']:.2f} %, weights {said['weights_sha256'][:12]}"
            for said in (here, result)
        )
        done.conflicts.append(f"{run.label}: here {mine}; in the bundle {theirs}; the one here is kept.")


def _write_new(store: Store, run: Run, readers: dict[str, _Checked], result: bytes) -> None:
    """Make the run's folder under another name and rename it: no mixture with an attempt that was here, nor a part."""
    folder, staging = store.folder(run), store.root / f"{STAGING}{run.fingerprint}"
    try:
        for name, reader in readers.items():
            _copy(reader, staging / name)
        write_atomically(staging / "result.json", lambda file: file.write(result))
        if folder.exists():
            shutil.rmtree(folder)
        staging.rename(folder)
    except OSError as error:
        raise XNetsError(f"Cannot write {folder} ({error.strerror}): mend that and import again.") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _import_under_way(store: Store, run: Run, readers: dict[str, _Checked], done: Imported) -> None:
    folder = store.folder(run)
    if store.result(run) is not None:
        done.kept.append(f"{run.label}: it is finished here; the bundle's checkpoint is not needed.")
    elif (folder / "checkpoint.pt").exists():
        done.kept.append(f"{run.label}: it is under way here too; the checkpoint here is kept.")
    else:
        for name, reader in readers.items():
            _copy(reader, folder / name)
        done.under_way.append(run.label)


def _copy(reader: _Checked, path: Path) -> None:
    write_atomically(path, lambda file: shutil.copyfileobj(reader, file, 2**20))
