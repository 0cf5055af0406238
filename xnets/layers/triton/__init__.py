"""Kernels for NVIDIA GPUs that take the sparse graph as it is, written in Triton.

AVAILABLE says whether Triton is installed (PyTorch brings it on Linux). Two kinds:
    output groups, block >= 16: any convolution and linear layers, on tensor cores;
    other graphs: 1x1 convolutions, 3x3 ones that keep the image's size, and linear layers, without tensor cores.
fp32 (tf32 where PyTorch's setting says so), bf16 and fp16, sums in fp32; under autocast in autocast's dtype.
Everything else is the dense kernel's. With TRITON_INTERPRET=1, set before Python starts, they run on a CPU, slowly:
so they are tested.
"""

import importlib.util
import os

import torch
from torch import Tensor

from xnets.layers.kernels import Convolution, Edges
from xnets.layers.triton.geometry import GROUP, Layer, layer_of

try:
    AVAILABLE = importlib.util.find_spec("triton") is not None
except ValueError:  # a module masked by None has no spec
    AVAILABLE = False
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
MOST = 2**31  # positions are int32
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class TritonKernel:
    """Computes along the edges; see kernels.Kernel."""

    competes = True
    device = "cuda"

    def refuses(self, x: Tensor, weight: Tensor, edges: Edges, how: Convolution | None) -> str:
        """See Kernel."""
        return refuses(x, weight, edges, how)

    def prefers(self, x: Tensor, weight: Tensor, edges: Edges, how: Convolution | None) -> bool:
        """By a roofline; not while torch.compile traces, which cannot read PyTorch's tf32 setting."""
        return not torch.compiler.is_compiling() and prefers(x, weight, edges, how)

    def conv2d(self, x: Tensor, weight: Tensor, bias: Tensor | None, edges: Edges, how: Convolution) -> Tensor:
        """See Kernel."""
        from xnets.layers.triton.op import product

        x, how = _picked(x, weight, edges, how)
        kind, padding = computed_in(x), _padding(weight, how)
        y = product(
            x.to(kind), weight.to(kind), edges.index, list(how.stride), padding, list(how.dilation), edges.double
        )
        return y if bias is None else y + bias.to(kind).view(-1, 1, 1)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, edges: Edges) -> Tensor:
        """See Kernel."""
        from xnets.layers.triton.op import product

        kind = computed_in(x)
        flat = x.reshape(-1, edges.n_in).to(kind)
        y = product(flat, weight.to(kind), edges.index, [], [], [], edges.double)
        y = y if bias is None else y + bias.to(kind)
        return y.view(*x.shape[:-1], edges.n_out)


def refuses(x: Tensor, weight: Tensor, edges: Edges, how: Convolution | None = None) -> str:
    """Why TritonKernel cannot compute this layer; "" if it can. how is None for a linear layer."""
    if not AVAILABLE:
        return "triton is not installed"
    if not edges.regular:
        return "outputs differ in degree"
    device = _refused_device(x)
    if device:
        return device
    if weight.device != x.device or edges.index.device != x.device:
        return "input and weight lie on different devices"
    if computed_in(x) not in DTYPES:
        return f"{str(x.dtype).removeprefix('torch.')} has no kernel"
    if x.dtype != weight.dtype and computed_in(x) == x.dtype and not torch.is_autocast_enabled(x.device.type):
        return "input and weight differ in dtype"
    if not x.is_contiguous():
        return "the input is not contiguous (NCHW)"
    if x.numel() == 0:
        return "the input is empty"
    if how is not None:
        window = _refused_window(weight, edges, how)
        if window:
            return window
        layer = layer_of(x.shape, weight.shape, edges.index.shape[0], how.stride, _padding(weight, how), how.dilation)
        if min(layer.rows.out, layer.columns.out) < 1:
            return "the image is smaller than the window"
        outputs = layer.lanes * layer.n_out
    else:
        outputs = x.numel() // edges.n_in * edges.n_out
    if max(x.numel(), outputs, edges.n_out * edges.n_in * weight[0, 0].numel()) >= MOST:
        return "2**31 numbers or more"
    return ""


def prefers(x: Tensor, weight: Tensor, edges: Edges, how: Convolution | None = None) -> bool:
    """Whether a roofline expects TritonKernel to beat DenseKernel clearly; a guess to start with, never measured.

    Counts the backward pass if the weight or x needs a gradient. Reads PyTorch's tf32 setting, so do not call it in
    code that torch.compile traces.
    """
    if refuses(x, weight, edges, how):
        return False
    from xnets.layers.triton import estimate

    kind = computed_in(x)
    layer = _layer(x, weight, edges, how)
    precision = fp32_precision(linear=how is None)
    grad = torch.is_grad_enabled()
    return estimate.better(layer, kind.itemsize, precision, (grad and x.requires_grad, grad and weight.requires_grad))


def computed_in(x: Tensor) -> torch.dtype:
    """Autocast's dtype where autocast is on, or else x's own."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind) and x.dtype in DTYPES:
        return torch.get_autocast_dtype(kind)
    return x.dtype


def fp32_precision(linear: bool) -> str:
    """How tensor cores multiply fp32, by PyTorch's own setting: rounded to tf32, or cut in two and multiplied three
    times, with an error of fp32's size.
    """
    setting = torch.backends.cuda.matmul if linear else torch.backends.cudnn.conv
    return "tf32" if setting.fp32_precision == "tf32" else "tf32x3"


def _refused_device(x: Tensor) -> str:
    if x.device.type == "cpu" and INTERPRETED:
        return ""
    if x.device.type != "cuda":
        return "not on a GPU"
    if torch.version.hip:
        return "not an NVIDIA GPU"
    if torch.cuda.get_device_properties(x.device).major < 8:
        return "the GPU is older than compute capability 8.0"
    return ""


def _refused_window(weight: Tensor, edges: Edges, how: Convolution) -> str:
    window = tuple(weight.shape[2:])
    if how.padding == "same" and any(d * (k - 1) % 2 for d, k in zip(how.dilation, window, strict=True)):
        return "the padding differs from side to side"
    if edges.block >= GROUP:
        return ""
    padding, ones = tuple(_padding(weight, how)), (1, 1)
    if window == (1, 1) and padding == (0, 0):
        return ""
    if window == (3, 3) and (padding, how.stride, how.dilation) == (ones, ones, ones):
        return ""
    return f"{window[0]}x{window[1]} of this stride and padding needs output groups (block >= {GROUP})"


def _padding(weight: Tensor, how: Convolution) -> list[int]:
    if how.padding == "valid":
        return [0, 0]
    if how.padding == "same":
        return [d * (k - 1) // 2 for d, k in zip(how.dilation, weight.shape[2:], strict=True)]
    return list(how.padding)


def _picked(x: Tensor, weight: Tensor, edges: Edges, how: Convolution) -> tuple[Tensor, Convolution]:
    """A strided 1x1 convolution without output groups is a plain one of the pixels it looks at."""
    if edges.block >= GROUP or how.stride == (1, 1):
        return x, how
    return x[:, :, :: how.stride[0], :: how.stride[1]].contiguous(), how._replace(stride=(1, 1), padding=(0, 0))


def _layer(x: Tensor, weight: Tensor, edges: Edges, how: Convolution | None) -> Layer:
    rows = edges.index.shape[0]
    if how is None:
        return layer_of((x.numel() // edges.n_in, edges.n_in), weight.shape, rows, (), (), ())
    return layer_of(x.shape, weight.shape, rows, how.stride, _padding(weight, how), how.dilation)
