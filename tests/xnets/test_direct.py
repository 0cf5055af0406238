"""The direct kernels' numbers against dense layers in float64: any shape, graph, vector width and number of threads."""

import itertools
import math
import mmap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xnets.direct_cases import (
    assert_right,
    computed,
    expected,
    guarded,
    how_of,
    needs_llvmlite,
    on_threads,
    problem,
)
from xnets.layers.direct import DirectKernel


@st.composite
def problems(draw):
    n_in, block = draw(st.integers(1, 40)), draw(st.sampled_from([1, 1, 1, 2, 3, 4, 5, 6]))
    window = draw(st.sampled_from([0, 1, 3]))
    double = draw(st.booleans())
    side = st.one_of(st.integers(1, 9), st.integers(1, 33))
    return problem(
        n_in, draw(st.integers(1, 20)), block, draw(st.integers(1, n_in)), window, draw(st.integers(1, 40)),
        (draw(side), draw(side)), draw(st.integers(0, 2**31)), double, draw(st.sampled_from([1, 2])),
    )  # fmt: skip


@needs_llvmlite
@settings(max_examples=60, deadline=None)
@given(problems())
def test_any_shape(case):
    assert_right(case)


@st.composite
def small_problems(draw):
    n_in, window = draw(st.integers(1, 6)), draw(st.sampled_from([0, 1, 3]))
    return problem(
        n_in, draw(st.integers(1, 4)), draw(st.integers(1, 2)), draw(st.integers(1, n_in)), window,
        draw(st.integers(1, 3)), (draw(st.integers(1, 4)), draw(st.integers(1, 4))), draw(st.integers(0, 2**31)),
        draw(st.booleans()), draw(st.sampled_from([1, 2])),
    )  # fmt: skip


@needs_llvmlite
@pytest.mark.filterwarnings("ignore:.*not a double precision floating point:UserWarning")
@pytest.mark.parametrize("last", [False, True])
@settings(max_examples=15, deadline=None)
@given(case=small_problems())
def test_gradcheck_of_first_and_second_order(last, case):
    """In float32, with steps of 1: the layer is linear in x and in the weight, so differences are exact but for
    rounding."""
    x, weight, edges, upstream = case
    kernel, how = DirectKernel(), how_of(x, weight, upstream)
    x = x.contiguous(memory_format=torch.channels_last) if last and how else x

    def layer(x, weight):
        return kernel.conv2d(x, weight, None, edges, how) if how else kernel.linear(x, weight, None, edges)

    given = tuple(t.detach().requires_grad_() for t in (x, weight))
    assert torch.autograd.gradcheck(layer, given, eps=1.0, atol=1e-4, rtol=1e-4)
    assert torch.autograd.gradgradcheck(layer, given, upstream.requires_grad_(), eps=1.0, atol=1e-3, rtol=1e-3)


# (n_in, rows, degree, window, batch, size): what hypothesis seldom draws
CORNERS = {
    "many 1x1 tiles, all of one image": (40, 30, 7, 1, 2, (33, 33)),
    "1x1 tiles across images": (40, 30, 7, 1, 40, (3, 3)),
    "outputs grouped, last group not full": (24, 9, 12, 1, 3, (9, 9)),
    "more edges than a vector": (64, 5, 37, 1, 3, (5, 5)),
    "one pixel": (24, 9, 12, 3, 1, (1, 1)),
    "whole map": (24, 9, 12, 3, 17, (4, 4)),
    "whole map, long": (24, 9, 12, 3, 17, (1, 16)),
    "tiles wider than the rest of the map": (12, 9, 5, 3, 17, (5, 31)),
    "bands taller than the rest of the map": (12, 9, 5, 3, 33, (13, 8)),
    "one row": (12, 9, 5, 3, 3, (1, 33)),
    "one column": (12, 9, 5, 3, 3, (33, 1)),
    "linear, many tiles": (100, 50, 11, 0, 300, ()),
    "linear, inputs in chunks": (5000, 20, 900, 0, 70, ()),
    "linear, one row": (100, 50, 50, 0, 1, ()),
}


# of 3x3 layers: one strip, several, the last one shorter; a vector, part of one, two and a bit
MAPS = [(7, 7), (14, 13), (1, 40), (40, 1), (5, 31), (2, 64), (33, 33), (45, 20), (23, 16), (24, 56), (4, 4), (1, 1)]


@needs_llvmlite
@pytest.mark.parametrize("width", [16, 8, 4])
@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize("size", MAPS)
def test_maps_as_they_lie_and_packed(size, lines, width, monkeypatch):
    """Whichever of the two ways these maps would be read, both are right, of stride 1 and 2 and on any CPU."""
    from xnets.layers.direct import jit, run_lines

    if width < jit.vector_width():
        monkeypatch.setattr(jit, "_forced", [(width, jit._host()[1])])
    monkeypatch.setattr(run_lines, "suit_product", lambda *given: lines)
    monkeypatch.setattr(run_lines, "suit_gradient", lambda *given: lines)
    for stride in (1, 2):
        assert_right(problem(12, 9, 1, 5, 3, 3, size, stride=stride))
    monkeypatch.setattr(run_lines, "NEAR", 40)
    monkeypatch.setattr(run_lines, "NEXT", 2 * size[0] * size[1])
    assert_right(problem(12, 9, 3, 9, 3, 5, size))


@needs_llvmlite
@pytest.mark.parametrize("width", [16, 8, 4])
@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize("size", [(5, 12), (6, 17), (4, 4), (3, 9)])
def test_what_is_no_number_goes_where_it_goes_in_a_dense_layer(size, lines, width, monkeypatch):
    from xnets.layers.direct import jit, run_lines

    if width < jit.vector_width():
        monkeypatch.setattr(jit, "_forced", [(width, jit._host()[1])])
    monkeypatch.setattr(run_lines, "suit_product", lambda *given: lines)
    monkeypatch.setattr(run_lines, "suit_gradient", lambda *given: lines)
    for stride, place in itertools.product((1, 2), ((0, 0), (2, size[1] - 1), (size[0] - 1, 3))):
        x, weight, edges, upstream = problem(4, 5, 1, 2, 3, 3, size, stride=stride)
        x[1, :, place[0], place[1]] = math.nan
        (y, _, dw), (right, _, right_dw) = (f(x, weight, edges, upstream) for f in (computed, expected))
        assert torch.equal(y.isfinite(), right.isfinite())
        assert torch.equal(dw.isfinite(), right_dw.isfinite())
        x.nan_to_num_()
        upstream[1, :, place[0] // stride, place[1] // stride] = math.nan
        (_, dx, _), (_, right, _) = (f(x, weight, edges, upstream) for f in (computed, expected))
        assert torch.equal(dx.isfinite(), right.isfinite())


@needs_llvmlite
def test_which_maps_are_read_as_they_lie(monkeypatch):
    """Where lines fill vectors; short ones where there are too few images to fill them."""
    from xnets.layers.direct import jit, run_lines

    monkeypatch.setattr(jit, "_forced", [(16, "")])
    product, gradient = run_lines.suit_product, run_lines.suit_gradient
    widths = (4, 8, 11, 12, 14, 16, 17, 24, 28, 56)
    assert [product(64, width, 9, 1, False) for width in widths] == [width >= 12 for width in widths]
    assert [gradient(64, width, 9, 1) for width in widths] == [width in (16, 28, 56) for width in widths]
    for suits in (lambda images, width: product(images, width, 9, 1, True), lambda *shape: gradient(*shape, 9, 1)):
        assert suits(8, 7)
        assert not suits(9, 7)
        assert not suits(1, 4)
    # of stride 2, the input's gradient; of one edge, whatever there is
    assert [product(64, 28, 9, 2, False), product(64, 28, 9, 2, True), gradient(64, 28, 9, 2)] == [False, True, False]
    assert product(64, 2, 1, 2, False)
    assert gradient(64, 2, 1, 2)


@needs_llvmlite
@pytest.mark.parametrize("width", [16, 8, 4])
@pytest.mark.parametrize("size", [(1, 1), (3, 1), (7, 7), (4, 4), (16, 16), (13, 21), (28, 28), (40, 33)])
def test_images_of_1x1_as_they_lie(size, width, monkeypatch):
    """Whatever their edges; one tile, several, the last one shorter; a vector of one image, tiles of several."""
    from xnets.layers.direct import jit, run_pointwise

    if width < jit.vector_width():
        monkeypatch.setattr(jit, "_forced", [(width, jit._host()[1])])
    monkeypatch.setattr(run_pointwise, "as_they_lie", lambda x, edges, rows: not x.last)
    for n_in, rows, block, batch in ((12, 9, 1, 1), (9, 5, 4, 3), (3, 20, 1, 8), (30, 2, 2, 5)):
        for stride in (1, 2):
            assert_right(problem(n_in, rows, block, 3, 1, batch, size, stride=stride))


@needs_llvmlite
def test_which_images_are_read_as_they_lie(monkeypatch):
    """Those whose channels have few edges, and fill vectors."""
    from xnets.layers.direct import jit
    from xnets.layers.direct.run_pointwise import as_they_lie, positions_of

    monkeypatch.setattr(jit, "_forced", [(16, "")])
    for pixels, suits in ((49, True), (16, True), (12, True), (11, False), (4, False), (17, False)):
        assert as_they_lie(positions_of(torch.empty(2, 30, 1, pixels), False), 12 * 50, 20) is suits
    assert not as_they_lie(positions_of(torch.empty(2, 30, 4, 4), False), 12 * 50 + 1, 20)
    assert not as_they_lie(positions_of(torch.empty(32, 30), True), 12 * 50, 20)


@needs_llvmlite
@given(
    columns=st.integers(1, 3000), group=st.integers(1, 4), threads=st.integers(1, 5), width=st.sampled_from([4, 8, 16])
)
def test_no_thread_computes_more_columns_for_smaller_tiles(columns, group, threads, width):
    from xnets.layers.direct import jit
    from xnets.layers.direct.run_pointwise import _most, _tile

    def of_busiest_thread(tile):
        tiles = -(-columns // tile)
        return tile * (tiles / threads if tiles < threads else -(-tiles // threads))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jit, "_forced", [(width, "")])
        tile, most = _tile(columns, group, threads), _most(columns, group)
        assert 0 < tile <= most
        assert tile % width == 0
        assert of_busiest_thread(tile) <= of_busiest_thread(most)


@needs_llvmlite
@pytest.mark.skipif(not hasattr(mmap, "PROT_READ"), reason="no pages to protect")
@pytest.mark.parametrize("size", [(7, 7), (14, 14), (16, 16), (5, 31), (33, 33)])
@pytest.mark.parametrize("stride", [1, 2])
def test_nothing_is_touched_beside_the_maps(size, stride):
    """x and dy end where a page ends that must not be touched, or begin where one does."""
    for at_the_end in (True, False):
        x, weight, edges, upstream = problem(6, 5, 1, 3, 3, 2, size, stride=stride)
        with guarded(x, at_the_end) as x, guarded(upstream, at_the_end) as upstream:
            assert_right((x, weight, edges, upstream))
        with guarded(x, at_the_end) as x, guarded(upstream, at_the_end) as upstream:
            assert_right((x, weight[..., :1, :1].contiguous(), edges, upstream))


@needs_llvmlite
@pytest.mark.parametrize("window", [3, 1, 0])
@pytest.mark.parametrize("block", [2, 3, 4, 5, 8])
def test_blocks_of_outputs_that_share_their_inputs(block, window, monkeypatch):
    from xnets.layers.direct import run_pointwise

    assert_right(problem(50, 6, block, 12, window, 5, (9, 8)))
    monkeypatch.setattr(run_pointwise, "CACHE", 1000)
    assert_right(problem(50, 6, block, 12, window, 70, (5, 5), double=True))
    x, weight, edges, upstream = problem(50, 6, block, 12, window, 5, (6, 5))
    assert_right((x, weight, edges._replace(index=edges.index.flip(1)), upstream))


@needs_llvmlite
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", CORNERS)
def test_corners(name, stride):
    n_in, rows, degree, window, batch, size = CORNERS[name]
    assert_right(problem(n_in, rows, 1, degree, window, batch, size, stride=stride))


@needs_llvmlite
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (2, 2), (3, 4), (7, 8), (8, 7), (9, 9), (14, 13), (2, 33)])
@pytest.mark.parametrize("window", [1, 3])
def test_stride_2_of_odd_and_even_maps(window, size):
    assert_right(problem(10, 7, 1, 4, window, 3, size, stride=2))


# what problem takes
BIG = {
    "3x3": (64, 64, 1, 16, 3, 20, (14, 14)),
    "3x3, packed": (64, 64, 1, 16, 3, 20, (8, 8)),
    "3x3, few images": (64, 64, 1, 16, 3, 5, (8, 8)),
    "3x3 of stride 2": (64, 64, 1, 16, 3, 20, (14, 14), 0, False, 2),
    "3x3, one edge": (64, 64, 1, 1, 3, 20, (14, 14), 0, False, 2),
    "1x1": (64, 64, 1, 16, 1, 20, (14, 14)),
    "1x1 of stride 2": (64, 64, 1, 16, 1, 20, (14, 14), 0, False, 2),
    "linear": (512, 256, 1, 128, 0, 64, ()),
    "few pixels": (256, 256, 1, 64, 1, 1, (7, 7)),
}


@needs_llvmlite
@pytest.mark.parametrize("name", BIG)
def test_same_bits_from_run_to_run_and_for_any_number_of_threads(name, monkeypatch):
    from xnets.layers.direct import threads

    monkeypatch.setattr(threads, "FOR_ONE_THREAD", 0)
    case = problem(*BIG[name])
    first = computed(*case)
    for number in (1, 2, 3, 7):
        with on_threads(number):
            again = computed(*case)
        for a, b in zip(first, again, strict=True):
            assert torch.equal(a, b)
    assert_right(case)


@needs_llvmlite
@pytest.mark.parametrize(
    ("width", "features"),
    [(16, None), (8, None), (4, None), (8, "+avx2,+fma,-avx512f"), (4, "+sse2,-avx,-avx2,-fma,-avx512f")],
)
def test_narrower_vectors(width, features, monkeypatch):
    from xnets.layers.direct import jit

    monkeypatch.setattr(jit, "_forced", [(width, jit._host()[1] if features is None else features)])
    for n_in, rows, degree, window, batch, size in CORNERS.values():
        for stride in (1, 2) if n_in < 1000 else ():
            assert_right(problem(n_in, rows, 1, degree, window, batch, size, stride=stride))


@needs_llvmlite
@pytest.mark.parametrize(("sharing", "chunk"), [(0, 1), (1000, 30_000)])
@pytest.mark.parametrize("name", ["whole map", "bands taller than the rest of the map", "linear, many tiles"])
def test_work_in_pieces_that_fit_small_caches(name, sharing, chunk, monkeypatch):
    from xnets.layers.direct import run_pointwise, run_window

    monkeypatch.setattr(run_window, "CHUNK", chunk)
    monkeypatch.setattr(run_pointwise, "CACHE", 4000)
    monkeypatch.setattr(run_pointwise, "NEAR", 500)
    monkeypatch.setattr(run_pointwise, "GROUPED", 500)
    monkeypatch.setattr(run_pointwise, "FEWEST_EDGES", 2)
    monkeypatch.setattr(run_pointwise, "SHARING", sharing)
    n_in, rows, degree, window, _, size = CORNERS[name]
    assert_right(problem(n_in, rows, 1, degree, window, 70, size))
    assert_right(problem(n_in, rows, 1, degree, window, 70, size, double=True))


@needs_llvmlite
@pytest.mark.parametrize("window", [3, 1, 0])
def test_neighbours_in_any_order(window):
    x, weight, edges, upstream = problem(40, 30, 1, 5, window, 5, (6, 5))
    assert_right((x, weight, edges._replace(index=edges.index.flip(1)), upstream))


@needs_llvmlite
def test_a_cpu_that_llvm_does_not_know_gets_plain_kernels(monkeypatch):
    def unknown():
        raise RuntimeError("failed to get host cpu features.")

    from xnets.layers.direct import jit

    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", unknown)
    jit._host.cache_clear()
    try:
        assert jit.vector_width() == 4
        assert_right(problem(12, 8, 1, 3, 3, 5, (4, 3)))
    finally:
        jit._host.cache_clear()
