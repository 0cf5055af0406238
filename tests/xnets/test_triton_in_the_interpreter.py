"""The Triton kernels' numbers in Triton's interpreter; test_in_the_interpreter of test_triton.py runs this file."""

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xnets.layer_cases import DENSE, EDGES, SAME, expected, problem
from xnets import ExpanderConv2d
from xnets.layers import KERNELS
from xnets.layers.choice import Call, compute
from xnets.layers.kernels import Convolution
from xnets.layers.triton import AVAILABLE, INTERPRETED, TritonKernel, refuses

pytestmark = pytest.mark.skipif(not (AVAILABLE and INTERPRETED), reason="runs within test_in_the_interpreter")
# the interpreter cuts what becomes bf16 instead of rounding it
ERRORS = {torch.float32: 3e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def computed(x, weight, edges, how, upstream, way=EDGES):
    """The same by the Triton kernels; fails if they would hand the layer to the dense one. Memory starts as NaN."""
    from xnets.layers.triton import estimate

    assert refuses(x, weight, edges, how) == ""
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    choices = {"input_gradient_along_edges": lambda *_: way, "weight_gradient_along_edges": lambda *_: way}
    torch.use_deterministic_algorithms(True)
    try:
        with mock.patch.multiple(estimate, **choices):
            kernel = TritonKernel()
            y = kernel.conv2d(x, weight, None, edges, how) if how else kernel.linear(x, weight, None, edges)
            return y.detach(), *torch.autograd.grad(y, (x, weight), upstream)
    finally:
        torch.use_deterministic_algorithms(False)


def assert_right(case, way=EDGES):
    for name, mine, right in zip(("y", "dx", "dw"), computed(*case, way), expected(*case), strict=True):
        assert mine.dtype == case[0].dtype
        assert mine.shape == right.shape, name
        error = ERRORS[mine.dtype] * (float(right.abs().max()) + 1.0)
        torch.testing.assert_close(mine.double(), right, rtol=0, atol=error, msg=lambda m, n=name: f"{n}: {m}")


@st.composite
def problems(draw):
    """Output groups with any window, or other graphs with those windows that their kernels have."""
    block = draw(st.sampled_from([1, 3, 16, 20]))
    n_in = draw(st.integers(1, 20 if block >= 16 else 10))
    window = draw(st.sampled_from([0, 1, 1, 3, 3, 2] if block >= 16 else [0, 1, 1, 3]))
    stride, padding, dilation = window and draw(st.integers(1, 3)), window // 2, 1
    if block >= 16:
        padding, dilation = draw(st.integers(0, 2)), draw(st.integers(1, 2))
    elif window == 3:
        stride = 1
    least = max(1, dilation * (window - 1) + 1 - 2 * padding) if window else 1
    side = st.integers(least, max(5, least))
    how = Convolution((stride,) * 2, (padding,) * 2, (dilation,) * 2) if window else None
    return problem(
        n_in, draw(st.integers(1, 3 if block > 3 else 6)), block, draw(st.integers(1, n_in)), draw(st.integers(1, 3)),
        (draw(side), draw(side)), how, window, draw(st.integers(0, 2**31)), draw(st.booleans()),
        draw(st.sampled_from([torch.float32, torch.float32, torch.bfloat16, torch.float16])),
    )  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(problems(), st.booleans())
def test_any_shape(case, way):
    assert_right(case, way)


STRIDED = Convolution((2, 2), (1, 1), (1, 1))
# (n_in, rows, block, degree, batch, size, how, window): what hypothesis seldom draws
CORNERS = {
    "groups, several tiles of everything": (70, 2, 48, 37, 3, (7, 9), SAME[1], 1),
    "groups, 3x3 with stride 2": (24, 2, 32, 20, 2, (9, 8), STRIDED, 3),
    "groups, 1x1 with stride 2": (24, 2, 16, 20, 2, (9, 8), SAME[1]._replace(stride=(2, 2)), 1),
    "groups, one pixel": (24, 2, 16, 20, 1, (1, 1), SAME[3], 3),
    "groups, uneven strides": (8, 1, 16, 5, 2, (7, 9), Convolution((3, 2), (2, 0), (1, 2)), 3),
    "groups, linear": (70, 2, 16, 40, 130, (), None, 0),
    "groups, padding by name": (8, 1, 16, 5, 2, (5, 6), Convolution((1, 1), "same", (2, 1)), 3),
    "exact, more edges than a tile": (40, 3, 1, 33, 2, (9, 9), SAME[1], 1),
    "exact, 1x1 with stride 2": (12, 5, 1, 7, 2, (5, 8), SAME[1]._replace(stride=(2, 2), dilation=(3, 1)), 1),
    "exact, 3x3": (12, 3, 1, 11, 2, (6, 5), SAME[3], 3),
    "exact, 3x3 of one row": (12, 2, 1, 7, 1, (1, 9), SAME[3], 3),
    "exact, linear of one row": (40, 9, 1, 33, 1, (), None, 0),
}


@pytest.mark.parametrize("name", CORNERS)
def test_corners(name):
    assert_right(problem(*CORNERS[name]))


@pytest.mark.parametrize("name", ["groups, uneven strides", "groups, linear", "exact, 3x3", "exact, 1x1 with stride 2"])
def test_gradients_by_dense_products(name):
    assert_right(problem(*CORNERS[name]), DENSE)


@pytest.mark.parametrize(("block", "size", "pieces"), [(16, (17, 17), 3), (1, (33, 33), 2)])
def test_sums_in_pieces_and_the_same_bits_from_run_to_run(block, size, pieces, monkeypatch):
    """Little scratch: the gradient of x in chunks of pixels. Many programs: that of the weight in parts."""
    from xnets.layers.triton import run

    case = problem(20, 2, block, 12, 2, size, SAME[1], 1)
    launched, launch = [], run._launch

    def counted(kernel, programs, *rest, **how):
        launched.append((kernel.__name__, programs))
        launch(kernel, programs, *rest, **how)

    monkeypatch.setattr(run, "_launch", counted)
    monkeypatch.setattr(run, "SCRATCH", 4 * 2 * 12 * 256)
    for a, b, right in zip(computed(*case), computed(*case), expected(*case), strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a.double(), right, rtol=1e-4, atol=1e-3)
    if block > 1:
        assert [name for name, _ in launched].count("gather_sum") == 2 * pieces
    else:
        assert ("pointwise_weight_gradient", 2 * pieces) in launched


def test_layers_under_autocast_bias_and_without_a_batch():
    layer = ExpanderConv2d(6, 16, 3, padding=1, degree=3, seed=0, block=16, kernel="triton")
    x = torch.randn(2, 6, 7, 5, requires_grad=True)
    dense = layer.to_dense()
    torch.testing.assert_close(layer(x), dense(x))
    torch.testing.assert_close(layer(x[0]), dense(x[0]))
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        assert y.dtype == torch.bfloat16
        assert refuses(x, layer.weight, layer.edges, SAME[3]) == ""
    torch.testing.assert_close(y.float(), dense(x), rtol=0.05, atol=0.05)
    gradients = torch.autograd.grad(y.float().square().sum(), (x, layer.weight, layer.bias))
    assert {g.dtype for g in gradients} == {torch.float32}
    right = torch.autograd.grad(dense(x).square().sum(), (x, dense.bias))
    torch.testing.assert_close(gradients[0], right[0], rtol=0.1, atol=0.5)
    torch.testing.assert_close(gradients[2], right[1], rtol=0.1, atol=0.5)


@pytest.mark.parametrize("name", ["groups, 3x3 with stride 2", "exact, 1x1 with stride 2", "exact, linear of one row"])
def test_compiled_without_a_graph_break(name):
    x, weight, edges, how, upstream = problem(*CORNERS[name])
    kernel = TritonKernel()

    def layer(x, weight):
        return kernel.conv2d(x, weight, None, edges, how) if how else kernel.linear(x, weight, None, edges)

    torch.compiler.reset()
    x, weight = x.requires_grad_(), weight.requires_grad_()
    y = torch.compile(layer, backend="aot_eager", fullgraph=True)(x, weight)
    torch.testing.assert_close(y, layer(x, weight), rtol=0, atol=0)
    mine = torch.autograd.grad(y, (x, weight), upstream)
    for a, b in zip(mine, torch.autograd.grad(layer(x, weight), (x, weight), upstream), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["groups, uneven strides", "exact, linear of one row"])
def test_operators_keep_pytorchs_rules(name):
    from xnets.layers.triton.op import product

    x, weight, edges, how, _ = problem(*CORNERS[name])
    how = [list(part) for part in how] if how else [[], [], []]
    torch.library.opcheck(product, (x.requires_grad_(), weight.requires_grad_(), edges.index, *how, False))


def test_only_x_and_the_weight_are_saved_and_second_derivatives_are_refused():
    x, weight, edges, how, _ = problem(*CORNERS["groups, 1x1 with stride 2"])
    x, weight = x.requires_grad_(), weight.requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = TritonKernel().conv2d(x, weight, None, edges, how)
    assert {t.data_ptr() for t in saved} == {t.data_ptr() for t in (x, weight, edges.index)}
    (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(dx.sum(), x)


def test_two_graphs_and_a_changed_one(monkeypatch):
    """Lists belong to one graph, as it is now."""
    monkeypatch.setitem(KERNELS, "triton", TritonKernel())
    layer = ExpanderConv2d(16, 4, 1, degree=5, seed=0, kernel="triton")
    x = torch.randn(2, 16, 3, 3)
    for seed in (1, 2, 3):
        other = ExpanderConv2d(16, 4, 1, degree=5, seed=seed)
        layer(x)
        layer.load_state_dict(other.state_dict())
        torch.testing.assert_close(layer(x), other(x))


@pytest.mark.parametrize("window", [0, 3])
def test_outputs_may_be_changed_in_place(window):
    """As by nn.ReLU(inplace=True), which autograd refuses of a view."""
    x, weight, edges, how, _ = problem(6, 2, 1, 3, 2, (5, 5), SAME[3] if window else None, window)
    given = [t.clone().requires_grad_() for t in (x, weight)]
    y = compute("triton", Call(*given, None, edges, how)).relu_()
    right = compute("dense", Call(*given, None, edges, how)).relu()
    found, expected = ([t, *torch.autograd.grad(t.sum(), given)] for t in (y, right))
    torch.testing.assert_close(found, expected)


def test_what_is_refused_is_the_dense_kernels():
    x, weight, edges, how, _ = problem(6, 2, 1, 3, 2, (5, 5), SAME[3], 3)
    assert refuses(x, weight, edges, how) == ""
    others = [
        (x, weight, edges, how._replace(stride=(2, 2)), "3x3"),
        (x, weight, edges, how._replace(padding=(0, 0)), "3x3"),
        (x.double(), weight.double(), edges, how, "float64"),
        (x.to(memory_format=torch.channels_last), weight, edges, how, "contiguous"),
        (x[:0], weight, edges, how, "empty"),
        (x, weight[..., :2, :2], edges, how._replace(padding="same"), "side to side"),
    ]
    for x, weight, edges, how, why in others:
        assert why in refuses(x, weight, edges, how)
        call = Call(x, weight, None, edges, how)
        torch.testing.assert_close(compute("triton", call), compute("dense", call), rtol=0, atol=0)
    assert "differ in dtype" in refuses(others[0][0], others[0][1].half(), edges, how)
    assert "degree" in refuses(others[0][0], others[0][1], edges._replace(regular=False), how)
    assert "devices" in refuses(others[0][0], others[0][1].to("meta"), edges, SAME[3])
