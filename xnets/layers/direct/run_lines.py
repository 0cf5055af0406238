"""Runs the kernels of lines.py: which maps they are for, and how the work is split among threads.

Each number is summed by one thread in an order that depends on shapes alone, so results do not depend on the number
of threads.
"""

import torch
from torch import Tensor

from xnets.layers.direct import lines
from xnets.layers.direct.adjacency import Adjacency
from xnets.layers.direct.jit import compiled, lanes_for, registers_for_sums, vector_width
from xnets.layers.direct.planned import Run, planned
from xnets.layers.direct.threads import addresses, in_parallel, parts, parts_of_images, threads_for

NEAR = 48 * 1024  # floats of x whose edges' gradients are computed at a time: 192 KiB, near the core
NEXT = 2048  # floats of dy that are read for each of an output's edges: 8 KiB, of the first-level cache


def suit_product(images: int, width: int, degree: int, stride: int, transposed: bool) -> bool:
    """Whether lines fill enough of a vector, or images too little of a packed one, of a pixel each.

    width is that of the smaller maps. Of stride 2 a product reads four times what it writes, so that it is its
    gradient alone that is worth it, unless there is but one edge.
    """
    if degree == 1:
        return True
    return (stride == 1 or transposed) and (4 * width >= 3 * vector_width() or _few(images, width))


def suit_gradient(images: int, width: int, degree: int, stride: int) -> bool:
    """The same for the weight's gradient, for which lines have to fill more of a vector."""
    if degree == 1:
        return True
    lanes = vector_width()
    return stride == 1 and ((width >= lanes and 7 * (-width % lanes) <= width) or _few(images, width))


def _few(images: int, width: int) -> bool:
    return width > 4 and 2 * images <= vector_width()


@planned
def lines_product(adjacency: Adjacency, shape: torch.Size, transposed: bool, size: tuple[int, int], stride: int) -> Run:
    """x of that shape (N, columns of the matrix, H, W), weight (n_out, D, 3, 3) -> y (N, its rows, *size)."""
    images, channels = shape[:2]
    rows = adjacency.n_in if transposed else adjacency.n_out
    sparse, bounds = adjacency.stored_rows(transposed), adjacency.bounds(transposed, 1)
    maps = lines.Maps(*size, *shape[2:], stride, transposed)
    # narrow vectors reach less often into a second line of the cache
    kernel = compiled(lines.product, maps, registers_for_sums(), lanes_for(maps.units))
    work = 9 * adjacency.n_out * adjacency.degree * images * maps.units * min(size[0], shape[2])
    shares = [(*piece, channels, rows) for piece in parts_of_images(images, rows, threads_for(work))]

    def run(x: Tensor, weight: Tensor, index: Tensor, y: Tensor) -> None:
        filters = sparse.sorted(weight)
        given = addresses(x, filters, sparse.columns_or(index), bounds, y)
        in_parallel(kernel, [(*given, *share) for share in shares])

    return run


@planned
def lines_weight_gradient(adjacency: Adjacency, shape: torch.Size, size: tuple[int, int], stride: int) -> Run:
    """x of that shape (N, n_in, H, W), dy (N, n_out, *size) -> the gradient (n_out, D, 3, 3)."""
    images, n_in = shape[:2]
    n_out, degree = adjacency.n_out, adjacency.degree
    maps = lines.Maps(*size, *shape[2:], stride)
    pixels = maps.height * maps.width
    together = min(images, max(1, NEXT // pixels))
    # with few edges of an output in a chunk, dy would be fetched for little
    chunks = min(max(1, degree // 4), -(-together * n_in * shape[2] * shape[3] // NEAR))
    sparse, bounds = adjacency.stored_rows(False), adjacency.bounds(False, chunks)
    chains = 2 if registers_for_sums() >= 18 else 1  # for each of nine taps
    kernel = compiled(lines.weight_gradient, maps, chains, degree == 1, lanes_for(maps.width))
    pieces = parts(n_out, threads_for(9 * n_out * degree * images * pixels))
    shares = [(*piece, images, together, chunks, n_in, n_out, n_out * degree) for piece in pieces]

    def run(x: Tensor, dy: Tensor, index: Tensor, gradient: Tensor) -> None:
        found = sparse.room_for(gradient)
        in_parallel(kernel, [(*addresses(x, dy, sparse.columns_or(index), bounds, found), *share) for share in shares])
        sparse.restore(found, gradient)

    return run
