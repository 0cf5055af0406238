"""The Triton kernels without a GPU: compiled for an H100, refused or estimated, and run by Triton's interpreter.

The interpreter must be chosen before Triton is imported, so one test runs test_triton_in_the_interpreter.py in a
process of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.xnets.layer_cases import DENSE, EDGES, SAME, problem
from xnets.layers.choice import Call, compute
from xnets.layers.triton import AVAILABLE, INTERPRETED, fp32_precision, prefers, refuses
from xnets.layers.triton.geometry import layer_of

pytestmark = pytest.mark.skipif(INTERPRETED, reason="not for the interpreter")
needs_triton = pytest.mark.skipif(not AVAILABLE, reason="triton is not installed")


@needs_triton
def test_in_the_interpreter():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    tests = Path(__file__).with_name("test_triton_in_the_interpreter.py")
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", str(tests)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


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


def test_fp32_follows_pytorchs_own_setting():
    for setting, linear in ((torch.backends.cuda.matmul, True), (torch.backends.cudnn.conv, False)):
        before = setting.fp32_precision
        try:
            for value, right in (("tf32", "tf32"), ("ieee", "tf32x3")):
                setting.fp32_precision = value
                assert fp32_precision(linear) == right
        finally:
            setting.fp32_precision = before


def test_without_a_gpu_the_dense_kernel_computes():
    x, weight, edges, how, _ = problem(6, 2, 1, 3, 2, (5, 5), SAME[3], 3)
    assert refuses(x, weight, edges, how) == ("not on a GPU" if AVAILABLE else "triton is not installed")
    assert not prefers(x, weight, edges, how)
    call = Call(x, weight, None, edges, how)
    torch.testing.assert_close(compute("triton", call), compute("dense", call), rtol=0, atol=0)


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


@pytest.mark.parametrize("name", GUESSES)
def test_guesses(name):
    from xnets.layers.triton import estimate

    (n_in, n_out, block, c, batch, size, window, itemsize, precision), better = GUESSES[name]
    sizes = ((batch, n_in, size, size), (n_out, n_in // c, window, window), n_out // block)
    layer = layer_of(*sizes, (1, 1), (window // 2,) * 2, (1, 1))
    assert estimate.better(layer, itemsize, precision, (True, True)) is better
    assert estimate.better(layer, itemsize, precision, (False, False)) >= better


def test_the_benchmark_says_that_it_needs_a_gpu(tmp_path):
    script = Path(__file__).parents[2] / "benchmarks" / "gpu_kernels.py"
    command = [sys.executable, str(script), "--csv", str(tmp_path / "none.csv")]
    done = subprocess.run(command, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "need an NVIDIA GPU" in done.stderr
    assert not (tmp_path / "none.csv").exists()
