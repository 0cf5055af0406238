"""Images as packed uint8: one file of pixels a split, and a manifest that says what is in it.

DATA/manifest.json          counts, classes, mean and sd of each channel, sha256 of every file
DATA/{train,test}.u8        pixels, image after image, rows of (R, G, B)
DATA/{train,test}.labels.npy    (N,) int64
DATA/{train,test}.shapes.npy    (N, 2) int32 heights and widths, only where the images differ in size
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xnets.errors import XNetsError

FORMAT = 1
SPLITS = ("train", "test")
VERIFY_BELOW = 2**30  # files up to 1 GiB are checked against their sha256 whenever they are opened

Images = Iterable[tuple[np.ndarray, int]]  # (H, W, 3) uint8 and its label, one after another


@dataclass(frozen=True)
class Split:
    """One split in memory or mapped from disk: images (N, H, W, 3) uint8, or flat with shapes; labels (N,) int64."""

    images: np.ndarray
    labels: np.ndarray
    shapes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class PackedData:
    """A prepared data set."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def digest(self) -> str:
        """sha256 of the manifest: the identity of the data in a run's fingerprint."""
        return manifest_digest(self.manifest)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.manifest["classes"])

    def split(self, name: str) -> Split:
        """Open a split. Raises XNetsError if a file is missing, has another size, or other contents."""
        entry = self.manifest["splits"][name]
        for file, expected in entry["files"].items():
            _check_file(self.folder / file, expected)
        labels = np.load(self.folder / f"{name}.labels.npy")
        pixels = np.memmap(self.folder / f"{name}.u8", dtype=np.uint8, mode="r")
        if entry["shape"] is not None:
            return Split(pixels.reshape(-1, *entry["shape"]), labels)
        return Split(pixels, labels, np.load(self.folder / f"{name}.shapes.npy"))

    def check_files(self) -> None:
        """Open every split once. Raises XNetsError as split() does."""
        for name in self.manifest["splits"]:
            self.split(name)


def manifest_digest(manifest: dict[str, Any]) -> str:
    """sha256 of a manifest, independent of how it is laid out in its file."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def pack(folder: Path, name: str, splits: dict[str, Images], classes: list[str]) -> PackedData:
    """Write a data set to `folder`, replacing what is there only when all of it has been written."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        manifest = {"format": FORMAT, "name": name, "classes": classes, "splits": {}}
        for split in SPLITS:
            manifest["splits"][split], histogram = _write_split(part, split, splits[split], classes)
            if split == "train":
                manifest["mean"], manifest["sd"] = _mean_and_sd(histogram)
        (part / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    except OSError as error:
        raise XNetsError(f"Cannot write {part} ({error.strerror}): free space or choose another data folder.") from None
    return PackedData(folder, manifest)


def open_data(folder: Path) -> PackedData:
    """Open a prepared data set; XNetsError if it is missing or its manifest cannot be read."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
        _ = (
            [manifest["splits"][split]["files"] for split in SPLITS],
            manifest["mean"],
            manifest["sd"],
            manifest["classes"],
        )
        if manifest["format"] != FORMAT:
            raise XNetsError(
                f"{path} has format {manifest['format']}, not {FORMAT}: delete {folder} and prepare it again."
            )
    except (FileNotFoundError, NotADirectoryError):
        raise XNetsError(f"{folder} holds no prepared data: run `dvc repro -f prepare` first.") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise XNetsError(f"{path} is damaged: delete {folder} and run `dvc repro -f prepare`.") from None
    return PackedData(folder, manifest)


def _write_split(part: Path, split: str, images: Images, classes: list[str]) -> tuple[dict[str, Any], np.ndarray]:
    labels, shapes = [], []
    histogram = np.zeros((3, 256), dtype=np.int64)
    with open(part / f"{split}.u8", "wb") as file:
        for image, label in images:
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise XNetsError(f"Images must be (H, W, 3) uint8, not {image.shape} {image.dtype}.")
            file.write(np.ascontiguousarray(image).tobytes())
            labels.append(label)
            shapes.append(image.shape[:2])
            for channel in range(3):
                histogram[channel] += np.bincount(image[..., channel].ravel(), minlength=256)
        file.flush()
        os.fsync(file.fileno())
    counts = np.bincount(np.array(labels, dtype=np.int64), minlength=len(classes))
    if len(counts) > len(classes) or (counts == 0).any():
        empty = classes[int(np.argmin(counts[: len(classes)]))]
        raise XNetsError(f"Class {empty!r} has no {split} images: add some or remove the class.")
    np.save(part / f"{split}.labels.npy", np.array(labels, dtype=np.int64))
    uniform = len(set(shapes)) == 1
    if not uniform:
        np.save(part / f"{split}.shapes.npy", np.array(shapes, dtype=np.int32))
    files = sorted(part.glob(f"{split}.*"))
    return {
        "n": len(labels),
        "per_class": counts.tolist(),
        "shape": [*shapes[0], 3] if uniform else None,
        "files": {f.name: {"bytes": f.stat().st_size, "sha256": _sha256(f)} for f in files},
    }, histogram


def _mean_and_sd(histogram: np.ndarray) -> tuple[list[float], list[float]]:
    """Of each channel, in [0, 1], from exact counts, so the same on every machine."""
    values = np.arange(256)
    n = histogram.sum(axis=1)
    mean = (histogram * values).sum(axis=1) / n
    variance = (histogram * values**2).sum(axis=1) / n - mean**2
    return (mean / 255).round(8).tolist(), (np.sqrt(variance) / 255).round(8).tolist()


def _check_file(path: Path, expected: dict[str, Any]) -> None:
    again = "delete its folder and run `dvc repro -f prepare`."
    if not path.exists():
        raise XNetsError(f"{path} is missing: {again}")
    if path.stat().st_size != expected["bytes"]:
        raise XNetsError(f"{path} has {path.stat().st_size} bytes instead of {expected['bytes']}: {again}")
    if expected["bytes"] <= VERIFY_BELOW and _sha256(path) != expected["sha256"]:
        raise XNetsError(f"{path} was changed or damaged after it was prepared: {again}")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
