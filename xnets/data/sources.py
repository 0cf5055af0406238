"""Where images come from: scikit-learn's digits, CIFAR and ImageNet through torchvision, any folder of classes."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from xnets.data.packed import Images, PackedData, pack
from xnets.errors import XNetsError

SHORTER_SIDE = 256  # images of mixed sizes are scaled to this shorter side, as the authors did for ImageNet
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".gif", ".tif", ".tiff"}
DIGITS_TEST = 500  # the last 500 of scikit-learn's 1,797 digits are the test set

CIFAR = ("cifar10", "cifar100")
NUM_CLASSES = {"digits": 10, "cifar10": 10, "cifar100": 100, "imagenet": 1000}


def prepare(name: str, folder: Path, source: str | None = None, progress: Callable[[str], None] = print) -> PackedData:
    """Pack a data set into `folder`.

    Args:
        name: "digits", "cifar10", "cifar100", "imagenet", or any other name with a source.
        folder: where the packed files go.
        source: "download" (CIFAR), or a path: torchvision's own layout for CIFAR, or a folder with train/ and test/
            (or val/) that hold one folder of images for each class. Digits need none.
        progress: told what is being done.

    Raises:
        XNetsError: the data are missing, incomplete or damaged, or the disk is full.
    """
    if name == "digits":
        return _digits(folder)
    if source is None:
        raise XNetsError(f"Say where {name} is: set data.sources.{name} in params.yaml to its folder, or to download.")
    path = Path(source).expanduser()
    if source == "download" or any(path.glob("cifar-10*")) or path.name.startswith("cifar-10"):
        return _torchvision_cifar(name, folder, source, progress)
    return _folder_of_classes(name, folder, path, progress)


def _digits(folder: Path) -> PackedData:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise XNetsError(
            "The digits come with scikit-learn, which is not installed: pip install scikit-learn."
        ) from None
    bunch = load_digits()  # (1797, 8, 8) in 0..16
    grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(grey[..., None], 3, axis=3)
    first = len(images) - DIGITS_TEST
    splits = {
        "train": zip(images[:first], bunch.target[:first], strict=True),
        "test": zip(images[first:], bunch.target[first:], strict=True),
    }
    return pack(folder, "digits", splits, [str(digit) for digit in range(10)])


def _torchvision_cifar(name: str, folder: Path, source: str, progress: Callable[[str], None]) -> PackedData:
    from torchvision import datasets

    known = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}
    if name not in known:
        raise XNetsError(f"{name} cannot be downloaded: set data.sources.{name} in params.yaml to its folder.")
    download = source == "download"
    root = folder.with_name(folder.name + ".download") if download else Path(source).expanduser()
    if root.name.startswith("cifar-10"):
        root = root.parent
    if download:
        progress(f"downloading {name} to {root}")
    try:
        parts = {
            split: known[name](str(root), train=split == "train", download=download) for split in ("train", "test")
        }
    except Exception as error:  # torchvision raises RuntimeError, URLError, OSError, EOFError, pickle errors ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise XNetsError(
            f"{name} could not be read from {root} ({reason}): download it again, or set data.sources.{name} in "
            f"params.yaml to a folder that holds it."
        ) from None
    splits = {split: zip(part.data, part.targets, strict=True) for split, part in parts.items()}
    packed = pack(folder, name, _sorted_by_pixels(splits), list(parts["train"].classes))
    if download:
        shutil.rmtree(root, ignore_errors=True)
    return packed


def _folder_of_classes(name: str, folder: Path, path: Path, progress: Callable[[str], None]) -> PackedData:
    held_out = "test" if (path / "test").is_dir() else "val"
    for needed in ("train", held_out):
        if not (path / needed).is_dir():
            raise XNetsError(
                f"{path} has no {needed}/: {name} must be a folder with train/ and test/ (or val/) of classes."
            )
    files = {"train": _class_files(path / "train"), "test": _class_files(path / held_out)}
    classes = sorted(files["train"])
    if sorted(files["test"]) != classes:
        odd = sorted(set(files["test"]) ^ set(classes))[0]
        raise XNetsError(
            f"Class {odd!r} is in only one of {path / 'train'} and {path / held_out}: both need all classes."
        )
    listed = {split: [(f, classes.index(c)) for c in classes for f in of[c]] for split, of in files.items()}
    sizes = _sample_sizes(listed["train"])
    shorter = None if len(sizes) == 1 else SHORTER_SIDE
    if shorter:
        _check_space(folder, sum(map(len, listed.values())) * shorter * shorter * 4 // 3 * 3)
    splits = {split: _read_all(split, of, shorter, progress) for split, of in listed.items()}
    return pack(folder, name, _sorted_by_pixels(splits) if name in CIFAR else splits, classes)


def _sorted_by_pixels(splits: dict[str, Images]) -> dict[str, Images]:
    """Class by class, images by their bytes: the same packed data, so the same runs, from whatever copy of CIFAR."""
    return {s: sorted(images, key=lambda pair: (int(pair[1]), pair[0].tobytes())) for s, images in splits.items()}


def _class_files(path: Path) -> dict[str, list[Path]]:
    """Image files of each class, sorted by name."""
    found = {}
    for entry in sorted(p for p in path.iterdir() if p.is_dir()):
        found[entry.name] = sorted(f for f in entry.iterdir() if f.suffix.lower() in SUFFIXES)
        if not found[entry.name]:
            raise XNetsError(f"{entry} holds no images: add some, or remove the folder.")
    if not found:
        raise XNetsError(f"{path} holds no class folders: it needs one folder of images for each class.")
    return found


def _sample_sizes(listed: list[tuple[Path, int]]) -> set[tuple[int, int]]:
    """Sizes of up to 200 images spread over the set: one size means they are packed as they are."""
    return {_read(file, None).shape[:2] for file, _ in listed[:: max(1, len(listed) // 200)]}


def _check_space(folder: Path, needed: int) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise XNetsError(
            f"{folder} needs about {needed / 2**30:.0f} GiB and {free / 2**30:.0f} GiB are free: free space, or set "
            f"data.folder in params.yaml to another disk."
        )


def _read_all(
    split: str, listed: list[tuple[Path, int]], shorter: int | None, progress: Callable[[str], None]
) -> Images:
    def all_images() -> Iterator[tuple[np.ndarray, int]]:
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(listed), 1024):
                part = listed[start : start + 1024]
                images = pool.map(lambda item: _read(item[0], shorter), part)
                for image, (_, label) in zip(images, part, strict=True):
                    yield image, label
                if start and start % (1024 * 50) == 0:
                    progress(f"packing {split}: {start:,} of {len(listed):,} images")

    return all_images()


def _read(file: Path, shorter: int | None) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(file) as image:
            image = image.convert("RGB")
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, DecompressionBombError ...
        raise XNetsError(f"{file} cannot be read as an image ({error}): replace or remove it.") from None
    if shorter is not None and min(image.size) != shorter:
        scale = shorter / min(image.size)
        size = [max(shorter, round(side * scale)) for side in image.size]
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image)
