"""3x3 convolutions by Winograd's algorithm, wherever else the direct kernels would take another way: against dense
layers in float64."""

import math
import mmap
import weakref

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import xnets
from tests.xnets.direct_cases import assert_right, computed, expected, guarded, needs_llvmlite, on_threads, problem
from tests.xnets.inference_cases import assert_same, for_inference_direct, output, plans, with_statistics
from xnets import ExpanderConv2d

# of one tile, of several, of more than a strip; lines shorter than a vector, and longer
SIZES = [(1, 1), (4, 4), (2, 3), (5, 5), (3, 9), (8, 8), (14, 14), (13, 18), (33, 7), (7, 33), (32, 32)]


@pytest.fixture
def everywhere(monkeypatch):
    """All 3x3 layers of stride 1 go by it."""
    from xnets.layers.direct import run_winograd

    monkeypatch.setattr(run_winograd, "suit_product", lambda adjacency, images, size, stride: stride == 1)
    monkeypatch.setattr(run_winograd, "suit_gradient", lambda adjacency, images, size, stride: stride == 1)
    return run_winograd


@pytest.fixture
def of_width(monkeypatch):
    """of_width(16): vectors of 16 floats, on any CPU; LLVM makes do with shorter ones."""
    from xnets.layers.direct import jit

    def force(width):
        monkeypatch.setattr(jit, "_forced", [(width, jit._host()[1])])

    return force


@st.composite
def problems(draw):
    n_in, block = draw(st.integers(1, 40)), draw(st.sampled_from([1, 1, 2, 3]))
    return problem(
        n_in, draw(st.integers(1, 20)), block, draw(st.integers(1, n_in)), 3, draw(st.integers(1, 40)),
        (draw(st.integers(1, 20)), draw(st.integers(1, 20))), draw(st.integers(0, 2**31)), draw(st.booleans()),
    )  # fmt: skip


@needs_llvmlite
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=problems(), threads=st.integers(1, 3))
def test_any_shape(everywhere, case, threads):
    with on_threads(threads):
        assert_right(case)


@needs_llvmlite
@pytest.mark.parametrize("width", [16, 8, 4])
@pytest.mark.parametrize("size", SIZES)
def test_maps_of_any_size_and_vectors_of_any_width(size, width, everywhere, of_width):
    of_width(width)
    for batch in (1, 5, 19):
        assert_right(problem(12, 9, 1, 5, 3, batch, size))


@needs_llvmlite
@pytest.mark.parametrize("together", [1, 3, 50])
def test_units_of_any_size(together, everywhere, monkeypatch):
    monkeypatch.setattr(everywhere, "TOGETHER", together)
    for size in ((4, 4), (9, 9), (21, 16)):
        assert_right(problem(12, 9, 1, 5, 3, 35, size))


@needs_llvmlite
def test_neighbours_in_any_order_and_twice(everywhere):
    x, weight, edges, upstream = problem(40, 30, 1, 17, 3, 9, (6, 9))
    assert_right((x, weight, edges._replace(index=edges.index.flip(1)), upstream))
    assert_right(problem(40, 30, 1, 17, 3, 9, (6, 9), double=True))


@needs_llvmlite
@pytest.mark.parametrize("size", [(4, 4), (8, 8), (14, 14), (40, 12)])
def test_same_bits_from_run_to_run_and_for_any_number_of_threads(size, everywhere, monkeypatch):
    """Whole units to each thread, or all threads at one unit; of more threads than a gradient has rows of numbers."""
    from xnets.layers.direct import threads

    monkeypatch.setattr(threads, "FOR_ONE_THREAD", 0)
    case = problem(30, 20, 1, 9, 3, 20, size)
    first = computed(*case)
    for number in (1, 2, 3, 5, 7, 14):
        with on_threads(number):
            for _ in range(2):
                for a, b in zip(first, computed(*case), strict=True):
                    assert torch.equal(a, b)
    assert_right(case)


@needs_llvmlite
@pytest.mark.skipif(not hasattr(mmap, "PROT_READ"), reason="no pages to protect")
@pytest.mark.parametrize("size", [(4, 4), (7, 7), (14, 14), (5, 31), (16, 16), (1, 1)])
def test_nothing_is_touched_beside_the_tensors(size, everywhere):
    for at_the_end in (True, False):
        x, weight, edges, upstream = problem(6, 5, 1, 3, 3, 9, size)
        with (
            guarded(x, at_the_end) as x,
            guarded(upstream, at_the_end) as upstream,
            guarded(weight, at_the_end) as weight,
        ):
            assert_right((x, weight, edges, upstream))


@needs_llvmlite
def test_what_is_no_number_stays_in_the_tiles_that_read_it(everywhere):
    """It may spoil whole tiles of 4x4, of the images that a dense layer has it in."""
    for place, tiles in ((6, slice(4, 8)), (7, slice(4, 12)), (12, slice(8, 13))):
        x, weight, edges, upstream = problem(12, 9, 1, 4, 3, 9, (13, 13))
        x[3, :, place, place] = math.nan
        (y, _, _), (right, _, _) = (f(x, weight, edges, upstream) for f in (computed, expected))
        spoilt, has_it = ~y.isfinite(), ~right.isfinite()
        assert has_it.any()
        assert (spoilt | ~has_it).all()
        near = torch.zeros_like(spoilt)
        near[3, :, tiles, tiles] = True
        assert not (spoilt & ~near).any()


@needs_llvmlite
@pytest.mark.parametrize(("size", "degree"), [((4, 4), 128), ((4, 4), 16), ((14, 14), 128)])
def test_rounding_is_a_few_times_that_of_multiply_adds(size, degree, everywhere, monkeypatch):
    from xnets.layers.direct.jit import vector_width

    case = problem(256, 64, 1, degree, 3, 16, size)
    right, by_tiles = expected(*case), computed(*case)
    monkeypatch.undo()
    monkeypatch.setattr(everywhere, "suit_product", lambda *given: False)
    monkeypatch.setattr(everywhere, "suit_gradient", lambda *given: False)
    for mine, other, exact in zip(by_tiles, computed(*case), right, strict=True):
        errors = [float((found - exact).square().mean().sqrt() / exact.std()) for found in (mine, other)]
        # seven times in the gradient of 4x4 maps with 16 lanes, whose plain sums err less
        assert errors[1] < errors[0] < min((10 if vector_width() == 16 else 7) * errors[1], 2e-6)


@needs_llvmlite
@pytest.mark.parametrize("width", [16, 8, 4])
def test_groups_have_no_more_edges_than_16_bits_count(width, of_width, monkeypatch):
    from xnets.layers.direct import run_winograd
    from xnets.layers.direct.adjacency import Adjacency
    from xnets.layers.direct.run_winograd import at_once, suit_product

    of_width(width)
    monkeypatch.setattr(run_winograd, "faster", lambda *given: True)
    most = 2**16 // at_once()
    for degree in (most, most + 1):
        index = torch.arange(degree, dtype=torch.int32).repeat(12, 1)
        assert suit_product(Adjacency(index, 24000, 12), 8, (8, 8), 1) is (degree == most)


@needs_llvmlite
def test_which_layers_it_is_for(of_width):
    """Of many edges, on maps of several tiles that it fills; where images fill vectors."""
    from xnets.layers.direct.adjacency import Adjacency
    from xnets.layers.direct.run_winograd import suit_gradient, suit_product

    of_width(8)

    def suits(n, degree, images, side, stride=1):
        index = torch.arange(degree, dtype=torch.int32).repeat(n, 1)
        adjacency = Adjacency(index, n, n)
        size = (side, side)
        return suit_product(adjacency, images, size, stride), suit_gradient(adjacency, images, size, stride)

    for degree in (128, 64, 32):
        assert suits(256, degree, 32, 14) == (True, True)
    assert suits(256, 1, 64, 14) == (False, False)  # depthwise
    assert suits(256, 128, 32, 14, stride=2) == (False, False)
    assert suits(256, 128, 1, 14) == (False, False)
    assert suits(256, 128, 32, 5) == (False, False)  # a tile and a bit each way
    assert suits(512, 256, 64, 4) == (True, True)
    assert suits(512, 32, 64, 4) == (False, True)
    of_width(16)  # not measured there
    assert suits(256, 128, 32, 14)[0]
    assert suits(256, 32, 32, 14) == (False, False)


@needs_llvmlite
def test_layers_that_it_is_for_go_by_it(monkeypatch, of_width):
    """Nobody asked for: a layer of the paper's VGG16 meets it, forward and backward."""
    from xnets.layers.direct import run_winograd

    of_width(8)
    met = []
    for name in ("winograd_product", "winograd_weight_gradient"):
        own = getattr(run_winograd, name)
        monkeypatch.setattr(run_winograd, name, lambda *given, own=own, name=name: met.append(name) or own(*given))
    layer = ExpanderConv2d(128, 128, 3, padding=1, compression=2, kernel="direct", seed=0)
    layer(torch.randn(16, 128, 8, 8, requires_grad=True)).sum().backward()
    assert met == ["winograd_product", "winograd_product", "winograd_weight_gradient"]


# --- for_inference ---


class Residual(nn.Module):
    """A sum before ReLU, a maximum over 2 x 2 after it, maps that are no multiple of a tile."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(ExpanderConv2d(24, 40, 3, padding=1, compression=2, seed=1), nn.BatchNorm2d(40))
        self.second = nn.Sequential(nn.Conv2d(40, 40, 3, padding=1), nn.BatchNorm2d(40), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.last = ExpanderConv2d(40, 24, 3, padding=1, compression=4, seed=2)

    def forward(self, x):
        y = self.first(x)
        y = torch.relu(self.second(y) + y)
        return self.last(self.pool(self.second(y)))


@needs_llvmlite
@pytest.mark.parametrize("width", [16, 8, 4])
@pytest.mark.parametrize("size", [(12, 12), (10, 14), (26, 8)])
def test_a_plan_with_sums_and_maxima(size, width, of_width):
    of_width(width)
    torch.manual_seed(0)
    model, x = with_statistics(Residual()), torch.randn(11, 24, *size)
    plan = plans(model, x)[-1]
    assert any(type(step).__name__ == "Winograd" for step in plan.steps)
    for n in (1, 3, 11):
        for threads in (1, 2, 3):
            with on_threads(threads):
                assert_same(plan.run(x[:n]), output(model, x[:n]))


@needs_llvmlite
def test_a_plan_keeps_what_its_kernels_are_told_the_address_of(monkeypatch):
    """Even where nobody else does: filters that were laid out anew, tables that another thread made as well."""
    from xnets.inference import winograd

    freed, own = [], winograd.Numbers.places.__wrapped__

    def places(numbers):
        freed.clear()  # what steps before kept
        table = own(numbers)
        weakref.finalize(table, freed.append, numbers)
        return table

    def checked(kernel, tasks):
        assert not freed
        in_parallel(kernel, tasks)

    in_parallel = winograd.in_parallel
    monkeypatch.setattr(winograd.Numbers, "places", places)
    monkeypatch.setattr(winograd, "in_parallel", checked)
    torch.manual_seed(0)
    model, x = with_statistics(Residual()), torch.randn(11, 24, 18, 18)
    for layer in (model.first[0], model.second[0]):
        layer.weight.data = layer.weight.data.transpose(2, 3)
    assert_same(plans(model, x)[-1].run(x[:8]), output(model, x[:8]))


@needs_llvmlite
def test_a_plan_gives_the_same_bits_for_any_number_of_threads(monkeypatch):
    from xnets.layers.direct import threads

    monkeypatch.setattr(threads, "FOR_ONE_THREAD", 0)
    torch.manual_seed(0)
    model, x = with_statistics(Residual()), torch.randn(11, 24, 18, 18)
    network = for_inference_direct(model, x)
    first = network(x)
    for number in (1, 2, 3, 7):
        with on_threads(number):
            assert torch.equal(network(x), first)


@needs_llvmlite
def test_the_papers_networks_have_such_layers():
    for name, size in {"X-VGG16-1": 32, "X-ResNet-2-50": 64}.items():
        model = with_statistics(xnets.models.build(name, 10))
        plan = plans(model, torch.randn(1, 3, size, size))[-1]
        assert any(type(step).__name__ == "Winograd" for step in plan.layers.values())
