"""X-Conv and X-Linear, their kernels, their initialisation, and conversion of whole networks."""

import importlib

from xnets.layers.choice import kernels
from xnets.layers.convert import expand_model, to_dense
from xnets.layers.direct import AVAILABLE, DirectKernel
from xnets.layers.expander import ExpanderConv2d, ExpanderLayer, ExpanderLinear
from xnets.layers.initialise import INITS
from xnets.layers.kernels import KERNELS
from xnets.layers.triton import TritonKernel

if AVAILABLE:  # torch's counters of operations look only once for operators' formulas
    importlib.import_module("xnets.layers.direct.op")
KERNELS["direct"] = DirectKernel()
KERNELS["triton"] = TritonKernel()

__all__ = [
    "INITS", "KERNELS", "ExpanderConv2d", "ExpanderLayer", "ExpanderLinear", "expand_model", "kernels", "to_dense"
]  # fmt: skip
