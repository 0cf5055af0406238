"""X-Conv and X-Linear, their kernels, their initialisation, and conversion of whole networks."""

from xnets.layers.convert import expand_model, to_dense
from xnets.layers.direct import AVAILABLE, DirectKernel
from xnets.layers.expander import ExpanderConv2d, ExpanderLayer, ExpanderLinear
from xnets.layers.initialise import INITS
from xnets.layers.kernels import KERNELS

if AVAILABLE:
    KERNELS["direct"] = DirectKernel()

__all__ = ["INITS", "KERNELS", "ExpanderConv2d", "ExpanderLayer", "ExpanderLinear", "expand_model", "to_dense"]
