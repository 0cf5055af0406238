"""The step of a plan that computes a 3x3 convolution by Winograd's algorithm, see xnets.layers.direct.winograd."""

import math

import torch

from xnets.inference.places import FLOATS, Context, Place
from xnets.inference.plain import Step
from xnets.inference.weights import Weights
from xnets.layers.direct import winograd, winograd_blocked, winograd_products
from xnets.layers.direct.adjacency import MOST_GROUPED, group_rows, padded_to_eight
from xnets.layers.direct.jit import compiled, vector_width
from xnets.layers.direct.run_winograd import PRODUCT_PER_U, Numbers, at_once, faster, work_for
from xnets.layers.direct.scratch import LINE
from xnets.layers.direct.threads import address_of, addresses, in_parallel, is_even, parts, threads_for
from xnets.layers.direct.winograd import NUMBERS, TILE

FEWEST = 4  # tiles of a map: fewer fill no run of vectors


class Winograd(Step):
    """A 3x3 convolution of padding 1 and stride 1, along its edges; its maxima over 2 x 2 outputs if `pooled`.

    It keeps 36 numbers for each edge, transformed once and for all, where the layer had nine.
    """

    def __init__(
        self, x: Place, y: Place, weights: Weights, relu: bool, pooled: bool, other: Place | None = None
    ) -> None:
        super().__init__((x, other) if other else (x,), y)
        self.relu, self.adds, self.pooled, self.bias = relu, other is not None, pooled, weights.bias
        self.group = at_once()
        self.groups = -(-weights.n_out // self.group)
        outputs, inputs = weights.outputs.numpy(), weights.inputs.numpy()
        sparse = group_rows(outputs, inputs, weights.n_out, weights.n_in, self.group, 1)
        order = padded_to_eight(sparse.order)
        self.sparse = sparse._replace(columns=sparse.columns.to(torch.int16), order=sparse.order[:0])
        self.edges, self.weights_step = weights.filters.shape[0], len(order) + LINE
        self.filters = torch.empty(NUMBERS * self.weights_step, **FLOATS)
        transform = compiled(winograd.filters, False, min(8, vector_width()))
        filters = weights.filters.contiguous()
        transform(*addresses(filters, order, self.filters), 0, len(order), self.weights_step)

    @staticmethod
    def suits(x: Place, weights: Weights) -> bool:
        """Whether it is faster than packed.Window, whose maps are packed too."""
        size = x.buffer.height, x.buffer.width
        tiles, channels = math.prod(math.ceil(n / TILE) for n in size), (weights.n_in, weights.n_out)
        if weights.stride != (1, 1) or tiles < FEWEST or max(channels) > MOST_GROUPED:
            return False
        return faster(size, 1, 1, weights.filters.shape[0], sum(channels), PRODUCT_PER_U)

    def run(self, c: Context) -> None:
        """See Step."""
        x, y = self.reads[0], self.writes
        work = work_for(c.lanes, (x.buffer.height, x.buffer.width))
        strip, lanes = work.strip, c.lanes
        x_numbers, y_numbers = (Numbers(n, work.sizes, lanes) for n in (x.channels, self.groups * self.group))
        kernels = (
            compiled(winograd_blocked.tiles_of_blocks, strip, lanes),
            compiled(winograd_products.product, self.group, work.sizes, lanes),
            compiled(winograd_blocked.blocks_of_tiles, strip, self.relu, self.adds, self.pooled, lanes),
        )
        whole = compiled(winograd_blocked.whole_strips, lanes)
        threads = threads_for(NUMBERS * self.edges * work.vectors * lanes)
        matrix = addresses(self.filters, self.sparse.columns, self.sparse.counts, self.sparse.where)
        places = x_numbers.places(), y_numbers.places()  # kept until the kernels are done
        places_of_x, places_of_y = addresses(*places)
        product_sizes = (x.channels, self.groups, x_numbers.step, self.weights_step, y_numbers.step)
        floats = NUMBERS * x_numbers.step, NUMBERS * y_numbers.step
        rooms = [c.scratch(i, sum(floats) + strip.floats(lanes)).data_ptr() for i in range(threads)]
        rooms = [(first, first + 4 * floats[0], first + 4 * sum(floats)) for first in rooms]
        for block in range(c.blocks):
            source, target = c.pointer(x, block), c.pointer(y, block)
            other = c.pointer(self.reads[1], block) if self.adds else target
            ends = (*addresses(self.bias), other, target)
            if is_even(work.units, threads):
                given = (*map(address_of, kernels), source, *matrix, places_of_x, places_of_y, *ends)
                shares = zip(rooms, parts(work.units, threads), strict=False)
                rest = (strip.lines, y.channels, x.step, y.step, *product_sizes)
                in_parallel(whole, [(*given, *room, *piece, *rest) for room, piece in shares])
                continue
            to_tiles, product, to_blocks = kernels
            tiles, sums, _ = rooms[0]
            maps = [room[2] for room in rooms]
            for line in range(0, strip.strips * strip.lines, strip.lines):
                channel_shares, row_shares = parts(x.channels, threads), parts(y.channels, threads)
                given, rest = (source, places_of_x, tiles), (line, x_numbers.step, x.step)
                in_parallel(to_tiles, [(*given, m, *p, *rest) for m, p in zip(maps, channel_shares, strict=False)])
                in_parallel(
                    product, [(tiles, *matrix, sums, *part, *product_sizes) for part in parts(NUMBERS, threads)]
                )
                given, rest = (places_of_y, sums, *ends), (line, y_numbers.step, y.step)
                in_parallel(to_blocks, [(*given, m, *p, *rest) for m, p in zip(maps, row_shares, strict=False)])
