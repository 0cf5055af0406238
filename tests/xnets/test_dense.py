"""A weight as a dense one by a kernel of ours: the bits of torch's operators, and inside PyTorch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xnets.direct_cases import guarded, needs_llvmlite, on_threads
from xnets import ExpanderConv2d
from xnets.layers import dense
from xnets.layers.dense import to_dense_weight
from xnets.layers.direct import jit, scattered
from xnets.layers.direct.scattered import Scatter, at_edges
from xnets.layers.kernels import Edges

pytestmark = needs_llvmlite


@pytest.fixture(autouse=True)
def any_size(monkeypatch):
    """Small weights too."""
    monkeypatch.setattr(dense, "FEWEST_SCATTERED", 0)


@pytest.fixture
def calls(monkeypatch):
    """What our kernel was asked for."""
    asked, run = [], scattered._run
    monkeypatch.setattr(scattered, "_run", lambda *a: asked.append(a[0].__name__) or run(*a))
    return asked


def drawn(n_in, rows, block, degree, window, seed):
    """A weight, some of whose numbers are none, its edges in any order, and a gradient of the dense weight."""
    g = torch.Generator().manual_seed(seed)
    index = torch.stack([torch.randperm(n_in, generator=g)[:degree] for _ in range(rows)]).int()
    weight = torch.randn(rows * block, degree, *window, generator=g)
    weight.view(-1)[:: 5 + seed] = float("nan")
    return weight, Edges(index, n_in, rows * block, True, block, False), torch.randn(rows * block, n_in, *window)


def by_hand(weight, edges):
    """One edge after another."""
    whole = torch.zeros(edges.n_out, edges.n_in, *weight.shape[2:])
    for v in range(edges.n_out):
        for d, u in enumerate(edges.index[v // edges.block].tolist()):
            whole[v, u] = weight[v, d]
    return whole


def gathered_by_hand(gradient, edges):
    """The same way back."""
    return torch.stack([gradient[v, edges.index[v // edges.block].long()] for v in range(edges.n_out)])


def same_bits(a, b):
    return a.shape == b.shape and torch.equal(a.contiguous().view(torch.int32), b.contiguous().view(torch.int32))


cases = given(
    st.integers(1, 40), st.integers(1, 9), st.integers(1, 3), st.floats(0, 1),
    st.sampled_from([(), (1, 1), (3, 3), (2, 5), (7, 7)]), st.integers(0, 99),
)  # fmt: skip


@pytest.mark.parametrize("width", [4, 8, 16])
@settings(deadline=None, max_examples=40)
@cases
def test_edges_land_where_they_belong(width, n_in, rows, block, part, window, seed):
    if width > jit.vector_width():
        pytest.skip("not on this CPU")
    weight, edges, gradient = drawn(n_in, rows, block, max(1, round(part * n_in)), window, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jit, "_forced", [(width, jit._host()[1])])
        weight.requires_grad_()
        whole = to_dense_weight(weight, edges)
        (found,) = torch.autograd.grad(whole, weight, gradient)
    assert same_bits(whole.detach(), by_hand(weight.detach(), edges))
    assert same_bits(found, gathered_by_hand(gradient, edges))
    assert same_bits(at_edges(gradient, edges.index), found)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_share_the_outputs(threads):
    weight, edges, gradient = drawn(1500, 1501, 1, 3, (), 0)  # of more than threads_for calls small
    weight.requires_grad_()
    with on_threads(threads):
        whole = to_dense_weight(weight, edges)
        (found,) = torch.autograd.grad(whole, weight, gradient)
    assert same_bits(whole.detach(), by_hand(weight.detach(), edges))
    assert same_bits(found, gathered_by_hand(gradient, edges))


@pytest.mark.parametrize("at_the_end", [True, False])
@pytest.mark.parametrize("window", [(), (3, 3)])
def test_no_memory_beside_is_touched(window, at_the_end):
    weight, edges, gradient = drawn(13, 3, 1, 5, window, 1)
    apart = guarded(weight, at_the_end), guarded(edges.index, at_the_end), guarded(gradient, at_the_end)
    with apart[0] as w, apart[1] as index, apart[2] as whole:
        scattered._run(scattered.scatter, w, index, whole)
        assert same_bits(whole.clone(), by_hand(weight, edges))
        scattered._run(scattered.gather, w.zero_(), index, whole)
        assert same_bits(w.clone(), weight)


def test_gradients_of_gradients():
    weight, edges, _ = drawn(9, 4, 2, 3, (3, 3), 2)
    weight = torch.randn(weight.shape, requires_grad=True)

    def cubed(weight):
        return (to_dense_weight(weight, edges) ** 3).sum()

    (first,) = torch.autograd.grad(cubed(weight), weight, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), weight)
    assert torch.allclose(first, 3 * weight**2)
    assert torch.allclose(second, 6 * weight)


def test_whatever_looks_on_sees_torchs_operators(calls):
    weight, edges, gradient = drawn(9, 4, 1, 3, (3, 3), 3)
    weight.requires_grad_()
    whole = to_dense_weight(weight, edges)
    assert calls == ["scatter"]
    torch.autograd.grad(whole, weight, torch.stack([gradient, gradient]), is_grads_batched=True)
    torch.func.vmap(lambda w: to_dense_weight(w, edges))(weight.unsqueeze(0))
    to_dense_weight(weight.double(), edges)
    to_dense_weight(weight, edges._replace(double=True))
    assert calls == ["scatter"]


def test_edges_that_stand_twice_add_up():
    edges = Edges(torch.tensor([[1, 1]], dtype=torch.int32), 2, 1, True, 1, True)
    assert to_dense_weight(torch.tensor([[2.0, 3.0]]), edges).tolist() == [[0.0, 5.0]]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16])
def test_indices_of_another_dtype(dtype):
    layer = ExpanderConv2d(8, 8, 3, degree=2, seed=0)
    expected = layer.dense_weight()
    layer.neighbours = layer.neighbours.to(dtype)
    assert torch.equal(layer.dense_weight(), expected)


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (9, 2, 3, 3), (4, 2, 3, 3), (8, 1, 3, 3)])
def test_a_weight_that_does_not_fit_the_graph_is_refused(shape, calls):
    layer = ExpanderConv2d(8, 8, 3, degree=2, seed=0)
    layer.weight = torch.nn.Parameter(torch.randn(shape))
    with pytest.raises((IndexError, RuntimeError)):
        layer.dense_weight()
    assert not calls


@pytest.mark.parametrize("rows", [7, 4, 9])
@pytest.mark.parametrize("kernel", ["dense", "direct"])
def test_a_graph_that_does_not_fit_the_weight_is_refused(kernel, rows):
    layer = ExpanderConv2d(8, 8, 3, padding=1, degree=2, seed=0, kernel=kernel)
    layer.neighbours = layer.neighbours.repeat(2, 1)[:rows]
    with pytest.raises((IndexError, RuntimeError)):
        layer(torch.randn(1, 8, 5, 5))


def test_a_graph_made_or_written_meanwhile(calls):
    layer, x = ExpanderConv2d(8, 8, 3, degree=2, seed=0, kernel="dense"), torch.randn(1, 8, 5, 5)
    expected = torch.autograd.grad(layer(x).sum(), layer.weight)[0]
    y = layer(x)
    layer.neighbours.copy_(layer.neighbours.flip(0))  # as load_state_dict does before a backward pass
    assert torch.equal(torch.autograd.grad(y.sum(), layer.weight)[0], expected)
    layer.neighbours.copy_(layer.neighbours.flip(0))
    assert calls == ["scatter", "gather", "scatter", "gather"]
    with torch.inference_mode():
        layer.neighbours = layer.neighbours.clone()
    assert torch.equal(torch.autograd.grad(layer(x).sum(), layer.weight)[0], expected)
    assert len(calls) == 4, "no tensor of inference_mode is kept for a gradient"


def test_memory_that_does_not_hold_the_numbers(calls):
    weight, edges, gradient = drawn(9, 4, 1, 3, (3, 3), 5)
    expected = by_hand(-weight, edges)
    assert same_bits(to_dense_weight(torch._neg_view(weight), edges), expected)
    assert not calls
    whole = to_dense_weight(weight.requires_grad_(), edges)
    (found,) = torch.autograd.grad(whole, weight, torch._neg_view(gradient), retain_graph=True)
    assert torch.equal(found, gathered_by_hand(-gradient, edges))
    (found,) = torch.autograd.grad(whole, weight, torch._efficientzerotensor(gradient.shape))
    assert torch.equal(found, torch.zeros(weight.shape))


@pytest.mark.parametrize("small", [0, 10**9])
@pytest.mark.parametrize("kernel", ["dense", "direct"])
@pytest.mark.parametrize("wrong", [-1, 8, 10**9])
def test_an_input_that_is_not_there_is_refused(wrong, kernel, small, monkeypatch):
    monkeypatch.setattr(dense, "FEWEST_SCATTERED", small)
    layer = ExpanderConv2d(8, 8, 3, padding=1, degree=2, seed=0, kernel=kernel)
    layer.neighbours[3, 1] = wrong
    with pytest.raises(IndexError, match=f"names inputs .*{wrong}.*0 to 7"):
        layer(torch.randn(1, 8, 5, 5))


def test_an_input_written_past_torchs_counters_touches_no_memory_beside():
    weight, edges, gradient = drawn(9, 4, 1, 3, (), 6)
    edges.index[:, 0] = 10**6
    with guarded(torch.empty_like(gradient), True) as whole:
        scattered._run(scattered.scatter, weight, edges.index, whole)
        assert same_bits(whole.clone(), by_hand(weight[:, 1:], edges._replace(index=edges.index[:, 1:])))


def test_the_gradient_of_such_an_input_is_zero():
    weight, edges, gradient = drawn(9, 4, 1, 3, (3, 3), 6)
    weight.requires_grad_()
    expected = torch.autograd.grad(to_dense_weight(weight, edges), weight, gradient)[0]
    edges.index.data[3, 1] = 10**6
    whole = to_dense_weight(weight, edges)
    torch.full(weight.shape, float("nan"))  # what the next tensor of this size would hold, were it left as it is
    (found,) = torch.autograd.grad(whole, weight, gradient)
    expected[3, 1] = 0
    assert same_bits(found, expected)


def test_the_function_is_torchs():
    weight, edges, _ = drawn(9, 4, 1, 3, (3, 3), 4)
    weight = weight.nan_to_num(0.5).double()
    assert torch.autograd.gradcheck(
        lambda w: Scatter.apply(w.float(), edges.index, 9).double(), weight.requires_grad_(), eps=1e-2, atol=1e-3
    )
