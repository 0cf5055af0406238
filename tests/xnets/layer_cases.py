"""Layers on drawn edges: their tensors, and what they compute, dense by loops."""

import numpy as np
import torch
import torch.nn.functional as F

from xnets.layers import KERNELS
from xnets.layers.kernels import Convolution, Edges

SAME = {1: Convolution((1, 1), (0, 0), (1, 1)), 3: Convolution((1, 1), (1, 1), (1, 1))}
# how the Triton kernels compute gradients; their estimate chooses outside of tests
EDGES, DENSE = True, False


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
