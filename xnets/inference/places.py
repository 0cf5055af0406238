"""Where blocked maps stand: buffers that several maps may share, one after the other or side by side, in one arena."""

import contextlib
import mmap
from dataclasses import dataclass

import torch
from torch import Tensor

from xnets.layers.direct.window import step_of

FLOATS = {"dtype": torch.float32, "device": "cpu"}  # whatever the defaults are set to
ALIGNED = 4  # vectors: a whole cache line even where a vector is four floats


@dataclass(eq=False)
class Buffer:
    """Room for `channels` maps of one size; `offset` is its place in the arena, in vectors of one block."""

    channels: int
    height: int
    width: int
    offset: int = -1

    @property
    def step(self) -> int:
        """Vectors from one channel to the next."""
        return step_of(self.height * self.width)

    @property
    def vectors(self) -> int:
        """Its size."""
        return -(-self.channels * self.step // ALIGNED) * ALIGNED


@dataclass
class Place:
    """Channels [first, first + channels) of a buffer: one blocked map, (channels, height, width) for each image."""

    buffer: Buffer
    first: int
    channels: int

    @property
    def pixels(self) -> int:
        """Of one channel."""
        return self.buffer.height * self.buffer.width

    @property
    def step(self) -> int:
        """Vectors from one channel to the next."""
        return self.buffer.step


def arrange(lives: dict[Buffer, tuple[int, int]]) -> int:
    """Give each buffer an offset, where none overlaps another that lives (first to last step) at the same time.

    Returns the arena's size in vectors. The largest go first, each to the lowest place that is free.
    """
    placed: list[Buffer] = []
    for buffer in sorted(lives, key=lambda b: -b.vectors):
        begins, ends = lives[buffer]
        others = [b for b in placed if lives[b][0] <= ends and begins <= lives[b][1]]
        offset = 0
        for other in sorted(others, key=lambda b: b.offset):
            if offset + buffer.vectors <= other.offset:
                break
            offset = max(offset, other.offset + other.vectors)
        buffer.offset = offset
        placed.append(buffer)
    return max((b.offset + b.vectors for b in placed), default=0)


def large_pages(floats: int) -> Tensor:
    """Zeros, in pages of 2 MiB where the system has them: rows of a tile are far apart, each in a page of its own."""
    if floats < 2**20 or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(floats, **FLOATS)
    memory = mmap.mmap(-1, 4 * floats, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # a forked child has its own
    with contextlib.suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.float32, count=floats)


class Context:
    """One run over `images` images: the arena, and the values that are not blocked."""

    def __init__(self, vectors: int, lanes: int, blocks: int) -> None:
        self.lanes, self.blocks, self.images = lanes, blocks, 0
        self.arena = large_pages(max(1, vectors * lanes * blocks))
        self.base = self.arena.data_ptr()
        self.values: dict[int, object] = {}
        self.zeros, self.sink = torch.zeros(16, **FLOATS), torch.empty(16, **FLOATS)
        self._scratch: dict[int, Tensor] = {}

    def pointer(self, place: Place, block: int) -> int:
        """Address of the first channel."""
        b = place.buffer
        return self.base + 4 * self.lanes * (self.blocks * b.offset + (block * b.channels + place.first) * b.step)

    def view(self, place: Place) -> Tensor:
        """(blocks, channels, height, width, lanes)."""
        b, lanes = place.buffer, self.lanes
        return self.arena.as_strided(
            (self.blocks, place.channels, b.height, b.width, lanes),
            (b.channels * b.step * lanes, b.step * lanes, b.width * lanes, lanes, 1),
            lanes * (self.blocks * b.offset + place.first * b.step),
        )

    def scratch(self, thread: int, floats: int) -> Tensor:
        """Memory of one thread; what was in it may be gone."""
        if thread not in self._scratch or self._scratch[thread].numel() < floats:
            self._scratch[thread] = large_pages(floats)
        return self._scratch[thread]
