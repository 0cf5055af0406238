"""X-Conv and X-Linear under all that PyTorch does to a module."""

import copy
import pickle

import pytest
import torch
from torch import nn

from tests.xnets.small_layers import BOTH, conv, every_kernel, image
from xnets.graphs import grouped_graph


@BOTH
@every_kernel
def test_autocast(make, x, kernel):
    layer = make(kernel=kernel)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        expected = layer.to_dense()(x)
    assert y.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, atol=0.03, rtol=0.03)
    y.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32


@BOTH
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("graph", ["random", "random-with-replacement", "random-by-input"])
def test_compiled_without_a_graph_break(make, x, backend, graph):
    torch.compiler.reset()
    layer = make(graph=graph)
    y = torch.compile(layer, backend=backend, fullgraph=True)(x)
    torch.testing.assert_close(y, layer(x))
    gradient = torch.autograd.grad(y.square().sum(), layer.weight)
    torch.testing.assert_close(gradient, torch.autograd.grad(layer(x).square().sum(), layer.weight))


@BOTH
def test_exported_for_any_batch(make, x):
    layer = make()
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    more = torch.cat([x, x, -x])
    torch.testing.assert_close(program.module()(more), layer(more))


@BOTH
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@pytest.mark.parametrize("how", [{}, {"graph": grouped_graph(6, 8, 2), "degree": None, "seed": None}])
def test_copies_compute_the_same_and_stand_alone(make, x, clone, how):
    layer = make(**how)
    twin = clone(layer)
    before = layer(x)
    torch.testing.assert_close(twin(x), before, rtol=0, atol=0)
    assert (twin.graph, twin.seed, twin.construction) == (layer.graph, layer.seed, layer.construction)
    nn.init.zeros_(twin.weight)
    torch.testing.assert_close(layer(x), before, rtol=0, atol=0)
    twin.reset_parameters()
    assert twin.graph == layer.graph


@BOTH
def test_distributed_data_parallel(make, x, tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        layer = make()
        wrapped = nn.parallel.DistributedDataParallel(copy.deepcopy(layer))
        wrapped(x).square().sum().backward()
        layer(x).square().sum().backward()
        torch.testing.assert_close(wrapped.module.weight.grad, layer.weight.grad)
    finally:
        torch.distributed.destroy_process_group()


@every_kernel
def test_channels_last_and_unbatched_images(kernel):
    layer, x = conv(kernel=kernel), image()
    torch.testing.assert_close(layer(x.to(memory_format=torch.channels_last)), layer(x))
    torch.testing.assert_close(layer(x[0]), layer(x)[0])
    assert layer(x[:0]).shape == (0, 8, 7, 5)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(make, x, dtype):
    for layer in (make(dtype=dtype), make().to(dtype)):
        assert (layer.weight.dtype, layer.bias.dtype, layer.neighbours.dtype) == (dtype, dtype, torch.int32)
        assert layer(x.to(dtype)).dtype == dtype
        torch.testing.assert_close(layer(x.to(dtype)), layer.to_dense()(x.to(dtype)))
