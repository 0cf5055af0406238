"""Several processes train as one does: the same batches, losses and weights, the same checkpoints, the same end."""

import copy
import multiprocessing
import os
import shutil
import socket
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from experiments.execute import execute
from experiments.store import Store
from tests.double_precision import double_precision
from xnets.data import pack, prepare
from xnets.data.batches import Batches
from xnets.group import ALONE, Group, joined
from xnets.layers import kernels
from xnets.models import ModelSpec
from xnets.training import Protocol, Run
from xnets.training import loop as loop_module
from xnets.training.distributed import GlobalBatchNorm, wrap
from xnets.training.loop import CHECKPOINT, MODEL, Diverged, Stopped, evaluate_run, train

CPU = torch.device("cpu")
PATIENCE = 150  # seconds until a test calls it a hang: machines may be busy
# 3 steps an epoch, of 87 images (43 and 44 to each of two) and a last one of 86
SHORT = Protocol(2, 87, 0.05, "cifar", "crop-1", weight_decay=1e-4, nominal_epochs=300)
NETWORKS = {
    "X-MobileNet-0.5-2": {"narrow": 4, "drop_strides": 3},
    "X-AlexNet-1": {"narrow": 16, "drop_strides": 2},  # batch norms of one dimension
    "AlexNet": {"narrow": 16, "drop_strides": 3},  # dropout
}
DIED = "died"


@pytest.fixture(scope="module")
def few(digits, tmp_path_factory):
    """The first 260 training and 101 test images of the digits."""
    splits = {"train": (digits.split("train"), 260), "test": (digits.split("test"), 101)}
    images = {name: zip(split.images[:n], split.labels[:n], strict=True) for name, (split, n) in splits.items()}
    return pack(tmp_path_factory.mktemp("few") / "digits", "digits", images, digits.manifest["classes"])


def make_run(data, network="X-MobileNet-0.5-2", **changes):
    spec = ModelSpec(network, 10, **NETWORKS[network])
    return Run(spec, "digits", data.digest, replace(SHORT, **changes), 1, 2)


def together(size, work, *args):
    """work(group, *args) in `size` processes: what each returns, the exception it raises, or DIED, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    processes, ends = [], []
    for rank in range(size):
        here, there = context.Pipe(duplex=False)
        said = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size}
        processes.append(context.Process(target=one_rank, args=(there, said, work, args), daemon=True))
        processes[-1].start()
        there.close()
        ends.append(here)
    try:
        return [answer_of(end) for end in ends]
    finally:
        for process in processes:
            process.kill()
            process.join()


def answer_of(end):
    assert end.poll(PATIENCE), "a process hangs"
    try:
        return end.recv()
    except EOFError:
        return DIED


def one_rank(end, said, work, args):
    os.environ.update({name: str(value) for name, value in said.items()})
    torch.set_num_threads(1)
    kernels("dense")  # "auto" would measure in each process, and may choose otherwise in the next
    try:
        with joined(CPU, 2 * PATIENCE) as (group, _):
            answer = work(group, *args)
    except Exception as error:
        answer = error
    end.send(answer)


def losses(result):
    return np.array([[record["train_loss"], record["test_loss"]] for record in result["epochs"]])


def weights(folder):
    return torch.load(folder / MODEL, weights_only=True)["model"]


# --- shares of batches ---


def test_shares_are_contiguous_and_cover_a_batch():
    for n in range(20):
        for size in range(1, 8):
            shares = [Group(rank, size).share(n) for rank in range(size)]
            assert [i for share in shares for i in range(n)[share]] == list(range(n))
            lengths = [share.stop - share.start for share in shares]
            assert max(lengths) - min(lengths) <= 1


def empty_shares(data, batch_size, augmentation, size):
    """Check that the shares, one after the other, are the batches; how many shares are empty."""
    alone = Batches(data, batch_size, augmentation, CPU)
    ranks = [Batches(data, batch_size, augmentation, CPU, Group(rank, size)) for rank in range(size)]
    empty = 0
    for every in (lambda b: b.train(5, 1), lambda b: b.train(5, 1, first_step=2), lambda b: b.test(4)):
        for (x, y), *shares in zip(every(alone), *map(every, ranks), strict=True):
            assert torch.equal(torch.cat([part for part, _ in shares]), x)
            assert torch.equal(torch.cat([part for _, part in shares]), y)
            empty += sum(not len(part) for part, _ in shares)
    return empty


@pytest.mark.parametrize("size", [2, 3])
def test_shares_of_digits_are_the_batches(digits, size):
    assert empty_shares(digits, 185, "crop-4-flip", size) == (2 if size == 3 else 0), "the last batch has 2 images"


def test_shares_of_images_of_different_sizes_are_the_batches(tmp_path):
    rng = np.random.default_rng(0)
    for split, n in (("train", 11), ("test", 5)):
        for name in ("ant", "bee"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (256, 256 + 9 * i, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    data = prepare("mine", tmp_path / "packed", str(tmp_path / "images"))
    assert data.split("train").shapes is not None
    assert empty_shares(data, 5, "resized-crop-flip", 3) == 2 + 1, "the last of 22 images in fives, of 10 in fours"


# --- batch norm ---


def normalised_share(group, layer, x, dy, counts):
    """y, the gradients of x, weight and bias, and the running statistics, for this rank's part of x (N, C, *)."""
    layer = copy.deepcopy(layer)  # what reaches the processes shares its memory
    start = sum(counts[: group.rank])
    part = slice(start, start + counts[group.rank])
    model = wrap(nn.Sequential(layer), CPU, group)
    x = x[part].clone().requires_grad_()
    y = model(x)
    (y * dy[part]).sum().backward()
    layer = model.module[0]
    assert type(layer) is GlobalBatchNorm
    found = (y, x.grad, layer.weight.grad, layer.bias.grad, layer.running_mean, layer.running_var)
    expected = nn.functional.batch_norm(x, *found[4:], layer.weight, layer.bias, eps=layer.eps)
    assert torch.equal(model.module.eval()(x), expected)
    return [tensor.detach().numpy() for tensor in found] + [int(layer.num_batches_tracked)]


def normalised_shares(group, cases):
    return [normalised_share(group, *case) for case in cases]


def test_batch_norm_is_that_of_the_whole_batch():
    torch.manual_seed(0)
    cases = []
    for counts in ((5, 2), (3, 0), (0, 3), (1, 1)):
        for layer, shape in ((nn.BatchNorm2d(4, eps=1e-3, momentum=0.3), (4, 3, 5)), (nn.BatchNorm1d(6), (6,))):
            nn.init.uniform_(layer.weight)
            nn.init.uniform_(layer.bias)
            x = 3 * torch.randn(sum(counts), *shape) + 20  # far from zero, where a sum of squares would cancel
            cases.append((layer, x, torch.randn_like(x), counts))
    ranks = together(2, normalised_shares, cases)
    for (layer, x, dy, _), first, second in zip(cases, *ranks, strict=True):
        x.requires_grad_()
        y = layer(x)
        (y * dy).sum().backward()
        close = {"rtol": 1e-4, "atol": 1e-5}
        np.testing.assert_allclose(np.concatenate([first[0], second[0]]), y.detach(), **close)
        np.testing.assert_allclose(np.concatenate([first[1], second[1]]), x.grad, **close)
        for rank in (first, second):  # DistributedDataParallel averages
            np.testing.assert_allclose(2 * rank[2], layer.weight.grad, **close)
            np.testing.assert_allclose(2 * rank[3], layer.bias.grad, **close)
            np.testing.assert_allclose(rank[4], layer.running_mean, rtol=1e-5)
            np.testing.assert_allclose(rank[5], layer.running_var, rtol=1e-5)
            assert rank[6] == 1


# --- training ---


def trained(group, run, data, folder):
    with double_precision():
        return train(run, data, folder, CPU, group=group), evaluate_run(run, data, folder, CPU, group)


def assert_close(result, expected, folder, expected_folder):
    """Losses and weights agree; the test set's losses are computed in float32."""
    assert result["graphs_sha256"] == expected["graphs_sha256"]
    np.testing.assert_allclose(losses(result), losses(expected), rtol=1e-6)
    found, wanted = weights(folder), weights(expected_folder)
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("network", "size", "batch_size"),
    [("X-MobileNet-0.5-2", 2, 87), ("X-AlexNet-1", 3, 129)],
    ids=["two", "three-one-empty"],
)
def test_the_result_is_that_of_one_process(few, tmp_path, network, size, batch_size):
    """Of 260 images in batches of 129 the last has 2, so that one of three processes has none."""
    run = make_run(few, network, batch_size=batch_size)
    alone, seen_alone = trained(ALONE, run, few, tmp_path / "a")
    (shared, seen), *others = together(size, trained, run, few, tmp_path / "b")
    assert all(other == (shared, seen) for other in others)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [MODEL]
    assert_close(shared, alone, tmp_path / "b", tmp_path / "a")
    for key in ("train_top1", "test_top1"):
        assert [record[key] for record in shared["epochs"]] == [record[key] for record in alone["epochs"]]
    assert seen["loss"] == pytest.approx(seen_alone["loss"], rel=1e-6)
    assert (seen["top1"], seen["top5"], seen["n"]) == (seen_alone["top1"], seen_alone["top5"], 101)


def train_until(group, run, data, folder, steps, rank):
    """Train until `rank` asks to stop, in the second epoch; how often this rank was asked."""
    asked = 0

    def stop():
        nonlocal asked
        asked += 1
        return group.rank == rank and asked == steps

    with pytest.raises(Stopped):
        train(run, data, folder, CPU, checkpoint_seconds=1e6, stop=stop, group=group)
    return asked


def stopped_and_resumed(group, run, data, folder):
    undisturbed = train(run, data, folder / "a", CPU, group=group)
    drawn = float(torch.rand(()))
    asked = train_until(group, run, data, folder / "b", 5, rank=1)
    torch.manual_seed(99)  # whatever a new process' generator holds must not matter
    return undisturbed, train(run, data, folder / "b", CPU, group=group), asked, drawn


@pytest.mark.parametrize("network", ["X-MobileNet-0.5-2", "AlexNet"])
def test_two_processes_stopped_by_one_of_them_end_bit_identical(few, tmp_path, network):
    first, second = together(2, stopped_and_resumed, make_run(few, network), few, tmp_path)
    for undisturbed, resumed, asked, _ in (first, second):
        assert resumed == undisturbed == first[0]
        assert asked == 5
    assert first[3] != second[3], "each rank draws a dropout of its own"


def taken_over(group, run, data, folder):
    with double_precision():
        train_until(group, run, data, folder / "by-one", 5, rank=1)
        return train(run, data, folder / "by-two", CPU, group=group)


def test_another_number_of_processes_goes_on_from_a_checkpoint(few, tmp_path):
    run = make_run(few)
    undisturbed, _ = trained(ALONE, run, few, tmp_path / "a")
    with double_precision():
        train_until(ALONE, run, few, tmp_path / "by-two", 5, rank=0)
    by_two, also = together(2, taken_over, run, few, tmp_path)
    assert by_two == also
    state = torch.load(tmp_path / "by-one" / CHECKPOINT, weights_only=True)
    assert (len(state["history"]), state["step"]) == (1, 1)
    by_one, _ = trained(ALONE, run, few, tmp_path / "by-one")
    for result, folder in ((by_one, "by-one"), (by_two, "by-two")):
        assert_close(result, undisturbed, tmp_path / folder, tmp_path / "a")


def killed(group, run, data, folder):
    train(run, data, folder / "a", CPU, group=group)
    real, steps = torch.optim.SGD.step, 0

    def killing(self, *args):
        nonlocal steps
        steps += 1
        if steps == 5 and group.rank == 1:
            os._exit(9)
        return real(self, *args)

    torch.optim.SGD.step = killing
    train(run, data, folder / "b", CPU, checkpoint_seconds=-1, group=group)


def resumed(group, run, data, folder):
    return train(run, data, folder, CPU, group=group)


def test_a_killed_process_ends_the_others_and_nothing_is_lost(few, tmp_path):
    run = make_run(few)
    error, died = together(2, killed, run, few, tmp_path)
    assert died == DIED
    assert isinstance(error, RuntimeError)
    state = torch.load(tmp_path / "b" / CHECKPOINT, weights_only=True)
    assert (len(state["history"]), state["step"]) == (1, 1)
    result, _ = together(2, resumed, run, few, tmp_path / "b")
    assert result["weights_sha256"] == evaluate_run(run, few, tmp_path / "a", CPU)["weights_sha256"]


def diverged(group, run, data, folder):
    real, calls = loop_module._mean_loss, 0

    def not_a_number(*args):
        nonlocal calls
        calls += 1
        return real(*args) * (float("nan") if calls == 2 and group.rank == 1 else 1.0)

    verdicts = []
    for checkpoint_seconds in (1e6, -1):  # noticed at the end of the epoch, and by the checkpoint after the step
        loop_module._mean_loss, calls = not_a_number, 0
        with pytest.raises(Diverged) as error:
            train(run, data, folder / str(checkpoint_seconds), CPU, checkpoint_seconds, group=group)
        verdicts.append((str(error.value), calls))
    return verdicts


def test_all_processes_of_a_diverging_run_stop_with_a_verdict(few, tmp_path):
    first, second = together(2, diverged, make_run(few), few, tmp_path)
    assert first == second
    assert [calls for _, calls in first] == [3, 2]
    assert all("no longer a number in epoch 0" in verdict for verdict, _ in first)
    assert not list(tmp_path.glob(f"*/{MODEL}"))


def executed(group, run, store, data_folder):
    told = []
    for _ in range(2):  # the second time there is nothing to do
        execute("train", run, store, data_folder, CPU, 60.0, told.append, group=group)
        execute("evaluate", run, store, data_folder, CPU, 60.0, group=group)
    return told


def test_rank_0_writes_the_store(few, tmp_path):
    shutil.copytree(few.folder, tmp_path / "data" / "digits")
    run, store = make_run(few), Store(tmp_path / "store")
    holding = threading.Event()

    def hold_it_for_a_while():
        with store.working_on(run):
            holding.set()
            time.sleep(6)

    other = threading.Thread(target=hold_it_for_a_while)
    other.start()
    holding.wait()
    told, nothing = together(2, executed, run, store, tmp_path / "data")  # both wait for the other process
    other.join()
    result = store.result(run)
    assert result["epochs"] == told
    assert nothing == []
    assert result["provenance"]["processes"] == 2
    assert store.evaluation(run)["top1"] == told[-1]["test_top1"]
    assert len((store.folder(run) / "history.jsonl").read_text().splitlines()) == len(told)


@pytest.mark.parametrize("size", [None, "1"])
def test_one_process_joins_nobody(monkeypatch, size):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size:
        monkeypatch.setenv("WORLD_SIZE", size)
    with joined(CPU) as (group, device):
        assert (group, device) == (ALONE, CPU)
        assert not torch.distributed.is_initialized()
