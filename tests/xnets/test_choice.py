"""The choice of a kernel: what "auto" means, that it is measured once, kept, and never in the way."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import xnets
from xnets import ExpanderConv2d, ExpanderLinear, XNetsError
from xnets.cache import cache_folder
from xnets.cli import main
from xnets.explain import explain
from xnets.layers import KERNELS, choice, kernels
from xnets.layers.choice import Choice, choose
from xnets.layers.dense import DenseKernel
from xnets.layers.direct import missing
from xnets.layers.timings import Timings


class Slowed(DenseKernel):
    """Computes everything many times over."""

    def __init__(self, times):
        self.times = times

    def conv2d(self, *args):
        return [super(Slowed, self).conv2d(*args) for _ in range(self.times)][-1]

    def linear(self, *args):
        return [super(Slowed, self).linear(*args) for _ in range(self.times)][-1]


@pytest.fixture(autouse=True)
def auto():
    """As users have it; what this process knew before is forgotten."""
    forget()
    with kernels("auto"):
        yield
    forget()


def forget():
    choice._known.clear()
    Timings.of_this_machine.cache_clear()


def two_kernels(monkeypatch, dense, other):
    """Kernels "dense" and "other", that take so many times as long."""
    monkeypatch.setattr(choice, "KERNELS", {"dense": Slowed(dense), "other": Slowed(other)})


def layer_and_image(batch=8):
    layer = ExpanderConv2d(32, 32, 3, padding=1, compression=2, seed=0)
    return layer, torch.randn(batch, 32, 12, 12)


def chosen(layer, x):
    return choose(layer.kernel, layer.call(x))


@pytest.mark.parametrize(("dense", "other", "wins"), [(1, 6, "dense"), (6, 1, "other")])
def test_auto_is_the_fastest(monkeypatch, dense, other, wins):
    two_kernels(monkeypatch, dense, other)
    layer, x = layer_and_image()
    found = chosen(layer, x)
    assert (found.kernel, found.why) == (wins, "the fastest")
    assert set(found.milliseconds) == {"dense", "other"}
    assert min(found.milliseconds.values()) > 0


def test_a_case_is_measured_once_on_a_machine(monkeypatch):
    two_kernels(monkeypatch, 1, 6)
    layer, x = layer_and_image()
    measured = chosen(layer, x)
    forget()  # as another process
    monkeypatch.setattr(choice, "measure", lambda *args: pytest.fail("measured again"))
    assert chosen(layer, x).milliseconds == pytest.approx(measured.milliseconds, abs=1e-5)


def test_what_changes_the_time_is_another_case():
    layer, x = layer_and_image()
    line = ExpanderLinear(32, 32, compression=2, seed=0)
    calls = [
        layer.call(x), layer.call(x[:4]), layer.call(x[..., :6]), layer.call(x.clone().requires_grad_()),
        layer.call(x.to(memory_format=torch.channels_last)), copy.deepcopy(layer).double().call(x.double()),
        copy.deepcopy(layer).bfloat16().call(x), line.call(x[:, :, 0, 0]),
        ExpanderConv2d(32, 32, 3, padding=1, compression=4, seed=0).call(x),
        ExpanderConv2d(32, 32, 3, padding=1, stride=2, compression=2, seed=0).call(x),
        ExpanderConv2d(32, 32, 3, padding=1, compression=2, block=2, seed=0).call(x),
    ]  # fmt: skip
    cases = [choice.case(call) for call in calls]
    with torch.no_grad():
        cases.append(choice.case(calls[0]))
    with torch.autocast("cpu", torch.bfloat16):
        cases.append(choice.case(calls[0]))
    torch.set_num_threads(2)
    try:
        cases.append(choice.case(calls[0]))
    finally:
        torch.set_num_threads(1)
    assert len(set(cases)) == len(cases)
    assert choice.case(layer_and_image()[0].call(x)) == cases[0]  # another graph and other weights are not


@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.parametrize(
    "change", [lambda index: index[:, :8], lambda index: index[:16], lambda index: index.repeat(1, 2)]
)
def test_a_graph_that_no_longer_fits_is_refused_in_a_case_that_is_known(monkeypatch, change):
    monkeypatch.setattr(choice, "measure", lambda call, names: {name: float(name != "direct") for name in names})
    layer, x = layer_and_image()
    assert chosen(layer, x).kernel == "direct"
    layer.neighbours = change(layer.neighbours).contiguous()
    assert chosen(layer, x).kernel == "dense"
    with pytest.raises((IndexError, RuntimeError)):  # torch says what does not fit
        layer(x)


def test_a_damaged_cache_is_measured_anew_and_kept(monkeypatch):
    two_kernels(monkeypatch, 1, 6)
    layer, x = layer_and_image()
    chosen(layer, x)
    path = Timings.of_this_machine().path
    lines = path.read_text().splitlines()
    assert "machine" in json.loads(lines[0])
    path.write_text("\n".join([lines[0][:9], '{"case": 3}', "[]", lines[1][:-20]]) + "\n")
    forget()
    assert chosen(layer, x).kernel == "dense"
    forget()
    monkeypatch.setattr(choice, "measure", lambda *args: pytest.fail("measured again"))
    assert chosen(layer, x).kernel == "dense"


@pytest.mark.parametrize("line", ['{"case": "a", "milliseconds": {"dense": ' + "9" * 400 + "}}", "[" * 100_000])
def test_lines_that_break_json_are_passed_over(monkeypatch, line):
    two_kernels(monkeypatch, 6, 1)
    path = Timings.of_this_machine().path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line + "\n")
    assert chosen(*layer_and_image()).kernel == "other"


@pytest.mark.parametrize("times", [{"dense": -5.0, "other": 1.0}, {"dense": float("nan"), "other": 1.0}, {"dense": 0}])
def test_times_that_cannot_be_are_measured_anew(monkeypatch, times):
    two_kernels(monkeypatch, 6, 1)
    layer, x = layer_and_image()
    path = Timings.of_this_machine().path
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {"case": choice.case(layer.call(x)), "milliseconds": times}
    path.write_bytes(b"\xff\xfe not text\n" + json.dumps(said).encode() + b"\n")
    assert chosen(layer, x).kernel == "other"


def test_a_user_without_a_home_has_a_cache(monkeypatch):
    for name in ("XNETS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", homeless)
    assert cache_folder().name == "xnets"


def test_a_cache_in_the_home_of_nobody(monkeypatch):
    monkeypatch.setenv("XNETS_CACHE", "~nosuchuser/x")
    assert cache_folder().name == "xnets"


def test_measuring_is_not_seen_by_checkpoints_and_counters(monkeypatch):
    two_kernels(monkeypatch, 1, 3)
    layer, x = layer_and_image()
    with FlopCounterMode(display=False) as first:
        layer(x)
    with FlopCounterMode(display=False) as second:
        layer(x)
    assert first.get_total_flops() == second.get_total_flops() > 0
    forget()
    Timings.of_this_machine().path.unlink()
    x.requires_grad_()
    checkpoint(layer, x, use_reentrant=False).sum().backward()
    expected = torch.autograd.grad(layer.to_dense()(x).sum(), x)[0]
    torch.testing.assert_close(x.grad, expected, rtol=1e-4, atol=1e-4)


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XNETS_CACHE", str(tmp_path / "file" / "below"))
    two_kernels(monkeypatch, 6, 1)
    layer, x = layer_and_image()
    assert chosen(layer, x).kernel == "other"
    monkeypatch.setattr(choice, "measure", lambda *args: pytest.fail("measured again"))
    assert chosen(layer, x).kernel == "other"


def test_the_cache_is_where_the_system_keeps_such_things(monkeypatch, tmp_path):
    monkeypatch.delenv("XNETS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "xnets"


def test_measuring_leaves_gradients_and_random_numbers_alone(monkeypatch):
    layer, x = layer_and_image()
    x.requires_grad_()
    expected = torch.autograd.grad(layer.to_dense()(x).square().sum(), x)[0]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    y = layer(x)
    assert layer.weight.grad is None
    assert x.grad is None
    assert torch.equal(torch.get_rng_state(), before)
    y.square().sum().backward()
    torch.testing.assert_close(x.grad, expected, rtol=1e-4, atol=1e-4)


def test_small_layers_are_not_measured(monkeypatch):
    monkeypatch.setattr(choice, "measure", lambda *args: pytest.fail("measured"))
    layer = ExpanderLinear(8, 8, degree=2, seed=0)
    assert chosen(layer, torch.randn(3, 8)).kernel == "dense"


def test_kernels_says_what_auto_means_and_a_layer_that_names_one_keeps_it(monkeypatch):
    layer, x = layer_and_image()
    named = ExpanderConv2d(32, 32, 3, padding=1, compression=2, seed=0, kernel="algorithm1")
    with kernels("dense"):
        assert chosen(layer, x) == Choice("dense", "named", {}, {})
        assert chosen(named, x).kernel == "algorithm1"
        xnets.kernels("algorithm1")
        assert chosen(layer, x).kernel == "algorithm1"
    assert choice.kernel_in_force() == "auto"
    with pytest.raises(ValueError, match="mine"), kernels("dense"):
        raise ValueError("mine")
    assert choice.kernel_in_force() == "auto"


@pytest.mark.parametrize("say", [kernels, lambda name: ExpanderLinear(4, 4, degree=2, kernel=name)])
def test_an_unknown_kernel_is_named_with_those_there_are(say):
    with pytest.raises(XNetsError, match=r"Unknown kernel 'fast'.*dense, algorithm1, direct, triton"):
        say("fast")
    assert choice.kernel_in_force() == "auto"


@pytest.mark.skipif(missing() != "", reason="no llvmlite")
def test_compiled_networks_take_the_likely_fastest(monkeypatch):
    monkeypatch.setattr(choice, "measure", lambda *args: pytest.fail("measured"))
    layer, x = layer_and_image()
    calls = []
    monkeypatch.setattr(KERNELS["direct"], "conv2d", lambda *a: calls.append(1) or KERNELS["dense"].conv2d(*a))
    y = torch.compile(layer, backend="eager")(x)
    torch.testing.assert_close(y, layer.to_dense()(x))
    assert calls


def test_exported_and_batched_layers_are_dense(monkeypatch):
    monkeypatch.setattr(choice, "measure", lambda *args: pytest.fail("measured"))
    layer, x = layer_and_image()
    program = torch.export.export(layer, (x,))
    assert not any("xnets" in str(node.target) for node in program.graph.nodes if node.op == "call_function")
    torch.testing.assert_close(program.module()(x), layer.to_dense()(x))
    torch.testing.assert_close(torch.vmap(layer)(x.unsqueeze(1)).squeeze(1), layer.to_dense()(x), rtol=1e-4, atol=1e-5)


def test_explain_lists_every_sparse_layer_with_its_kernel_and_changes_nothing():
    model = xnets.models.build("X-DenseNet-BC-2-40-24", narrow=4)
    state = {name: t.clone() for name, t in model.state_dict().items()}
    found = explain(model, torch.randn(2, 3, 32, 32))
    sparse = [name for name, m in model.named_modules() if isinstance(m, ExpanderConv2d | ExpanderLinear)]
    assert [e.name for e in found] == sparse
    assert all(e.choice.kernel in KERNELS and e.choice.why for e in found)
    assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())


def test_explain_on_the_command_line(capsys):
    assert main(["explain", "X-VGG16-2", "--batch", "1", "--inference"]) == 0
    said = capsys.readouterr().out
    rows = [line for line in said.splitlines() if line.startswith(("features", "classifier"))]
    assert len(rows) == 11
    assert all(row.split()[4] in KERNELS for row in rows)
    assert ("no GPU here" in said) == (not torch.cuda.is_available())
    assert main(["explain", "VGG16", "--batch", "1"]) == 0
    assert "no sparse layer" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [
        ["X-VGG17"], ["X-VGG16-1", "--batch", "0"], ["X-VGG16-1", "--image-size", "4"],
        ["X-VGG16-1", "--threads", "99999"],
    ],
)  # fmt: skip
def test_explain_refuses_in_a_sentence(wrong, capsys):
    assert main(["explain", *wrong]) == 2
    said = capsys.readouterr().err
    assert said.startswith("xnets: ")
    assert "Traceback" not in said


@pytest.mark.skipif(missing() != "", reason="no llvmlite")
def test_an_epoch_trained_by_the_direct_and_by_the_dense_kernel_agrees(digits):
    """Without batch norms, whose constant channels in the digits would blow rounding up."""
    split = digits.split("train")
    x = torch.from_numpy(split.images[:1024].copy()).permute(0, 3, 1, 2).float() / 255
    y = torch.from_numpy(split.labels[:1024].copy()).long()
    losses = {}
    for kernel in ("dense", "direct"):
        torch.manual_seed(0)
        how = {"compression": 4, "seed": 1, "init": "sparse-aware", "kernel": kernel}
        model = nn.Sequential(
            nn.Conv2d(x.shape[1], 32, 3, padding=1), nn.ReLU(), ExpanderConv2d(32, 64, 3, padding=1, **how), nn.ReLU(),
            nn.MaxPool2d(2), ExpanderConv2d(64, 64, 1, **how), nn.ReLU(), nn.Flatten(),
            ExpanderLinear(64 * 16, 64, **how), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        losses[kernel] = []
        for first in range(0, len(x), 32):
            loss = F.cross_entropy(model(x[first : first + 32]), y[first : first + 32])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[kernel].append(float(loss.detach()))
    assert losses["direct"][0] == pytest.approx(losses["dense"][0], rel=1e-5)
    assert losses["direct"] == pytest.approx(losses["dense"], rel=1e-3)
    assert losses["dense"][-1] < losses["dense"][0] - 0.1  # something was learnt
    assert losses["direct"] != losses["dense"]  # else one kernel computed both
