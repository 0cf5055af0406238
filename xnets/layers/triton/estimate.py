"""How long a layer takes on a Hopper GPU, dense and along its edges: a roofline, to be replaced by measurements.

None of it was measured on a GPU. Rates are the data sheet's (H100 SXM), of which dense and our kernels are taken to
reach the shares DENSE and OURS; choices look at ratios alone. Three things decide:
    1x1 layers with few channels are bound by memory when dense already, so nothing can help;
    without shared lists every product needs a load of its own (two products of 3x3 share one), so the load units are
    the limit and tensor cores beat them below C of about 16: exact graphs pay with tf32 off;
    the gradient of x of an output group adds D rows for each group, through the second-level cache.
"""

from typing import NamedTuple

from xnets.layers.triton.geometry import Layer

TENSOR = {"half": 990e12, "tf32": 495e12, "tf32x3": 165e12}  # operations a second
VECTOR = 67e12  # fp32 without tensor cores: what the dense layer has with tf32 off
MEMORY = 3.3e12  # bytes a second
CACHE = 5.5e12  # of the second level
LOADS = 29.7e12 / 4  # numbers a second from the first level, 4 bytes at a time
DENSE, OURS = 0.65, 0.45  # what cuDNN and a plain Triton kernel reach of a rate
LAUNCH = 4e-6
MARGIN = 1.2  # an estimate this much better is believed


class Times(NamedTuple):
    """Seconds of the three passes."""

    forward: float
    input_gradient: float
    weight_gradient: float


def better(layer: Layer, itemsize: int, precision: str, backward: tuple[bool, bool]) -> bool:
    """Whether Triton beats the dense kernel clearly, with those gradients (of x, of the weight) that are counted, and
    forward is not slower for itself.
    """
    ours, dense = times(layer, itemsize, precision), dense_times(layer, itemsize, precision)
    counted = (True, *backward)
    sums = [sum(t for t, c in zip(passes, counted, strict=True) if c) for passes in (ours, dense)]
    return ours.forward <= dense.forward and sums[0] * MARGIN < sums[1]


def dense_times(layer: Layer, itemsize: int, precision: str) -> Times:
    """The dense kernel: cuDNN or cuBLAS, and the scatter of the weight or the gather of its gradient."""
    rate = TENSOR["half"] if itemsize == 2 else VECTOR if precision == "tf32x3" else TENSOR["tf32"]
    return Times(*[_bound(layer, itemsize, _dense_operations(layer) / (DENSE * rate), 3 * _dense_weights(layer))] * 3)


def times(layer: Layer, itemsize: int, precision: str) -> Times:
    """The Triton kernels, each pass as run.py would do it."""
    along, spread = _along_edges(layer, itemsize, precision), _spread(layer, itemsize, precision)
    return Times(along.forward, min(along.input_gradient, spread), min(along.weight_gradient, spread))


def input_gradient_along_edges(layer: Layer, itemsize: int, precision: str) -> bool:
    """Whether the gradient of x is faster along the edges than by our dense product."""
    return _along_edges(layer, itemsize, precision).input_gradient <= _spread(layer, itemsize, precision)


def weight_gradient_along_edges(layer: Layer, itemsize: int, precision: str) -> bool:
    """The same for the gradient of the weight."""
    return _along_edges(layer, itemsize, precision).weight_gradient <= _spread(layer, itemsize, precision)


def _along_edges(layer: Layer, itemsize: int, precision: str) -> Times:
    operations, weights = 2.0 * layer.lanes * layer.edges * layer.taps, 3 * layer.edges * layer.taps
    if layer.grouped:
        one = _bound(layer, itemsize, operations / _rate(itemsize, precision), weights)
        parts = 8.0 * layer.n_out // layer.block * layer.degree * layer.in_lanes  # written and read, fp32
        return Times(one, one + parts / (DENSE * CACHE) + LAUNCH, one)
    products = operations / 2
    loads = _bound(layer, itemsize, products / (1 if layer.taps == 1 else 2) / (DENSE * LOADS), weights)
    # every edge reads its channel anew, from the second level; the taps of an edge share it
    again = max(products / (DENSE * LOADS), products / layer.taps * itemsize / (DENSE * CACHE))
    return Times(loads, loads, _bound(layer, itemsize, again, weights))


def _spread(layer: Layer, itemsize: int, precision: str) -> float:
    compute = _dense_operations(layer) / _rate(itemsize, precision)
    return _bound(layer, itemsize, compute, 5 * _dense_weights(layer)) + LAUNCH  # scattered, put tap by tap, read


def _rate(itemsize: int, precision: str) -> float:
    return OURS * TENSOR["half" if itemsize == 2 else precision]


def _dense_operations(layer: Layer) -> float:
    return 2.0 * layer.lanes * _dense_weights(layer)


def _dense_weights(layer: Layer) -> int:
    return layer.n_out * layer.n_in * layer.taps


def _bound(layer: Layer, itemsize: int, compute: float, weights: int) -> float:
    """No pass is faster than reading and writing its images; what is done to weights comes before or after."""
    images = layer.n_in * layer.in_lanes + layer.n_out * layer.lanes
    return max(compute, itemsize * images / MEMORY) + itemsize * weights / MEMORY + LAUNCH
