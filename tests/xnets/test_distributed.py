"""Several processes train as one does: the same batches, losses and weights, the same checkpoints, the same end."""

import copy
import multiprocessing
import os
import shutil
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from experiments.execute import execute
from experiments.store import Store
from xnets.data import prepare
from xnets.data.batches import Batches
from xnets.models import ModelSpec
from xnets.training import Protocol, Run
from xnets.training import loop as loop_module
from xnets.training.distributed import ALONE, GlobalBatchNorm, Group, joined
from xnets.training.loop import CHECKPOINT, MODEL, Diverged, Stopped, evaluate_run, train

CPU = torch.device("cpu")
PATIENCE = 60  # seconds until a test calls it a hang
# 9 steps an epoch, of 151 images (75 and 76 to each of two) and a last one of 89
SHORT = Protocol(2, 151, 0.05, "cifar", "crop-1", weight_decay=1e-4, nominal_epochs=300)
NETWORKS = {
    "X-MobileNet-0.5-2": {"narrow": 4, "drop_strides": 3},
    "X-AlexNet-1": {"narrow": 16, "drop_strides": 2},  # batch norms of one dimension
    "AlexNet": {"narrow": 16, "drop_strides": 3},  # dropout
}
DIED = "died"


def make_run(digits, network="X-MobileNet-0.5-2", **changes):
    spec = ModelSpec(network, 10, **NETWORKS[network])
    return Run(spec, "digits", digits.digest, replace(SHORT, **changes), 1, 2)


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
    model = group.wrap(nn.Sequential(layer), CPU)
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
    return train(run, data, folder, CPU, group=group), evaluate_run(run, data, folder, CPU, group)


@pytest.mark.parametrize(
    ("network", "size", "batch_size"),
    [("X-MobileNet-0.5-2", 2, 151), ("X-MobileNet-0.5-2", 3, 185), ("X-AlexNet-1", 2, 151)],
    ids=["two", "three-one-empty", "one-dimension"],
)
def test_the_result_is_that_of_one_process(digits, tmp_path, network, size, batch_size):
    """In batches of 185 the last has 2 images, so that one of three processes has none."""
    run = make_run(digits, network, batch_size=batch_size)
    alone, seen_alone = trained(ALONE, run, digits, tmp_path / "a")
    (shared, seen), *others = together(size, trained, run, digits, tmp_path / "b")
    assert all(other == (shared, seen) for other in others)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [MODEL]
    assert shared["graphs_sha256"] == alone["graphs_sha256"]
    print(losses(shared) / losses(alone) - 1, seen, seen_alone)
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert list(a) == list(b)
    print(sorted((float((a[n].float() - b[n].float()).norm() / a[n].float().norm()), n) for n in a)[-3:])
