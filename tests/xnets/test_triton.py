"""The Triton kernels against masked dense layers in float64: in Triton's interpreter, since no GPU is needed there.

The interpreter must be chosen before Triton is imported, so one test runs this file again in a process of its own,
where the tests marked `interpreted` run. Here, in the process of the other tests, the kernels are compiled for an
H100 without one, and what does not launch them is tested.
"""

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from xnets import ExpanderConv2d
from xnets.layers import KERNELS
from xnets.layers.choice import Call, compute
from xnets.layers.kernels import Convolution, Edges
from xnets.layers.triton import AVAILABLE, INTERPRETED, TritonKernel, fp32_precision, prefers, refuses
from xnets.layers.triton.geometry import layer_of

needs_triton = pytest.mark.skipif(not AVAILABLE, reason="triton is not installed")
interpreted = pytest.mark.skipif(not (AVAILABLE and INTERPRETED), reason="runs within test_in_the_interpreter")
outside = pytest.mark.skipif(INTERPRETED, reason="not for the interpreter")
SAME = {1: Convolution((1, 1), (0, 0), (1, 1)), 3: Convolution((1, 1), (1, 1), (1, 1))}
EDGES, DENSE = True, False  # how gradients are computed; the estimate chooses outside of tests
# the interpreter cuts what becomes bf16 instead of rounding it
ERRORS = {torch.float32: 3e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@outside
@needs_triton
def test_in_the_interpreter():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def problem(n_in, rows, block, degree, batch, size, how=None, window=0, seed=0, double=False, dtype=torch.float32):
    """x, weight, edges, how, upstream gradient; a linear layer without `how`."""
    rng = np.random.default_rng(seed)
    index = np.stack([np.sort(rng.choice(n_in, degree, replace=double)) for _ in range(rows)])
    edges = Edges(torch.from_numpy(index.astype(np.int32)), n_in, rows * block, True, block, double)
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=generator).to(dtype)  # noqa: E731
    x = draw(batch, n_in, *(size if how else ()))
    weight = draw(rows * block, degree, *([window] * 2 if how else []))
    y = KERNELS["dense"].conv2d(x, weight, None, edges, how) if how else KERNELS["dense"].linear(x, weight, None, edges)
    return x, weight, edges, how, draw(*y.shape)


def expected(x, weight, edges, how, upstream):
    """Output and gradients of x and weight, by loops over the edges and dense operations in float64."""
    x, weight, upstream = x.double().requires_grad_(), weight.double().requires_grad_(), upstream.double()
    dense = []
    for v in range(edges.n_out):
        row = [torch.zeros(weight.shape[2:], dtype=torch.float64)] * edges.n_in
        for d, u in enumerate(edges.index[v // edges.block].tolist()):
            row[u] = row[u] + weight[v, d]
        dense.append(torch.stack(row))
    dense = torch.stack(dense)
    y = F.conv2d(x, dense, None, *how) if how else F.linear(x, dense)
    return y.detach(), *torch.autograd.grad(y, (x, weight), upstream)


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


@interpreted
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


@interpreted
@pytest.mark.parametrize("name", CORNERS)
def test_corners(name):
    assert_right(problem(*CORNERS[name]))


@interpreted
@pytest.mark.parametrize("name", ["groups, uneven strides", "groups, linear", "exact, 3x3", "exact, 1x1 with stride 2"])
def test_gradients_by_dense_products(name):
    assert_right(problem(*CORNERS[name]), DENSE)


@interpreted
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


@interpreted
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


@interpreted
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


@interpreted
@pytest.mark.parametrize("name", ["groups, uneven strides", "exact, linear of one row"])
def test_operators_keep_pytorchs_rules(name):
    from xnets.layers.triton.op import product

    x, weight, edges, how, _ = problem(*CORNERS[name])
    how = [list(part) for part in how] if how else [[], [], []]
    torch.library.opcheck(product, (x.requires_grad_(), weight.requires_grad_(), edges.index, *how, False))


@interpreted
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


@interpreted
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


# (n_in, rows, block, degree, batch, size, window, stride, dtype, way): compiled as they would be launched
COMPILED = {
    "groups, 3x3 bf16": (256, 4, 64, 64, 8, 14, 3, 1, torch.bfloat16, EDGES),
    "groups, 3x3 with stride 2, fp16": (64, 4, 16, 16, 8, 28, 3, 2, torch.float16, EDGES),
    "groups, 1x1 fp32": (1024, 8, 128, 256, 8, 32, 1, 1, torch.float32, EDGES),
    "groups, linear bf16": (4096, 64, 64, 1024, 64, 1, 0, 1, torch.bfloat16, EDGES),
    "exact, 3x3 fp32": (256, 256, 1, 64, 8, 14, 3, 1, torch.float32, EDGES),
    "exact, 1x1 bf16": (512, 512, 1, 64, 8, 14, 1, 1, torch.bfloat16, EDGES),
    "dense gradients, 3x3 fp32": (256, 256, 1, 64, 8, 14, 3, 1, torch.float32, DENSE),
}
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int32: "*i32"}


def compiled_for_hopper(kernel, arguments, constants):
    """The binary for this launch, specialised to its arguments as Triton does it."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    options = {k: constants.pop(k) for k in ("num_warps", "num_stages") if k in constants}
    signature, wide = {}, {}
    for i, (name, value) in enumerate(zip(kernel.arg_names, arguments, strict=False)):
        if isinstance(value, torch.Tensor):
            signature[name] = POINTERS[value.dtype]
        elif value == 1:
            constants[name] = 1
        else:
            signature[name] = "i32"
        if isinstance(value, torch.Tensor) or value % 16 == 0:
            wide[(i,)] = [["tt.divisibility", 16]]
    signature = {n: "constexpr" if n in constants else signature[n] for n in kernel.arg_names}
    source = ASTSource(kernel, signature, constants, wide)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


@outside
@needs_triton
@pytest.mark.parametrize("name", COMPILED)
def test_compiles_for_hopper_without_a_gpu(name, monkeypatch, tmp_path):
    from xnets.layers.triton import estimate, run

    n_in, rows, block, degree, batch, size, window, stride, dtype, way = COMPILED[name]
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for choice in ("input_gradient_along_edges", "weight_gradient_along_edges"):
        monkeypatch.setattr(estimate, choice, lambda *_: way)
    made = {}

    def compile_instead(kernel, programs, *arguments, **constants):
        assert programs > 0
        if kernel not in made:
            made[kernel] = compiled_for_hopper(kernel, arguments, constants)

    monkeypatch.setattr(run, "_launch", compile_instead)
    index = torch.stack([torch.randperm(n_in)[:degree].sort().values for _ in range(rows)]).to(torch.int32)
    weight = torch.empty(rows * block, degree, *[window] * 2 if window else [], dtype=dtype)
    sides = [size, size] if window else []
    layer = layer_of((batch, n_in, *sides), weight.shape, rows, [stride] * 2, [window // 2] * 2, [1, 1])
    x = torch.empty(layer.images, n_in, layer.rows.size * layer.columns.size, dtype=dtype)
    precision = "tf32x3" if dtype == torch.float32 else "ieee"
    y = run.product(x, weight, index, layer, precision)
    run.input_gradient(y, weight, index, layer, precision, False)
    run.weight_gradient(y, x, index, layer, precision)
    assert len(made) == (4 if block >= 16 else 3 if way is DENSE else 2)
    for kernel, binary in made.items():
        assert binary.asm["cubin"]
        assert binary.metadata.shared <= 227 * 1024, kernel
        by_tensor_cores = block >= 16 or (way is DENSE and kernel.__name__ in ("input_gradient", "weight_gradient"))
        if by_tensor_cores and kernel.__name__ != "gather_sum":
            assert "wgmma" in binary.asm["ptx"] or "mma.sync" in binary.asm["ptx"], kernel
    if name in ("groups, 1x1 fp32", "groups, linear bf16"):  # 16 bytes at a time, where images allow it
        for kernel in made:
            if kernel.__name__ == "product":
                assert "cp.async.cg.shared.global" in made[kernel].asm["ptx"]


@outside
def test_fp32_follows_pytorchs_own_setting():
    for setting, linear in ((torch.backends.cuda.matmul, True), (torch.backends.cudnn.conv, False)):
        before = setting.fp32_precision
        try:
            for value, right in (("tf32", "tf32"), ("ieee", "tf32x3")):
                setting.fp32_precision = value
                assert fp32_precision(linear) == right
        finally:
            setting.fp32_precision = before


@interpreted
@pytest.mark.parametrize("window", [0, 3])
def test_outputs_may_be_changed_in_place(window):
    """As by nn.ReLU(inplace=True), which autograd refuses of a view."""
    x, weight, edges, how, _ = problem(6, 2, 1, 3, 2, (5, 5), SAME[3] if window else None, window)
    given = [t.clone().requires_grad_() for t in (x, weight)]
    y = compute("triton", Call(*given, None, edges, how)).relu_()
    right = compute("dense", Call(*given, None, edges, how)).relu()
    found, expected = ([t, *torch.autograd.grad(t.sum(), given)] for t in (y, right))
    torch.testing.assert_close(found, expected)


@interpreted
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


@outside
def test_without_a_gpu_the_dense_kernel_computes():
    x, weight, edges, how, _ = problem(6, 2, 1, 3, 2, (5, 5), SAME[3], 3)
    assert refuses(x, weight, edges, how) == ("not on a GPU" if AVAILABLE else "triton is not installed")
    assert not prefers(x, weight, edges, how)
    call = Call(x, weight, None, edges, how)
    torch.testing.assert_close(compute("triton", call), compute("dense", call), rtol=0, atol=0)


@outside
def test_importing_needs_no_triton_and_the_dense_kernel_computes_without_it():
    script = """
import sys
sys.modules["triton"] = None
import torch
from xnets.layers.choice import Call, compute
from xnets.layers.kernels import Edges
from xnets.layers.triton import AVAILABLE, prefers, refuses
assert not AVAILABLE
x, weight = torch.ones(2, 4), torch.ones(3, 2)
edges = Edges(torch.tensor([[0, 1], [1, 2], [2, 3]], dtype=torch.int32), 4, 3, True, 1, False)
assert not prefers(x, weight, edges)
print(refuses(x, weight, edges), compute("triton", Call(x, weight, None, edges, None)).sum().item())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "triton is not installed 12.0"


# (n_in, n_out, block, C, batch, size, window, itemsize, precision) -> what the estimates of kernels.md say of training
GUESSES = {
    "groups, 3x3 bf16": ((256, 256, 64, 4, 256, 14, 3, 2, "ieee"), True),
    "groups, 3x3 on small maps, bf16": ((512, 512, 64, 8, 256, 4, 3, 2, "ieee"), True),
    "memory is the limit already": ((600, 240, 16, 8, 256, 32, 1, 2, "ieee"), False),
    "exact, 3x3 bf16": ((256, 256, 1, 4, 256, 14, 3, 2, "ieee"), False),
    "exact, 3x3 fp32": ((256, 256, 1, 8, 256, 14, 3, 4, "tf32x3"), True),
    "exact, 3x3 tf32": ((256, 256, 1, 4, 256, 14, 3, 4, "tf32"), False),
    "exact, 1x1 fp32, C=4": ((512, 512, 1, 4, 256, 14, 1, 4, "tf32x3"), False),
    "exact, 1x1 fp32, C=8": ((512, 512, 1, 8, 256, 14, 1, 4, "tf32x3"), True),
    "groups, 1x1 of 512 channels, bf16": ((512, 512, 64, 8, 256, 14, 1, 2, "ieee"), False),
    "groups, 1x1 of 1024 channels, bf16": ((1024, 1024, 64, 8, 256, 7, 1, 2, "ieee"), True),
    "too little work": ((64, 64, 16, 4, 1, 4, 1, 2, "ieee"), False),
}


@outside
@pytest.mark.parametrize("name", GUESSES)
def test_guesses(name):
    from xnets.layers.triton import estimate

    (n_in, n_out, block, c, batch, size, window, itemsize, precision), better = GUESSES[name]
    sizes = ((batch, n_in, size, size), (n_out, n_in // c, window, window), n_out // block)
    layer = layer_of(*sizes, (1, 1), (window // 2,) * 2, (1, 1))
    assert estimate.better(layer, itemsize, precision, (True, True)) is better
    assert estimate.better(layer, itemsize, precision, (False, False)) >= better


@outside
def test_the_benchmark_says_that_it_needs_a_gpu(tmp_path):
    script = Path(__file__).parents[2] / "benchmarks" / "gpu_kernels.py"
    command = [sys.executable, str(script), "--csv", str(tmp_path / "none.csv")]
    done = subprocess.run(command, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "need an NVIDIA GPU" in done.stderr
    assert not (tmp_path / "none.csv").exists()
