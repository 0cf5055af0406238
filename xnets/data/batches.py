"""Batches of a packed data set, augmented as the authors logged it, at full speed on CPU and GPU.

Order and augmentation of an epoch depend on (train_seed, epoch) alone, so a run that was stopped goes on with the
same batches, and several processes agree on who takes what. Draws use numpy's PCG64 stream and are made on the CPU: CPU
and GPU see the same crops.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xnets.data.packed import PackedData, Split
from xnets.errors import XNetsError
from xnets.group import ALONE, Group
from xnets.seeds import derive_seed, uniform
from xnets.training.protocol import AUGMENTATIONS

RESIDENT_SHARE = 0.4  # of the device's free memory that a data set may take to be kept there

_PADDING = {"none": 0, "crop-1": 1, "crop-4-flip": 4}
CROP = 224


def epoch_order(n: int, train_seed: int, epoch: int) -> np.ndarray:
    """(n,) the order in which an epoch visits the training images."""
    return np.argsort(uniform(derive_seed(train_seed, "order", epoch), (n,)), kind="stable")


class Batches:
    """Training and test batches: x (B, 3, H, W) float32, normalised by the training set's mean and sd; y (B,) int64.

    Of a global batch of up to `batch_size` images, the process in `group` makes its share; B may then be 0.
    """

    def __init__(
        self, data: PackedData, batch_size: int, augmentation: str, device: torch.device, group: Group = ALONE
    ) -> None:
        if augmentation not in AUGMENTATIONS:
            raise XNetsError(f"Unknown augmentation {augmentation!r}; there are {', '.join(AUGMENTATIONS)}.")
        self.batch_size, self.augmentation, self.device, self.group = batch_size, augmentation, device, group
        self.mean = torch.tensor(data.manifest["mean"], device=device).view(1, 3, 1, 1)
        self.sd = torch.tensor(data.manifest["sd"], device=device).clamp_min(1e-3).view(1, 3, 1, 1)
        train, test = data.split("train"), data.split("test")
        self.n_train, self.n_test = len(train), len(test)
        if augmentation == "resized-crop-flip":
            self._train, self._test = MixedSizes(train), MixedSizes(test)
        elif train.shapes is not None or test.shapes is not None:
            raise XNetsError(f"{data.folder} has images of different sizes: it needs augmentation resized-crop-flip.")
        else:
            self._train = OneSize(train, _PADDING[augmentation], device)
            self._test = OneSize(test, 0, device)

    @property
    def steps(self) -> int:
        """Training batches in an epoch. A last batch of a single image is left out: batch norm cannot use it."""
        full, rest = divmod(self.n_train, self.batch_size)
        return full + (rest > 1)

    def size(self, step: int) -> int:
        """Images in the global batch of a step."""
        return min(self.batch_size, self.n_train - step * self.batch_size)

    def train(self, train_seed: int, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, from `first_step` on."""
        order = epoch_order(self.n_train, train_seed, epoch)
        draws = uniform(derive_seed(train_seed, "augmentation", epoch), (self.n_train, 5))

        def batch(step: int) -> tuple[Tensor, Tensor]:
            places = slice(step * self.batch_size, (step + 1) * self.batch_size)
            share = self.group.share(self.size(step))
            return self._train.augmented(order[places][share], draws[places][share], flip="flip" in self.augmentation)

        yield from self._ready(batch, range(first_step, self.steps))

    def test(self, batch_size: int = 500) -> Iterator[tuple[Tensor, Tensor]]:
        """The test set, in its own order, not augmented."""

        def batch(start: int) -> tuple[Tensor, Tensor]:
            places = np.arange(start, min(start + batch_size, self.n_test))
            return self._test.plain(places[self.group.share(len(places))])

        yield from self._ready(batch, range(0, self.n_test, batch_size))

    def _ready(self, batch: Callable[[int], tuple[Tensor, Tensor]], steps: range) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches on the device; those that are slow to make are made one step ahead, in the background."""
        for x, y in map(batch, steps) if isinstance(self._train, OneSize) else _one_ahead(batch, steps):
            yield self._normalised(x), y.to(self.device, non_blocking=True)

    def _normalised(self, x: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, 3, H, W) float32."""
        x = x.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        return (x.float().div_(255) - self.mean) / self.sd


class OneSize:
    """Images of one size, zero-padded once and kept on the device when they fit."""

    def __init__(self, split: Split, padding: int, device: torch.device) -> None:
        self.padding, self.size = padding, split.images.shape[1:3]
        self.labels = torch.from_numpy(split.labels)
        images = torch.from_numpy(np.array(split.images))
        self.images = F.pad(images, (0, 0, padding, padding, padding, padding))
        if device.type == "cuda" and self.images.numel() < RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
            self.images, self.labels = self.images.to(device), self.labels.to(device)

    def augmented(self, chosen: np.ndarray, draws: np.ndarray, flip: bool) -> tuple[Tensor, Tensor]:
        """Crop (B, H, W, 3) windows at random offsets; draws (B, 5): row, column, flip, and two that are not used."""
        height, width = self.size
        shifts = (draws[:, :2] * (2 * self.padding + 1)).astype(np.int64)
        columns = np.broadcast_to(np.arange(width), (len(chosen), width))
        if flip:
            columns = np.where(draws[:, 2:3] < 0.5, columns[:, ::-1], columns)
        rows = shifts[:, :1] + np.arange(height)
        return self._windows(chosen, rows, shifts[:, 1:] + columns)

    def plain(self, chosen: np.ndarray) -> tuple[Tensor, Tensor]:
        """The images (B, H, W, 3) as they are."""
        index = torch.from_numpy(chosen).to(self.images.device)
        inner = self.images[:, self.padding : self.padding + self.size[0], self.padding : self.padding + self.size[1]]
        return inner[index], self.labels[index]

    def _windows(self, chosen: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> tuple[Tensor, Tensor]:
        place = self.images.device
        index, rows, columns = (torch.from_numpy(a).to(place, non_blocking=True) for a in (chosen, rows, columns))
        return self.images[index[:, None, None], rows[:, :, None], columns[:, None, :]], self.labels[index]


class MixedSizes:
    """Images of different sizes, mapped from disk: random-resized crops for training, centre crops for testing.

    Crops are made by a pool of threads, one batch ahead of the training step.
    """

    def __init__(self, split: Split) -> None:
        self.split, self.labels = split, torch.from_numpy(split.labels)
        shapes = split.shapes
        if shapes is None:
            shapes = np.broadcast_to(np.array(split.images.shape[1:3], dtype=np.int32), (len(split), 2))
        self.shapes = shapes.astype(np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.shapes.prod(axis=1) * 3)])
        self.pixels = split.images.reshape(-1)
        self.pool = ThreadPoolExecutor()  # torch lets go of the GIL while it resizes

    def _image(self, i: int) -> Tensor:
        """(1, 3, H, W) float32 in 0..255."""
        pixels = self.pixels[self.starts[i] : self.starts[i + 1]].reshape(*self.shapes[i], 3)
        return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).unsqueeze(0).float()

    def augmented(self, chosen: np.ndarray, draws: np.ndarray, flip: bool) -> tuple[Tensor, Tensor]:
        """(B, 224, 224, 3) uint8; draws (B, 5): area, aspect, row, column, flip."""

        def window(i: int, draw: np.ndarray) -> Tensor:
            return self._resized(i, *_random_window(*self.shapes[i], draw), flipped=flip and draw[4] < 0.5)

        return _stacked(self.pool.map(window, chosen, draws)), self.labels[torch.from_numpy(chosen)]

    def plain(self, chosen: np.ndarray) -> tuple[Tensor, Tensor]:
        """(B, 224, 224, 3) uint8: the middle 224 / 256 of the shorter side."""

        def window(i: int) -> Tensor:
            side = round(min(self.shapes[i]) * CROP / 256)
            top, left = (int(length - side) // 2 for length in self.shapes[i])
            return self._resized(i, top, left, side, side, flipped=False)

        return _stacked(self.pool.map(window, chosen)), self.labels[torch.from_numpy(chosen)]

    def _resized(self, i: int, top: int, left: int, height: int, width: int, flipped: bool) -> Tensor:
        window = self._image(i)[:, :, top : top + height, left : left + width]
        window = F.interpolate(window, (CROP, CROP), mode="bilinear", antialias=True, align_corners=False)
        window = window.flip(3) if flipped else window
        return window.round_().clamp_(0, 255).to(torch.uint8)[0].permute(1, 2, 0)


def _stacked(windows: Iterable[Tensor]) -> Tensor:
    """(B, 224, 224, 3); torch.stack refuses B = 0."""
    windows = list(windows)
    return torch.stack(windows) if windows else torch.empty(0, CROP, CROP, 3, dtype=torch.uint8)


def _one_ahead(make: Callable[[int], tuple[Tensor, Tensor]], steps: range) -> Iterator[tuple[Tensor, Tensor]]:
    with ThreadPoolExecutor(1) as background:
        coming = None
        for step in steps:
            ready, coming = coming, background.submit(make, step)
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()


def _random_window(height: int, width: int, draws: np.ndarray) -> tuple[int, int, int, int]:
    """top, left, height, width of 8-100 % of the area at an aspect of 3/4 to 4/3, clipped to the image."""
    area = height * width * (0.08 + 0.92 * draws[0])
    aspect = float(np.exp(np.log(3 / 4) + draws[1] * (np.log(4 / 3) - np.log(3 / 4))))
    h, w = min(height, round((area / aspect) ** 0.5)), min(width, round((area * aspect) ** 0.5))
    h, w = max(1, h), max(1, w)
    return int(draws[2] * (height - h + 1)), int(draws[3] * (width - w + 1)), h, w
