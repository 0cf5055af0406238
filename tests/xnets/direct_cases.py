"""Layers of the direct kernels, computed by them and compared with `layer_cases`."""

import contextlib
import ctypes
import math
import mmap

import pytest
import torch

from tests.xnets import layer_cases
from tests.xnets.layer_cases import SAME
from xnets import kernels
from xnets.layers.direct import DirectKernel, missing, why_not

needs_llvmlite = pytest.mark.skipif(missing() != "", reason="no llvmlite")


def computes_any_size(module):
    """A fixture for tests of a module of for_training: its kernels are in force, and take small batches too."""

    @pytest.fixture(autouse=True)
    def any_size(monkeypatch):
        monkeypatch.setattr(module, "FEWEST_NUMBERS", 0)
        with kernels("direct"):
            yield

    return any_size


@contextlib.contextmanager
def on_threads(number):
    """So many threads in here."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def problem(n_in, rows, block, degree, window, batch, size, seed=0, double=False, stride=1):
    """x, weight, edges, upstream gradient, whose size tells the stride."""
    how = SAME[window]._replace(stride=(stride, stride)) if window else None
    case = layer_cases.problem(n_in, rows, block, degree, batch, size, how, window, seed, double)
    x, weight, edges, _, upstream = case
    return x, weight, edges, upstream


@contextlib.contextmanager
def guarded(tensor, at_the_end):
    """A copy between two pages that end the process if they are touched: it ends where the second begins, or begins
    where the first ends."""
    protect, size = ctypes.CDLL(None).mprotect, tensor.numel() * tensor.element_size()
    inner = math.ceil(size / mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, inner + 2 * mmap.PAGESIZE)
    start = ctypes.addressof(anchor := ctypes.c_char.from_buffer(memory))
    pages = start, start + mmap.PAGESIZE + inner
    offset = mmap.PAGESIZE + (inner - size if at_the_end else 0)
    copy = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=offset).view(tensor.shape)
    copy.copy_(tensor)
    for page in pages:
        assert protect(ctypes.c_void_p(page), mmap.PAGESIZE, 0) == 0
    yield copy
    for page in pages:
        assert protect(ctypes.c_void_p(page), mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE) == 0
    del anchor


def stride_of(x, upstream):
    """1 also where the map is too small to tell."""
    return 2 if x.shape[2:] != upstream.shape[2:] else 1


def how_of(x, weight, upstream):
    """The convolution that `problem` drew; None of a linear layer."""
    return None if x.dim() == 2 else SAME[weight.shape[-1]]._replace(stride=(stride_of(x, upstream),) * 2)


def expected(x, weight, edges, upstream):
    """Output and gradients of x and weight in float64."""
    return layer_cases.expected(x, weight, edges, how_of(x, weight, upstream), upstream)


def computed(x, weight, edges, upstream, kernel=None):
    """The same by the direct kernel; fails if it would hand the layer to the dense one."""
    how = how_of(x, weight, upstream)
    assert not why_not(x, weight, edges, how)
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()  # no copies: see `guarded`
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
