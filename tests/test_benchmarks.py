"""What the benchmarks compare with is what it says, and their report is that of the committed measurements."""

import argparse

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import layers, networks, records, report, train
from benchmarks.baselines import CSR, channels_last, grouped, masked, masked_twin
from benchmarks.rooflines import least_milliseconds
from benchmarks.timing import interleaved, ratio
from experiments.plan import plan_of
from experiments.settings import read_settings
from xnets import ExpanderConv2d, ExpanderLinear
from xnets.data import pack
from xnets.models import build


@pytest.mark.parametrize("k", [1, 3])
def test_baselines_compute_the_sparse_layer(k):
    layer = ExpanderConv2d(12, 8, k, padding=k // 2, compression=3, seed=0, bias=False)
    x = torch.randn(3, 12, 7, 5)
    for other in (masked(layer), CSR(layer), channels_last(layer)):
        torch.testing.assert_close(other(x), layer(x))
    assert grouped(12, 8, k, 4).weight.numel() == ExpanderConv2d(12, 8, k, compression=4).weight.numel()
    assert grouped(12, 8, k, 5) is None


def test_linear_baselines_compute_the_sparse_layer():
    layer = ExpanderLinear(12, 8, compression=3, seed=0, bias=False)
    x = torch.randn(3, 12)
    for other in (masked(layer), CSR(layer)):
        torch.testing.assert_close(other(x), layer(x))


def test_the_masked_twin_is_the_network_with_dense_weights():
    model = build("X-DenseNet-BC-2-40-24", narrow=4).eval()
    twin = masked_twin(model)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(twin(x), model(x), rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in twin.parameters()) == sum(
        p.numel() for p in build("DenseNet-BC-40-24", narrow=4).parameters()
    )


def test_times_take_turns_and_ratios_are_of_one_round():
    order = []
    work = {name: lambda name=name: order.append(name) for name in "ab"}
    times = interleaved(work, 2, "test")
    assert [sorted(order[i : i + 2]) for i in (0, 2, 4)] == 3 * [["a", "b"]]
    assert [(name, len(t)) for name, t in times.items()] == [("a", 2), ("b", 2)]
    found = ratio([1.0, 2.0, 4.0], [[8.0, 8.0, 8.0], [4.0, 4.0, 4.0]])
    assert (found.median, found.low, found.high) == (2.0, 1.5, 3.0)


def test_a_layers_limit_is_arithmetic_or_memory():
    assert least_milliseconds(1000, 10, 0, peak=1e6, bandwidth=1e9) == pytest.approx(10)
    assert least_milliseconds(0, 10, 250_000, peak=1e6, bandwidth=1e9) == pytest.approx(1)


def test_one_layer_and_one_network_are_measured(monkeypatch):
    monkeypatch.setitem(layers.LAYERS, "tiny", (2, 32, 16, 6, 3))
    for what in layers.PASSES:
        rows = layers.measure("tiny", what, [2, 4], 1, 1e9, 1e9)
        assert {(row[2], row[3]) for row in rows} >= {
            (c, m) for c in (2, 4) for m in ("direct", "grouped", "limit", "limit, data moved")
        }
    monkeypatch.setitem(networks.BATCHES, "X-VGG16-2", 1)
    rows = networks.measure("X-VGG16-2", "training step", 1, 1e9)
    assert {row[3] for row in rows} >= {"dense", "masked", "X, auto", "limit"}
    assert all(float(row[4]) > 0 for row in rows)


def test_what_is_measured_names_the_machine_and_the_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "commit", lambda: "1234567+")
    records.write_rows(tmp_path / "a.csv", ["machine", "layer", "ms"], ["layer"], iter([["a", 1], ["b", 2]]))
    found = pd.read_csv(tmp_path / "a.csv")
    assert list(found.columns) == ["machine", "commit", "layer", "ms"]
    assert found["commit"].tolist() == ["1234567+"] * 2
    assert found["machine"].tolist() == [records.machine()] * 2


def test_what_is_not_measured_again_stays(tmp_path, monkeypatch):
    columns, part = ["machine", "layer", "method", "ms"], ["layer"]

    def write(machine, rows, part=part):
        monkeypatch.setattr(records, "machine", lambda: machine)
        records.write_rows(tmp_path / "a.csv", columns, part, iter(rows))
        return pd.read_csv(tmp_path / "a.csv")[columns].values.tolist()

    here = [["a", "old", 1], ["a", "dense", 2], ["b", "dense", 3]]
    assert write("here", here) == [["here", *row] for row in here]
    assert write("there", [["a", "dense", 4]])[3:] == [["there", "a", "dense", 4]], "another machine's rows stay"
    again = write("here", [["a", "dense", 5]])
    assert again == [["here", "b", "dense", 3], ["there", "a", "dense", 4], ["here", "a", "dense", 5]]

    def broken_off():
        yield ["b", "dense", 6]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write("here", broken_off())
    kept = pd.read_csv(tmp_path / "a.csv")
    assert kept[["layer", "ms"]].values.tolist() == [["a", 4], ["a", 5], ["b", 6]]


def test_quartiles_lie_within_what_was_measured():
    found = ratio([1.0, 1.0], [[2.0, 4.0]])
    assert (found.low, found.median, found.high) == (2.5, 3, 3.5)


def test_the_report_is_that_of_the_committed_measurements():
    assert (report.HERE / "kernels.md").read_text() == report.text(report.committed())


@pytest.fixture
def images(tmp_path):
    """40 images of CIFAR's size, packed."""
    draws = np.random.default_rng(0)
    some = [(draws.integers(0, 256, (32, 32, 3), dtype=np.uint8), i % 10) for i in range(40)]
    return pack(tmp_path / "images", "made-up", {"train": some, "test": some[:10]}, list("0123456789"))


def test_all_loops_feed_the_same_images(images):
    """Augmentation draws differ; what is drawn from does not."""
    device, seen = torch.device("cpu"), []
    for loop in (train.ours(images, 8, device), train.usual(images, 8, device, 0)):
        batches = [next(loop) for _ in range(10)]  # two epochs
        x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
        assert {tuple(batch[0].shape) for batch in batches} == {(8, 3, 32, 32)}
        assert sorted(y.tolist()) == sorted(8 * list(range(10)))
        seen.append((float(x.mean()), float(x.std())))
    assert seen[0] == pytest.approx(seen[1], abs=0.05)
    assert seen[0][1] == pytest.approx(1.1, abs=0.1), "normalised, and zero-padded before"


def test_every_network_that_the_paper_trains_on_cifar_can_be_timed_at_its_batch():
    plan = plan_of(read_settings(), "cifar")
    assert {cell.model.name for cell in plan.cells} <= set(train.every_network())
    assert all(train.batch_of(cell.model.name) == cell.protocol.batch_size for cell in plan.cells)
    assert {cell.model.name for cell in plan.cells if "table4" in cell.items} <= set(train.NETWORKS)


def test_training_is_timed_in_turns(images, monkeypatch):
    monkeypatch.setattr(train, "batch_of", lambda name: 4)
    options = argparse.Namespace(steps=1, repeats=2, compiled=False)
    rows = list(train.measure("X-VGG16-2", images, torch.device("cpu"), options))
    assert [row[4] for row in rows] == ["xnets", "plain", "authors"]
    assert all(len(row) == len(train.COLUMNS) - 1 for row in rows)
    assert [float(rows[1][6]), float(rows[2][9])] == [1.0, 1.0], "each loop against itself"
