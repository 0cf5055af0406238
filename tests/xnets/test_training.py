"""Schedules as logged, fingerprints, and a training loop that ends the same however often it is interrupted."""

import csv
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.xnets.direct_cases import needs_llvmlite
from xnets import kernels
from xnets.data.batches import Batches
from xnets.errors import Stopped, XNetsError
from xnets.files import write_atomically, write_json
from xnets.layers import NormReLU, norm_relu
from xnets.models import ModelSpec
from xnets.training import Protocol, Run
from xnets.training.checkpoint import checkpoint_position
from xnets.training.loop import CHECKPOINT, MODEL, Diverged, build_run, evaluate_run, train

CPU = torch.device("cpu")
SHORT = Protocol(
    epochs=3,
    batch_size=200,
    max_lr=0.05,
    schedule="cifar",
    augmentation="crop-1",
    weight_decay=1e-4,
    nominal_epochs=300,
)


@pytest.fixture
def run(digits):
    return Run(ModelSpec("X-MobileNet-0.5-2", 10, narrow=4, drop_strides=3), "digits", digits.digest, SHORT, 1, 2)


def logged_schedules(repository):
    with open(repository / "experiments" / "paper" / "author_logs.csv", newline="") as file:
        return [row for row in csv.DictReader(file) if row["lr_segments"]]


def test_schedules_are_those_of_every_log(repository):
    """The printed learning rates of all 48 logs, from their first epoch to their last."""
    from experiments.scales import read_protocols

    protocols = {name: Protocol(**said) for name, said in read_protocols().items()}
    checked = 0
    for log in logged_schedules(repository):
        if "MobileNet" in log["family"]:
            protocol = protocols["imagenet-mobilenet"]
        elif "VGG" in log["family"]:
            protocol = protocols["cifar-vgg"]
        else:
            protocol = protocols["imagenet-resnet" if log["dataset"].startswith("imagenet") else "cifar-densenet"]
        assert protocol.epochs == int(log["epochs_planned"])
        assert protocol.batch_size == int(log["batch_size"])
        assert protocol.weight_decay == float(log["weight_decay"])
        assert protocol.nesterov == (log["nesterov"] == "True")
        segments = [(int(s.split(":")[0]), float(s.split(":")[1])) for s in log["lr_segments"].split()]
        for (start, rate), (stop, _) in zip(segments, [*segments[1:], (int(log["last_epoch"]) + 1, 0)], strict=True):
            for epoch in range(start, stop):
                assert math.isclose(protocol.learning_rate(epoch), rate, rel_tol=1e-4), (log["log"], epoch)
                checked += 1
    assert checked > 11_000


@given(st.sampled_from(["cifar", "imagenet", "decay"]), st.integers(1, 40))
def test_fewer_epochs_keep_the_schedules_shape(schedule, epochs):
    """Epoch e of a short run has the rate of nominal epoch e * nominal / epochs."""
    full = replace(SHORT, schedule=schedule, epochs=300, min_lr=1e-6)
    short = replace(full, epochs=epochs)
    for epoch in range(epochs):
        assert short.learning_rate(epoch) == full.learning_rate(epoch * 300 // epochs)


@pytest.mark.parametrize("epochs", [1, 2, 5, 30, 31])
def test_the_linear_schedule_rises_falls_and_ends_above_zero(epochs):
    protocol = replace(SHORT, schedule="linear", epochs=epochs, max_lr=0.2, min_lr=0.0)
    rates = [protocol.learning_rate(epoch) for epoch in range(epochs)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.2)
    assert min(rates) > 0
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    if epochs == 30:
        assert rates[:6] == pytest.approx([0.04, 0.08, 0.12, 0.16, 0.2, 0.2])
        assert rates[-1] == pytest.approx(0.2 / 25)


@pytest.mark.parametrize("change", [{"schedule": "cosine"}, {"precision": "fp8"}, {"epochs": 0}, {"batch_size": 0}])
def test_wrong_protocols_are_refused(change):
    with pytest.raises(XNetsError):
        replace(SHORT, **change)


def test_fingerprint_changes_with_everything_that_changes_the_result(run):
    others = [
        replace(run, graph_seed=9),
        replace(run, train_seed=9),
        replace(run, data_digest="other"),
        replace(run, dataset="cifar10"),
        replace(run, protocol=replace(SHORT, epochs=4)),
        replace(run, protocol=replace(SHORT, precision="bf16")),
        replace(run, model=replace(run.model, init="authors")),
        replace(run, model=replace(run.model, graph="matchings")),
        replace(run, model=replace(run.model, narrow=2)),
        replace(run, model=ModelSpec("X-MobileNet-0.5-2", 10, "authors", narrow=4, drop_strides=3)),
    ]
    fingerprints = {other.fingerprint for other in [run, *others]}
    assert len(fingerprints) == len(others) + 1
    assert Run.from_dict(run.to_dict()) == run
    assert Run.from_dict(run.to_dict()).fingerprint == run.fingerprint


def test_fingerprint_is_stable(run):
    """If this changes, everybody's store is orphaned: raise ENGINE on purpose, never by accident."""
    fixed = replace(run, data_digest="0" * 64)
    assert fixed.fingerprint == "601e867c276b88edb553a8eb671df30713a15b90dc4b1587cab372ba848cc52b"


def test_a_run_of_another_engine_is_refused(run):
    with pytest.raises(XNetsError, match="engine 99"):
        Run.from_dict({**run.to_dict(), "engine": 99})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epochs": 2.5}, "epochs must be a whole number >= 1, not 2.5"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1"),
        ({"decay_interval": 0}, "decay_interval must be a whole number >= 1"),
        ({"max_lr": -1}, "max_lr must be a number >= 0, not -1"),
        ({"max_lr": "0,1"}, "max_lr must be a number >= 0, not '0,1'"),
        ({"weight_decay": float("nan")}, "weight_decay must be a number >= 0, not nan"),
        ({"nesterov": "no"}, "nesterov must be true or false"),
    ],
)
def test_protocols_that_cannot_be(change, says):
    with pytest.raises(XNetsError, match=says):
        replace(SHORT, **change)


@pytest.mark.parametrize("seeds", [(-1, 0), (0, -1), (0.5, 0), (True, 0)])
def test_wrong_seeds_are_refused(run, seeds):
    with pytest.raises(XNetsError, match="seed"):
        replace(run, graph_seed=seeds[0], train_seed=seeds[1])


def test_training_learns_and_leaves_the_model(run, digits, tmp_path):
    run = replace(run, protocol=replace(SHORT, epochs=10, batch_size=64))  # with 6, one seed in six would fall short
    told = []
    result = train(run, digits, tmp_path, CPU, on_epoch=told.append)
    assert told == result["epochs"]
    assert [record["epoch"] for record in told] == list(range(10))
    assert told[-1]["train_loss"] < 0.7 * told[0]["train_loss"]
    assert not (tmp_path / CHECKPOINT).exists()
    seen = evaluate_run(run, digits, tmp_path, CPU)
    assert seen["weights_sha256"] == result["weights_sha256"]
    assert seen["top1"] == told[-1]["test_top1"]
    assert seen["loss"] == told[-1]["test_loss"]
    assert seen["top5"] >= seen["top1"]


def test_evaluation_counts_right_answers(run, digits, tmp_path):
    """Against one forward pass over the whole test set."""
    train(run, digits, tmp_path, CPU)
    model = build_run(run, CPU)
    model.load_state_dict(torch.load(tmp_path / MODEL, weights_only=True)["model"])
    split = digits.split("test")
    mean, sd = (torch.tensor(digits.manifest[key]).view(1, 3, 1, 1) for key in ("mean", "sd"))
    x = (torch.from_numpy(split.images / 255).float().permute(0, 3, 1, 2) - mean) / sd
    with torch.no_grad():
        logits = model.eval()(x)
    labels = torch.from_numpy(split.labels)
    seen = evaluate_run(run, digits, tmp_path, CPU)
    assert seen["top1"] == pytest.approx(100 * (logits.argmax(1) == labels).float().mean().item())
    assert seen["loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("network", ["X-MobileNet-0.5-2", "AlexNet"])  # AlexNet has dropout
@pytest.mark.parametrize("step", [1, 6, 7, 8, 20])
def test_a_run_killed_at_any_step_ends_bit_identical(digits, tmp_path, monkeypatch, network, step):
    """7 steps an epoch: the kill falls inside the first epoch, at its end, at a start, and in the last."""
    spec = ModelSpec(network, 10, narrow=16 if network == "AlexNet" else 4, drop_strides=3)
    run = Run(spec, "digits", digits.digest, SHORT, 1, 2)
    undisturbed = train(run, digits, tmp_path / "a", CPU)
    real, count = torch.optim.SGD.step, 0

    def killing(self, *args):
        nonlocal count
        count += 1
        if count == step + 1:
            raise Killed
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", killing)
        with pytest.raises(Killed):
            train(run, digits, tmp_path / "b", CPU, checkpoint_seconds=-1)
    assert (tmp_path / "b" / CHECKPOINT).exists()
    torch.manual_seed(99)  # whatever the new process' generator holds must not matter
    told = []
    resumed = train(run, digits, tmp_path / "b", CPU, checkpoint_seconds=-1, on_epoch=told.append)
    assert resumed == undisturbed
    assert told == undisturbed["epochs"]


@pytest.mark.parametrize("steps", [1, 7, 10, 21])
def test_a_run_that_is_asked_to_stop_leaves_its_checkpoint(run, digits, tmp_path, steps):
    """Asked after every step and between two epochs, it loses nothing, and says yes every `steps` times."""
    undisturbed = train(run, digits, tmp_path / "a", CPU)
    asked, stops = 0, 0

    def stop():
        nonlocal asked
        asked += 1
        return asked % steps == 0

    while True:
        try:
            resumed = train(run, digits, tmp_path / "b", CPU, checkpoint_seconds=1e6, stop=stop)
            break
        except Stopped:
            assert (tmp_path / "b" / CHECKPOINT).exists()
            stops += 1
    assert stops == 23 // steps, "21 steps, 3 epochs"
    assert resumed == undisturbed


def test_a_run_that_is_asked_to_stop_while_it_is_evaluated_evaluates_again(run, digits, tmp_path, monkeypatch):
    undisturbed = train(run, digits, tmp_path / "a", CPU)
    monkeypatch.setattr(Batches.test, "__defaults__", (100,))
    assert len(list(Batches(digits, 200, "none", CPU).test())) == 5
    for yes in (8, 4):  # 7 steps, and in the first gap; then, begun again with the evaluation, in the last one
        asked = iter(range(1, yes + 1))
        with pytest.raises(Stopped):
            train(run, digits, tmp_path / "b", CPU, 1e6, stop=lambda asked=asked, yes=yes: next(asked) == yes)
        assert checkpoint_position(tmp_path / "b" / CHECKPOINT) == (0, 7)
    resumed = train(run, digits, tmp_path / "b", CPU)
    for mine, right in zip(resumed["epochs"], undisturbed["epochs"], strict=True):
        assert mine.pop("test_loss") == pytest.approx(right.pop("test_loss"), rel=1e-6)  # summed in other batches
    assert resumed == undisturbed


def test_train_seed_and_graph_seed_are_separate(run):
    model = build_run(run, CPU)
    other_graph = build_run(replace(run, graph_seed=5), CPU)
    other_weights = build_run(replace(run, train_seed=5), CPU)
    names = [name for name, _ in model.named_buffers() if name.endswith("neighbours")]
    same = lambda a, b, name: torch.equal(a.get_buffer(name), b.get_buffer(name))  # noqa: E731
    assert all(same(model, other_weights, name) for name in names)
    assert not all(same(model, other_graph, name) for name in names)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other_graph.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(model.parameters(), other_weights.parameters(), strict=True))


def test_a_diverging_run_stops_with_a_verdict(run, digits, tmp_path):
    wild = replace(run, protocol=replace(SHORT, max_lr=1e20))
    with pytest.raises(Diverged, match=r"no longer a number in epoch \d .*max_lr"):
        train(wild, digits, tmp_path, CPU)
    assert not (tmp_path / MODEL).exists()


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty"])
def test_a_damaged_checkpoint_is_refused_and_kept(run, digits, tmp_path, damage):
    def stop(record):
        if record["epoch"] == 1:
            raise Killed

    with pytest.raises(Killed):
        train(run, digits, tmp_path, CPU, checkpoint_seconds=-1, on_epoch=stop)
    path = tmp_path / CHECKPOINT
    content = path.read_bytes()
    damaged = {"truncated": content[: len(content) // 2], "changed": b"no zip" + content[6:], "empty": b""}[damage]
    path.write_bytes(damaged)
    with pytest.raises(XNetsError, match=r"checkpoint\.pt is damaged") as error:
        train(run, digits, tmp_path, CPU)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == damaged


def test_another_runs_checkpoint_is_refused(run, digits, tmp_path):
    torch.save({"fingerprint": "someone else's"}, tmp_path / CHECKPOINT)
    with pytest.raises(XNetsError, match="another run"):
        train(run, digits, tmp_path, CPU)


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"old": 1})

    def full(file):
        file.write(b"half of the new")
        raise OSError(28, "No space left on device")

    with pytest.raises(XNetsError, match="No space left"):
        write_atomically(path, full)
    assert path.read_text() == '{\n "old": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]


def test_bf16_trains_close_to_fp32_and_fp16_needs_a_gpu(run, digits, tmp_path):
    exact = train(run, digits, tmp_path / "a", CPU)
    rough = train(replace(run, protocol=replace(SHORT, precision="bf16")), digits, tmp_path / "b", CPU)
    assert rough["weights_sha256"] != exact["weights_sha256"]
    assert rough["epochs"][0]["train_loss"] == pytest.approx(exact["epochs"][0]["train_loss"], rel=0.1)
    with pytest.raises(XNetsError, match="fp16 needs a GPU"):
        train(replace(run, protocol=replace(SHORT, precision="fp16")), digits, tmp_path / "c", CPU)


def test_first_step_is_sgd_with_nesterov(digits, tmp_path):
    """One step by hand, from the same start: w - lr (g + momentum g), g with weight decay."""
    protocol = replace(SHORT, epochs=1, batch_size=1297, augmentation="none", weight_decay=0.01)
    run = Run(ModelSpec("X-VGG16-2", 10, narrow=16, drop_strides=2), "digits", digits.digest, protocol, 0, 0)
    model = build_run(run, CPU)
    x, y = next(Batches(digits, 1297, "none", CPU).train(0, 0))
    nn.functional.cross_entropy(model(x), y).backward()
    train(run, digits, tmp_path, CPU)
    after = torch.load(tmp_path / MODEL, weights_only=True)["model"]
    for name, w in model.named_parameters():
        g = w.grad + 0.01 * w.detach()
        assert torch.allclose(after[name], w.detach() - 0.05 * (g + 0.9 * g), atol=1e-6), name


@needs_llvmlite
def test_x_densenets_train_contiguous_where_the_direct_kernels_are(digits, tmp_path, monkeypatch):
    """With norms and ReLUs in one pass; what is kept of the run is what other kernels keep."""
    monkeypatch.setattr(norm_relu, "FEWEST_NUMBERS", 0)
    seen, why_not = [], NormReLU.why_not
    monkeypatch.setattr(NormReLU, "why_not", lambda self, x: seen.append(why_not(self, x)) or seen[-1])
    slow = replace(SHORT, epochs=2, max_lr=0.005)  # faster, the rounding of other layouts grows to half a percent
    run = Run(ModelSpec("X-DenseNet-BC-2-40-24", 10, narrow=6), "digits", digits.digest, slow, 1, 2)
    found = {}
    for kernel in ("dense", "direct"):
        with kernels(kernel):
            found[kernel] = train(run, digits, tmp_path / kernel, CPU)
        assert bool(seen) == (kernel == "direct")
    assert set(seen) == {""}, "ours computed every batch"
    states = [torch.load(tmp_path / kernel / MODEL, weights_only=True)["model"] for kernel in found]
    assert states[0].keys() == states[1].keys()
    for a, b in zip(*(result["epochs"] for result in found.values()), strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-3)
    with kernels("direct"):
        asked = iter([False] * 9 + [True])
        with pytest.raises(Stopped):
            train(run, digits, tmp_path / "parts", CPU, stop=lambda: next(asked))
        assert train(run, digits, tmp_path / "parts", CPU) == found["direct"]


def test_a_compiled_run_is_the_same_run_and_ends_the_same_however_it_is_interrupted(digits, tmp_path):
    """7 steps an epoch, the last of them smaller and so not compiled. Without dropout, whose draws would differ."""
    run = Run(ModelSpec("X-VGG16-2", 10, narrow=16, drop_strides=2), "digits", digits.digest, SHORT, 1, 2)
    usual = train(run, digits, tmp_path / "usual", CPU)
    whole = train(run, digits, tmp_path / "whole", CPU, compiled=True)
    losses = [[record["train_loss"] for record in result["epochs"]] for result in (usual, whole)]
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-3)
    asked = iter([False] * 3 + [True] + [False] * 5 + [True])
    for _ in range(2):
        with pytest.raises(Stopped):
            train(run, digits, tmp_path / "parts", CPU, stop=lambda: next(asked), compiled=True)
    assert train(run, digits, tmp_path / "parts", CPU, compiled=True) == whole


def test_without_a_compiler_it_is_one_sentence(run, digits, tmp_path):
    """By torch's own patch: what pytest's monkeypatch puts back there is gone for the tests after it."""
    torch.compiler.reset()
    said = r"cannot be compiled here .*: train it without local\.compile"
    without = torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler"), "fx_graph_cache": False})
    with without, pytest.raises(XNetsError, match=said) as error:
        train(run, digits, tmp_path, CPU, compiled=True)
    assert "\n" not in str(error.value)
