"""What the direct kernels know of a graph: the right one, made once, forgotten with it."""

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from tests.xnets.direct_cases import needs_llvmlite
from xnets import ExpanderConv2d, ExpanderLinear
from xnets.layers.direct.adjacency import adjacency_of
from xnets.layers.direct.planned import MOST_PLANS
from xnets.layers.direct.scattered import at_edges


@pytest.mark.parametrize("at_once", [1, 40, 2**16])
@pytest.mark.parametrize(("group", "chunks"), [(4, 1), (4, 3), (1, 2), (3, 1)])
def test_groups_of_rows_hold_each_edge_once(monkeypatch, at_once, group, chunks):
    """Some at a time as all at once: every entry's column meets the rows of its subset, by its own edges."""
    from xnets.layers.direct import adjacency

    monkeypatch.setattr(adjacency, "AT_ONCE", at_once)
    draws = np.random.default_rng(0)
    rows, columns = (draws.integers(0, n, 300).astype(np.int32) for n in (50, 23))  # some of them twice
    grouped = adjacency.group_rows(rows, columns, 50, 23, group, chunks)
    counts, entries, where, order = (tensor.tolist() for tensor in grouped)
    assert sorted(order) == list(range(300))
    for block, (of_subsets, (entry, edge)) in enumerate(zip(counts, where, strict=True)):
        chunk, first_row = block // -(-50 // group), block % -(-50 // group) * group
        for subset, count in enumerate(of_subsets, 1):
            members = [first_row + i for i in range(group) if subset >> i & 1]
            assert entries[entry : entry + count] == sorted(entries[entry : entry + count])
            for column in entries[entry : entry + count]:
                assert column // -(-23 // chunks) == chunk
                mine, edge = order[edge : edge + len(members)], edge + len(members)
                assert [(rows[e], columns[e]) for e in mine] == [(row, column) for row in members]
            entry += count
    assert len(entries) == sum(map(sum, counts))


@needs_llvmlite
def test_two_graphs_and_a_changed_one():
    """Derived structures belong to one graph, as it is now."""
    layer = ExpanderLinear(16, 8, degree=4, seed=0, kernel="direct")
    x = torch.randn(3, 16)
    for seed in (1, 2, 3):
        other = ExpanderLinear(16, 8, degree=4, seed=seed)
        layer(x)
        layer.load_state_dict(other.state_dict())
        torch.testing.assert_close(layer(x), other(x))
    for seed in range(20):  # memory of dead graphs is used again
        layer = ExpanderLinear(16, 8, degree=4, seed=seed, kernel="direct")
        torch.testing.assert_close(layer(x), layer.to_dense()(x))


@needs_llvmlite
@pytest.mark.parametrize("window", [0, 1, 3])
def test_known_graphs_are_forgotten(window):
    """With their layers: no table of a kernel may hold the layer's own index."""
    from xnets.layers.direct import adjacency

    adjacency._known.clear()
    size = (6, 6) if window else ()
    for seed in range(5):
        given = {"degree": 4, "seed": seed, "bias": False, "kernel": "direct"}
        layer = (
            ExpanderConv2d(16, 8, window, padding=window // 2, **given) if window else ExpanderLinear(16, 8, **given)
        )
        layer(torch.randn(3, 16, *size, requires_grad=True)).sum().backward()
        assert len(adjacency._known) == 1
        del layer
        gc.collect()
        assert all(kept.expired() for kept, _ in adjacency._known.values())


@needs_llvmlite
def test_an_index_and_its_transpose_are_two_graphs():
    x, weight = torch.randn(3, 4), torch.randn(4, 4)
    index = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0], [0, 2, 3, 1], [3, 1, 0, 2]], dtype=torch.int32)
    for now in (index, index.t()):
        right = torch.stack([(x[:, now[o].long()] * weight[o]).sum(1) for o in range(4)], 1)
        torch.testing.assert_close(torch.ops.xnets.direct(x, weight, now), right)


@needs_llvmlite
def test_graphs_of_inference_mode_are_prepared_once(monkeypatch):
    from xnets.layers.direct import adjacency

    with torch.inference_mode():
        layer = ExpanderLinear(16, 8, degree=4, seed=0, block=2, kernel="direct")
        first = layer(torch.ones(3, 16))
        monkeypatch.setattr(adjacency, "Adjacency", None)
        assert torch.equal(layer(torch.ones(3, 16)), first)


@needs_llvmlite
def test_threads_may_meet_graphs_for_the_first_time_together():
    """And make tables of them together: none may go on with one that the other has thrown away."""
    kinds = [((4, 4), 1), ((4, 4), 3), ((9, 9), 1), ((9, 9), 3)]
    for _ in range(5):
        layers = [ExpanderLinear(12, 8, degree=3, seed=i, kernel="direct") for i in range(30)]
        given = [torch.randn(2, 12) for _ in layers]
        for i, (size, window) in enumerate(5 * kinds):
            degree = (40, 8, 2)[i % 3]  # one table for each way to sum
            given.append(torch.randn(3, 48, *size))
            layers.append(
                ExpanderConv2d(48, 40, window, padding=window // 2, degree=degree, seed=i, kernel="direct", bias=False)
            )
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda _: [step(*pair) for pair in zip(layers, given, strict=True)], range(8)))  # noqa: B023
        dense = [step(layer.to_dense(), x) for layer, x in zip(layers, given, strict=True)]
        for results in found:
            for layer, (y, dx, dw), (want_y, want_dx, want_dw) in zip(layers, results, dense, strict=True):
                torch.testing.assert_close((y, dx), (want_y, want_dx), rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(dw, at_edges(want_dw, layer.neighbours), rtol=1e-4, atol=1e-4)


@needs_llvmlite
def test_a_graph_whose_memory_comes_back_with_another_is_another():
    """Version, address and shape are what they were; the storage is not."""
    memory, other = (
        np.sort(np.argsort(np.random.default_rng(i).random((8, 12)))[:, :3]).astype("int32") for i in (0, 1)
    )
    layer, x = ExpanderLinear(12, 8, degree=3, kernel="direct"), torch.randn(2, 12)
    layer.neighbours.data = torch.from_numpy(memory)
    before = layer(x)
    layer.neighbours.data = torch.from_numpy(other)
    memory[:] = other
    layer.neighbours.data = torch.from_numpy(memory)
    assert not torch.equal(layer(x), before)
    x.requires_grad_()
    for got, wanted in zip(step(layer, x)[:2], step(layer.to_dense(), x)[:2], strict=True):  # its tables too
        torch.testing.assert_close(got, wanted)


@needs_llvmlite
def test_layers_that_have_computed_may_be_swapped(monkeypatch):
    """torch refuses that of tensors to which somebody holds a weak reference."""
    monkeypatch.setattr(torch.__future__, "get_swap_module_params_on_conversion", lambda: True)
    first, other = (ExpanderLinear(12, 8, degree=3, seed=seed, kernel="direct") for seed in (0, 1))
    x = torch.randn(2, 12)
    first(x)
    torch.utils.swap_tensors(first.neighbours, other.neighbours.clone())
    first.load_state_dict(other.state_dict())
    assert torch.equal(first(x), other(x))


@needs_llvmlite
def test_batches_of_ever_new_sizes_do_not_fill_the_memory():
    layer = ExpanderLinear(12, 8, degree=3, kernel="direct")
    for rows in range(1, MOST_PLANS + 20):
        layer(torch.randn(rows, 12))
    assert 0 < len(adjacency_of(layer.neighbours, 12, 8).plans) <= MOST_PLANS


def step(layer, x):
    x = x.clone().requires_grad_()
    y = layer(x)
    return y.detach(), *torch.autograd.grad(y.square().sum(), (x, layer.weight))


@needs_llvmlite
def test_one_index_seen_as_other_numbers_or_of_other_layers():
    """As int64 and as int32 at one address, and with more outputs than lists (`block`): other graphs, all kept."""
    numbers = torch.zeros(64, dtype=torch.int32)
    wide = numbers[:32].view(torch.int64)[:8].view(4, 2)  # the same place, shape and strides
    narrow = numbers[:8].view(4, 2)
    wide.copy_(torch.tensor([[0, 3], [1, 2], [0, 1], [2, 3]]))
    first, second = adjacency_of(wide, 5, 4), adjacency_of(narrow, 5, 4)
    assert first.index.tolist() == wide.tolist()
    assert second.index.tolist() == narrow.tolist() != wide.tolist()
    index = torch.tensor([[0, 1], [1, 2]], dtype=torch.int32)
    plain, shared = adjacency_of(index, 3, 2), adjacency_of(index, 3, 4)
    assert (plain.block, shared.block) == (1, 2)
    assert adjacency_of(index, 3, 2).plans is plain.plans
