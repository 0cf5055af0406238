"""The direct kernels inside PyTorch: its modes, compiler, transforms and threads; what is left to the dense kernel."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from tests.xnets.direct_cases import needs_llvmlite, problem
from tests.xnets.layer_cases import SAME
from xnets import ExpanderConv2d, ExpanderLinear
from xnets.graphs import BipartiteGraph
from xnets.layers.choice import Call, choose, compute


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


WORKERS = """
import os, threading, torch
from xnets.layers.direct import threads
from xnets.layers.direct.ir import Function
from xnets.layers.direct.jit import compiled
torch.set_num_threads(3)
torch.randn(400, 400) @ torch.randn(400, 400)
assert ("linux" not in __import__("sys").platform) or threads._team() is not None, "torch's OpenMP was not found"
def vectors(width):
    code = Function("vectors", ["source", "target"], ["begin", "end"], width)
    with code.loop("%begin", "%end", width) as i:
        code.store(code.load(code.at("%source", i)), code.at("%target", i))
    return code
def check():
    source, target = torch.randn(3 * 64), torch.zeros(3 * 64)
    tasks = [(source.data_ptr(), target.data_ptr(), 64 * i, 64 * (i + 1)) for i in range(3)]
    for some in (tasks[:1], tasks[:2], tasks):
        target.zero_()
        threads.in_parallel(compiled(vectors, 4), some)
        assert torch.equal(target[: 64 * len(some)], source[: 64 * len(some)])
        assert not target[64 * len(some) :].any(), "a task too many"
    threads.in_parallel(compiled(vectors, 4), [])
check()
others = [threading.Thread(target=check) for _ in range(4)]
[t.start() for t in others]
[t.join() for t in others]
torch.randn(400, 400) @ torch.randn(400, 400)
if (child := os.fork()) == 0:
    check()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
threads._team = lambda: None
check()
print("all done")
"""


SIGNALS = """
import faulthandler, signal, time, torch
from xnets import ExpanderConv2d
faulthandler.dump_traceback_later(100, exit=True)
class Alarm(Exception):
    pass
def raising(*_):
    raise Alarm
torch.set_num_threads(2)
layer = ExpanderConv2d(128, 128, 3, padding=1, compression=4, seed=0, kernel="direct")
x = torch.randn(64, 128, 7, 7)
signal.signal(signal.SIGALRM, raising)
returned = interrupted = 0
with torch.no_grad():
    right = layer(x)
    begun = time.perf_counter()
    for _ in range(20):
        layer(x)
    usual = (time.perf_counter() - begun) / 20
    for i in range(400):
        try:
            signal.setitimer(signal.ITIMER_REAL, usual * (0.1 + i % 40 / 10))
            y = layer(x)
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert torch.equal(y, right), "a part of it was left out"
            returned += 1
        except Alarm:
            interrupted += 1
    assert torch.equal(layer(x), right)
print(returned, interrupted)
"""


@needs_llvmlite
def test_a_signal_whose_handler_raises_is_not_lost_nor_is_a_share_of_the_work():
    done = subprocess.run([sys.executable, "-c", SIGNALS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert all(int(n) for n in done.stdout.split()), done.stdout


DEFAULTS = """
import torch
from xnets import ExpanderConv2d, ExpanderLinear, for_inference
from xnets.layers.direct import threads
threads.FOR_ONE_THREAD = 0
torch.manual_seed(0)
def results():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32)
    conv = ExpanderConv2d(64, 64, 3, padding=1, compression=4, seed=0, kernel="direct")
    point = ExpanderConv2d(64, 48, 1, compression=4, seed=0, kernel="direct")
    x = torch.randn(40, 64, 5, 5)
    return conv, point, x
conv, point, x = results()
def run():
    y = point(conv(x))
    return [y, *torch.autograd.grad(y.square().sum(), [*conv.parameters(), *point.parameters()])]
right = run()
model = torch.nn.Sequential(conv, torch.nn.ReLU(), point).eval()
inferred = for_inference(model, x)(x)
for dtype in (torch.float64, torch.float16, torch.bfloat16):
    torch.set_default_dtype(dtype)
    for a, b in zip(run(), right):
        assert torch.equal(a, b), dtype
    torch.testing.assert_close(for_inference(model, x)(x), inferred)
torch.set_default_dtype(torch.float32)
torch.set_default_device("meta")
torch.testing.assert_close(for_inference(model, x)(x), inferred)
for a, b in zip(run(), right):
    assert torch.equal(a, b)
print("the same")
"""


@needs_llvmlite
def test_default_dtype_and_device_change_nothing():
    done = subprocess.run([sys.executable, "-c", DEFAULTS], capture_output=True, text=True, timeout=120)
    assert done.stdout == "the same\n", done.stdout + done.stderr


@needs_llvmlite
def test_work_is_shared_by_torchs_own_threads_in_any_thread_in_a_forked_child_and_without_openmp():
    done = subprocess.run([sys.executable, "-c", WORKERS], capture_output=True, text=True, timeout=120)
    assert done.stdout == "all done\n", done.stdout + done.stderr


@needs_llvmlite
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("window", "size"), [(0, (4, 3)), (1, (4, 3)), (3, (4, 3)), (3, (8, 8))])
def test_outputs_and_gradients_may_be_changed_in_place(window, size, layout):
    """As by nn.ReLU(inplace=True), which autograd refuses of a view. Maps of 8 x 8 are cut into pieces."""
    x, weight, edges, _ = problem(12, 8, 1, 3, window, 5, size)
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
        y = compute("direct", Call(*given, None, edges, how))
        for gradient in torch.autograd.grad(y.square().sum(), given, create_graph=True):
            gradient.mul_(2)


@needs_llvmlite
@pytest.mark.parametrize("window", [0, 1, 3])
def test_batches_of_gradients(window):
    x, weight, edges, _ = problem(12, 8, 1, 3, window, 5, (8, 8))
    how, found = SAME[window] if window else None, []
    given = [t.clone().requires_grad_() for t in (x, weight)]
    for kernel in ("direct", "dense"):
        y = compute(kernel, Call(*given, None, edges, how))
        upstream = torch.randn(3, *y.shape, generator=torch.Generator().manual_seed(0))
        found.append(torch.autograd.grad(y, given, upstream, is_grads_batched=True))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-4)


@needs_llvmlite
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "channels_last"])
@pytest.mark.parametrize("window", [0, 1, 3], ids=["linear", "1x1", "3x3"])
def test_bfloat16_is_float32_rounded_once(window, layout):
    x, weight, edges, _ = problem(12, 8, 1, 3, window, 5, (4, 3))
    x, weight = x.bfloat16(), weight.bfloat16()
    x = x.to(memory_format=layout) if window else x
    for stride in (1, 2) if window else (1,):
        how = SAME[window]._replace(stride=(stride, stride)) if window else None
        results = []
        for dtype in (torch.bfloat16, torch.float32):
            given = [t.to(dtype).requires_grad_() for t in (x, weight)]
            y = compute("direct", Call(*given, None, edges, how))
            results.append((y, *torch.autograd.grad(y.sum(), given)))
        for low, exact in zip(*results, strict=True):
            assert low.dtype == torch.bfloat16
            assert torch.equal(low, exact.bfloat16())
            assert low.stride() == exact.stride()


@needs_llvmlite
@pytest.mark.parametrize("window", [0, 1, 3], ids=["linear", "1x1", "3x3"])
def test_autocast_casts_as_for_torchs_own_layers(window):
    x, weight, edges, _ = problem(12, 8, 1, 3, window, 5, (4, 3))
    how = SAME[window] if window else None
    bias = torch.randn(8)
    saved = []
    with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t) or t, lambda t: t
    ):  # fmt: skip
        given = [t.clone().requires_grad_() for t in (x, weight, bias)]
        call = Call(*given, edges, how)
        assert choose("direct", call).kernel == "direct"
        y, dense = compute("direct", call), compute("dense", call)
        for wrong in (torch.float64, torch.complex64):
            assert choose("direct", call._replace(x=x.to(wrong))).kernel == "dense"
    assert y.dtype == dense.dtype == torch.bfloat16
    assert {t.dtype for t in saved} <= {torch.bfloat16, torch.int32, torch.int64, torch.float32}
    torch.testing.assert_close(y, dense, rtol=2e-2, atol=2e-2)
    ours, theirs = (torch.autograd.grad(out.float().sum(), given, retain_graph=True) for out in (y, dense))
    for mine, right in zip(ours, theirs, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, right, rtol=5e-2, atol=5e-2)
    with torch.autocast("cpu", torch.float16):
        assert "float16" in choose("direct", call).why


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
        "float16": Call(x.half(), weight.half(), None, edges, same),
        "contiguous": Call(x.transpose(2, 3), weight, None, edges, same),
        "empty": Call(x[:0], weight, None, edges, same),
        "2x2": Call(x, bits, None, edges, same),
    }.items():
        chosen = choose("direct", refused)
        assert (chosen.kernel, reason in chosen.why) == ("dense", True), chosen
        torch.testing.assert_close(compute("direct", refused), compute("dense", refused))
    assert choose("direct", Call(x, weight, None, edges, same)).kernel == "direct"
    assert "bfloat16 with float32" in choose("direct", Call(x, weight.bfloat16(), None, edges, same)).why
    there = edges._replace(index=edges.index.to("meta"))
    assert "not on meta" in choose("direct", Call(x, weight, None, there, same)).why
    irregular = BipartiteGraph(5, [0, 3, 3, 4, 6], [0, 2, 4, 1, 1, 3])
    layer = ExpanderLinear(5, 4, graph=irregular, kernel="direct")
    assert "degree" in choose("direct", layer.call(x[:, :5, 0, 0])).why
    torch.testing.assert_close(layer(x[:, :5, 0, 0]), layer.to_dense()(x[:, :5, 0, 0]))


@needs_llvmlite
@pytest.mark.parametrize("layer", [ExpanderLinear(5, 4, degree=2, seed=0), ExpanderConv2d(5, 4, 1, degree=2, seed=0)])
def test_a_bias_without_numbers_is_refused(layer):
    """As a partly loaded layer has it."""
    layer.kernel = "direct"
    layer.bias = torch.nn.Parameter(layer.bias.to("meta"))
    x = torch.zeros(3, 5) if isinstance(layer, ExpanderLinear) else torch.zeros(3, 5, 2, 2)
    with pytest.raises(RuntimeError, match="meta"):
        layer(x)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("raise ModuleNotFoundError(name='llvmlite')", "is not installed"),
        ("raise OSError('libllvmlite.so: cannot open shared object file')", "does not load (OSError)"),
        ("", "is not installed"),  # a folder of that name, or a package without its binding
    ],
)
def test_without_llvmlite_layers_are_dense_and_explain_says_so(tmp_path, content, why):
    (tmp_path / "llvmlite").mkdir()
    (tmp_path / "llvmlite" / "__init__.py").write_text(content)
    script = """
import torch, xnets
from xnets.cli import main
x = torch.ones(1, 4)
for kernel in ("direct", "auto"):
    layer = xnets.ExpanderLinear(4, 4, degree=2, kernel=kernel)
    assert torch.equal(layer(x), layer.to_dense()(x))
norm = xnets.for_training(torch.nn.BatchNorm2d(64))
maps = torch.randn(4, 64, 16, 16)
torch.testing.assert_close(norm(maps), torch.nn.BatchNorm2d(64)(maps))
main(["explain", "X-VGG16-2", "--batch", "2"])
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if "features" in line]
    assert said
    assert all("dense" in line and f"direct: llvmlite {why}" in line for line in said)
