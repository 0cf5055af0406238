"""Which kernel computes a layer: the one it names, or the fastest here, measured once for each case.

A case is all that a kernel's time depends on: shapes, dtype, layout, what gradients are wanted, device and threads.
What was measured is kept in xnets.layers.timings, so that a machine measures a case once.
"""

import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from xnets.layers.kernels import KERNELS, Convolution, Edges, Kernel, find_kernel, is_transformed
from xnets.layers.timings import Timings, clock_of

AUTO = "auto"
REPEATS = 5
OTHERS = 2**20  # floats of memory used before each measurement: in a network, other layers had the caches meanwhile
TENSORS = (Tensor, torch.nn.Parameter)
FEWEST_MEASURED = 300_000  # multiply-adds below which the call itself is what takes time, and dense has the shortest

_auto_means = [AUTO]  # set by `kernels`
_known: dict[tuple, "Choice"] = {}  # of this process


class Choice(NamedTuple):
    """A kernel for one case."""

    kernel: str
    why: str
    milliseconds: dict[str, float]  # of each kernel that was measured
    refusals: dict[str, str]  # of each kernel that cannot compute the case: why


class Call(NamedTuple):
    """A layer about to be computed."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    edges: Edges
    how: Convolution | None  # None for a linear layer

    def by(self, kernel: Kernel) -> Tensor:
        """The layer's output."""
        if self.how is None:
            return kernel.linear(self.x, self.weight, self.bias, self.edges)
        return kernel.conv2d(self.x, self.weight, self.bias, self.edges, self.how)

    def refusals(self) -> dict[str, str]:
        """Why each kernel for this device that does not compute this layer does not."""
        said = {name: k.refuses(self.x, self.weight, self.edges, self.how) for name, k in self.kernels().items()}
        return {name: why for name, why in said.items() if why}

    def kernels(self) -> dict[str, Kernel]:
        """Those for this device."""
        return {name: k for name, k in KERNELS.items() if k.device in (None, self.x.device.type)}


class kernels:
    """Say what layers with kernel="auto" use from here on, or only inside a `with`; for all threads of the process.

        xnets.kernels("direct")         # from now on
        with xnets.kernels("dense"):    # in here
            model(x)

    Args:
        name: a kernel in xnets.layers.KERNELS, or "auto": the fastest measured. A layer that the kernel cannot
            compute is computed by "dense".

    Raises:
        XNetsError: an unknown name.
    """

    def __init__(self, name: str) -> None:
        self.before = _auto_means[0]
        _auto_means[0] = checked_kernel(name)

    def __enter__(self) -> None:
        """Nothing: the name is in force already."""

    def __exit__(self, *_: Any) -> None:
        """Back to what was in force before."""
        _auto_means[0] = self.before


def kernel_in_force() -> str:
    """What layers with kernel="auto" use: a kernel's name, or "auto"."""
    return _auto_means[0]


def other_kernel_in_force() -> str:
    """Why the direct kernels are not to be used, in a few words; "" if they may be."""
    return "" if kernel_in_force() in (AUTO, "direct") else f"kernel {kernel_in_force()!r} is in force"


def checked_kernel(name: str) -> str:
    """The name, if it is "auto" or a kernel's; XNetsError names those there are."""
    if name != AUTO:
        find_kernel(name)
    return name


def compute(name: str, call: Call) -> Tensor:
    """The layer's output by the kernel of that name; "auto" is the measured choice."""
    return call.by(KERNELS[choose(name, call).kernel])


def choose(name: str, call: Call) -> Choice:
    """The kernel for this call and why."""
    wanted = _auto_means[0] if name == AUTO else name
    if wanted != AUTO:
        why_not = find_kernel(wanted).refuses(call.x, call.weight, call.edges, call.how)
        if why_not:
            return Choice("dense", f"{wanted}: {why_not}", {}, {wanted: why_not})
        return Choice(wanted, "named", {}, {})
    if not _can_measure(call):
        return _guess(call)
    key = _key(call)
    found = _known.get(key)
    if found is None:
        found = _known[key] = _find(case(call), call)
    return found


def _key(call: Call) -> tuple:
    """All that `case` and refusals depend on, in less time: this is asked for with every call of a layer."""
    x, weight, index = call.x, call.weight, call.edges.index
    cast = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else None
    wanted, threads = gradients_wanted(call), torch.get_num_threads()
    about_x = x.shape, x.stride(), x.dtype, x.device
    about_graph = index.shape, index.device, *call.edges[1:]
    return *about_x, weight.shape, weight.dtype, weight.device, *about_graph, call.how, cast, wanted, threads


def _find(key: str, call: Call) -> Choice:
    refusals = call.refusals()
    names = [name for name, kernel in call.kernels().items() if kernel.competes and name not in refusals]
    if names == ["dense"]:
        return Choice("dense", "the only one", {}, refusals)
    if multiply_adds(call) < FEWEST_MEASURED:
        return Choice("dense", "too small to gain", {}, refusals)
    timings = Timings.of_this_machine()
    milliseconds = timings.read(key)
    if set(milliseconds) != set(names):
        milliseconds = measure(call, names)
        timings.add(key, milliseconds)
    fastest = min(milliseconds, key=lambda name: milliseconds[name])
    return Choice(fastest, "the fastest", milliseconds, refusals)


def case(call: Call) -> str:
    """All that its time depends on, as one string."""
    x, weight, edges = call.x, call.weight, call.edges
    device, window = x.device.type, tuple(weight.shape[2 if edges.regular else 1 :])
    layout = "" if x.is_contiguous() else f" strides {x.stride()}"
    lists = f"degree {edges.index.shape[1]}" if edges.regular else f"edges {weight.shape[0]}"
    cast = f" as {torch.get_autocast_dtype(device)}" if torch.is_autocast_enabled(device) else ""
    wanted = "".join(f" d{what}" for what, grad in zip("xw", gradients_wanted(call), strict=True) if grad)
    place = f"{torch.get_num_threads()} threads" if device == "cpu" else torch.cuda.get_device_name(x.device)
    return (
        f"{tuple(x.shape)}{layout} {x.dtype}{cast} by {weight.dtype} to {edges.n_out}, {lists}, block {edges.block}, "
        f"{window} {tuple(call.how or ())}, forward{wanted}, {place}"
    )


def gradients_wanted(call: Call) -> tuple[bool, bool]:
    """Of x and of the weight."""
    recording = torch.is_grad_enabled()
    return recording and call.x.requires_grad, recording and call.weight.requires_grad


def multiply_adds(call: Call) -> int:
    """Of one forward pass, along the edges, borders counted in full."""
    if call.how is None:
        return call.weight.numel() * (call.x.numel() // call.edges.n_in)
    pixels = call.x[:, 0].numel() // (call.how.stride[0] * call.how.stride[1])
    return call.weight.numel() * pixels


def measure(call: Call, names: list[str]) -> dict[str, float]:
    """Median milliseconds of each kernel, taking turns; with the backward pass where gradients are wanted.

    In a thread of its own: what the caller has set up in its thread (hooks of activation checkpointing, counters of
    operations) shall see nothing of it.
    """
    inference = torch.is_inference_mode_enabled()
    device = call.x.device.type
    cast = (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))

    def apart() -> dict[str, float]:
        with torch.inference_mode(inference), torch.autocast(device, cast[1], enabled=cast[0]):
            return _measure(call, names, wanted)

    wanted = gradients_wanted(call)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(apart).result()


def _measure(call: Call, names: list[str], wanted: tuple[bool, bool]) -> dict[str, float]:
    clock = clock_of(call.x.device)
    others = torch.zeros(OTHERS, device="cpu")
    times: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(REPEATS + 1):
        for name in names:
            others.add_(1)
            took = _timed(call, KERNELS[name], wanted, clock)
            if repeat:  # the first compiles and sorts edges
                times[name].append(1e3 * took)
    return {name: statistics.median(took) for name, took in times.items()}


def _timed(call: Call, kernel: Kernel, wanted: tuple[bool, bool], clock: Callable[[], float]) -> float:
    bias = call.bias.detach() if call.bias is not None else None
    if not any(wanted):
        given = call._replace(x=call.x.detach(), weight=call.weight.detach(), bias=bias)
        with torch.no_grad():
            started = clock()
            given.by(kernel)
            return clock() - started
    x, weight = call.x.detach().requires_grad_(wanted[0]), call.weight.detach().requires_grad_(wanted[1])
    started = clock()
    y = call._replace(x=x, weight=weight, bias=bias).by(kernel)
    torch.autograd.grad(y, [t for t in (x, weight) if t.requires_grad], torch.ones_like(y))
    return clock() - started


def _can_measure(call: Call) -> bool:
    """Not while torch traces, under vmap, or with tensors that hold no values."""
    if torch.compiler.is_compiling() or is_transformed():
        return False
    return type(call.x) in TENSORS and type(call.weight) in TENSORS and call.x.device.type != "meta"


def _guess(call: Call) -> Choice:
    """By what the kernels believe of themselves: for torch.compile. What is exported or batched is dense."""
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        refusals = call.refusals()
        for name, kernel in call.kernels().items():
            if name not in refusals and kernel.prefers(call.x, call.weight, call.edges, call.how):
                return Choice(name, "likely the fastest; torch.compile lets nothing be measured", {}, refusals)
    return Choice("dense", "not measured here", {}, {})
