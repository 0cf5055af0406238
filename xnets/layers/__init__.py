"""X-Conv and X-Linear, their kernels, their initialisation, and conversion of whole networks."""

from xnets.layers.algorithm1 import Algorithm1Kernel
from xnets.layers.choice import kernels
from xnets.layers.convert import expand_model, to_dense
from xnets.layers.dense import DenseKernel
from xnets.layers.depthwise import DepthwiseConv2d
from xnets.layers.direct import DirectKernel
from xnets.layers.expander import ExpanderConv2d, ExpanderLayer, ExpanderLinear
from xnets.layers.initialise import INITS
from xnets.layers.kernels import KERNELS
from xnets.layers.max_pool import MaxPool
from xnets.layers.norm_relu import NormReLU, for_training
from xnets.layers.triton import TritonKernel

KERNELS.update(dense=DenseKernel(), algorithm1=Algorithm1Kernel(), direct=DirectKernel(), triton=TritonKernel())

__all__ = [
    "INITS", "KERNELS", "DepthwiseConv2d", "ExpanderConv2d", "ExpanderLayer", "ExpanderLinear", "MaxPool", "NormReLU",
    "expand_model", "for_training", "kernels", "to_dense",
]  # fmt: skip
