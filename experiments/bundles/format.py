"""What a bundle is, and how it is read.

A bundle is a tar. Its first member, manifest.json, holds each run's description and the sha256 and size of each of its
files; the files follow as <fingerprint>/<name>, in order. The same runs always make the same bytes.

A compressed one ends in a seal: an empty gzip member, which programs that unpack pass over, with the sha256 of all
bytes before it. Without it a flipped bit could go unseen where deflate may say the same in another way.

A bundle is believed only whole: import writes nothing until every file of it has been checked. That guards against
damage and mix-ups, not against forgery: what a run computed is not part of its fingerprint, so an accuracy that was
edited along with its sha256 in the manifest is believed where the run is not here yet, and a conflict where it is.
"""

import contextlib
import gzip
import hashlib
import json
import struct
import tarfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from experiments.bundles.volumes import CHUNK
from experiments.sound import evaluation_fault, result_fault
from xnets.errors import XNetsError
from xnets.training import Run

FORMAT = 1
SEAL_SIZE = 58
MANIFEST = "manifest.json"
# In this order in a bundle: import needs the result first, and writes a checkpoint last.
DONE_FILES = ("result.json", "evaluation.json", "history.jsonl", "model.pt")
UNDER_WAY_FILES = ("history.jsonl", "attempts.jsonl", "checkpoint.pt")
# What tarfile (ValueError and OverflowError too, from absurd numbers in headers) and gzip raise on damaged bytes.
UNREADABLE = (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, OverflowError)


def done_files(there: Collection[str], models: bool = False) -> list[str]:
    """Those of a finished run that are packed: the trained network too, with `models` or if no evaluation is there."""
    models = models or "evaluation.json" not in there
    return [name for name in DONE_FILES if name in there and (name != "model.pt" or models)]


@dataclass(frozen=True)
class Packed:
    """A run of a bundle: the names of its files, in their order, each with sha256 and size."""

    run: Run
    files: dict[str, dict[str, Any]]

    @property
    def finished(self) -> bool:
        return "result.json" in self.files

    def member(self, name: str) -> str:
        """What a file of this run is called in the tar."""
        return f"{self.run.fingerprint}/{name}"


class Checked:
    """A file that is known already: reading its last byte, or an end too early, finds what differs."""

    def __init__(
        self, source: IO[bytes], where: Path, sha256: str, size: int,
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


def check_bundle(path: Path) -> list[Packed]:
    """The runs of a bundle, once every byte of them is found to be what the manifest says, and no file is beside them.

    Raises XNetsError if the bundle is damaged, incomplete, none of ours, of a newer format or of another engine.
    """
    runs = {}
    for packed, name, reader in read_files(path):
        runs[packed.run] = packed
        check = {"result.json": result_fault, "evaluation.json": evaluation_fault}.get(name)
        if check is None:
            while reader.read(CHUNK):
                pass
        elif fault := check(_parsed(reader.read()), packed.run):
            raise bad(path, f"holds a {packed.member(name)} that {fault}")
    _check_rest(path, list(runs.values()))
    return list(runs.values())


def _check_rest(path: Path, runs: list[Packed]) -> None:
    """Raise XNetsError for damage where JSON, tar and gzip keep nothing and do not look."""
    with _opened(path) as tar:
        if tar.extractfile(tar.next()).read() != manifest(runs):
            raise bad(path, "has a damaged manifest")
        file = tar.fileobj
        if isinstance(file, gzip.GzipFile):
            if not _is_sealed(path):
                raise bad(path, "is damaged, or compressed by something else than `xnets store export`")
            return
        members = list(tar)
        gaps = [(member.offset_data + member.size, -member.size % tarfile.BLOCKSIZE) for member in members]
        for member in members:
            file.seek(member.offset_data - tarfile.BLOCKSIZE + 148)
            if file.read(8) != b"%06o\0 " % member.chksum:  # the header's own checksum, of which tarfile reads six
                raise bad(path, f"is damaged at {member.name}")
        for start, length in gaps:
            file.seek(start)
            if any(file.read(length)):
                raise bad(path, "is damaged between its files")
        whole = -(-(file.tell() + 2 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
        if any(file.read(tarfile.RECORDSIZE + 2 * tarfile.BLOCKSIZE)) or path.stat().st_size != whole:
            raise bad(path, "is damaged after its files")


def seal(sha256: bytes) -> bytes:
    """What ends a compressed bundle: a gzip member without content, whose extra field holds this digest."""
    extra = b"XN" + struct.pack("<H", len(sha256)) + sha256
    return b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + struct.pack("<H", len(extra)) + extra + b"\x03\0" + bytes(8)


def _is_sealed(path: Path) -> bool:
    digest, left = hashlib.sha256(), path.stat().st_size - SEAL_SIZE
    with path.open("rb") as file:
        while left > 0 and (chunk := file.read(min(left, CHUNK))):
            digest.update(chunk)
            left -= len(chunk)
        return file.read() == seal(digest.digest())


def read_files(path: Path) -> Iterator[tuple[Packed, str, Checked]]:
    """Each file of a bundle in order: its run, its name, and a reader that is of use until the next is asked for.

    Raises XNetsError where the tar is not what its manifest says; of a file's content, the reader does.
    """
    with _opened(path) as tar:
        for packed in (_read_packed(path, *item) for item in sorted(_read_manifest(path, tar).items())):
            for name, about in packed.files.items():
                wanted, member = packed.member(name), tar.next()
                if member is None:
                    raise bad(path, f"lacks {wanted}")
                if member.name != wanted or not member.isreg() or member.issparse():
                    raise bad(path, f"holds {member.name!r} where {wanted} should be")
                if member.size != about["size"]:
                    raise bad(path, f"holds {wanted} in another size than its manifest says")
                yield packed, name, Checked(tar.extractfile(member), path, **about)
        surplus = tar.next()
        if surplus is not None:
            raise bad(path, f"holds {surplus.name!r}, which its manifest does not list")


def is_bundle(path: Path) -> bool:
    """Whether it begins as a bundle of this format does."""
    try:
        with _opened(path) as tar:
            _read_manifest(path, tar)
    except XNetsError:
        return False
    return True


def manifest(bundle: list[Packed]) -> bytes:
    """The content of manifest.json."""
    runs = {p.run.fingerprint: {"run": p.run.to_dict(), "label": p.run.label, "files": p.files} for p in bundle}
    return (json.dumps({"format": FORMAT, "runs": runs}, indent=1, sort_keys=True) + "\n").encode()


def bad(path: Path, what: str) -> XNetsError:
    """For a bundle that is not as it should be."""
    return XNetsError(f"{path} {what}: copy it here again, or export it anew.")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """The tar. Damage, which Python tells of in many ways, is one sentence."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise XNetsError(f"{path} cannot be read ({error.strerror}): name a bundle of runs.") from None
    with file:
        try:
            compressed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:gz" if compressed else "r:") as tar:
                yield tar
        except XNetsError:  # it is a ValueError too
            raise
        except UNREADABLE:
            raise bad(path, "is damaged or no bundle of runs") from None


def _read_manifest(path: Path, tar: tarfile.TarFile) -> dict[str, Any]:
    """fingerprint -> what the first member says of that run, not yet checked."""
    member = tar.next()
    if member is None or member.name != MANIFEST or not member.isreg() or member.issparse():
        raise bad(path, "is no bundle of runs")
    said = _parsed(tar.extractfile(member).read())
    if not isinstance(said, dict) or type(said.get("format")) is not int:
        raise bad(path, "is no bundle of runs, or its manifest is damaged")
    if said["format"] != FORMAT:
        raise XNetsError(
            f"{path} has format {said['format']}, and this is format {FORMAT}: "
            "use the same version of the repository on both machines."
        )
    if said.keys() != {"format", "runs"} or not isinstance(said["runs"], dict):
        raise bad(path, "has a damaged manifest")
    return said["runs"]


def _read_packed(path: Path, fingerprint: str, said: Any) -> Packed:
    """A run of the manifest, checked."""
    damaged = bad(path, f"has a damaged manifest (at {fingerprint[:12]})")
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
    except (TypeError, KeyError, AttributeError, ValueError):  # JSON of another shape
        raise damaged from None
    if found != fingerprint:
        raise bad(path, f"describes run {found[:12]} under the fingerprint {fingerprint[:12]}")
    names = set(files)
    finished = "result.json" in names and names <= set(DONE_FILES) and names & {"evaluation.json", "model.pt"}
    under_way = "checkpoint.pt" in names and names <= set(UNDER_WAY_FILES)
    if not sound or not (finished or under_way):
        raise damaged
    return Packed(run, {name: files[name] for name in (DONE_FILES if finished else UNDER_WAY_FILES) if name in files})


def _parsed(content: bytes) -> Any:
    """JSON without NaN, or None."""
    try:
        return json.loads(content, parse_constant=lambda name: int(name))  # int("NaN") is the ValueError
    except (ValueError, RecursionError):
        return None
