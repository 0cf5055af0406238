"""The direct kernels against masked dense layers in float64, computed independently; threads, widths, compile."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from xnets import ExpanderConv2d, ExpanderLinear
from xnets.graphs import BipartiteGraph
from xnets.layers.choice import Call, choose, compute
from xnets.layers.direct import AVAILABLE, DirectKernel, why_not
from xnets.layers.kernels import Convolution, Edges

needs_llvmlite = pytest.mark.skipif(not AVAILABLE, reason="llvmlite is not installed")
SAME = {1: Convolution((1, 1), (0, 0), (1, 1)), 3: Convolution((1, 1), (1, 1), (1, 1))}


def problem(n_in, rows, block, degree, window, batch, size, seed=0, double=False, stride=1):
    """x, weight, edges, upstream gradient, whose size tells the stride."""
    rng = np.random.default_rng(seed)
    index = np.stack([np.sort(rng.choice(n_in, degree, replace=double)) for _ in range(rows)])
    edges = Edges(torch.from_numpy(index.astype(np.int32)), n_in, rows * block, True, block, double)
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    spatial = () if window == 0 else size
    x = draw(batch, n_in, *spatial)
    weight = draw(rows * block, degree, *([window] * 2 if window else []))
    return x, weight, edges, draw(batch, rows * block, *[-(-n // stride) for n in spatial])


def stride_of(x, upstream):
    """1 also where the map is too small to tell."""
    return 2 if x.shape[2:] != upstream.shape[2:] else 1


def expected(x, weight, edges, upstream):
    """Output and gradients of x and weight, by loops over the edges and dense operations in float64."""
    x, weight, upstream = x.double().requires_grad_(), weight.double().requires_grad_(), upstream.double()
    dense = []
    for v in range(edges.n_out):
        row = [torch.zeros(weight.shape[2:], dtype=torch.float64)] * edges.n_in
        for d, u in enumerate(edges.index[v // edges.block].tolist()):
            row[u] = row[u] + weight[v, d]
        dense.append(torch.stack(row))
    dense = torch.stack(dense)
    y = (
        F.linear(x, dense)
        if x.dim() == 2
        else F.conv2d(x, dense, padding=weight.shape[-1] // 2, stride=stride_of(x, upstream))
    )
    return y.detach(), *torch.autograd.grad(y, (x, weight), upstream)


def computed(x, weight, edges, upstream, kernel=None):
    """The same by the direct kernel; fails if it would hand the layer to the dense one."""
    how = None if x.dim() == 2 else SAME[weight.shape[-1]]._replace(stride=(stride_of(x, upstream),) * 2)
    assert not why_not(x, weight, edges, how)
    x, weight = x.clone(memory_format=torch.preserve_format).requires_grad_(), weight.clone().requires_grad_()
    kernel = kernel or DirectKernel()
    y = kernel.linear(x, weight, None, edges) if how is None else kernel.conv2d(x, weight, None, edges, how)
    return y.detach(), *torch.autograd.grad(y, (x, weight), upstream)


def assert_right(case):
    """Errors are bounded by the rounding of sums as long as these. Images in channels_last come out so too."""
    found = list(zip(("y", "dx", "dw"), computed(*case), expected(*case), strict=True))
    x, *rest = case
    if x.dim() == 4:
        last = x.to(memory_format=torch.channels_last)
        again = computed(last, *rest)
        assert last.is_contiguous() or all(t.is_contiguous(memory_format=torch.channels_last) for t in again[:2])
        found += zip(
            ("y, channels_last", "dx, channels_last", "dw, channels_last"), again, expected(*case), strict=True
        )
    for name, mine, right in found:
        assert mine.dtype == torch.float32
        assert mine.shape == right.shape, name
        scale = float(right.abs().max()) + 1.0
        torch.testing.assert_close(
            mine.double(), right, rtol=1e-4, atol=3e-6 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


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


@needs_llvmlite
@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("size", [(7, 7), (14, 13), (1, 40), (40, 1), (5, 31), (2, 64), (33, 33)])
def test_few_images_are_cut_into_pieces(size, batch):
    assert_right(problem(12, 9, 1, 5, 3, batch, size))


@needs_llvmlite
@pytest.mark.parametrize("window", [3, 1, 0])
@pytest.mark.parametrize("block", [2, 3, 4, 5, 8])
def test_blocks_of_outputs_that_share_their_inputs(block, window, monkeypatch):
    from xnets.layers.direct import run

    assert_right(problem(50, 6, block, 12, window, 5, (9, 8)))
    monkeypatch.setattr(run, "CACHE", 1000)
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
    "3x3 of stride 2": (64, 64, 1, 16, 3, 20, (14, 14), 0, False, 2),
    "1x1": (64, 64, 1, 16, 1, 20, (14, 14)),
    "1x1 of stride 2": (64, 64, 1, 16, 1, 20, (14, 14), 0, False, 2),
    "linear": (512, 256, 1, 128, 0, 64, ()),
    "few pixels": (256, 256, 1, 64, 1, 1, (7, 7)),
}


@needs_llvmlite
@pytest.mark.parametrize("name", BIG)
def test_same_bits_from_run_to_run_and_for_any_number_of_threads(name, monkeypatch):
    from xnets.layers.direct import pool

    monkeypatch.setattr(pool, "SMALL", 0)
    case = problem(*BIG[name])
    first = computed(*case)
    before = torch.get_num_threads()
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        try:
            again = computed(*case)
        finally:
            torch.set_num_threads(before)
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
@pytest.mark.parametrize("sharing", [0, 1000])
@pytest.mark.parametrize("name", ["whole map", "bands taller than the rest of the map", "linear, many tiles"])
def test_work_in_pieces_that_fit_small_caches(name, sharing, monkeypatch):
    from xnets.layers.direct import run

    monkeypatch.setattr(run, "AT_ONCE", 1)
    monkeypatch.setattr(run, "CACHE", 4000)
    monkeypatch.setattr(run, "NEAR", 500)
    monkeypatch.setattr(run, "SHARING", sharing)
    n_in, rows, degree, window, _, size = CORNERS[name]
    assert_right(problem(n_in, rows, 1, degree, window, 70, size))
    assert_right(problem(n_in, rows, 1, degree, window, 70, size, double=True))


@needs_llvmlite
@pytest.mark.parametrize("window", [3, 1, 0])
def test_neighbours_in_any_order(window):
    x, weight, edges, upstream = problem(40, 30, 1, 5, window, 5, (6, 5))
    assert_right((x, weight, edges._replace(index=edges.index.flip(1)), upstream))


@needs_llvmlite
def test_two_graphs_and_a_changed_one():
    """Derived structures belong to one graph, as it is now."""
    layer = ExpanderLinear(16, 8, degree=4, seed=0, kernel="direct")
    x = torch.randn(3, 16)
    for seed in (1, 2, 3):
        other = ExpanderLinear(16, 8, degree=4, seed=seed)
        layer(x)
        layer.load_state_dict(other.state_dict())
        torch.testing.assert_close(layer(x), other(x))
    for seed in range(20):  # memory of dead graphs is used again
        layer = ExpanderLinear(16, 8, degree=4, seed=seed, kernel="direct")
        torch.testing.assert_close(layer(x), layer.to_dense()(x))


@needs_llvmlite
def test_graphs_of_inference_mode_are_prepared_once(monkeypatch):
    from xnets.layers.direct import adjacency

    with torch.inference_mode():
        layer = ExpanderLinear(16, 8, degree=4, seed=0, block=2, kernel="direct")
        first = layer(torch.ones(3, 16))
        monkeypatch.setattr(adjacency, "Adjacency", None)
        assert torch.equal(layer(torch.ones(3, 16)), first)


@needs_llvmlite
def test_known_graphs_are_forgotten():
    from xnets.layers.direct import adjacency

    for seed in range(5):
        ExpanderLinear(16, 8, degree=4, seed=seed, kernel="direct")(torch.randn(3, 16))
    alive = [kept for kept, _ in adjacency._known.values() if not kept.expired()]
    assert len(adjacency._known) <= len(alive) + 1


@needs_llvmlite
def test_inference_mode_and_unbatched():
    layer = ExpanderConv2d(6, 8, 3, padding=1, degree=3, seed=0, kernel="direct")
    x = torch.randn(2, 6, 7, 5)
    expected = layer.to_dense()(x)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), expected)
        made_inside = ExpanderConv2d(6, 8, 3, padding=1, degree=3, seed=0, kernel="direct")
        torch.testing.assert_close(made_inside(x), made_inside.to_dense()(x))
        made_inside.neighbours.copy_((made_inside.neighbours + 1) % 6)  # nothing but its values tells
        torch.testing.assert_close(made_inside(x), made_inside.to_dense()(x))
    torch.testing.assert_close(layer(x[0]), expected[0])


@needs_llvmlite
@pytest.mark.parametrize(("window", "stride"), [(3, 1), (3, 2), (1, 1), (1, 2), (0, 1)])
def test_compiled_without_a_graph_break(window, stride):
    how = {"degree": 3, "seed": 0, "kernel": "direct"}
    layer = ExpanderConv2d(6, 8, window, stride, window // 2, **how) if window else ExpanderLinear(6, 8, **how)
    x = torch.randn((4, 6, 7, 5) if window else (4, 6), requires_grad=True)
    torch.compiler.reset()
    y = torch.compile(layer, backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(y, layer(x), rtol=0, atol=0)
    inputs = (x, layer.weight, layer.bias)
    mine = torch.autograd.grad(y.square().sum(), inputs)
    for a, b in zip(mine, torch.autograd.grad(layer(x).square().sum(), inputs), strict=True):
        torch.testing.assert_close(a, b)


@needs_llvmlite
@pytest.mark.parametrize(("window", "stride"), [(3, 1), (3, 2), (1, 1), (1, 2), (0, 1)])
def test_operators_keep_pytorchs_rules(window, stride):
    from xnets.layers.direct.op import direct

    x, weight, edges, _ = problem(4, 4, 1, 2, window, 2, (3, 4))
    torch.library.opcheck(direct, (x.requires_grad_(), weight.requires_grad_(), edges.index, stride))


@needs_llvmlite
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("window", [0, 1, 3])
def test_second_derivatives(window, stride):
    x, weight, edges, upstream = problem(9, 6, 1, 4, window, 3, (5, 4), stride=stride)
    how = SAME[window]._replace(stride=(stride, stride)) if window else None
    found = []
    for kernel in ("direct", "dense"):
        given = [t.clone().requires_grad_() for t in (x, weight)]
        dy = upstream.clone().requires_grad_()
        y = compute(kernel, Call(*given, None, edges, how))
        first = torch.autograd.grad(y.square(), given, dy, create_graph=True)
        found.append(torch.autograd.grad(sum(t.square().sum() for t in first), [*given, dy]))
    for mine, right in zip(*found, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-3, atol=1e-4 * float(right.abs().max()))


@needs_llvmlite
def test_what_looks_at_calls_in_its_own_way_gets_the_dense_kernel():
    x, weight, edges, _ = problem(6, 4, 1, 3, 3, 2, (5, 5))
    layer = ExpanderConv2d(6, 4, 3, padding=1, degree=3, seed=0, kernel="direct")
    dense = layer.to_dense()
    tangent = torch.ones_like(x)
    torch.testing.assert_close(torch.func.jvp(layer, (x,), (tangent,)), torch.func.jvp(dense, (x,), (tangent,)))
    with forward_ad.dual_level():
        y = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, tangent)))
    torch.testing.assert_close(y.tangent, dense(tangent) - dense.bias.view(-1, 1, 1))
    torch.testing.assert_close(torch.jit.trace(layer, x)(x), dense(x))
    short = Call(x, weight[:, :2].contiguous(), None, edges, SAME[3])
    assert "degree" in choose("direct", short).why
    with pytest.raises((RuntimeError, IndexError)):
        compute("direct", short)


@needs_llvmlite
@pytest.mark.parametrize("window", [0, 1, 3])
def test_counted_flops_are_those_of_the_edges(window):
    """Of each pass 2 x weights x positions, borders in full, as torch counts convolutions."""
    x, weight, edges, upstream = problem(12, 8, 1, 3, window, 5, (4, 3))
    given = [t.requires_grad_() for t in (x, weight)]
    with FlopCounterMode(display=False) as counter:
        y = compute("direct", Call(*given, None, edges, SAME[window] if window else None))
        torch.autograd.grad(y, given, upstream)
    assert counter.get_total_flops() == 3 * 2 * weight.numel() * upstream[:, 0].numel()


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


@needs_llvmlite
def test_threads_may_meet_graphs_for_the_first_time_together():
    for _ in range(5):
        layers = [ExpanderLinear(12, 8, degree=3, seed=i, kernel="direct") for i in range(30)]
        x = torch.randn(2, 12)
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda _: [layer(x) for layer in layers], range(8)))  # noqa: B023
        for outputs in found:
            torch.testing.assert_close(outputs, [layer.to_dense()(x) for layer in layers])


@needs_llvmlite
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("window", [0, 1, 3])
def test_outputs_and_gradients_may_be_changed_in_place(window, layout):
    """As by nn.ReLU(inplace=True), which autograd refuses of a view."""
    x, weight, edges, _ = problem(12, 8, 1, 3, window, 5, (4, 3))
    x = x.to(memory_format=layout) if window else x
    for stride in (1, 2) if window else (1,):
        how = SAME[window]._replace(stride=(stride, stride)) if window else None
        given = [t.clone().requires_grad_() for t in (x, weight)]
        y = compute("direct", Call(*given, None, edges, how)).relu_()
        dx, dw = torch.autograd.grad(y.sum(), given)
        dx.mul_(2)
        dw.mul_(2)
        right = compute("dense", Call(*given, None, edges, how)).relu()
        torch.testing.assert_close((y, dx, dw), (right, *torch.autograd.grad(2 * right.sum(), given)))


@needs_llvmlite
def test_everything_else_is_the_dense_kernels_and_says_why():
    x, weight, edges, _ = problem(6, 4, 1, 3, 3, 2, (5, 5))
    same = SAME[3]
    bits = weight[..., :2, :2].contiguous()
    for reason, refused in {
        "stride": Call(x, weight, None, edges, same._replace(stride=(3, 3))),
        "stride (2, 1)": Call(x, weight, None, edges, same._replace(stride=(2, 1))),
        "padding": Call(x, weight, None, edges, same._replace(padding=(0, 0))),
        "dilation": Call(x, weight, None, edges, same._replace(dilation=(2, 2))),
        "float64": Call(x.double(), weight.double(), None, edges, same),
        "contiguous": Call(x.transpose(2, 3), weight, None, edges, same),
        "empty": Call(x[:0], weight, None, edges, same),
        "2x2": Call(x, bits, None, edges, same),
    }.items():
        chosen = choose("direct", refused)
        assert (chosen.kernel, reason in chosen.why) == ("dense", True), chosen
        torch.testing.assert_close(compute("direct", refused), compute("dense", refused))
    assert choose("direct", Call(x, weight, None, edges, same)).kernel == "direct"
    irregular = BipartiteGraph(5, [0, 3, 3, 4, 6], [0, 2, 4, 1, 1, 3])
    layer = ExpanderLinear(5, 4, graph=irregular, kernel="direct")
    assert "degree" in choose("direct", layer.call(x[:, :5, 0, 0])).why
    torch.testing.assert_close(layer(x[:, :5, 0, 0]), layer.to_dense()(x[:, :5, 0, 0]))


def test_without_llvmlite_layers_are_dense_and_explain_says_so():
    script = """
import sys
sys.modules["llvmlite"] = None
import torch, xnets
from xnets.cli import main
x = torch.ones(1, 4)
for kernel in ("direct", "auto"):
    layer = xnets.ExpanderLinear(4, 4, degree=2, kernel=kernel)
    assert torch.equal(layer(x), layer.to_dense()(x))
main(["explain", "X-VGG16-2", "--batch", "2"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if "features" in line]
    assert said
    assert all("dense" in line and "direct llvmlite is not installed" in line for line in said)
